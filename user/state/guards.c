// SPDX-License-Identifier: GPL-2.0
/*
 * Guard regions: pages that fault whatever the protection of their mapping says
 * (MADV_GUARD_INSTALL, Linux 6.13; /proc tells of them since 6.15). They are no mappings of their
 * own, so they are noted in the one that they are in.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/page.h"
#include "proc/pagemap.h"
#include "state/guards.h"
#include "state/kinds.h"

#define REGIONS 256
#define ADVISE_GUARD 102 /* MADV_GUARD_INSTALL */

int guards_read(const struct target *t, const struct maps *maps, struct guards *out)
{
	static const struct page_scan what = {.any_of = PG_GUARD, .return_mask = PG_GUARD};
	struct page_region regions[REGIONS];
	uint64_t at = maps->n ? maps->data[0].start : 0, end = at, next;

	vec_each (v, maps)
		if (v->end <= state_arch.task_size)
			end = v->end;
	while (at < end) { /* all mappings at once */
		long got = pagemap_scan(t->pagemap_fd, &what, at, end, regions, REGIONS, &next);

		if (got == -EINVAL) /* a kernel that has no such pages, or doesn't tell */
			return 0;
		if (got < 0)
			return fail((int)got, "look for guard pages");
		for (long i = 0; i < got; i++) {
			struct guard *g = vec_push(out);

			if (!g)
				return fail(-ENOMEM, "note guard pages");
			*g = (struct guard){regions[i].start, regions[i].end};
		}
		at = next > at ? next : end;
	}
	return 0;
}

int state_look_ahead(struct state_process *p, const struct maps *maps)
{
	guards_free(take_ptr(p->guards));
	p->guards = calloc(1, sizeof(*p->guards));
	return p->guards ? guards_read(p->target, maps, p->guards)
			 : fail(-ENOMEM, "note guard pages");
}

int guards_frozen(struct state_process *p, struct guards *out)
{
	if (!p->guards || !p->guards_good)
		return guards_read(p->target, &p->maps, out);
	*out = *p->guards;
	free(take_ptr(p->guards));
	return 0;
}

void guards_free(struct guards *g)
{
	if (g)
		vec_free(g);
	free(g);
}

static size_t first_in(const struct guards *g, uint64_t start)
{
	size_t low = 0, high = g->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (g->data[mid].end <= start)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* One may be said to reach over the mapping's ends, into its neighbours. */
int guards_fill(const struct guards *g, Icp__Vma *out)
{
	size_t first = first_in(g, out->start), n = 0;

	while (first + n < g->n && g->data[first + n].start < out->end)
		n++;
	if (!n)
		return 0;
	out->guards = calloc(2 * n, sizeof(*out->guards));
	if (!out->guards)
		return fail(-ENOMEM, "note guard pages");
	for (size_t i = first; i < first + n; i++) {
		uint64_t start = g->data[i].start, end = g->data[i].end;

		out->guards[out->n_guards++] = start > out->start ? start : out->start;
		out->guards[out->n_guards++] = end < out->end ? end : out->end;
	}
	return 0;
}

bool guards_sound(const Icp__Vma *v)
{
	uint64_t last = v->start;

	for (size_t i = 0; i < v->n_guards; i++) {
		if (v->guards[i] < last || v->guards[i] > v->end ||
		    v->guards[i] & (page_size() - 1))
			return false;
		last = v->guards[i];
	}
	return !(v->n_guards & 1);
}

int guards_restore(const Icp__Vma *v, struct batch *b)
{
	int err = 0;

	for (size_t i = 0; i + 1 < v->n_guards && !err; i += 2)
		err = batch_call(b, "install guard pages", SYS_madvise,
				 BATCH_ARGS(v->guards[i], v->guards[i + 1] - v->guards[i],
					    ADVISE_GUARD));
	return err;
}
