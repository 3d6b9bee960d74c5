// SPDX-License-Identifier: GPL-2.0
#include "serve/heat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/page.h"

#define FIRST_SHIFT 16 /* 64 KiB */

void heat_init(struct heat *h)
{
	memset(h, 0, sizeof(*h));
	h->shift = FIRST_SHIFT;
}

void heat_fini(struct heat *h)
{
	for (size_t i = 0; i < h->n; i++)
		free(h->rows[i].cells);
	h->n = 0;
}

void heat_advance(struct heat *h, double time)
{
	size_t kept = 0;

	h->column++;
	h->times[h->column % HEAT_COLUMNS] = time;
	for (size_t i = 0; i < h->n; i++) {
		struct heat_row *r = &h->rows[i];

		if (r->last + HEAT_COLUMNS <= h->column) {
			free(r->cells);
			continue;
		}
		r->cells[h->column % HEAT_COLUMNS] = 0;
		h->rows[kept++] = *r;
	}
	h->n = kept;
	if (!h->n)
		h->shift = FIRST_SHIFT;
}

/* Index of the first row that is not before @bin. */
static size_t place_of(const struct heat *h, uint64_t bin)
{
	size_t low = 0, high = h->n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (h->rows[middle].bin < bin)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void join(struct heat_row *to, struct heat_row *from)
{
	for (size_t i = 0; i < HEAT_COLUMNS; i++)
		to->cells[i] += from->cells[i];
	if (from->start < to->start)
		to->start = from->start;
	if (from->end > to->end)
		to->end = from->end;
	if (from->last > to->last)
		to->last = from->last;
	free(from->cells);
}

/* Twice the bytes in a bin. */
static void coarsen(struct heat *h)
{
	size_t kept = 0;

	h->shift++;
	for (size_t i = 0; i < h->n; i++) {
		struct heat_row *r = &h->rows[i];

		r->bin >>= 1;
		if (kept && h->rows[kept - 1].bin == r->bin)
			join(&h->rows[kept - 1], r);
		else
			h->rows[kept++] = *r;
	}
	h->n = kept;
}

/* The row of @addr, new if need be; NULL without memory. */
static struct heat_row *row_at(struct heat *h, uint64_t addr)
{
	size_t i = place_of(h, addr >> h->shift);
	uint32_t *cells;

	if (i < h->n && h->rows[i].bin == addr >> h->shift)
		return &h->rows[i];
	while (h->n == HEAT_ROWS)
		coarsen(h);
	i = place_of(h, addr >> h->shift);
	if (i < h->n && h->rows[i].bin == addr >> h->shift)
		return &h->rows[i];
	cells = calloc(HEAT_COLUMNS, sizeof(*cells));
	if (!cells)
		return NULL;
	memmove(&h->rows[i + 1], &h->rows[i], (h->n - i) * sizeof(h->rows[0]));
	h->n++;
	h->rows[i] =
		(struct heat_row){.bin = addr >> h->shift, .start = UINT64_MAX, .cells = cells};
	return &h->rows[i];
}

int heat_add(struct heat *h, uint64_t start, uint64_t end, uint64_t vma_start, uint64_t vma_end,
	     const char *name)
{
	while (start < end) {
		struct heat_row *r = row_at(h, start);
		uint64_t first, past, to;

		if (!r)
			return fail(-ENOMEM, "heatmap");
		first = r->bin << h->shift;
		past = first + (1ull << h->shift);
		to = end < past ? end : past;
		r->cells[h->column % HEAT_COLUMNS] += (uint32_t)((to - start) / page_size());
		r->last = h->column;
		if (first < vma_start)
			first = vma_start;
		if (past > vma_end)
			past = vma_end;
		if (first < r->start)
			r->start = first;
		if (past > r->end)
			r->end = past;
		snprintf(r->name, sizeof(r->name), "%s", name);
		start = to;
	}
	return 0;
}
