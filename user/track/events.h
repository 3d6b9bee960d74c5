/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The eBPF side as user space sees it: which processes are followed, and what happened to them.
 * Pull only: events_drain() hands out what is there; nothing calls back.
 */
#ifndef ICP_TRACK_EVENTS_H
#define ICP_TRACK_EVENTS_H

#include <stdbool.h>

#include "../../bpf/icp_events.h"
#include "base/err.h"
#include "base/vec.h"

struct events;

struct event_batch {
	VEC(struct icp_fault) faults;	/* in the order they happened */
	VEC(struct icp_change) changes; /* likewise */
	VEC(struct icp_stack) stacks;	/* with stack_period_ns only */
};

struct fault_addresses {
	uint64_t *data;
	size_t n, cap;
};

struct events_config {
	size_t fault_ring_bytes;  /* power of two and a multiple of the page size; 0: 16 MiB */
	size_t change_ring_bytes; /* likewise; 0: 4 MiB */
	uint32_t max_targets;	  /* processes that can be followed at once; 0: 16384 */
	/* Above 0: a storm is thinned in the kernel after so many faults per processor and ICP_BUDGET_NS; the counters stay exact. */
	uint32_t fault_budget;
	uint64_t
		stack_period_ns; /* a user stack per process and processor in this time; 0: none */
	bool no_faults;		 /* leave the fault programs out */
	bool no_syscalls; /* don't attach the system-call program yet: see events_calls() */
};

/*
 * Load and attach. -EPERM with a message that names the missing capability (CAP_BPF,
 * CAP_PERFMON) where eBPF is not allowed; other failures name the program. Hooks that this
 * kernel lacks and that have a stand-in are replaced silently (see events_hooks()).
 */
int events_open(const struct events_config *config, struct events **out) _must_use_;
void events_close(struct events *e);

/* Optional programs that could not be used here: without the guard no epoch is complete. */
#define EVENTS_NO_GUARD 1
#define EVENTS_NO_CALLS 2 /* no MAP and SHM events */
uint32_t events_missing(const struct events *e);

/* Follow @pid (and, with @children, every process it forks from now on, from its first
 * instruction). */
int events_add(struct events *e, pid_t pid, bool children) _must_use_;
void events_del(struct events *e, pid_t pid);

/*
 * Switch MAP and SHM events on or off. While on they cost every system call of the machine, of processes that are not
 * followed too, about 0.1 us: 3 to 5 % of redis-server's CPU time. Without them write_locks of the guard says when to
 * re-read the maps, which show attached segments too.
 * -EOPNOTSUPP (bare) when EVENTS_NO_CALLS is missing.
 */
int events_calls(struct events *e, bool on) _must_use_;

/* Readable when a change event came; fault events don't wake. */
int events_fd(const struct events *e);

/* Append everything recorded so far to @batch. The rings are empty afterwards (up to what came
 * in meanwhile). */
/* A fault never comes in an earlier batch than the FORK of its process; the last faults may come after its EXIT. */
int events_drain(struct events *e, struct event_batch *batch) _must_use_;
void event_batch_free(struct event_batch *batch);

/*
 * Append the address of the last write fault of each thread of @pid, as far as drained: a fault is told before it changes the page
 * tables, so these may be under way still, however old they are.
 */
int events_last_faults(const struct events *e, pid_t pid,
		       struct fault_addresses *out) _must_use_;

/* The counters of @pid, summed over CPUs; -ENOENT (bare) when it isn't followed. */
int events_counters(const struct events *e, pid_t pid, struct icp_counters *out) _must_use_;

/* One line per hook for `icp-bpf check`: probes by loading and attaching, leaves nothing
 * behind. */
struct hook_status {
	const char *name; /* "raw_tp/page_fault_user" ... */
	const char *purpose;
	bool available, required;
	char why[160]; /* when not available: what failed and what to do about it */
};
int events_hooks(struct hook_status **out, size_t *n) _must_use_;

#endif
