/* SPDX-License-Identifier: GPL-2.0 */
/* SEM_UNDO adjustments: what the kernel will add to System V semaphores when a process ends. Read by an eBPF iterator. */
#ifndef ICP_TRACK_UNDO_H
#define ICP_TRACK_UNDO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/vec.h"
#include "base/err.h"

struct undo;

struct undo_set {
	int semid;
	uint32_t n; /* semaphores */
};

struct undo_value {
	pid_t pid;
	int semid;
	uint32_t num;
	int adjust; /* never 0 */
};
typedef VEC(struct undo_value) undo_values;

/*
 * The one of this process, for as long as it lives: loading it takes tens of milliseconds, and a session wants it for each
 * version. Needs CAP_BPF and CAP_PERFMON.
 */
int undo_get(struct undo **out) _must_use_;
/* Those of every process in these sets; the lists of processes that run may be torn. */
int undo_read(struct undo *u, const struct undo_set *sets, size_t n,
	      undo_values *out) _must_use_;

#endif
