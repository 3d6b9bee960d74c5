# SPDX-License-Identifier: GPL-2.0
# make demo, make check: set up everything and run it. make: build/icp-bpf. make help lists the rest.

comma   := ,
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)
SAN     ?=
B       := build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))
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
LIBS    := -lbpf -lelf -ljansson -lprotobuf-c -lxxhash -lzstd -llz4 -lpng -lncursesw -ltinfo -lpthread -lm
LDFLAGS += $(if $(SAN),-fsanitize=$(SAN))

# --- sources: what is there ------------------------------------------------------------------------------------
names = $(patsubst $(1)/%.$(2),%,$(wildcard $(1)/$(3).$(2)))
DIRS        := $(notdir $(patsubst %/,%,$(wildcard user/*/)))
$(foreach d,$(DIRS),$(eval SRC_$(d) := $(call names,user/$(d),c,*)))
STATE_PROTO := $(call names,user/state,proto,*)
SRC_state   += $(STATE_PROTO:%=%.pb-c)
SRC_image   += manifest.pb-c
SRC_serve   += web_files
# eBPF objects of their own: bpf/name.bpf.c, build/name.skel.h; all others become one
BPF_OWN     := undo
BPF         := $(filter-out $(BPF_OWN),$(call names,bpf,bpf.c,*))

# folder/test_name: tests/unit/folder/test_name.c
UNIT        := $(call names,tests/unit,c,*/test_*)
FUZZ        := $(patsubst fuzz_%,%,$(call names,tests/fuzz,c,fuzz_*))
# integration tests run build/icp-bpf on real processes; targets are those; lib is what the tests share
INTEGRATION := $(call names,tests/integration,c,*)
SRC_testlib := $(call names,tests/lib,c,*)
# Parts of targets: of a program of several files (name_%), of a shared library.
TARGET_PARTS := lib% reborn_% events_% remade_%
TARGETS     := $(filter-out $(TARGET_PARTS),$(call names,tests/targets,c,*))
# name_FLAGS: how one of them is linked
symbols_static_FLAGS   := -static -no-pie
symbols_stripped_FLAGS := -s
# frame pointers everywhere: -O1 leaves them out of leaves
striper_FLAGS := -O0
core_target_FLAGS      = -O0 -pie -fPIE -L$(B)/tests/targets -Wl,--no-as-needed -lcore_target -Wl,-rpath,'$$ORIGIN'
# --------------------------------------------------------------------------------------------------------------------

OBJ     := $(foreach d,$(DIRS),$(patsubst %,$(B)/user/$(d)/%.o,$(SRC_$(d))))
LIB_OBJ := $(filter-out $(B)/user/cli/%,$(OBJ))
BPF_OBJ := $(patsubst %,$(B)/bpf/%.bpf.o,$(BPF))
UNIT_BIN := $(patsubst %,$(B)/tests/unit/%,$(UNIT))
WEB_BIN  := $(B)/tests/web/page
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

# --- the manifest's code is generated; everything of user/image (and above) includes it -----------------------------
PROTO_H := $(B)/image/manifest.pb-c.h

$(PROTO_H) $(B)/image/manifest.pb-c.c &: user/image/manifest.proto
	$(call say,PROTOC,$<)
	@mkdir -p $(@D)
	$(Q)protoc-c --proto_path=$(<D) --c_out=$(@D) $<

$(B)/user/image/manifest.pb-c.o: $(B)/image/manifest.pb-c.c $(PROTO_H)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(OBJ): | $(PROTO_H)
$(B)/user/image/hash.o: CFLAGS += -O3
# --- and so is that of each kind of state ----------------------------------------------------------------------------
STATE_PROTO_H := $(patsubst %,$(B)/state/%.pb-c.h,$(STATE_PROTO))

$(B)/state/%.pb-c.h $(B)/state/%.pb-c.c &: user/state/%.proto
	$(call say,PROTOC,$<)
	@mkdir -p $(@D)
	$(Q)protoc-c --proto_path=$(<D) --c_out=$(@D) $<

$(B)/user/state/%.pb-c.o: $(B)/state/%.pb-c.c | $(STATE_PROTO_H)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(OBJ): | $(PROTO_H) $(STATE_PROTO_H)

# --- the web page: its files, and the charts, whose licence comes along --------------------------------------------------
WEB      := $(wildcard user/serve/web/*)
CHART_JS := /usr/share/javascript/chart.js/chart.min.js
LICENCES := /usr/share/doc/libjs-chart.js/copyright

$(CHART_JS) $(LICENCES): | $(B)/.deps-build

$(B)/serve/web_files.c: scripts/embed-web $(WEB) $(CHART_JS) $(LICENCES)
	$(call say,EMBED,user/serve/web)
	$(Q)scripts/embed-web $@ $(B)/serve/web $(foreach f,$(WEB),$(notdir $(f))=$(f)) chart.min.js=$(CHART_JS) licences.txt=$(LICENCES)

$(B)/user/serve/web_files.o: $(B)/serve/web_files.c
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

$(BPF_OWN:%=$(B)/%.skel.h): $(B)/%.skel.h: $(B)/bpf/%.bpf.o
	$(Q)$(BPFTOOL) gen skeleton $< name $*_bpf > $@

$(B)/user/track/undo.o: $(B)/undo.skel.h

$(B)/user/track/events.o $(B)/user/track/events_hooks.o: $(B)/icp.skel.h

# the running kernel's types in full, to copy from: vmlinux/README.md
.PHONY: vmlinux
vmlinux:
	@mkdir -p build
	$(call say,DUMP,build/vmlinux.h)
	$(Q)$(BPFTOOL) btf dump file /sys/kernel/btf/vmlinux format c > build/vmlinux.h

# --- tests -----------------------------------------------------------------------------------------------------------
TESTLIB_OBJ := $(patsubst %,$(B)/tests/lib/%.o,$(SRC_testlib))

$(B)/tests/unit/%: tests/unit/%.c $(TESTLIB_OBJ) $(B)/libicp.a
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests $(LDFLAGS) -o $@ $< $(TESTLIB_OBJ) $(B)/libicp.a $(LIBS) -lcmocka

$(B)/tests/lib/%.o: tests/lib/%.c | $(PROTO_H)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -c -o $@ $<

$(B)/tests/integration/%: tests/integration/%.c $(TESTLIB_OBJ) $(B)/libicp.a
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests $(LDFLAGS) -o $@ $< $(TESTLIB_OBJ) $(B)/libicp.a $(LIBS) -lcmocka

# one of several files: what it needs besides its own
REBORN := util threads tree signals ids lazy
$(B)/tests/targets/reborn: $(REBORN:%=tests/targets/reborn_%.c) tests/targets/reborn.h
EVENTS := reborn_util events_epoll events_names
$(B)/tests/targets/events: $(EVENTS:%=tests/targets/%.c) tests/targets/reborn.h tests/targets/events.h
events_FLAGS := $(EVENTS:%=tests/targets/%.c)
reborn_FLAGS := $(REBORN:%=tests/targets/reborn_%.c)
REMADE := tests/targets/reborn_util.c $(wildcard tests/targets/remade_*.c)
$(B)/tests/targets/remade: $(REMADE) tests/targets/reborn.h tests/targets/remade.h
remade_FLAGS := $(REMADE)

$(B)/tests/targets/openfiles: tests/targets/reborn_util.c tests/targets/reborn.h
openfiles_FLAGS := tests/targets/reborn_util.c

$(B)/tests/targets/wire: tests/targets/reborn_util.c tests/targets/reborn.h
wire_FLAGS := tests/targets/reborn_util.c
$(B)/tests/targets/clocks: tests/targets/reborn_util.c tests/targets/reborn.h
clocks_FLAGS := tests/targets/reborn_util.c
$(B)/tests/targets/ipc_kinds: tests/targets/reborn_util.c tests/targets/reborn.h
ipc_kinds_FLAGS := tests/targets/reborn_util.c
$(B)/tests/targets/unixes $(B)/tests/targets/ptys: tests/targets/reborn_util.c tests/targets/reborn.h
unixes_FLAGS := tests/targets/reborn_util.c
ptys_FLAGS := tests/targets/reborn_util.c
$(B)/tests/targets/toiler $(B)/tests/targets/ticking: tests/targets/reborn_util.c tests/targets/reborn.h
toiler_FLAGS := tests/targets/reborn_util.c
ticking_FLAGS := tests/targets/reborn_util.c
$(patsubst %,$(B)/tests/targets/%,barred queued unseen): tests/targets/reborn_util.c tests/targets/reborn.h
unseen_FLAGS := tests/targets/reborn_util.c
barred_FLAGS := tests/targets/reborn_util.c
queued_FLAGS := tests/targets/reborn_util.c

# with frames, so that its stacks can be read
painter_FLAGS := -O0

$(B)/tests/targets/%: tests/targets/%.c
	$(call say,TARGET,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-parameter -O1 -g -Itests -MMD -MP $($*_FLAGS) -o $@ $< -lpthread -lm

# only for guests: they need the module
GUEST_BIN := $(patsubst %,$(B)/tests/guest/%,$(call names,tests/guest,c,*))

$(B)/tests/guest/%: tests/guest/%.c $(TESTLIB_OBJ) $(B)/libicp.a | $(B)/.deps-check
	$(call say,TEST,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests $(LDFLAGS) -o $@ $< $(TESTLIB_OBJ) $(B)/libicp.a $(LIBS) -lcmocka

$(B)/tests/targets/lib%.so: tests/targets/lib%.c
	$(call say,TARGET,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -O0 -g -fPIC -shared -Itests -MMD -MP -o $@ $<

$(B)/tests/targets/core_target: | $(B)/tests/targets/libcore_target.so

$(B)/tests/unit/proc/test_symbols: | $(patsubst %,$(B)/tests/targets/%,symbols_static symbols_stripped)

$(B)/tests/web/%: tests/web/%.py
	@mkdir -p $(@D)
	$(Q)ln -sfn $(abspath $<) $@

PROMETHEUS := $(B)/tests/prometheus/usr/bin/prometheus

.PHONY: tests
tests: $(B)/icp-bpf $(B)/tests/bin/redis-server $(B)/tests/bin/nginx $(PROMETHEUS) $(UNIT_BIN) $(INT_BIN) $(TGT_BIN) $(WEB_BIN)

# libicp and what runs on it need packages: say which, rather than let the compiler stumble over a header.
$(OBJ) $(BPF_OBJ) $(BPF_OWN:%=$(B)/bpf/%.bpf.o): | $(B)/.deps-build
$(UNIT_BIN) $(INT_BIN): | $(B)/.deps-check

$(B)/.deps-%: scripts/install-deps
	@scripts/install-deps --check $*
	@mkdir -p $(@D) && touch $@

# redis-tools has the server as well, under another name; the tests find it on their PATH.
$(B)/tests/bin/redis-server:
	@mkdir -p $(@D)
	$(Q)ln -sfn /usr/bin/redis-check-rdb $@

# These are unpacked and not installed: their packages would start services.
$(B)/tests/bin/nginx:
	$(call say,UNPACK,nginx)
	@mkdir -p $(@D)
	@scripts/unpack-package nginx $(B)/tests/nginx
	$(Q)ln -sfn ../nginx/usr/sbin/nginx $@

$(PROMETHEUS):
	$(call say,UNPACK,prometheus)
	@scripts/unpack-package prometheus $(B)/tests/prometheus && touch $@

# --- what people call --------------------------------------------------------------------------------------------------
# The goals that begin with an empty machine install packages first, and only then let make look at what is there.
JOBS    := $(shell nproc)
AGAIN   := +$(Q)$(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))
RUNNER  := tests/run --build $(B)

.PHONY: help
help:
	@echo 'make demo         install what is needed, build, trace a real program'
	@echo 'make check        install what is needed, build, run all tests'
	@echo 'make soak         checkpoint, kill -9, restart of one job, ROUNDS ($(ROUNDS)) times'
	@echo 'make check-guest  tests on other kernels, emulated; make guest KERNEL=6.1: a shell in one'
	@echo 'make check-fresh  both of them in a minimal Debian 12 made by debootstrap (root)'
	@echo 'make              build/icp-bpf'
	@echo 'make tests        build everything that check runs'
	@echo 'make bench        measure ratios and keep them in docs/results/runs.md'
	@echo 'make results      run all studies, with plots, for docs/results.md (half an hour)'
	@echo 'make fuzz         the parsers of untrusted bytes, FUZZ_SECONDS ($(FUZZ_SECONDS)) each'
	@echo 'make lint         clang-tidy, cppcheck, clang-format'
	@echo 'make install      to PREFIX ($(PREFIX)), below DESTDIR; make uninstall removes it'
	@echo 'make clean        remove build/'
	@echo 'V=1 shows commands; SAN=address,undefined builds with sanitizers, in a directory of its own.'

.PHONY: demo
demo:
	@scripts/install-deps demo
	$(AGAIN) $(B)/icp-bpf
	@scripts/demo $(B)/icp-bpf

.PHONY: check
check:
	@scripts/install-deps check
	$(AGAIN) tests
	@tests/check-includes --self-test
	@tests/check-includes
	@$(RUNNER) $(UNIT_BIN) $(INT_BIN) $(WEB_BIN)

# make check does a few rounds of it.
ROUNDS ?= 500
.PHONY: soak
soak:
	@scripts/install-deps check
	$(AGAIN) tests
	@ICP_ROUNDS=$(ROUNDS) $(RUNNER) -t 36000 $(B)/tests/integration/soak

# Debian's 6.1 and 6.12, emulated, on this machine's own files. KERNEL=6.1: that one only. KEEP=1: the table goes into docs/results.md.
# LONG=1: some more tests, and each storm against the module for a minute.
.PHONY: check-guest guest
check-guest:
	@scripts/install-deps guest
	$(AGAIN) tests $(GUEST_BIN)
	@tests/guest/check --build $(B) $(if $(LONG),--long --storms 60 -t 3000) $(if $(KEEP),--keep) $(KERNEL)

# Debian's criu and icp-bpf on the same programs, in the same guest.
.PHONY: guest-criu
guest-criu:
	@scripts/install-deps guest
	$(AGAIN) tests
	@tests/guest/criu --build $(B) $(if $(KEEP),--keep) $(KERNEL)

guest:
	@scripts/install-deps guest
	$(AGAIN) $(B)/icp-bpf
	@scripts/guest module $(or $(KERNEL),6.12) >/dev/null
	@scripts/guest shell $(or $(KERNEL),6.12)

# A minimal Debian with git and make only. FRESH='make check' runs something else than demo and check.
.PHONY: check-fresh
check-fresh:
	@scripts/install-deps fresh
	@scripts/check-fresh $(if $(FRESH),'$(FRESH)')

.PHONY: bench
bench:
	@scripts/install-deps check
	$(AGAIN) $(B)/icp-bpf $(B)/tests/bin/redis-server $(B)/tests/unit/image/test_bench $(TGT_BIN)
	@tests/bench/run --build $(B) $(BENCH)

.PHONY: results
results:
	@scripts/install-deps results
	$(AGAIN) $(B)/icp-bpf $(B)/tests/bin/redis-server $(B)/tests/unit/image/test_bench $(TGT_BIN)
	@tests/bench/run --build $(B) --studies $(BENCH)

# --- static analysis -------------------------------------------------------------------------------------------------------
# Not the generated code.
LINT_C   = $(filter-out %.pb-c.c %/web_files.c,$(foreach d,$(DIRS),$(patsubst %,user/$(d)/%.c,$(SRC_$(d)))))
LINT_ALL = $(wildcard user/*/*.[ch] bpf/*.[ch] kmod-helper/*.[ch] tests/*.[ch] tests/*/*.[ch] tests/unit/*/*.[ch])

.PHONY: lint
lint:
	@scripts/install-deps lint
	$(if $(BPF),$(AGAIN) $(B)/icp.skel.h $(BPF_OWN:%=$(B)/%.skel.h) $(PROTO_H) $(STATE_PROTO_H))
	$(call say,FORMAT,'$(words $(LINT_ALL)) files')
	$(Q)clang-format --dry-run -Werror $(LINT_ALL)
	$(call say,CPPCHK,'$(words $(LINT_C)) files')
	$(Q)cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability --std=c11 --inline-suppr \
		--suppressions-list=.cppcheck -D_GNU_SOURCE -D__linux__ -DICP_VERSION='""' -D'LIBBPF_OPTS(t,n,...)=struct t n = {0}' -DPROTOBUF_C_VERSION_NUMBER=1004000 -Iuser -I$(B) -j $(JOBS) $(LINT_C)
	$(call say,TIDY,'$(words $(LINT_C)) files')
	$(Q)printf '%s\n' $(LINT_C) | xargs -P $(JOBS) -n 1 sh -c 'out=$$(clang-tidy --quiet "$$0" -- \
		-std=gnu17 -D_GNU_SOURCE -DICP_VERSION=\"$(VERSION)\" -Iuser -I$(B) $$(test "$$0" = user/base/err.c || echo -include tests/lint/analyzer.h) 2>/dev/null) && test -z "$$out" || \
		{ printf "%s\n" "$$out"; exit 1; }'

.PHONY: format
format:
	clang-format -i $(LINT_ALL)

# --- installation ----------------------------------------------------------------------------------------------------------
MAN   := $(wildcard docs/man/*.[1-9])
DOCS  := README.md CHANGELOG.md LICENSE $(wildcard docs/*.md)
to     = $(DESTDIR)$(PREFIX)/$(1)
mandir = $(call to,share/man/man$(subst .,,$(suffix $(1))))

.PHONY: install
install: $(B)/icp-bpf
	install -D -m 755 $(B)/icp-bpf $(call to,bin/icp-bpf)
	$(foreach m,$(MAN),install -D -m 644 $(m) $(call mandir,$(m))/$(notdir $(m)) &&) true
	install -d $(call to,share/doc/icp-bpf)
	install -m 644 $(DOCS) $(call to,share/doc/icp-bpf)
	install -D -m 644 completion/icp-bpf $(call to,share/bash-completion/completions/icp-bpf)
	install -d $(call to,share/icp-bpf) $(call to,lib/systemd/system)
	install -m 644 dashboards/icp-bpf.json dashboards/alerts.yml systemd/serve.conf $(call to,share/icp-bpf)
	sed 's|/usr/local/bin|$(PREFIX)/bin|' systemd/icp-bpf.service > $(call to,lib/systemd/system/icp-bpf.service)

.PHONY: uninstall
uninstall:
	rm -f $(call to,bin/icp-bpf) $(foreach m,$(MAN),$(call mandir,$(m))/$(notdir $(m)))
	rm -f $(call to,share/bash-completion/completions/icp-bpf) $(call to,lib/systemd/system/icp-bpf.service)
	rm -rf $(call to,share/doc/icp-bpf) $(call to,share/icp-bpf)

# --- fuzzing: one target per parser of untrusted bytes, FUZZ_SECONDS each; seeds are made by the targets themselves ---
FUZZ_SECONDS ?= 30
FUZZ_BIN := $(patsubst %,build/fuzz/fuzz_%,$(FUZZ))

build/fuzz/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/seed.h $(patsubst %,user/image/%.c,$(filter-out manifest.pb-c,$(SRC_image))) \
		$(patsubst %,user/base/%.c,$(SRC_base)) $(wildcard user/obs/rec_*.c) user/obs/intern.c $(PROTO_H)
	$(call say,FUZZ,$@)
	@mkdir -p $(@D)
	$(Q)$(CLANG) -std=gnu17 -D_GNU_SOURCE -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
		-fno-sanitize=function -Iuser -I$(B) -Itests -o $@ $(filter %.c,$^) $(B)/image/manifest.pb-c.c \
		-lprotobuf-c -lxxhash -lzstd -llz4 -lpthread -lm

# A name at the end of a run in build/fuzz/: the input that made the parser fail.
.PHONY: fuzz
fuzz:
	@scripts/install-deps fuzz
	$(AGAIN) $(FUZZ_BIN)
	$(Q)for name in $(FUZZ); do \
		corpus=build/fuzz/corpus_$$name log=build/fuzz/$$name.log; mkdir -p $$corpus; \
		{ FUZZ_SEED_DIR=$$corpus build/fuzz/fuzz_$$name -runs=0 && \
		build/fuzz/fuzz_$$name -max_total_time=$(FUZZ_SECONDS) -timeout=20 -max_len=65536 -rss_limit_mb=1024 -print_final_stats=1 \
			-artifact_prefix=build/fuzz/$$name- $$corpus; } >$$log 2>&1 || { tail -n 80 $$log; exit 1; }; \
		printf '  ok    %-40s %s\n' fuzz/$$name "$$(grep "^Done " $$log | tail -n 1)"; done

.PHONY: clean
clean:
	rm -rf build

-include $(OBJ:.o=.d) $(TESTLIB_OBJ:.o=.d) $(UNIT_BIN:=.d) $(INT_BIN:=.d) $(TGT_BIN:=.d)
