// SPDX-License-Identifier: GPL-2.0
#include "track/pins.h"

static int add_range(const struct maps *maps, const struct pinned_range *r, struct dirty *out)
{
	_cleanup_(dirty_free) struct dirty one = {0};
	int err = 0;

	vec_each (v, maps) {
		uint64_t start = r->start > v->start ? r->start : v->start,
			 end = r->end < v->end ? r->end : v->end;

		if (!err && start < end && tracker_wants(v))
			err = dirty_append(&one, start, end, DIRTY_UNKNOWN);
	}
	return err || !one.n ? err : dirty_join(out, &one);
}

int pins_add(const struct target *target, struct pinned *before, const struct maps *maps,
	     struct pinned *now, struct dirty *out)
{
	_cleanup_(dirty_free) struct dirty all = {.lost = out->lost};
	uint64_t epoch = out->epoch;
	struct dirty joined;
	int err = pinned_read(target, now);

	vec_each (r, before)
		if (!err)
			err = add_range(maps, r, &all);
	vec_each (r, now)
		if (!err)
			err = add_range(maps, r, &all);
	vec_free(before);
	*before = *now;
	*now = (struct pinned){0};
	if (err || !all.n)
		return err;
	err = dirty_join(&all, out);
	if (err)
		return err;
	joined = all;
	joined.epoch = epoch;
	all = *out;
	*out = joined;
	return 0;
}

void pins_free(struct pinned *p)
{
	vec_free(p);
}
