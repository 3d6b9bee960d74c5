// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "image/ctl_impl.h"

#define __unused __attribute__((unused)) /* tree.h expects BSD's */
#include <bsd/sys/tree.h>

#define BITS 9
#define FAN (1u << BITS)
#define LEVELS 5 /* 45 bits: 57-bit addresses of 4 KiB pages */

struct leaf {
	struct ctl_entry entries[FAN];
	uint64_t changed[FAN / 64]; /* entries set since ctl_clean(); what to write is found
				       without reading the others */
	uint32_t used;
	bool any_changed;
};

/*
 * Leaves come from slabs of huge pages: filling a large structure takes 1/512 of the page
 * faults then, and a lookup anywhere in it seldom misses the TLB. Small structures do not get
 * one.
 */
#define SLAB (2u << 20)
#define FIRST_LEAVES 16 /* of a structure: each for itself */

struct slab {
	struct slab *next;
	uint32_t used;
	struct leaf leaves[];
};
#define SLAB_LEAVES ((SLAB - sizeof(struct slab)) / sizeof(struct leaf))

struct table { /* of level 1 (above leaves) to LEVELS - 1 */
	void *down[FAN];
	uint32_t used;
};

struct tree_node {
	RB_ENTRY(tree_node) link;
	uint64_t page;
	const struct ctl_entry *entry;
};
RB_HEAD(tree, tree_node);

static int compare(const struct tree_node *a, const struct tree_node *b)
{
	return a->page < b->page ? -1 : a->page > b->page;
}

/* clang-format off: it knows no macros that need no semicolon */
RB_GENERATE_STATIC(tree, tree_node, link, compare)
/* clang-format on */

struct index {
	struct tree root;
	struct tree_node *nodes;
	size_t n;
};

int ctl_new(uint32_t stream, uint32_t page_size, struct ctl **out)
{
	struct ctl *c;

	if (!icp_page_size_valid(page_size))
		return refuse(-EINVAL, "page size %u", page_size);
	c = calloc(1, sizeof(*c));
	if (!c)
		return fail(-ENOMEM, "make a control structure");
	c->stream = stream;
	c->page_size = page_size;
	c->max_memory = SIZE_MAX;
	*out = c;
	return 0;
}

static void free_below(void *node, int level)
{
	struct table *table = node;

	if (!node || !level) /* leaves: see free_leaves() */
		return;
	for (unsigned i = 0; i < FAN; i++)
		free_below(table->down[i], level - 1);
	free(node);
}

static void free_leaves(struct ctl *c)
{
	for (uint32_t i = 0; i < c->n_leaves && i < FIRST_LEAVES; i++)
		free(c->first_leaves[i]);
	for (struct slab *slab = c->slabs, *next; slab; slab = next) {
		next = slab->next;
		munmap(slab, SLAB);
	}
}

static struct leaf *new_slab_leaf(struct ctl *c)
{
	struct slab *slab = c->slabs;

	if (!slab || slab->used == SLAB_LEAVES) {
		uintptr_t at;

		/* twice the size, then cut to what is aligned */
		slab = mmap(NULL, 2 * SLAB, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (slab == MAP_FAILED)
			return NULL;
		at = ((uintptr_t)slab + SLAB - 1) & ~(uintptr_t)(SLAB - 1);
		if (at > (uintptr_t)slab)
			munmap(slab, at - (uintptr_t)slab);
		munmap((void *)(at + SLAB), (uintptr_t)slab + SLAB - at);
		slab = (struct slab *)at;
		madvise(slab, SLAB, MADV_HUGEPAGE);
		slab->next = c->slabs;
		c->slabs = slab;
	}
	return &slab->leaves[slab->used++];
}

/* Zeroed. */
static struct leaf *new_leaf(struct ctl *c)
{
	struct leaf *leaf =
		c->n_leaves < FIRST_LEAVES ? calloc(1, sizeof(*leaf)) : new_slab_leaf(c);

