// SPDX-License-Identifier: GPL-2.0
#include "obs/flamegraph.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "obs/view.h"

#define WIDTH 1200.0
#define MARGIN 12.0
#define TOP 46.0
#define ROW 18.0
#define CHAR_WIDTH 6.7
#define NARROWEST 0.4 /* less can't be seen */

static uint32_t child_of(struct flamegraph *f, uint32_t parent, const char *name)
{
	struct flamegraph_node *node;
	uint32_t i;

	for (i = f->nodes.data[parent].child; i; i = f->nodes.data[i].next)
		if (f->nodes.data[i].name == name)
			return i;
	node = vec_push(&f->nodes);
	if (!node)
		return 0;
	i = (uint32_t)(f->nodes.n - 1);
	node->name = name;
	node->next = f->nodes.data[parent].child;
	f->nodes.data[parent].child = i;
	return i;
}

static int add(struct flamegraph *f, const char *const *functions, size_t n, uint64_t weight)
{
	uint32_t at = 0;

	if (!f->nodes.n && !vec_push(&f->nodes))
		return fail(-ENOMEM, "flame graph");
	f->samples++;
	f->nodes.data[0].weight += weight;
	while (n--) {
		at = child_of(f, at, functions[n]);
		if (!at)
			return fail(-ENOMEM, "flame graph");
		f->nodes.data[at].weight += weight;
	}
	return 0;
}

int flamegraph_add(struct flamegraph *f, const struct rec_stack *stack, uint64_t weight)
{
	return add(f, stack->functions, stack->n, weight);
}

int flamegraph_add_function(struct flamegraph *f, const char *function, uint64_t weight)
{
	return add(f, &function, 1, weight);
}

void flamegraph_free(struct flamegraph *f)
{
	vec_free(&f->nodes);
}

static unsigned depth_below(const struct flamegraph *f, uint32_t node)
{
	unsigned deepest = 0;

	for (uint32_t i = f->nodes.data[node].child; i; i = f->nodes.data[i].next) {
		unsigned depth = 1 + depth_below(f, i);

		deepest = depth > deepest ? depth : deepest;
	}
	return deepest;
}

void flamegraph_size(const struct flamegraph *f, double *width, double *height)
{
	*width = WIDTH;
	*height = TOP + ROW * (1 + (f->nodes.n ? depth_below(f, 0) : 0)) + MARGIN;
}

/* Warm, and always the same for the same name. */
static uint32_t colour_of(const char *name)
{
	uint32_t hash = 2166136261u;

	for (; *name; name++)
		hash = (hash ^ (uint8_t)*name) * 16777619u;
	return (225 + hash % 31) << 16 | (130 + (hash >> 8) % 85) << 8 |
	       (40 + (hash >> 16) % 50);
}

static void draw_box(struct canvas *c, const char *name, double x, double y, double width,
		     uint64_t weight, uint64_t all, const char *unit)
{
	char title[512], label[256];
	size_t fits = (size_t)((width - 4) / CHAR_WIDTH);

	snprintf(title, sizeof(title), "%s: %s %s, %.1f %%", name,
		 human_count(weight, (char[32]){0}), unit,
		 all ? 100.0 * (double)weight / (double)all : 0.0);
	canvas_group(c, title);
	canvas_rect(c, x, y, width - (width > 2 ? 0.5 : 0), ROW - 1, colour_of(name));
	if (width > 4 * CHAR_WIDTH && fits < sizeof(label)) {
		snprintf(label, fits + 1, "%s", name);
		if (strlen(name) > fits && fits > 2)
			memcpy(label + fits - 2, "..", 3);
		canvas_text(c, x + 3, y + 13, CANVAS_LEFT, 0x202020, label);
	} else if (width > 4 * CHAR_WIDTH) {
		canvas_text(c, x + 3, y + 13, CANVAS_LEFT, 0x202020, name);
	}
	canvas_end(c);
}

static int by_name(const void *a, const void *b)
{
	const struct flamegraph_node *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static int draw_node(const struct flamegraph *f, struct canvas *c,
		     const struct flamegraph_node *node, double x, double y, double width,
		     const char *unit)
{
	VEC(const struct flamegraph_node *) children = {0};
	uint64_t weight = node->weight;
	int err = 0;

	draw_box(c, node->name, x, y, width, weight, f->nodes.data[0].weight, unit);
	for (uint32_t i = node->child; i && !err; i = f->nodes.data[i].next) {
		const struct flamegraph_node **slot;

		if (vec_reserve(&children, children.n + 1)) {
			err = fail(-ENOMEM, "flame graph");
			break;
		}
		slot = &children.data[children.n++];
		*slot = &f->nodes.data[i];
	}
	if (children.n) /* by name, as is usual: time has no place in it */
		qsort(children.data, children.n, sizeof(*children.data), by_name);
	for (size_t i = 0; i < children.n && !err; i++) {
		double part =
			weight ? width * (double)children.data[i]->weight / (double)weight : 0;

		if (part >= NARROWEST)
			err = draw_node(f, c, children.data[i], x, y - ROW, part, unit);
		x += part;
	}
	vec_free(&children);
	return err;
}

int flamegraph_draw(const struct flamegraph *f, const char *title, const char *unit,
		    struct canvas *c)
{
	struct flamegraph_node root;
	double width, height;
	char line[128];

	flamegraph_size(f, &width, &height);
	canvas_text(c, MARGIN, 20, CANVAS_LEFT, 0x101010, title);
	if (!f->nodes.n || !f->nodes.data[0].weight) {
		canvas_text(c, MARGIN, 38, CANVAS_LEFT, 0x606060,
			    "no write faults were recorded");
		return 0;
	}
	snprintf(line, sizeof(line), "%s %s, from %s samples",
		 human_count(f->nodes.data[0].weight, (char[32]){0}), unit,
		 human_count(f->samples, (char[32]){0}));
	canvas_text(c, MARGIN, 38, CANVAS_LEFT, 0x606060, line);
	root = f->nodes.data[0];
	root.name = "all";
	return draw_node(f, c, &root, MARGIN, height - MARGIN - ROW, width - 2 * MARGIN, unit);
}
