/* SPDX-License-Identifier: GPL-2.0 */
/* A tree of call stacks by function name, with a weight each. Plain data, bounded: what does not fit counts at the caller that does. */
#ifndef ICP_SERVE_FLAME_H
#define ICP_SERVE_FLAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/vec.h"

struct flame_node {
	uint32_t name;	      /* offset in the names */
	uint32_t first, next; /* child, sibling; 0: none */
	uint64_t value;	      /* with its children's */
};

struct flame {
	VEC(struct flame_node) nodes; /* [0] is the root */
	VEC(char) names;
	VEC(uint32_t) table; /* of names: open addressing, 0: free */
	size_t n_names;
	uint64_t stacks; /* that were added */
};

/* An empty tree has no nodes. */
void flame_clear(struct flame *f);
/* @names: @n of them, outermost first. -ENOMEM. */
int flame_add(struct flame *f, const char *const *names, size_t n, uint64_t weight) _must_use_;
/* Join @from into @to. */
int flame_join(struct flame *to, const struct flame *from) _must_use_;

static inline const char *flame_name(const struct flame *f, const struct flame_node *node)
{
	return f->names.data + node->name;
}

#endif
