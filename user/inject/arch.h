/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Everything that knows registers: one arch_<name>.c per architecture implements these. All
 * take a thread that is in a ptrace stop of ours and return 0 or a bare negative errno (-ESRCH:
 * it was killed meanwhile).
 */
#ifndef ICP_INJECT_ARCH_H
#define ICP_INJECT_ARCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

#include "inject/warden.h"

struct arch_regs {
	struct user_regs_struct user;
};

/* The bytes of the instruction that enters the kernel. */
#define ARCH_SYSCALL_MAX 4
extern const unsigned char arch_syscall_insn[ARCH_SYSCALL_MAX];
extern const size_t arch_syscall_len;

int arch_regs_get(pid_t tid, struct arch_regs *regs) _must_use_;
int arch_regs_set(pid_t tid, const struct arch_regs *regs) _must_use_;

/* False for a thread of another bitness, whose system calls have other numbers. */
bool arch_native(const struct arch_regs *regs);

uint64_t arch_pc(const struct arch_regs *regs);
void arch_set_pc(struct arch_regs *regs, uint64_t pc);

/* Turn @regs (a copy of the thread's own) into those that run @call from the instruction at
 * @insn. */
void arch_call_setup(struct arch_regs *regs, uint64_t insn, const struct warden_call *call);
/* At the entry of a call: it becomes @call. */
void arch_call_replace(struct arch_regs *regs, const struct warden_call *call);
/* At its return: was it @call? */
bool arch_call_is(const struct arch_regs *regs, uint64_t insn, const struct warden_call *call);
long arch_call_result(const struct arch_regs *regs);
/* A call that changes nothing and that every seccomp filter should let pass. */
extern const struct warden_call arch_no_call;

/*
 * To be called once at every interrupt stop: a system call that the stop (and no signal) broke
 * off with EINTR is marked to be restarted when the thread runs on; a signal that is delivered
 * before then still makes it EINTR. Notes the call that it broke off for arch_name_call().
 */
int arch_unearned_eintr(pid_t tid) _must_use_;

/*
 * In @regs, those of @tid in a stop: a call that goes, or is about to go, by the number of
 * restart_syscall(2) gets its own number again, where a stop of ours was what broke it off the
 * first time.
 */
void arch_name_call(pid_t tid, struct arch_regs *regs);

/*
 * Code, free of positions, that runs calls: see batch.c. Its registers: the address of the code
 * and of the header.
 */
extern const unsigned char arch_batch_code[];
extern const uint64_t arch_batch_code_size;
void arch_batch_setup(struct arch_regs *regs, uint64_t code, uint64_t header);

/*
 * @regs are those of a thread that was stopped in a system call and whose kernel state is lost:
 * what only the kernel's memory knew how to restart is begun anew. @tid has its memory.
 */
void arch_restart_anew(pid_t tid, struct arch_regs *regs);

#endif
