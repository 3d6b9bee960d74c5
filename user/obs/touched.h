/* SPDX-License-Identifier: GPL-2.0 */
/* Which parts of an address space were written, and what they were called: disjoint ranges once compacted. */
#ifndef ICP_OBS_TOUCHED_H
#define ICP_OBS_TOUCHED_H

#include <stdint.h>

#include "base/err.h"
#include "base/vec.h"

struct touched_range {
	uint64_t start, end; /* bytes */
	const char *name;    /* borrowed; compared as a pointer */
};

struct touched {
	VEC(struct touched_range) ranges;
	size_t compacted; /* that many are sorted and disjoint */
};

int touched_add(struct touched *t, uint64_t start, uint64_t end, const char *name) _must_use_;
/* Sort and join. Where two names overlap, each byte keeps the one of the range that begins first. */
void touched_compact(struct touched *t);
/* After touched_compact(). */
uint64_t touched_bytes(const struct touched *t);

#endif
