/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From what page tables say now, and what was populated at the last look, to a dirty set: for backends whose bits say nothing of
 * content that went away.
 */
#ifndef ICP_TRACK_LOOK_H
#define ICP_TRACK_LOOK_H

#include "proc/maps.h"
#include "track/dirty.h"

#define LOOK_OWN 1 /* the pages have content of their own */
#define LOOK_WRITTEN 2
#define LOOK_UNKNOWN 4

struct look {
	const struct dirty *before; /* what was populated at the last look: all WRITTEN */
	const struct vma *v;
	struct dirty *found;	 /* may be NULL */
	struct dirty *populated; /* what is now, likewise; may be NULL */
	size_t at;		 /* the run of @before that the look has come to */
};

/* [start, end) of look->v, which follows the one before: @what of LOOK_*. */
int look_run(struct look *l, uint64_t start, uint64_t end, unsigned what) _must_use_;

#endif
