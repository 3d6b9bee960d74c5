// SPDX-License-Identifier: GPL-2.0
#include "serve/flame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NODES_MAX 4096u
#define NAMES_MAX (128u << 10) /* bytes */
#define TABLE 8192u	       /* slots: twice as many as there can be names */
#define NO_NAME UINT32_MAX
#define DEPTH_MAX 64

void flame_clear(struct flame *f)
{
	vec_free(&f->nodes);
	vec_free(&f->names);
	vec_free(&f->table);
	f->n_names = 0;
	f->stacks = 0;
}

static int begin(struct flame *f)
{
	if (f->nodes.n)
		return 0;
	if (vec_reserve(&f->table, TABLE))
		return -ENOMEM;
	memset(f->table.data, 0, TABLE * sizeof(f->table.data[0]));
	f->table.n = TABLE;
	/* offset 0 is the empty name of the root */
	return vec_push(&f->names) && vec_push(&f->nodes) ? 0 : -ENOMEM;
}

/* NO_NAME: no room. */
static uint32_t intern(struct flame *f, const char *name)
{
	size_t len = strlen(name) + 1;
	uint64_t hash = 14695981039346656037ull;
	uint32_t *slot;

	for (const char *c = name; *c; c++)
		hash = (hash ^ (unsigned char)*c) * 1099511628211ull;
	for (size_t i = hash;; i++) {
		slot = &f->table.data[i % TABLE];
		if (!*slot)
			break;
		if (!strcmp(f->names.data + *slot, name))
			return *slot;
	}
	if (f->n_names >= TABLE / 2 || f->names.n + len > NAMES_MAX ||
	    vec_reserve(&f->names, f->names.n + len))
		return NO_NAME;
	*slot = (uint32_t)f->names.n;
	memcpy(f->names.data + f->names.n, name, len);
	f->names.n += len;
	f->n_names++;
	return *slot;
}

/* The child of @at by that name, new if need be; 0: no room. */
static uint32_t child(struct flame *f, uint32_t at, const char *text)
{
	uint32_t name = intern(f, text), i;
	struct flame_node *node;

	if (name == NO_NAME)
		return 0;
	for (i = f->nodes.data[at].first; i; i = f->nodes.data[i].next)
		if (f->nodes.data[i].name == name)
			return i;
	node = f->nodes.n < NODES_MAX ? vec_push(&f->nodes) : NULL;
	if (!node)
		return 0;
	i = (uint32_t)f->nodes.n - 1;
	node->name = name;
	node->next = f->nodes.data[at].first;
	f->nodes.data[at].first = i;
	return i;
}

int flame_add(struct flame *f, const char *const *names, size_t n, uint64_t weight)
{
	uint32_t at = 0;

	if (begin(f))
		return fail(-ENOMEM, "flame graph");
	f->stacks++;
	f->nodes.data[0].value += weight;
	for (size_t i = 0; i < n; i++) {
		at = child(f, at, names[i]);
		if (!at)
			break;
		f->nodes.data[at].value += weight;
	}
	return 0;
}

/* What ends in @at itself is not its children's. */
static int join_below(struct flame *to, const struct flame *from, uint32_t at,
		      const char **names, size_t depth)
{
	const struct flame_node *node = &from->nodes.data[at];
	uint64_t own = node->value;
	int err = 0;

	for (uint32_t i = node->first; !err && i; i = from->nodes.data[i].next) {
		own -= from->nodes.data[i].value;
		if (depth == DEPTH_MAX)
			continue;
		names[depth] = flame_name(from, &from->nodes.data[i]);
		err = join_below(to, from, i, names, depth + 1);
	}
	return err || !own ? err : flame_add(to, names, depth, own);
}

int flame_join(struct flame *to, const struct flame *from)
{
	const char *names[DEPTH_MAX];
	uint64_t stacks = to->stacks + from->stacks;
	int err = from->nodes.n ? join_below(to, from, 0, names, 0) : 0;

	to->stacks = stacks;
	return err;
}