	if (leaf && c->n_leaves < FIRST_LEAVES)
		c->first_leaves[c->n_leaves] = leaf;
	c->n_leaves += leaf != NULL;
	return leaf;
}

static void drop_index(struct ctl *c)
{
	if (!c->index)
		return;
	c->memory -= c->index->n * sizeof(*c->index->nodes);
	free(c->index->nodes);
	free(c->index);
	c->index = NULL;
}

void ctl_free(struct ctl *c)
{
	if (!c)
		return;
	drop_index(c);
	free_below(c->root, LEVELS - 1);
	free_leaves(c);
	vec_free(&c->removed);
	free(c);
}

uint32_t ctl_stream(const struct ctl *c)
{
	return c->stream;
}

uint32_t ctl_page_size(const struct ctl *c)
{
	return c->page_size;
}

void ctl_move(struct ctl *c, uint32_t stream)
{
	c->stream = stream;
	c->version = 0;
	c->chain_cost = 0;
}

uint32_t ctl_version(const struct ctl *c)
{
	return c->version;
}

uint64_t ctl_pages(const struct ctl *c)
{
	return c->pages;
}

uint64_t ctl_zeros(const struct ctl *c)
{
	return c->zeros;
}

size_t ctl_memory(const struct ctl *c)
{
	return c->memory + sizeof(*c);
}

static unsigned slot_at(uint64_t page, int level)
{
	return (unsigned)(page >> (level * BITS)) & (FAN - 1);
}

static struct leaf *find_leaf(const struct ctl *c, uint64_t page)
{
	void *node = c->root;

	if (page >= CTL_PAGES_MAX)
		return NULL;
	for (int level = LEVELS - 1; node && level; level--)
		node = ((struct table *)node)->down[slot_at(page, level)];
	return node;
}

static int make_leaf(struct ctl *c, uint64_t page, struct leaf **out)
{
	struct table *above = NULL;
	void **at = &c->root;

	for (int level = LEVELS - 1;; level--) {
		if (!*at) {
			size_t size = level ? sizeof(struct table) : sizeof(struct leaf);

			if (c->memory + size > c->max_memory)
				return refuse(
					-E2BIG,
					"a control structure needs more than %zu MiB of memory",
					c->max_memory >> 20);
			*at = level ? calloc(1, size) : (void *)new_leaf(c);
			if (!*at)
				return fail(-ENOMEM, "grow a control structure");
			c->memory += size;
			if (above)
				above->used++;
		}
		if (!level)
			break;
		above = *at;
		at = &above->down[slot_at(page, level)];
	}
	*out = *at;
	return 0;
}

static void uncount(struct ctl *c, const struct ctl_entry *e)
{
	if (e->flags & CTL_ZERO)
		c->zeros--;
	else if (e->flags & CTL_PRESENT)
		c->pages--;
}

int ctl_put(struct ctl *c, uint64_t page, const struct ctl_entry *e, bool changed)
{
	struct leaf *leaf = NULL;
	struct ctl_entry *to;
	int err;

	if (page >= CTL_PAGES_MAX)
		return refuse(-ERANGE, "page %#llx is beyond what a control structure can hold",
			      (unsigned long long)page);
	if (c->last_leaf && c->last_page == page / FAN) {
		leaf = c->last_leaf;
	} else {
		err = make_leaf(c, page, &leaf);
		if (err)
			return err;
		c->last_leaf = leaf;
		c->last_page = page / FAN;
	}
	drop_index(c);
	to = &leaf->entries[page & (FAN - 1)];
	uncount(c, to);
	leaf->used += !to->flags;
	*to = *e;
	to->flags = CTL_PRESENT | (e->flags & CTL_ZERO);
	if (e->flags & CTL_ZERO) {
		to->hash = (struct icp_hash){0};
		to->version = to->stream = to->slot = 0;
		c->zeros++;
	} else {
		c->pages++;
	}
	if (changed) {
		leaf->changed[(page & (FAN - 1)) / 64] |= 1ull << (page % 64);
		leaf->any_changed = true;
	}
	return 0;
}

int ctl_set(struct ctl *c, uint64_t page, const struct ctl_entry *e)
{
	return ctl_put(c, page, e, true);
}

static int note_removed(struct ctl *c, uint64_t page, uint64_t n)
{
	struct ctl_range *last = c->removed.n ? &c->removed.data[c->removed.n - 1] : NULL;

	if (last && last->page + last->n == page) {
		last->n += n;
		return 0;
	}
	last = vec_push(&c->removed);
	if (!last)
		return fail(-ENOMEM, "grow a control structure");
	*last = (struct ctl_range){page, n};
	return 0;
}

int ctl_take_out(struct ctl *c, uint64_t page, uint64_t n, bool note)
{
	uint64_t end = page + n;

	if (end < page || end > CTL_PAGES_MAX)
		return refuse(-ERANGE,
			      "pages %#llx+%#llx are beyond what a control structure can hold",
			      (unsigned long long)page, (unsigned long long)n);
	drop_index(c);
	while (ctl_next(c, &page) && page < end) {
		struct leaf *leaf = find_leaf(c, page);
		uint64_t first = page;

		do {
			struct ctl_entry *e = &leaf->entries[page & (FAN - 1)];

			if (!e->flags)
				break;
			uncount(c, e);
			leaf->used--;
			*e = (struct ctl_entry){0};
			leaf->changed[(page & (FAN - 1)) / 64] &= ~(1ull << (page % 64));
			page++;
		} while (page < end && page & (FAN - 1));
		if (note) {
			int err = note_removed(c, first, page - first);

			if (err)
				return err;
		}
	}
	return 0;
}

int ctl_remove(struct ctl *c, uint64_t page, uint64_t n)
{
	return ctl_take_out(c, page, n, true);
}

/* The first leaf that holds something at or after *page, which is moved to where to look in it.
 */
static struct leaf *next_leaf(void *node, int level, uint64_t *page, bool changed)
{
	uint64_t span = 1ull << (level * BITS);

