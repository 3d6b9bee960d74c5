// SPDX-License-Identifier: GPL-2.0
#include "obs/touched.h"

#include <errno.h>
#include <string.h>

static int by_start(const void *a, const void *b)
{
	const struct touched_range *x = a, *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

void touched_compact(struct touched *t)
{
	size_t kept = 0;

	if (!t->ranges.data)
		return;
	if (t->ranges.n > t->compacted)
		qsort(t->ranges.data, t->ranges.n, sizeof(*t->ranges.data), by_start);
	for (size_t i = 0; i < t->ranges.n; i++) {
		struct touched_range now = t->ranges.data[i];
		struct touched_range *last = kept ? &t->ranges.data[kept - 1] : NULL;

		if (last && now.start <= last->end && now.name == last->name) {
			last->end = now.end > last->end ? now.end : last->end;
			continue;
		}
		if (last && now.start < last->end)
			now.start = last->end;
		if (now.start < now.end)
			t->ranges.data[kept++] = now;
	}
	t->ranges.n = t->compacted = kept;
}

int touched_add(struct touched *t, uint64_t start, uint64_t end, const char *name)
{
	struct touched_range *last = t->ranges.n ? &t->ranges.data[t->ranges.n - 1] : NULL;

	if (last && t->ranges.n > t->compacted && last->end == start && last->name == name) {
		last->end = end;
		return 0;
	}
	if (t->ranges.n > 4096 && t->ranges.n > 2 * t->compacted)
		touched_compact(t);
	last = vec_push(&t->ranges);
	if (!last)
		return fail(-ENOMEM, "written ranges");
	*last = (struct touched_range){start, end, name};
	return 0;
}

uint64_t touched_bytes(const struct touched *t)
{
	uint64_t sum = 0;

	vec_each (r, &t->ranges)
		sum += r->end - r->start;
	return sum;
}
