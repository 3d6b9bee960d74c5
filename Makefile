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
LIBS    := -lbpf -lelf -ljansson -lprotobuf-c -lxxhash -lzstd -llz4 -lpthread
LDFLAGS += $(if $(SAN),-fsanitize=$(SAN))

# --- sources, explicit ------------------------------------------------------------------------------------------
SRC_base   := err io log vec
SRC_proc   := maps pagemap pinned target tasks sysvshm elfsyms symbols datasyms
SRC_inject := warden warden_serve freeze syscall batch arch_x86_64
SRC_track  := dirty tracker uffd events events_caps events_hooks \
              undo
SRC_image  := store store_dir store_fault names records dedup ctl ctl_file diff pages page_file manifest manifest.pb-c hash repo reader sweep txn prune verify place
STATE_PROTO:= regs signals ids timers files \
              sysv
SRC_state  := state calls procfs arch_x86_64 regs signals ids ids_restore creds creds_restore timers vmas vmas_restore buildid files files_restore fdtable check ipc restore objects ipc_ids ipc_note ipc_remove sysv_dump sysv_restore files_shared $(STATE_PROTO:%=%.pb-c)
SRC_dump   := collect copy describe dump finish populated route stream direct
SRC_restore:= restore tree tracees fill choose
SRC_session:= checkpoint control result session session_events segments segments_watch sites tracked peers
SRC_obs    := sample view_json view_text wws
SRC_cli    := cli cmd_check cmd_checkpoint cmd_restart cmd_trace main cli_repo cmd_list cmd_show show_files show_memory cmd_verify cmd_diff diff_print diff_symbols cmd_prune cmd_export \
              cmd_shm cmd_rm
DIRS       := base proc inject track image state dump restore export session obs cli
SRC_export := core pieces files memory notes output xstate_x86_64
BPF        := faults guard life calls
# objects of their own: name -> bpf/name.bpf.c, build/name.skel.h
BPF_OWN    := undo

# name of a unit test: folder/test_name -> tests/unit/folder/test_name.c
UNIT        := track/test_events obs/test_wws proc/test_sysvshm proc/test_symbols track/test_events_life track/test_events_calls inject/test_restart inject/test_warden inject/test_harm image/test_store image/test_ctl image/test_repo image/test_fault image/test_damage image/test_bench state/test_regs state/test_signals state/test_ids state/test_files track/test_uffd export/test_core
FUZZ        := ctl pages manifest record
# name -> tests/targets/name.c: programs that are traced
TARGETS     := symbols_static symbols_stripped checksum faultloop core_target oracle_target memload reborn \
               sysv_target mgs_target
# name_FLAGS: how one of them is linked
symbols_static_FLAGS   := -static -no-pie
symbols_stripped_FLAGS := -s
core_target_FLAGS      = -O0 -pie -fPIE -L$(B)/tests/targets -Wl,--no-as-needed -lcore_target -Wl,-rpath,'$$ORIGIN'
# name -> tests/integration/name.c: run build/icp-bpf on real processes
INTEGRATION := robust_kill refusals rights steady trace_exact trace_follow verbs export_core checkpoint_oracle checkpoint_faults restart \
               sysv_shm sysv_cut sysv_calls sysv_mgs
# name -> tests/lib/name.c: what the integration tests share
SRC_testlib := robust_procs kid tracer cut oracle \
               sysv_job
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
REBORN := threads tree signals ids
$(B)/tests/targets/reborn: $(REBORN:%=tests/targets/reborn_%.c) tests/targets/reborn.h
reborn_FLAGS := $(REBORN:%=tests/targets/reborn_%.c)

$(B)/tests/targets/%: tests/targets/%.c
	$(call say,TARGET,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-parameter -O1 -g -Itests -MMD -MP $($*_FLAGS) -o $@ $< -lpthread -lm

$(B)/tests/targets/lib%.so: tests/targets/lib%.c
	$(call say,TARGET,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -O0 -g -fPIC -shared -Itests -MMD -MP -o $@ $<

$(B)/tests/targets/core_target: | $(B)/tests/targets/libcore_target.so

$(B)/tests/unit/proc/test_symbols: | $(patsubst %,$(B)/tests/targets/%,symbols_static symbols_stripped)

.PHONY: tests
tests: $(B)/icp-bpf $(B)/tests/bin/redis-server $(UNIT_BIN) $(INT_BIN) $(TGT_BIN)

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

# --- what people call --------------------------------------------------------------------------------------------------
# The goals that begin with an empty machine install packages first, and only then let make look at what is there.
JOBS    := $(shell nproc)
AGAIN   := +$(Q)$(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))
RUNNER  := tests/run --build $(B)

.PHONY: help
help:
	@echo 'make demo         install what is needed, build, trace a real program'
	@echo 'make check        install what is needed, build, run all tests'
	@echo 'make check-fresh  both of them in a minimal Debian 12 made by debootstrap (root)'
	@echo 'make              build/icp-bpf'
	@echo 'make tests        build everything that check runs'
	@echo 'make bench        measure ratios and keep them in docs/results.md'
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
	@$(RUNNER) $(UNIT_BIN) $(INT_BIN)

# A minimal Debian with git and make only. FRESH='make check' runs something else than demo and check.
.PHONY: check-fresh
check-fresh:
	@scripts/install-deps fresh
	@scripts/check-fresh $(if $(FRESH),'$(FRESH)')

.PHONY: bench
bench:
	@scripts/install-deps check
	$(AGAIN) $(B)/icp-bpf $(B)/tests/bin/redis-server $(TGT_BIN)
	@tests/bench/run --build $(B) $(BENCH)

# --- static analysis -------------------------------------------------------------------------------------------------------
# Not the generated code.
LINT_C   = $(filter-out %.pb-c.c,$(foreach d,$(DIRS),$(patsubst %,user/$(d)/%.c,$(SRC_$(d)))))
LINT_ALL = $(wildcard user/*/*.[ch] bpf/*.[ch] tests/*.[ch] tests/*/*.[ch] tests/unit/*/*.[ch])

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

.PHONY: uninstall
uninstall:
	rm -f $(call to,bin/icp-bpf) $(foreach m,$(MAN),$(call mandir,$(m))/$(notdir $(m)))
	rm -rf $(call to,share/doc/icp-bpf)

# --- fuzzing: one target per parser of untrusted bytes, FUZZ_SECONDS each; seeds are made by the targets themselves ---
FUZZ_SECONDS ?= 30
FUZZ_BIN := $(patsubst %,build/fuzz/fuzz_%,$(FUZZ))

build/fuzz/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/seed.h $(patsubst %,user/image/%.c,$(filter-out manifest.pb-c,$(SRC_image))) \
		$(patsubst %,user/base/%.c,$(SRC_base)) $(PROTO_H)
	$(call say,FUZZ,$@)
	@mkdir -p $(@D)
	$(Q)$(CLANG) -std=gnu17 -D_GNU_SOURCE -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
		-fno-sanitize=function -Iuser -I$(B) -Itests -o $@ $(filter %.c,$^) $(B)/image/manifest.pb-c.c \
		-lprotobuf-c -lxxhash -lzstd -llz4 -lpthread

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
