// SPDX-License-Identifier: GPL-2.0
#include "track/ranges.h"

#include "track/tracker.h"

bool ranges_next(struct ranges *r)
{
	while (r->run < r->where->n && r->vma < r->maps->n) {
		const struct dirty_run *run = &r->where->data[r->run];
		const struct vma *v = &r->maps->data[r->vma];

		if (v->end <= run->start) {
			r->vma++;
			continue;
		}
		if (v->start >= run->end) {
			r->run++;
			continue;
		}
		r->v = v;
		r->start = run->start > v->start ? run->start : v->start;
		r->end = run->end < v->end ? run->end : v->end;
		/* whichever ends first is done with */
		if (v->end <= run->end)
			r->vma++;
		else
			r->run++;
		if (tracker_wants(v))
			return true;
	}
	return false;
}
