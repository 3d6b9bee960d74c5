/* SPDX-License-Identifier: GPL-2.0 */
/* Guard regions, a part of "vmas". */
#ifndef ICP_STATE_GUARDS_H
#define ICP_STATE_GUARDS_H

#include "base/vec.h"
#include "inject/batch.h"
#include "state/state.h"

struct guard {
	uint64_t start, end; /* bytes */
};
struct guards { /* ascending */
	struct guard *data;
	size_t n, cap;
};

/* Walks all page tables. */
int guards_read(const struct target *t, const struct maps *maps, struct guards *out) _must_use_;
/* In the pause: what was read before it, where that is still good. */
int guards_frozen(struct state_process *p, struct guards *out) _must_use_;
void guards_free(struct guards *g);
/* Those in @out, whose start and end are set. */
int guards_fill(const struct guards *g, Icp__Vma *out) _must_use_;
/* Whether what an image says of them makes sense; put them back. */
bool guards_sound(const Icp__Vma *v);
int guards_restore(const Icp__Vma *v, struct batch *b) _must_use_;

#endif
