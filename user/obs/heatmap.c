// SPDX-License-Identifier: GPL-2.0
#include "obs/heatmap.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Above it rows no longer begin anew with each name: there would never be few enough. */
#define BIN_NAMES_MAX (1ull << 30)
#define BIN_MAX (1ull << 62)

/* ---- rows ---- */

/* How many rows @t has with bins of @bin bytes; more than @limit: limit + 1. */
static size_t count_rows(const struct touched *t, uint64_t bin, size_t limit)
{
	const struct touched_range *last = NULL;
	size_t count = 0;

	vec_each (r, &t->ranges) {
		uint64_t first = r->start / bin, end = (r->end - 1) / bin;

		if (last && first == (last->end - 1) / bin &&
		    (r->name == last->name || bin > BIN_NAMES_MAX))
			first++;
		last = r;
		if (first > end)
			continue;
		if (end - first >= limit - count)
			return limit + 1;
		count += end - first + 1;
	}
	return count;
}

/* The piece of one range in one bin: a row, or more of the last one. */
static int add_row(struct heatmap *h, uint64_t start, uint64_t end, const char *name)
{
	struct heat_row *last = h->rows.n ? &h->rows.data[h->rows.n - 1] : NULL, *row;

	if (last && last->start / h->bin == start / h->bin &&
	    (last->name == name || h->bin > BIN_NAMES_MAX)) {
		last->end = end;
		return 0;
	}
	row = vec_push(&h->rows);
	if (!row)
		return fail(-ENOMEM, "heatmap");
	*row = (struct heat_row){.start = start, .end = end, .name = name};
	row->begins = h->rows.n == 1 || row[-1].name != name;
	return 0;
}

static int add_rows(struct heatmap *h, const struct touched_range *r)
{
	int err = 0;

	for (uint64_t at = r->start, next; !err && at < r->end; at = next) {
		uint64_t left = h->bin - at % h->bin;

		next = r->end - at > left ? at + left : r->end;
		err = add_row(h, at, next, r->name);
	}
	return err;
}

static int make_rows(struct heatmap *h, const struct touched *t, unsigned max_rows)
{
	int err = 0;

	h->bin = h->page_size;
	while (h->bin < BIN_MAX && count_rows(t, h->bin, max_rows) > max_rows)
		h->bin *= 2;
	for (size_t i = 0; !err && i < t->ranges.n; i++)
		err = add_rows(h, &t->ranges.data[i]);
	return err;
}

/* ---- cells ---- */

static size_t first_row(const struct heatmap *h, uint64_t addr)
{
	size_t low = 0, high = h->rows.n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (h->rows.data[mid].end > addr)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

static void add_runs(const struct heatmap *h, const struct rec_take *t, uint64_t *bytes)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct rec_run *run = &t->runs[i];

		for (size_t row = first_row(h, run->start);
		     row < h->rows.n && h->rows.data[row].start < run->end; row++) {
			const struct heat_row *r = &h->rows.data[row];
			uint64_t from = run->start > r->start ? run->start : r->start;
			uint64_t to = run->end < r->end ? run->end : r->end;

			bytes[row] += to - from;
		}
	}
}

/* The column whose middle is nearest; a take belongs to all columns that it covers for the greater part. */
static unsigned column_at(const struct heatmap *h, uint64_t time_us)
{
	double c = h->span_us ? (double)time_us / (double)h->span_us * h->columns + 0.5 : 0;

	return c >= h->columns ? h->columns : (unsigned)c;
}

static void put_column(struct heatmap *h, uint64_t *bytes, uint64_t from_us, uint64_t to_us)
{
	unsigned from = column_at(h, from_us), to = column_at(h, to_us);

	if (from >= h->columns)
		from = h->columns - 1;
	if (to <= from)
		to = from + 1;
	for (size_t row = 0; row < h->rows.n; row++) {
		const struct heat_row *r = &h->rows.data[row];
		float share = (float)bytes[row] / (float)(r->end - r->start);

		bytes[row] = 0;
		for (unsigned c = from; share > 0 && c < to; c++) {
			float *cell = &h->cells[row * h->columns + c];

			*cell = fmaxf(*cell, fminf(share, 1));
		}
	}
}

