/* SPDX-License-Identifier: GPL-2.0 */
/* A tree of callers with what they weigh, drawn as a flame graph: who calls is below, who is called above. */
#ifndef ICP_OBS_FLAMEGRAPH_H
#define ICP_OBS_FLAMEGRAPH_H

#include <stdint.h>

#include "base/err.h"
#include "base/vec.h"
#include "obs/canvas.h"
#include "obs/rec.h"

struct flamegraph_node {
	const char *name;     /* borrowed; compared as a pointer */
	uint32_t child, next; /* numbers of nodes, 0: none */
	uint64_t weight;
};

struct flamegraph {
	VEC(struct flamegraph_node) nodes; /* the first is the root */
	uint64_t samples;
};

/* A stack, innermost first, that stands for @weight faults. */
int flamegraph_add(struct flamegraph *f, const struct rec_stack *stack,
		   uint64_t weight) _must_use_;
/* One function without callers. */
int flamegraph_add_function(struct flamegraph *f, const char *function,
			    uint64_t weight) _must_use_;
void flamegraph_free(struct flamegraph *f);

/* Width and height that flamegraph_draw() will use. */
void flamegraph_size(const struct flamegraph *f, double *width, double *height);
/* @title, @unit ("write faults"): shown. */
int flamegraph_draw(const struct flamegraph *f, const char *title, const char *unit,
		    struct canvas *c) _must_use_;

#endif
