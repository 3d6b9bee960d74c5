// SPDX-License-Identifier: GPL-2.0
#include "track/look.h"

/* How far from @at on, at most up to @end, pages were populated, or were not. */
static uint64_t stretch(struct look *l, uint64_t at, uint64_t end, bool *were)
{
	const struct dirty *b = l->before;
	const struct dirty_run *r;

	while (l->at < b->n && b->data[l->at].end <= at)
		l->at++;
	r = l->at < b->n ? &b->data[l->at] : NULL;
	*were = r && r->start <= at;
	if (!r)
		return end;
	at = *were ? r->end : r->start;
	return at < end ? at : end;
}

/* 0: nothing happened to them. */
static int kind_of(const struct look *l, unsigned what, bool were)
{
	if (!(what & LOOK_OWN)) {
		if (!were)
			return 0;
		/* The entry of shared memory was dropped; it may have been written before that. */
		return l->v->shared ? DIRTY_UNKNOWN : DIRTY_ZAPPED;
	}
	if (what & LOOK_WRITTEN)
		return were ? DIRTY_WRITTEN : DIRTY_NEW;
	if (what & LOOK_UNKNOWN)
		return DIRTY_UNKNOWN;
	/* Shared memory gets entries by reading. In private memory that is the huge zero page, which looks like any other. */
	return were || l->v->shared ? 0 : DIRTY_UNKNOWN;
}

int look_run(struct look *l, uint64_t start, uint64_t end, unsigned what)
{
	int err = what & LOOK_OWN && l->populated && start < end
			  ? dirty_append(l->populated, start, end, DIRTY_WRITTEN)
			  : 0;

	while (!err && l->found && start < end) {
		bool were;
		uint64_t to = stretch(l, start, end, &were);
		int kind = kind_of(l, what, were);

		if (kind)
			err = dirty_append(l->found, start, to, (enum dirty_what)kind);
		start = to;
	}
	return err;
}