	if (!level) {
		struct leaf *leaf = node;

		return leaf->used && (!changed || leaf->any_changed) ? leaf : NULL;
	}
	for (unsigned i = slot_at(*page, level); i < FAN; i++) {
		void *down = ((struct table *)node)->down[i];
		uint64_t after = (*page & ~(span - 1)) + span;
		struct leaf *leaf = down ? next_leaf(down, level - 1, page, changed) : NULL;

		if (leaf)
			return leaf;
		*page = after;
	}
	return NULL;
}

static bool marked(const struct leaf *leaf, uint64_t page)
{
	return leaf->changed[(page & (FAN - 1)) / 64] >> (page % 64) & 1;
}

/* The next entry in this leaf at or after *page, which ends at the next leaf's first page if
 * there is none. */
static const struct ctl_entry *next_in_leaf(const struct leaf *leaf, uint64_t *page,
					    bool changed)
{
	do {
		const struct ctl_entry *e = &leaf->entries[*page & (FAN - 1)];

		if (changed) {
			uint64_t bits = leaf->changed[(*page & (FAN - 1)) / 64] >> (*page % 64);

			if (!bits) {
				*page = (*page | 63) + 1;
				continue;
			}
			*page += (unsigned)__builtin_ctzll(bits);
			return &leaf->entries[*page & (FAN - 1)];
		}
		if (e->flags)
			return e;
		++*page;
	} while (*page & (FAN - 1));
	return NULL;
}

const struct ctl_entry *ctl_next_entry(const struct ctl *c, uint64_t *page, bool changed)
{
	while (c->root && *page < CTL_PAGES_MAX) {
		struct leaf *leaf = next_leaf(c->root, LEVELS - 1, page, changed);
		const struct ctl_entry *e = leaf ? next_in_leaf(leaf, page, changed) : NULL;

		if (!leaf || e)
			return e;
	}
	return NULL;
}

const struct ctl_entry *ctl_next(const struct ctl *c, uint64_t *page)
{
	const struct leaf *leaf = find_leaf(c, *page);

	/* the usual case of a walk: the next one in the same leaf */
	if (leaf && leaf->entries[*page & (FAN - 1)].flags)
		return &leaf->entries[*page & (FAN - 1)];
	return ctl_next_entry(c, page, false);
}

int ctl_index(struct ctl *c)
{
	const struct ctl_entry *e;
	struct index *index;

	if (c->index)
		return 0;
	index = calloc(1, sizeof(*index));
	if (!index)
		return fail(-ENOMEM, "make a red-black tree");
	index->nodes = malloc((c->pages + c->zeros + 1) * sizeof(*index->nodes));
	if (!index->nodes) {
		free(index);
		return fail(-ENOMEM, "make a red-black tree");
	}
	RB_INIT(&index->root);
	for (uint64_t page = 0; (e = ctl_next(c, &page)); page++) {
		struct tree_node *node = &index->nodes[index->n++];

		node->page = page;
		node->entry = e;
		RB_INSERT(tree, &index->root, node);
	}
	c->index = index;
	c->memory += index->n * sizeof(*index->nodes);
	return 0;
}

const struct ctl_entry *ctl_find(const struct ctl *c, uint64_t page, enum ctl_lookup how)
{
	if (how == CTL_RBTREE) {
		struct tree_node key = {.page = page}, *node;

		node = c->index ? RB_FIND(tree, &c->index->root, &key) : NULL;
		return node ? node->entry : NULL;
	} else {
		const struct leaf *leaf = find_leaf(c, page);
		const struct ctl_entry *e = leaf ? &leaf->entries[page & (FAN - 1)] : NULL;

		return e && e->flags ? e : NULL;
	}
}

static bool continues(const struct ctl_entry *first, const struct ctl_entry *e, uint64_t n)
{
	if ((first->flags ^ e->flags) & CTL_ZERO)
		return false;
	return first->flags & CTL_ZERO ||
	       (e->version == first->version && e->stream == first->stream &&
		e->slot == first->slot + n);
}

bool ctl_run_from(const struct ctl *c, uint64_t page, uint64_t max, bool changed,
		  struct ctl_run *run)
{
	const struct ctl_entry *e = ctl_next_entry(c, &page, changed);
	const struct leaf *leaf;

