/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Address x time: how many pages of which piece of an address space were written in which column of time. Rows are bins of a power of
 * two of bytes, only those that were written; when there would be more than HEAT_ROWS, bins become twice as large. Columns are a ring.
 * Plain data, bounded: at most 250 KiB.
 */
#ifndef ICP_SERVE_HEAT_H
#define ICP_SERVE_HEAT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define HEAT_ROWS 256u
#define HEAT_COLUMNS 240u

struct heat_row {
	uint64_t bin;	     /* address >> shift */
	uint64_t start, end; /* of it, what is mapped */
	uint64_t last;	     /* column of the last write */
	uint32_t *cells;     /* HEAT_COLUMNS; pages */
	char name[64];	     /* of the VMA */
};

struct heat {
	unsigned shift;
	size_t n;			 /* rows */
	uint64_t column;		 /* number of the present one, from 1; 0: none yet */
	double times[HEAT_COLUMNS];	 /* end of each */
	struct heat_row rows[HEAT_ROWS]; /* ascending */
};

void heat_init(struct heat *h);
void heat_fini(struct heat *h);

/* A new column, which ends at @time. Rows that were not written for HEAT_COLUMNS go. */
void heat_advance(struct heat *h, double time);
/* [start, end) was written in the present column; it lies in the VMA [vma_start, vma_end). -ENOMEM. */
int heat_add(struct heat *h, uint64_t start, uint64_t end, uint64_t vma_start, uint64_t vma_end,
	     const char *name) _must_use_;

#endif
