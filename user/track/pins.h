/* SPDX-License-Identifier: GPL-2.0 */
/* Pinned memory in dirty sets: whatever a backend looks at, devices write past it. */
#ifndef ICP_TRACK_PINS_H
#define ICP_TRACK_PINS_H

#include "proc/maps.h"
#include "proc/pinned.h"
#include "track/dirty.h"
#include "track/tracker.h"

/*
 * What is pinned may be written at any time without a fault: it is dirty while it is, and once more after it was
 * given back, because it may have been written until then. @now: as of before the look at the page tables; it is moved to @before.
 */
int pins_add(const struct target *target, struct pinned *before, const struct maps *maps,
	     struct pinned *now, struct dirty *out) _must_use_;
void pins_free(struct pinned *p);

#endif
