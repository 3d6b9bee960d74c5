/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The warden's second: when the warden is killed, the kernel lets its tracees run on as they
 * are, and one may have our registers, or all signals blocked. So the second, a small process,
 * traces the warden. Told of its end (PTRACE_EVENT_EXIT, which SIGKILL doesn't skip) while the
 * tracees are still held, it puts right what the warden had noted to be half done:
 *
 *  - a thread that runs a call of ours gets its registers and signal mask back. To be its tracer
 *    the second must wait for the warden to be gone: the process is held by SIGSTOP meanwhile,
 *    some microseconds, and goes on with SIGCONT,
 *  - a userfaultfd that was made and not closed is closed, memory that was mapped unmapped, and
 *    what was borrowed has its content again; a connection leaves repair mode.
 *
 * Killed together with the warden (cgroup.kill) it can do nothing, and when it is killed over its
 * work the process may stay stopped; killed alone, or where somebody else traces the warden
 * (strace -f), the warden goes on without.
 */
#ifndef ICP_INJECT_SECOND_H
#define ICP_INJECT_SECOND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "inject/arch.h"
#include "inject/freeze.h"

struct journal; /* the notes, memory that both share */

/* NULL: there is no memory. To be freed by each process that has it. */
struct journal *journal_new(void);
void journal_free(struct journal *j);

/* In a new process, never returns: be the second of @warden. */
void second_serve(struct journal *j, pid_t warden) __attribute__((noreturn));

/*
 * What follows is for the warden. Without journal_use() nothing is noted; of more threads at
 * once than there is room for the rest is not.
 */
void journal_use(struct journal *j);

/* Wait until the second is there, not for long. */
void note_await_second(void);

/* @t has all signals blocked, and t->mask is its own. note_forget(): all of it is as before. */
void note_mask(const struct tracee *t);
void note_forget(pid_t tid);
/* There is nothing left of @tid to put right. */
void note_gone(pid_t tid);

/* @tid, noted, will have other registers than @saved, its own, to run calls from the instruction
 * at @insn. */
void note_registers(pid_t tid, const struct arch_regs *saved, uint64_t insn);
/* It runs @call; has run it, with call->ret. */
void note_call(pid_t tid, const struct warden_call *call);
void note_result(pid_t tid, const struct warden_call *call);
/* It was seen to be stopped by SIGSTOP and the like, or not to be any more. */
void note_stopped(pid_t tid, bool stopped);

/* What takes back a call that has made something in a process, and who should run it; 0: nothing
 * is left to take back. */
pid_t note_undo(uint64_t *insn, struct warden_call *call);

/* @len bytes at @addr of @pid are borrowed, and what they held; 0: no longer. No more than
 * NOTE_MEMORY. */
#define NOTE_MEMORY 4096
void note_memory(pid_t pid, uint64_t addr, const void *before, size_t len);

/* The connection that is descriptor @fd of @pid is in repair mode; @reuse as for repair_end(). 0:
 * no longer. */
void note_repair(pid_t pid, int fd, int reuse);

#endif
