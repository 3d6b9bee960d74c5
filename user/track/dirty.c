// SPDX-License-Identifier: GPL-2.0
#include "track/dirty.h"

#include <errno.h>
#include <stdlib.h>

#include "base/page.h"

int dirty_append(struct dirty *d, uint64_t start, uint64_t end, enum dirty_what what)
{
	struct dirty_run *run = d->n ? &d->data[d->n - 1] : NULL;

	if (start >= end)
		return 0;
	if (run && run->end == start && run->what == what) {
		run->end = end;
		return 0;
	}
	run = vec_push(d);
	if (!run)
		return fail(-ENOMEM, "dirty set");
	*run = (struct dirty_run){.start = start, .end = end, .what = what};
	return 0;
}

/* The next piece of one list: cut at @from, up to the end of the run. */
struct cursor {
	const struct dirty *d;
	size_t i;
	uint64_t at;
};

static const struct dirty_run *cursor_run(struct cursor *c, uint64_t from)
{
	while (c->i < c->d->n && c->d->data[c->i].end <= from)
		c->i++;
	if (c->i == c->d->n)
		return NULL;
	c->at = c->d->data[c->i].start > from ? c->d->data[c->i].start : from;
	return &c->d->data[c->i];
}

int dirty_join(struct dirty *d, const struct dirty *more)
{
	struct dirty joined = {.epoch = more->epoch, .lost = d->lost + more->lost};
	struct cursor old = {.d = d}, new = {.d = more};
	uint64_t from = 0;
	int err = 0;

	while (!err) {
		const struct dirty_run *o = cursor_run(&old, from), *n = cursor_run(&new, from);
		uint64_t start, end;

		if (!o && !n)
			break;
		if (n && (!o || new.at <= old.at)) { /* later knowledge wins where both speak */
			start = new.at;
			end = n->end;
			err = dirty_append(&joined, start, end, n->what);
		} else {
			start = old.at;
			end = n && new.at < o->end ? new.at : o->end;
			err = dirty_append(&joined, start, end, o->what);
		}
		from = end;
	}
	if (err) {
		dirty_free(&joined);
		return err;
	}
	free(d->data);
	*d = joined;
	return 0;
}

int dirty_subtract(struct dirty *d, const struct dirty *less)
{
	struct dirty left = {.epoch = d->epoch, .lost = d->lost};
	size_t k = 0;
	int err = 0;

	for (size_t i = 0; i < d->n && !err; i++) {
		const struct dirty_run *r = &d->data[i];
		uint64_t from = r->start;

		while (k < less->n && less->data[k].end <= from)
			k++;
		for (size_t m = k; m < less->n && less->data[m].start < r->end && !err; m++) {
			err = dirty_append(&left, from, less->data[m].start, r->what);
			from = less->data[m].end;
		}
		if (!err)
			err = dirty_append(&left, from, r->end, r->what);
	}
	if (err) {
		dirty_free(&left);
		return err;
	}
	free(d->data);
	*d = left;
	return 0;
}

uint64_t dirty_pages(const struct dirty *d)
{
	return dirty_pages_in(d, 0, UINT64_MAX);
}

uint64_t dirty_pages_in(const struct dirty *d, uint64_t start, uint64_t end)
{
	size_t low = 0, high = d->n;
	uint64_t bytes = 0;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (d->data[mid].end <= start)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < d->n && d->data[low].start < end; low++) {
		const struct dirty_run *run = &d->data[low];

		bytes += (run->end < end ? run->end : end) -
			 (run->start > start ? run->start : start);
	}
	return bytes / page_size();
}

uint64_t dirty_common(const struct dirty *a, const struct dirty *b)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < a->n; i++)
		pages += dirty_pages_in(b, a->data[i].start, a->data[i].end);
	return pages;
}

void dirty_clear(struct dirty *d)
{
	d->n = 0;
	d->lost = 0;
}

void dirty_free(struct dirty *d)
{
	vec_free(d);
}
