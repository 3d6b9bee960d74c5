/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the kinds want of the frozen threads, gathered so that a thread is bothered once: each
 * plan() adds, then everything runs in as few round trips as possible, then each dump() or
 * finish() picks its results by the handle it got. Threads are known by their index in
 * state_process.threads.
 */
#ifndef ICP_STATE_CALLS_H
#define ICP_STATE_CALLS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "state/state.h"

int gather_new(struct state_process *p) _must_use_;
void gather_free(struct state_process *p);
int gather_run(struct state_process *p) _must_use_;

/*
 * Have a system call injected. When @out_len isn't zero, args[@out_arg] is replaced by the
 * address of that many bytes, for the result. Returns a handle, or -ENOMEM with a message.
 */
int gather_call(struct state_process *p, size_t thread, long nr, const uint64_t args[6],
		unsigned out_arg, size_t out_len) _must_use_;
long gather_ret(const struct state_process *p, size_t thread, int handle);
/* The bytes of the result, valid until gather_free(). */
const void *gather_out(const struct state_process *p, size_t thread, int handle);

/* Have a register set or a ptrace request read, @room bytes at most. As above. */
int gather_regset(struct state_process *p, size_t thread, uint32_t type,
		  size_t room) _must_use_;
int gather_ptrace(struct state_process *p, size_t thread, long request, uint64_t addr,
		  size_t room) _must_use_;
/* What ptrace() said (a negative errno, or a register set's 0), and the bytes. */
long gather_answer(const struct state_process *p, size_t thread, int handle, const void **data,
		   size_t *len);

#endif
