/* SPDX-License-Identifier: GPL-2.0 */
/* Between ctl.c and ctl_file.c. */
#ifndef ICP_IMAGE_CTL_IMPL_H
#define ICP_IMAGE_CTL_IMPL_H

#include "image/ctl.h"

struct ctl_range {
	uint64_t page, n;
};

struct leaf;
struct slab;
struct index;

struct ctl {
	uint32_t stream, page_size;
	uint32_t version; /* the base of the next delta; 0: none */
	void *root;
	uint64_t pages, zeros;
	size_t memory, max_memory;
	uint64_t chain_cost, full_size; /* as in the header of that version */
	VEC(struct ctl_range) removed;	/* since ctl_clean(), in the order it happened */
	struct index *index;
	struct leaf *last_leaf; /* where the last entry went: entries mostly come in order */
	uint64_t last_page;
	struct slab *slabs;
	struct leaf *first_leaves[16];
	uint32_t n_leaves;
};

int ctl_put(struct ctl *c, uint64_t page, const struct ctl_entry *e, bool changed) _must_use_;
int ctl_take_out(struct ctl *c, uint64_t page, uint64_t n, bool note) _must_use_;
const struct ctl_entry *ctl_next_entry(const struct ctl *c, uint64_t *page, bool changed);
bool ctl_run_from(const struct ctl *c, uint64_t page, uint64_t max, bool changed,
		  struct ctl_run *run);

#endif
