# SPDX-License-Identifier: GPL-2.0
# make demo, make check: set up everything and run it. make: build/icp-bpf. make help lists the rest.

V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)
SAN     ?=
B       := build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
comma   := ,
PREFIX  ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0

CC      := gcc
CLANG   := clang
BPFTOOL := $(firstword $(wildcard /usr/sbin/bpftool /usr/bin/bpftool) bpftool)
ARCH    := $(subst x86_64,x86,$(subst aarch64,arm64,$(shell uname -m)))

CFLAGS  ?= -O2 -g
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith -Wno-unused-parameter -Wno-format-truncation -Werror
ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -DICP_VERSION='"$(VERSION)"' $(WARN) $(CFLAGS) $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined) \
             -Iuser -I$(B) -MMD -MP
LIBS    := -lbpf -lelf -ljansson -lpthread
LDFLAGS += $(if $(SAN),-fsanitize=$(SAN))

# --- sources, explicit ------------------------------------------------------------------------------------------
SRC_base   := err io log vec
SRC_proc   :=
SRC_inject := warden warden_serve freeze syscall arch_x86_64
SRC_track  :=
SRC_image  :=
SRC_state  :=
SRC_dump   :=
SRC_session:=
SRC_obs    :=
SRC_cli    :=
DIRS       := base proc inject track image state dump session obs cli
BPF        :=

# name of a unit test: folder/test_name -> tests/unit/folder/test_name.c
UNIT        := inject/test_restart inject/test_warden inject/test_harm
# name -> tests/targets/name.c: programs that are traced
TARGETS     :=
# name -> tests/integration/name.c: run build/icp-bpf on real processes
INTEGRATION :=
# --------------------------------------------------------------------------------------------------------------------

OBJ     := $(foreach d,$(DIRS),$(patsubst %,$(B)/user/$(d)/%.o,$(SRC_$(d))))
LIB_OBJ := $(filter-out $(B)/user/cli/%,$(OBJ))
BPF_OBJ := $(patsubst %,$(B)/bpf/%.bpf.o,$(BPF))
UNIT_BIN := $(patsubst %,$(B)/tests/unit/%,$(UNIT))
INT_BIN  := $(patsubst %,$(B)/tests/integration/%,$(INTEGRATION))
TGT_BIN  := $(patsubst %,$(B)/tests/targets/%,$(TARGETS))

say = @printf '  %-7s %s\n' $(1) $(2)

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all
all: $(B)/icp-bpf

$(B)/icp-bpf: $(OBJ)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(B)/libicp.a: $(LIB_OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/user/%.o: user/%.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

# --- eBPF: every program file, linked into one CO-RE object, embedded as a skeleton --------------------------------
$(B)/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*.h vmlinux/*.h vmlinux/*/*.h)
	$(call say,BPF,$<)
	@mkdir -p $(@D)
	$(Q)$(CLANG) -target bpf -mcpu=v3 -D__TARGET_ARCH_$(ARCH) -O2 -g -Wall -Werror -Ivmlinux/$(ARCH) -Ibpf -c -o $@ $<

$(B)/icp.bpf.o: $(BPF_OBJ)
	$(call say,BPFLINK,$@)
	$(Q)$(BPFTOOL) gen object $@ $^

$(B)/icp.skel.h: $(B)/icp.bpf.o
	$(Q)$(BPFTOOL) gen skeleton $< name icp_bpf > $@

$(B)/user/track/events.o: $(B)/icp.skel.h

# --- tests -----------------------------------------------------------------------------------------------------------
$(B)/tests/unit/%: tests/unit/%.c $(B)/libicp.a
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests $(LDFLAGS) -o $@ $< $(B)/libicp.a $(LIBS) -lcmocka

$(B)/tests/integration/%: tests/integration/%.c $(B)/libicp.a
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests $(LDFLAGS) -o $@ $< $(B)/libicp.a $(LIBS) -lcmocka

$(B)/tests/targets/%: tests/targets/%.c
	$(call say,TARGET,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-parameter -O1 -g -Itests -MMD -MP -o $@ $< -lpthread -lm

.PHONY: tests
tests: $(B)/icp-bpf $(UNIT_BIN) $(INT_BIN) $(TGT_BIN)

.PHONY: clean
clean:
	rm -rf build

-include $(OBJ:.o=.d) $(UNIT_BIN:=.d) $(INT_BIN:=.d) $(TGT_BIN:=.d)
