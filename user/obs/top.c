// SPDX-License-Identifier: GPL-2.0
#include "obs/top.h"

#include <errno.h>
#include <string.h>

#include "obs/view.h"

void top_begin(struct top *t)
{
	vec_each (r, &t->rows)
		(*r)->seen = false;
}

static struct top_row *find(const struct top *t, pid_t session, pid_t pid)
{
	vec_each (r, &t->rows)
		if ((*r)->session == session && (*r)->s.pid == pid)
			return *r;
	return NULL;
}

static struct top_row *new_row(struct top *t, pid_t session)
{
	struct top_row *row = calloc(1, sizeof(*row)), **slot = row ? vec_push(&t->rows) : NULL;

	if (!slot) {
		free(row);
		return NULL;
	}
	row->session = session;
	*slot = row;
	return row;
}

static void remember(struct top_row *r, double rate)
{
	if (r->n_history == TOP_HISTORY)
		memmove(r->history, r->history + 1, --r->n_history * sizeof(r->history[0]));
	r->history[r->n_history++] = rate;
}

int top_see(struct top *t, pid_t session, unsigned index, const struct process_sample *s)
{
	struct top_row *r = find(t, session, s->pid);
	struct process_sample copy;

	if (!r)
		r = new_row(t, session);
	if (!r)
		return fail(-ENOMEM, "top");
	r->seen = true;
	if (r->index && r->index == index && !s->vmas.n && !s->writers.n && !s->segments.n)
		return 0;
	if (process_sample_copy(s, &copy))
		return -ENOMEM;
	process_sample_clear(&r->s);
	r->s = copy;
	if (index && r->index != index)
		remember(r, s->dirty_bytes_per_s);
	r->index = index;
	return 0;
}

/* ---- order ---- */

/* Below, equal or above 0: @a belongs after, beside or before @b, as it is wanted most often. */
static double ahead(const struct top_row *a, const struct top_row *b, enum top_sort sort)
{
	switch (sort) {
	case TOP_RATE:
		return a->s.dirty_bytes_per_s - b->s.dirty_bytes_per_s;
	case TOP_WWS:
		return (double)a->s.wws_pages[1] - (double)b->s.wws_pages[1];
	case TOP_FAULTS:
		return (double)a->s.faults - (double)b->s.faults;
	case TOP_NAME:
		return strcmp(b->s.comm, a->s.comm);
	default:
		return 0;
	}
}

static int compare(const void *a, const void *b, void *arg)
{
	const struct top_row *x = *(struct top_row *const *)a, *y = *(struct top_row *const *)b;
	const struct top *t = arg;
	double first = ahead(x, y, t->sort);
	int order = first > 0	? -1
		    : first < 0 ? 1
				: (x->s.pid > y->s.pid) - (x->s.pid < y->s.pid);

	if (!order)
		order = (x->session > y->session) - (x->session < y->session);
	return t->reverse ? -order : order;
}

static void order(struct top *t)
{
	if (t->rows.n)
		qsort_r(t->rows.data, t->rows.n, sizeof(*t->rows.data), compare, t);
}

void top_end(struct top *t)
{
	size_t kept = 0;

	for (size_t i = 0; i < t->rows.n; i++) {
		struct top_row *r = t->rows.data[i];

		if (r->seen) {
			t->rows.data[kept++] = r;
			continue;
		}
		process_sample_clear(&r->s);
		free(r);
	}
	t->rows.n = kept;
	order(t);
}

void top_free(struct top *t)
{
	top_begin(t);
	top_end(t);
	vec_free(&t->rows);
}

void top_sort_by(struct top *t, enum top_sort sort)
{
	t->reverse = t->sort == sort && !t->reverse;
	t->sort = sort;
	order(t);
}

int top_selected(const struct top *t)
{
	for (size_t i = 0; i < t->rows.n; i++)
		if (t->rows.data[i]->s.pid == t->selected &&
		    t->rows.data[i]->session == t->selected_session)
			return (int)i;
	return t->rows.n ? 0 : -1;
}

struct top_row *top_row_selected(const struct top *t)
{
	int at = top_selected(t);

	return at < 0 ? NULL : t->rows.data[at];
}

void top_move(struct top *t, int by)
{
	int at = top_selected(t), last = (int)t->rows.n - 1;

	if (at < 0)
		return;
	at = by > last - at ? last : by < -at ? 0 : at + by;
	t->selected = t->rows.data[at]->s.pid;
	t->selected_session = t->rows.data[at]->session;
}

/* ---- lines ---- */

void top_clean(const char *text, char *out, size_t len)
{
	size_t i = 0;

	for (; text[i] && i + 1 < len; i++)
		out[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
	out[i] = 0;
}

void top_header(const struct top *t, char *out, size_t len)
{
	static const char *const names[] = {"RATE", "10s", "FAULT/s", "PID", "NAME"};
	char name[TOP_SORTS][16];

	for (size_t i = 0; i < TOP_SORTS; i++)
		snprintf(name[i], sizeof(name[i]), "%s%s", names[i],
			 i != t->sort ? ""
			 : t->reverse ? "^"
				      : "v");
	snprintf(out, len, "%7s %-15s %9s %7s %7s %7s %8s %5s %s", name[TOP_PID],
		 name[TOP_NAME], name[TOP_RATE], "WWS-1s", name[TOP_WWS], "60s",
		 name[TOP_FAULTS], "LOST", "SESSION");
}

void top_line(const struct top *t, const struct top_row *r, char *out, size_t len)
{
	const struct process_sample *s = &r->s;
	char name[16], wws[WINDOWS][16], rate[16], owner[16];

	top_clean(s->comm, name, sizeof(name));
	snprintf(owner, sizeof(owner), "%d", r->session);
	if (!r->index) {
		snprintf(out, len, "%7d %-15s %9s %7s %7s %7s %8s %5s %s", s->pid, name, "-",
			 "-", "-", "-", "-", "-", r->session ? owner : "own");
		return;
	}
	for (size_t i = 0; i < WINDOWS; i++)
		human_bytes((double)(s->wws_pages[i] * t->page_size), wws[i]);
	snprintf(out, len, "%7d %-15s %7s/s %7s %7s %7s %8s %5s %s%s", s->pid, name,
		 human_bytes(s->dirty_bytes_per_s, rate), wws[0], wws[1], wws[2],
		 human_count(s->interval_s > 0
				     ? (uint64_t)((double)s->faults / s->interval_s + 0.5)
				     : 0,
			     (char[32]){0}),
		 human_count(s->lost_events, (char[32]){0}), r->session ? owner : "own",
		 s->ended ? " ended" : "");
}
