/* SPDX-License-Identifier: GPL-2.0 */
/* A walk over the parts of sorted ranges that lie in mappings, by address: what a backend looks at when asked for some pages only. */
#ifndef ICP_TRACK_RANGES_H
#define ICP_TRACK_RANGES_H

#include "proc/maps.h"
#include "track/dirty.h"

struct ranges {
	const struct maps *maps;
	const struct dirty *where; /* their kind is ignored */
	size_t run, vma;	   /* of the next part; zero at the beginning */
	/* the part that ranges_next() has come to */
	const struct vma *v;
	uint64_t start, end;
};

/* False after the last one. Only mappings that trackers want. */
bool ranges_next(struct ranges *r);

#endif
