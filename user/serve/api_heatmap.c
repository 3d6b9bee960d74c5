// SPDX-License-Identifier: GPL-2.0
#include <inttypes.h>
#include <string.h>

#include "obs/json.h"
#include "serve/api.h"

/* Rows joined to at most so many: each is rows [from, to) of the heatmap. */
struct group {
	size_t from, to;
	uint64_t start, end;
	const char *name;
};

/* The fewest bits of shift that are enough. */
static size_t group_rows(const struct heat *h, size_t limit, struct group *groups,
			 unsigned *shift)
{
	for (*shift = 0;; (*shift)++) {
		size_t n = 0;

		for (size_t i = 0; i < h->n; i++) {
			const struct heat_row *r = &h->rows[i];

			if (n &&
			    r->bin >> *shift == h->rows[groups[n - 1].from].bin >> *shift) {
				groups[n - 1].to = i + 1;
				groups[n - 1].end = r->end;
				continue;
			}
			if (n == limit) {
				n = SIZE_MAX;
				break;
			}
			groups[n++] = (struct group){i, i + 1, r->start, r->end, r->name};
		}
		if (n != SIZE_MAX)
			return n;
	}
}

static void put_name(FILE *out, const char *name)
{
	json_t *json = json_name(name);

	json_dumpf(json, out, JSON_ENCODE_ANY);
	json_decref(json);
}

static void put_rows(FILE *out, const struct group *groups, size_t n)
{
	size_t first = 0;

	fputs(",\"areas\":[", out);
	for (size_t i = 1; i <= n; i++) {
		if (i < n && !strcmp(groups[i].name, groups[first].name))
			continue;
		fprintf(out, "%s{\"name\":", first ? "," : "");
		put_name(out, groups[first].name);
		fprintf(out, ",\"first_row\":%zu,\"rows\":%zu}", first, i - first);
		first = i;
	}
	fputs("],\"rows\":[", out);
	for (size_t i = 0; i < n; i++) {
		fprintf(out,
			"%s{\"start\":\"0x%" PRIx64 "\",\"end\":\"0x%" PRIx64 "\",\"name\":",
			i ? "," : "", groups[i].start, groups[i].end);
		put_name(out, groups[i].name);
		fputc('}', out);
	}
	fputc(']', out);
}

/* Columns [from, to) of time, counted as heat.column is. */
static uint64_t cell(const struct heat *h, const struct group *g, uint64_t from, uint64_t to)
{
	uint64_t pages = 0;

	for (size_t i = g->from; i < g->to; i++)
		for (uint64_t c = from; c < to; c++)
			pages += h->rows[i].cells[c % HEAT_COLUMNS];
	return pages;
}

void api_heatmap(const struct model *m, const struct proc *p, size_t rows, size_t columns,
		 FILE *out)
{
	const struct heat *h = &p->heat;
	uint64_t have = h->column < HEAT_COLUMNS ? h->column : HEAT_COLUMNS, max = 0;
	uint64_t step = have ? (have + columns - 1) / columns : 1, past = h->column + 1;
	struct group groups[HEAT_ROWS];
	unsigned shift;
	size_t n = group_rows(h, rows, groups, &shift);

	while (have && (past - 1) / step - (past - have) / step >= columns)
		step++;
	fprintf(out, "{\"pid\":%d,\"interval_s\":%g,\"bin_bytes\":%" PRIu64 ",\"time\":[",
		p->pid, m->interval_s * (double)step, (uint64_t)1 << (h->shift + shift));
	/* joined columns end where a multiple of the step does: they do not change as time goes on */
	for (uint64_t from = past - have, to; from < past; from = to) {
		to = (from / step + 1) * step;
		to = to < past ? to : past;
		fprintf(out, "%s%.6f", from > past - have ? "," : "",
			h->times[(to - 1) % HEAT_COLUMNS]);
	}
	fputc(']', out);
	put_rows(out, groups, n);
	fputs(",\"cells\":[", out);
	for (uint64_t from = past - have, to; from < past; from = to) {
		to = (from / step + 1) * step;
		to = to < past ? to : past;
		fputs(from > past - have ? ",[" : "[", out);
		for (size_t i = 0; i < n; i++) {
			uint64_t pages = cell(h, &groups[i], from, to);

			max = pages > max ? pages : max;
			fprintf(out, "%s%" PRIu64, i ? "," : "", pages);
		}
		fputc(']', out);
	}
	fprintf(out, "],\"max\":%" PRIu64 "}", max);
}
