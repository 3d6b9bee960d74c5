/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The control structure of one stream: which page is where. Shaped like the page table it
 * mirrors, 9 bits a level:
 *
 *     page number  | 9 | 9 | 9 | 9 | 9 |      root -> ... -> leaf of 512 entries of 32 bytes
 * (one per 2 MiB at 4 KiB pages)
 *
 * Tables exist only where there are entries. Lookup is O(1) by address, iteration is
 * sequential. A page without an entry is not in the image: a hole, or clean file content.
 * Changes since the last ctl_clean() are remembered, so that writing a delta costs what
 * changed.
 *
 * Not thread-safe; readers may share it while nobody changes it.
 */
#ifndef ICP_IMAGE_CTL_H
#define ICP_IMAGE_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "base/err.h"
#include "base/vec.h"
#include "image/format.h"

enum ctl_lookup {
	CTL_DIRECT, /* walk the tables */
	CTL_RBTREE, /* a red-black tree over the same entries: ctl_index() builds it */
};

#define CTL_PRESENT 1u
#define CTL_ZERO 2u /* reads as zeros, no data anywhere */

struct ctl_entry {
	struct icp_hash hash; /* all zero with CTL_ZERO */
	uint32_t version;
	uint32_t stream;
	uint32_t slot;
	uint32_t flags;
};
_Static_assert(sizeof(struct ctl_entry) == 32, "ctl_entry");

struct ctl;

/* Page numbers are address / page size, below this. */
#define CTL_PAGES_MAX (1ull << 45)

/* An empty one, for @stream (see format.h). */
int ctl_new(uint32_t stream, uint32_t page_size, struct ctl **out) _must_use_;
void ctl_free(struct ctl *c);

static inline void cleanup_ctl(struct ctl **c)
{
	ctl_free(*c);
}
#define _cleanup_ctl_ _cleanup_(cleanup_ctl)

uint32_t ctl_stream(const struct ctl *c);
uint32_t ctl_page_size(const struct ctl *c);
uint32_t
ctl_version(const struct ctl *c); /* that it was read from or last committed as; 0: none yet */
uint64_t ctl_pages(const struct ctl *c); /* entries with data */
uint64_t ctl_zeros(const struct ctl *c); /* entries with CTL_ZERO */
size_t ctl_memory(const struct ctl *c);	 /* bytes of heap, tree included */

/* Enter or replace. @e->flags: 0 or CTL_ZERO. -ERANGE beyond CTL_PAGES_MAX. */
int ctl_set(struct ctl *c, uint64_t page, const struct ctl_entry *e) _must_use_;
/* Take the pages [page, page + n) out: unmapped, or dropped by MADV_DONTNEED (or set CTL_ZERO
 * for that). */
int ctl_remove(struct ctl *c, uint64_t page, uint64_t n) _must_use_;

/* From now on it is of @stream: its file will be a full one, the pages stay where they are. */
void ctl_move(struct ctl *c, uint32_t stream);

/* Build the red-black tree (dropped again by any change). */
int ctl_index(struct ctl *c) _must_use_;
/* The entry of a page or NULL. With CTL_RBTREE and no tree: NULL. */
const struct ctl_entry *ctl_find(const struct ctl *c, uint64_t page, enum ctl_lookup how);

/* The first entry at or after *@page in address order, whose number is put there; NULL: no
 * more. */
const struct ctl_entry *ctl_next(const struct ctl *c, uint64_t *page);

/* At most @max pages in a row, all zero or all in a row in one file. */
struct ctl_run {
	uint64_t page;
	uint64_t n;
	struct ctl_entry first; /* of its first page; slot counts up from there */
};
/* The next run at or after @page; start with 0 and go on with run->page + run->n. False: no
 * more. */
bool ctl_next_run(const struct ctl *c, uint64_t page, uint64_t max, struct ctl_run *run);

/* Where two structures differ by content (hash, zero or presence): runs of pages, ascending. */
enum ctl_change {
	CTL_ADDED = 1, /* only in the second */
	CTL_GONE,      /* only in the first */
	CTL_MODIFIED,
};
struct ctl_diff {
	uint64_t page, n;
	enum ctl_change what;
};
struct ctl_diffs {
	struct ctl_diff *data;
	size_t n, cap;
};
int ctl_compare(const struct ctl *from, const struct ctl *to, struct ctl_diffs *out) _must_use_;

/* ---- the file ---- */

struct ctl_image { /* a control file in memory: what ctl_encode() makes and ctl_parse() checks
		    */
	void *data;
	size_t size;
	const struct icp_ctl_header *header;
	const struct icp_ctl_run *runs;
	const struct icp_hash *hashes;
};
void ctl_image_free(struct ctl_image *i);
#define _cleanup_ctl_image_ _cleanup_(ctl_image_free)

/*
 * Encode @c as @version: the changes only, when it has a base and the chain of deltas is cheap
 * enough still, or everything (always with @full).
 */
int ctl_encode(const struct ctl *c, uint32_t version, bool full,
	       struct ctl_image *out) _must_use_;
/* It is committed as @version: nothing is changed any more. @image: what was written. */
void ctl_clean(struct ctl *c, uint32_t version, const struct ctl_image *image);

/*
 * Take @data (malloc'd, owned from now on also on failure) apart and check everything that can
 * be checked without other files. -EBADMSG with a message for anything wrong.
 */
int ctl_parse(void *data, size_t size, struct ctl_image *out) _must_use_;
/* Pages [page, end). */
struct ctl_part {
	uint64_t page, end;
};
/* Apply a parsed file: a full one to an empty structure, a delta to that of its base. Entries
 * may use at most
 * @max_memory bytes (0: half of this machine's): zero runs are much smaller on disk. */
int ctl_apply(struct ctl *c, const struct ctl_image *image, size_t max_memory) _must_use_;
/* The same without the pages of @n parts (ascending): for who wants few of very many. Such a structure
 * is good for reading only. */
int ctl_apply_rest(struct ctl *c, const struct ctl_image *image, const struct ctl_part *parts,
		   size_t n) _must_use_;

#endif