	if (!e)
		return false;
	*run = (struct ctl_run){.page = page, .n = 1, .first = *e};
	leaf = find_leaf(c, page);
	while (run->n < max) {
		page++;
		if (!(page & (FAN - 1))) {
			leaf = find_leaf(c, page);
			if (!leaf)
				break;
		}
		e = &leaf->entries[page & (FAN - 1)];
		if (!e->flags || (changed && !marked(leaf, page)) ||
		    !continues(&run->first, e, run->n))
			break;
		run->n++;
	}
	return true;
}

bool ctl_next_run(const struct ctl *c, uint64_t page, uint64_t max, struct ctl_run *run)
{
	return ctl_run_from(c, page, max, false, run);
}

void ctl_clean(struct ctl *c, uint32_t version, const struct ctl_image *image)
{
	uint64_t page = 0;
	struct leaf *leaf;

	while (c->root && page < CTL_PAGES_MAX &&
	       (leaf = next_leaf(c->root, LEVELS - 1, &page, true))) {
		memset(leaf->changed, 0, sizeof(leaf->changed));
		leaf->any_changed = false;
		page = (page | (FAN - 1)) + 1;
	}
	c->removed.n = 0;
	c->version = version;
	c->chain_cost = image->header->chain_cost;
	c->full_size = image->header->full_size;
}
