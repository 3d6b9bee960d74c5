/* SPDX-License-Identifier: GPL-2.0 */
/* One process of a session. Private to user/session/. */
#ifndef ICP_SESSION_TRACKED_H
#define ICP_SESSION_TRACKED_H

#include "base/clock.h"
#include "image/ctl.h"
#include "obs/sample.h"
#include "obs/wws.h"
#include "proc/symbols.h"
#include "proc/sysvshm.h"
#include "track/events.h"
#include "track/tracker.h"

/* An attached segment; known by the address, as shmdt(2) wants it. */
struct attachment {
	uint64_t addr;
	int32_t key, id;
	uint64_t size;
};

/* Faults of one thread at one instruction since the last sample. Open addressing, power of two, faults 0: free. */
struct site {
	uint64_t ip;
	uint32_t tid;
	uint32_t faults, kernel_faults;
	uint32_t pad;
};

struct sites {
	struct site *slots;
	size_t cap, used;
};

struct tracked {
	struct target *target;
	struct tracker *tracker;
	struct maps maps;
	bool maps_stale; /* its layout changed since the maps were read */
	bool ended;
	bool reattach; /* execve: the tracker belongs to the old memory */
	struct wws *wws;
	uint32_t window_ticks[WINDOWS];
	struct sites sites;
	VEC(struct icp_stack) stacks; /* since the last sample; a daemon's */
	VEC(struct attachment) attached;
	struct dirty dirty, ever;
	bool forgets;		/* a daemon's: `ever` stays empty */
	struct dirty since;	/* since version since_version; kept only when that is not 0 */
	struct dirty unsampled; /* taken by a checkpoint since the last sample */
	uint32_t since_version;
	uint8_t since_repo[16]; /* the repository that it is of */
	struct ctl *
		ctl; /* of that version: reading it again costs what is resident, not what changed */
	bool in_dump;		     /* part of the checkpoint that is being cut */
	struct icp_counters counted; /* at the last sample */
	uint64_t write_locks;	     /* at the last look at the layout */
	uint64_t since_ns;	     /* CLOCK_MONOTONIC of the last take */
	uint64_t tick;
	struct process_total total;
};

/* Count @weight faults. -ENOMEM. */
int sites_add(struct sites *sites, uint32_t tid, uint64_t ip, bool kernel,
	      uint32_t weight) _must_use_;
void sites_clear(struct sites *sites);

/* Open @pid and attach to it. @fresh: everything it holds was written just now (after execve). */
int tracked_open(pid_t pid, const char *tracker, struct warden *warden, double interval_s,
		 struct tracked **out) _must_use_;
/* The same process after execve: attach to the new memory. */
int tracked_reattach(struct tracked *p, const char *tracker, struct warden *warden) _must_use_;
void tracked_free(struct tracked *p);

/* Read the maps again if they are stale, and arm new memory. -ESRCH (bare): gone. */
int tracked_follow(struct tracked *p) _must_use_;

/* Take the dirty set and fill @out, without the events' part. -ESRCH (bare): gone, or another memory. */
int tracked_sample(struct tracked *p, size_t top, struct process_sample *out) _must_use_;

/* The name of the function at @ip, or module+offset. */
void tracked_function(struct tracked *p, struct symbols *symbols, uint64_t ip, char *out,
		      size_t len);

/* Who wrote, from the fault sites; clears them. */
int tracked_writers(struct tracked *p, struct symbols *symbols, size_t top,
		    struct process_sample *out) _must_use_;

#endif
