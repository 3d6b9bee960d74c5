/* SPDX-License-Identifier: GPL-2.0 */
/* Run system calls in a stopped thread. */
#ifndef ICP_INJECT_SYSCALL_H
#define ICP_INJECT_SYSCALL_H

#include <stdint.h>

#include "inject/freeze.h"
#include "inject/warden.h"

/* Find an instruction in the code of @pid that enters the kernel; works before and while it is
 * stopped. */
int inject_find(pid_t pid, uint64_t *insn) _must_use_;

/*
 * Run @n calls in the stopped thread @t, which is as before afterwards, signals sent meanwhile
 * included. Returns how many could be run; when not all, *@err says why: -ESRCH (it was killed:
 * no message), or a refusal with its message.
 */
size_t inject_run(struct tracee *t, uint64_t insn, struct warden_call *calls, size_t n,
		  int *err);

#endif
