/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Address x time. A row is a piece of address space that was written (at most `bin` bytes, all of one mapping, from the first page that
 * was ever written to the last); what lies between is left out. A column is some time; a cell says which share of the row's pages were written in an interval of then.
 */
#ifndef ICP_OBS_HEATMAP_H
#define ICP_OBS_HEATMAP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "obs/report.h"

struct heat_row {
	uint64_t start, end;
	const char *name;
	bool begins; /* another name than the row before */
};

struct heatmap {
	VEC(struct heat_row) rows;
	unsigned columns;
	uint64_t span_us; /* of all columns */
	uint64_t bin;	  /* bytes */
	uint64_t page_size;
	float *cells; /* [row * columns + column], 0 to 1 */
};

/* Of @p in the recording @path, with at most so many rows and columns. */
int heatmap_make(const char *path, const struct report *r, const struct report_process *p,
		 unsigned max_rows, unsigned max_columns, struct heatmap *out) _must_use_;
void heatmap_free(struct heatmap *h);

/* Lines of text, with colours (of 256) or without. */
void heatmap_print(const struct heatmap *h, FILE *out, bool colour);

/* A picture, see canvas_open(). */
int heatmap_picture(const struct heatmap *h, const char *path, const char *title) _must_use_;

/* How much is shown for a share of pages: few are to be seen, too. 0 (nothing) to @levels. */
unsigned heat_level(float share, unsigned levels);

#endif
