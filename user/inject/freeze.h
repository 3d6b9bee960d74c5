/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stop all threads of processes, and let them go. Used by the warden's process only, which has
 * SIGCHLD blocked and no children: every status that waitpid() has belongs to a tracee.
 *
 *     running --SEIZE, INTERRUPT--> coming --waitpid--> stopped --DETACH--> running
 *                                     |  too late: a straggler, let go as soon as it does stop
 *                                     `--> gone (exited, killed)
 */
#ifndef ICP_INJECT_FREEZE_H
#define ICP_INJECT_FREEZE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/vec.h"

struct tracee {
	pid_t pid, tid;
	enum { TRACEE_COMING, TRACEE_STOPPED, TRACEE_GONE } state;
	bool group_stop; /* SIGSTOP and the like: it goes back there when released */
	bool mask_saved; /* all signals are blocked for the moment */
	uint64_t mask;	 /* its own signal mask then */
};

struct freeze {
	VEC(struct tracee) threads;
	VEC(struct tracee) stragglers; /* not stopped yet, to be let go when they are */
	VEC(pid_t) procs;
	size_t hint;	/* where the last search ended */
	size_t coming;	/* how many are TRACEE_COMING */
	uint64_t since; /* CLOCK_MONOTONIC of the first stop, an upper bound of the pause */
	pid_t owner;	/* icp-bpf itself, never to be stopped */
};

/*
 * Freeze every thread of @pids, and of their descendants if @follow, before the time @until.
 * All or nothing. -EBUSY when a thread does not stop.
 */
int freeze_all(struct freeze *f, const pid_t *pids, size_t n, bool follow,
	       uint64_t until) _must_use_;

/* Stop the threads of @pid that can be stopped soon; -EBUSY if none can, and then none is. */
int freeze_most(struct freeze *f, pid_t pid) _must_use_;

/* Let everybody run on. Always works. */
void freeze_release(struct freeze *f);
/* Wait for the stragglers, not for long. */
void freeze_see_off(struct freeze *f);
void freeze_fini(struct freeze *f);

/* Look at what waitpid() has to say: the deaths of frozen threads, stragglers that stopped.
 * Does not block. */
void freeze_drain(struct freeze *f);

/* Wait until every frozen thread is dead, which somebody must have seen to; false at @until. */
bool freeze_wait_dead(struct freeze *f, uint64_t until);

struct tracee *freeze_find(struct freeze *f, pid_t tid);

/* Wait until @until for the next status of @tid: 0, -ETIMEDOUT, or -ESRCH when it is gone. */
int tracee_wait(struct tracee *t, uint64_t until, int *status) _must_use_;

/* Block all signals of the stopped @t for a moment; unblock puts back what it had. */
int tracee_block(struct tracee *t) _must_use_;
int tracee_unblock(struct tracee *t) _must_use_;

/* A line "@key:\t<number>" of /proc/PID/task/TID/status, or -1. */
long task_status(pid_t pid, pid_t tid, const char *key);

/* Refuse what can not be stopped at all: no such process, a thread id, a zombie, a kernel
 * thread, ourselves, traced. */
int freeze_check(pid_t pid, pid_t owner) _must_use_;

#endif
