/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A write tracker says which pages of one process were written since the last time it was asked. Backends: uffd,
 * kmod, softdirty; the best available is chosen by probing, never from a version number.
 */
#ifndef ICP_TRACK_TRACKER_H
#define ICP_TRACK_TRACKER_H

#include "inject/warden.h"
#include "proc/maps.h"
#include "track/dirty.h"

struct tracker;

struct tracker_ops {
	const char *name, *purpose;
	/* Entries of shared memory that were populated, written and dropped between two takes are in neither: only a comparison
	 * finds those. */
	bool blind_to_dropped;
	/* A huge page stays one: its first write faults, and no other one does. */
	bool whole_huge_pages;
	/* Can it work here? 0, or -EOPNOTSUPP/-EPERM with why and what to do in @why (no error message is set). */
	int (*probe)(char *why, size_t len);
	int (*open)(struct target *target, struct warden *warden, bool count_present,
		    struct tracker **out);
	int (*take)(struct tracker *t, const struct maps *maps, struct dirty *out);
	int (*take_ranges)(struct tracker *t, const struct maps *maps,
			   const struct dirty *where, struct dirty *out);
	int (*follow)(struct tracker *t, const struct maps *maps);
	void (*close)(struct tracker *t);
};

extern const struct tracker_ops tracker_uffd, tracker_kmod, tracker_softdirty;

/* Every backend, best first; NULL-terminated. */
extern const struct tracker_ops *const tracker_backends[];

/* What every backend's own struct begins with. */
struct tracker {
	const struct tracker_ops *ops;
	struct target *target; /* borrowed: outlives the tracker */
	uint64_t epoch;
	uint64_t stopped_ns; /* how long attaching stopped the target */
};

/* Memory that is tracked at all: not the kernel's own mappings. */
static inline bool tracker_wants(const struct vma *v)
{
	return v->kind != VMA_SPECIAL;
}

/* The backend @name, for NULL that of ICP_TRACKER in the environment or the best one that works here; refuses with why. */
int tracker_choose(const char *name, const struct tracker_ops **out) _must_use_;

/*
 * Attach to @target and arm all of its memory: from now on writes are noticed. @name NULL chooses the best backend.
 * @count_present: pages of its own that it has now belong to the first take (after execve: it wrote them all since).
 * Refuses, with the target untouched: no such tracker, not available here, memory under another userfaultfd...
 */
int tracker_open(const char *name, struct target *target, struct warden *warden,
		 bool count_present, struct tracker **out) _must_use_;

/*
 * The set of pages written since the last take (or since open), and arm them again, in one step per page: a write is
 * in this set or in the next one, never in neither. @maps: read just before. -ESRCH (bare): the process is gone, or
 * has another mm (execve): open a new tracker.
 */
int tracker_take(struct tracker *t, const struct maps *maps, struct dirty *out) _must_use_;

/*
 * The same, but look only at the pages of @where (sorted runs; their kind is ignored): for when it is known that nothing
 * else was written. Costs by the run, not by the size of the memory.
 */
int tracker_take_ranges(struct tracker *t, const struct maps *maps, const struct dirty *where,
			struct dirty *out) _must_use_;

/* Arm mappings that are new since; they were, and stay until the next take, dirty as a whole. */
int tracker_follow(struct tracker *t, const struct maps *maps) _must_use_;

/* Detach: the target runs on with nothing left in it. */
void tracker_close(struct tracker *t);

#endif
