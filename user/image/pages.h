/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Page files. A slot is a page in a page file, counted from 0 in the order of writing.
 *
 *     none:       | header block | slot 0 | slot 1 | ...        | trailer block | everything
 * page-aligned zstd, lz4:  | header block | chunk 0 | chunk 1 | ... | index | 0 .. | trailer |
 * slot s is in chunk s / chunk_pages
 *
 * Pages are named by XXH3's 128-bit hash. Two different pages with equal hash would need about
 * 2^64 pages by chance; 2^41 pages (8 PiB) make it 2^-47. Somebody who can write a job's memory
 * could construct one, and damages the images of that job only.
 */
#ifndef ICP_IMAGE_PAGES_H
#define ICP_IMAGE_PAGES_H

#include "image/ctl.h"
#include "image/store.h"

struct icp_hash page_hash(const void *data, size_t len);
bool page_is_zero(const void *data, size_t len); /* len: a multiple of 64 */

static inline bool hash_equal(const struct icp_hash *a, const struct icp_hash *b)
{
	return a->lo == b->lo && a->hi == b->hi;
}

/* ---- what has been stored in a version: shared by the threads that write it ---- */
struct dedup;
/* At most @max_pages are remembered (0: 1 M, 48 MiB); pages beyond are stored as they come. */
int dedup_new(size_t max_pages, struct dedup **out) _must_use_;
void dedup_free(struct dedup *d);
/* True and where when the page is stored already; else it is entered as being at (@stream,
 * @slot). */
bool dedup_find(struct dedup *d, const struct icp_hash *hash, uint32_t *stream, uint32_t *slot);

/* ---- writing ---- */
struct page_writer;

struct page_src {
	uint64_t page; /* page number: address / page size */
	const void *
		data; /* page_size bytes; need not stay after the call. Page-aligned and in one piece is fastest */
	const struct icp_hash
		*hash; /* page_digest() of it, if the caller has it; NULL: computed here */
};

/* What page_writer_put() would compute: the hash, or all zero for a zero page. For a caller with a thread to spare. */
struct icp_hash page_digest(const void *data, size_t len);

struct page_writer_config {
	uint32_t version, stream, page_size, generation;
	enum icp_codec codec;
	int level;	     /* of compression; 0: default */
	struct dedup *dedup; /* may be NULL; outlives the writer */
};

struct page_stats {
	uint64_t pages;	 /* given */
	uint64_t zero;	 /* of those: zero pages */
	uint64_t same;	 /* of those: what @ctl has already, which stays */
	uint64_t shared; /* of those: content already stored in this version */
	uint64_t stored;
	uint64_t
		stale; /* put again with other content in this version: the first copy is waste */
	uint64_t bytes; /* of the file so far */
};

/* Starts the file @name in @store. One thread at a time per writer. */
int page_writer_open(struct store *store, const char *name,
		     const struct page_writer_config *config,
		     struct page_writer **out) _must_use_;
/* Store @n pages and enter them into @ctl, unless it has the same content there (may be NULL: then nothing is left out). Batches of
 * 64 pages or more are best. */
int page_writer_put(struct page_writer *w, const struct page_src *src, size_t n,
		    struct ctl *ctl) _must_use_;
/* For prune: store one page as logical slot @slot (ascending); the file becomes sparse. */
int page_writer_put_slot(struct page_writer *w, const void *data, uint32_t slot) _must_use_;
uint32_t page_writer_stream(const struct page_writer *w);
const struct page_stats *page_writer_stats(const struct page_writer *w);
/* End and sync the file, free the writer whatever the result. @size and @hash: for the list of
 * files. */
int page_writer_finish(struct page_writer *w, uint64_t *size, struct icp_hash *hash) _must_use_;
void page_writer_cancel(struct page_writer *w);

/* ---- reading one file ---- */
struct page_file {
	struct store_obj *obj;
	uint32_t page_size, version, stream, codec, chunk_pages, generation;
	uint64_t slots; /* stored */
	uint64_t n_chunks;
	struct icp_chunk *chunks; /* NULL with codec NONE */
	uint32_t *map;		  /* NULL unless sparse */
	uint64_t index_offset, index_size;
	uint8_t *cache;	 /* one chunk, decompressed */
	uint64_t cached; /* its number; UINT64_MAX: none */
	uint8_t *packed; /* room for a compressed chunk */
};

/* Open and check header, trailer and index; -EBADMSG with a message for anything wrong. */
int page_file_open(struct store *store, const char *name, struct page_file **out) _must_use_;
/* The same on an object that is open already; it belongs to the page file then, also on
 * failure. */
int page_file_load(struct store_obj *obj, struct page_file **out) _must_use_;
void page_file_close(struct page_file *f);
/* Position of logical slot @slot, or -ENOENT (bare). */
int64_t page_file_slot(const struct page_file *f, uint32_t slot);
/* @n pages from position @at (< slots) into the buffers of @iov (each a multiple of the page
 * size). Not thread-safe. */
int page_file_read(struct page_file *f, uint64_t at, uint64_t n, void *buf) _must_use_;
/*
 * What the lists of files hold for a page file: XXH3-128 over the header block, the hash of
 * every page in order, and all bytes behind the pages (index to end). It names every byte of
 * the file, yet a page needs to be hashed only once when it is written. Bytes of compressed
 * chunks are covered by the checks in the index.
 * @page (may be NULL) is called for each stored page's hash, and a negative result ends it.
 */
int page_file_hash(struct page_file *f, struct icp_hash *out,
		   int (*page)(void *arg, uint64_t at, const struct icp_hash *hash),
		   void *arg) _must_use_;

static inline void cleanup_page_file(struct page_file **f)
{
	page_file_close(*f);
}
#define _cleanup_page_file_ _cleanup_(cleanup_page_file)
static inline void cleanup_page_writer(struct page_writer **w)
{
	page_writer_cancel(*w);
}
#define _cleanup_page_writer_ _cleanup_(cleanup_page_writer)

#endif
