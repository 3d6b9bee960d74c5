/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A dirty set: which pages of one process were written in one epoch, and what else happened to them. Plain data.
 * The runs are sorted by address and do not overlap; neighbours of the same kind are merged.
 */
#ifndef ICP_TRACK_DIRTY_H
#define ICP_TRACK_DIRTY_H

#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/vec.h"

enum dirty_what {
	DIRTY_WRITTEN = 1, /* content may have changed since the last take */
	DIRTY_ZAPPED, /* had content of its own and has none now: reads as zero, or as the file */
	DIRTY_NEW,    /* populated, and was not tracked at the last take: counts as written */
	DIRTY_UNKNOWN, /* the tracker can't say (pinned for DMA, evicted shared memory): compare by hash */
};

struct dirty_run {
	uint64_t start, end; /* bytes, page aligned, [start, end) */
	enum dirty_what what;
};

struct dirty {
	struct dirty_run *data;
	size_t n, cap;
	uint64_t epoch; /* counts the takes of the tracker, from 1 */
	uint64_t
		lost; /* events lost in the epoch: non-zero means that every page was looked at */
};

/* Append a run at the end; it must not start before the last one ends. Merges with it where it can. */
int dirty_append(struct dirty *d, uint64_t start, uint64_t end,
		 enum dirty_what what) _must_use_;
/* Join @more into @d: the union; of two kinds WRITTEN, NEW and UNKNOWN win over ZAPPED only if they are later (@more). */
int dirty_join(struct dirty *d, const struct dirty *more) _must_use_;
/* Pages that are in both. */
uint64_t dirty_common(const struct dirty *a, const struct dirty *b);
/* Take the pages of @less, of whatever kind, out of @d. */
int dirty_subtract(struct dirty *d, const struct dirty *less) _must_use_;
/* Pages that count as dirty (every kind), and that lie in [start, end). */
uint64_t dirty_pages(const struct dirty *d);
uint64_t dirty_pages_in(const struct dirty *d, uint64_t start, uint64_t end);
void dirty_clear(struct dirty *d); /* keeps the memory */
void dirty_free(struct dirty *d);

#endif