static int fill(struct heatmap *h, const char *path, pid_t pid)
{
	_cleanup_rec_ struct rec_reader *reader = NULL;
	_cleanup_free_ uint64_t *bytes = calloc(h->rows.n, sizeof(*bytes));
	uint64_t from = 0, to = 0;
	struct rec_item item;
	int err = bytes ? rec_open(path, &reader) : fail(-ENOMEM, "heatmap"), got = 0;

	while (!err && (got = rec_next(reader, &item)) == 1) {
		if (item.kind != REC_TAKE || rec_process_of(reader, item.process)->pid != pid)
			continue;
		if (item.take.interval_us || item.time_us != to) { /* not one more part */
			put_column(h, bytes, from, to);
			to = item.time_us;
			from = to - item.take.interval_us;
		}
		add_runs(h, &item.take, bytes);
	}
	if (!err)
		put_column(h, bytes, from, to);
	return err ? err : got < 0 ? fail(got, "%s", path) : 0;
}

int heatmap_make(const char *path, const struct report *r, const struct report_process *p,
		 unsigned max_rows, unsigned max_columns, struct heatmap *h)
{
	int err;

	*h = (struct heatmap){.page_size = rec_started(r->reader)->page_size,
			      .span_us = r->end_us};
	h->columns = p->takes.n < max_columns ? (unsigned)p->takes.n : max_columns;
	err = make_rows(h, &p->touched, max_rows);
	if (err || !h->rows.n || !h->columns)
		return err;
	h->cells = calloc(h->rows.n * h->columns, sizeof(*h->cells));
	return h->cells ? fill(h, path, p->pid) : fail(-ENOMEM, "heatmap");
}

void heatmap_free(struct heatmap *h)
{
	vec_free(&h->rows);
	free(h->cells);
	h->cells = NULL;
}

unsigned heat_level(float share, unsigned levels)
{
	unsigned level = (unsigned)ceilf(sqrtf(share) * (float)levels);

	return share <= 0 ? 0 : level > levels ? levels : level < 1 ? 1 : level;
}

/* ---- text ---- */

#define NAME_WIDTH 22

static void print_label(const struct heat_row *r, FILE *out)
{
	const char *name = r->begins ? r->name : "";
	size_t len = strlen(name);

	/* of a path the end says more than the beginning */
	if (len > NAME_WIDTH)
		fprintf(out, "..%-*.*s", NAME_WIDTH - 2, NAME_WIDTH - 2,
			name + len - (NAME_WIDTH - 2));
	else
		fprintf(out, "%-*s", NAME_WIDTH, name);
	fprintf(out, " %012" PRIx64 " ", r->start);
}

static void print_cell(float share, FILE *out, bool colour)
{
	static const char plain[] = " .:-=+*#@";
	static const uint8_t colours[] = {0, 53, 89, 125, 161, 197, 203, 209, 215, 221, 228};
	unsigned level;

	if (!colour) {
		fputc(plain[heat_level(share, sizeof(plain) - 2)], out);
		return;
	}
	level = heat_level(share, sizeof(colours) - 1);
	if (level)
		fprintf(out, "\033[48;5;%um ", colours[level]);
	else
		fputs("\033[48;5;234m ", out);
}

void heatmap_print(const struct heatmap *h, FILE *out, bool colour)
{
	for (size_t row = 0; row < h->rows.n; row++) {
		print_label(&h->rows.data[row], out);
		fputs(colour ? "" : "|", out);
		for (unsigned c = 0; c < h->columns; c++)
			print_cell(h->cells[row * h->columns + c], out, colour);
		fputs(colour ? "\033[0m\n" : "|\n", out);
	}
	fprintf(out, "%*s 0 s%*.1f s\n", NAME_WIDTH + 13, "",
		h->columns > 8 ? (int)h->columns - 4 : 4, (double)h->span_us / 1e6);
}
