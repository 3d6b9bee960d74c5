// SPDX-License-Identifier: GPL-2.0
/* Writing page files. */
#include "image/pages.h"

#include <errno.h>
#include <limits.h>
#include <lz4.h>
#include <stddef.h>
#include <stdlib.h>
#include <zstd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* From this many new pages in one call on they are written from where they are; copying fewer
 * is cheaper than a call. */
#define DIRECT_PAGES 32

struct page_writer {
	struct store_put *put;
	struct page_writer_config config;
	uint32_t chunk_pages;
	struct page_stats stats;
	XXH3_state_t *hash;
	uint8_t *buf; /* one chunk of pages that are not written yet */
	uint32_t buffered;
	uint8_t *packed;
	size_t packed_size;
	ZSTD_CCtx *zstd;
	VEC(struct icp_chunk) chunks;
	VEC(uint32_t)
	map; /* logical slot of each stored one, only with page_writer_put_slot() */
};

static int emit(struct page_writer *w, const struct iovec *iov, int n)
{
	int err = store_put_write(w->put, iov, n);

	for (int i = 0; !err && i < n; i++)
		w->stats.bytes += iov[i].iov_len;
	return err;
}

static int emit_hashed(struct page_writer *w, const void *data, size_t len)
{
	struct iovec iov = {(void *)data, len};

	XXH3_128bits_update(w->hash, data, len);
	return emit(w, &iov, 1);
}

static int start(struct page_writer *w)
{
	const struct page_writer_config *c = &w->config;
	_cleanup_free_ uint8_t *block = calloc(1, c->page_size);
	struct icp_page_header h = {
		.format = ICP_FORMAT,
		.page_size = c->page_size,
		.version = c->version,
		.stream = c->stream,
		.codec = c->codec,
		.chunk_pages = w->chunk_pages,
		.generation = c->generation,
	};

	if (!block)
		return fail(-ENOMEM, "begin a page file");
	memcpy(h.magic, ICP_MAGIC_PAGES, sizeof(h.magic));
	h.check = XXH3_64bits(&h, offsetof(struct icp_page_header, check));
	memcpy(block, &h, sizeof(h));
	return emit_hashed(w, block, c->page_size);
}

int page_writer_open(struct store *store, const char *name,
		     const struct page_writer_config *config, struct page_writer **out)
{
	_cleanup_page_writer_ struct page_writer *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return fail(-ENOMEM, "begin %s", name);
	if (!icp_page_size_valid(config->page_size) || config->codec > ICP_CODEC_LZ4)
		return refuse(-EINVAL, "page size %u, codec %u", config->page_size,
			      config->codec);
	w->config = *config;
	w->chunk_pages = ICP_CHUNK_BYTES / config->page_size;
	w->packed_size = ICP_CHUNK_BYTES;
	w->hash = XXH3_createState();
	w->buf = aligned_alloc(config->page_size, ICP_CHUNK_BYTES);
	w->packed = malloc(w->packed_size);
	if (config->codec == ICP_CODEC_ZSTD)
		w->zstd = ZSTD_createCCtx();
	if (!w->hash || !w->buf || !w->packed || (config->codec == ICP_CODEC_ZSTD && !w->zstd))
		return fail(-ENOMEM, "begin %s", name);
	XXH3_128bits_reset(w->hash);
	err = store_put_open(store, name, &w->put);
	if (!err)
		err = start(w);
	if (!err)
		*out = take_ptr(w);
	return err;
}

/* 0: it would not get smaller. */
static size_t pack(struct page_writer *w, size_t len)
{
	int level = w->config.level;
	size_t got;
	int lz4;

	switch (w->config.codec) {
	case ICP_CODEC_ZSTD:
		got = ZSTD_compressCCtx(w->zstd, w->packed, len - 1, w->buf, len,
					level ? level : 1);
		return ZSTD_isError(got) ? 0 : got;
	case ICP_CODEC_LZ4:
		lz4 = LZ4_compress_fast((char *)w->buf, (char *)w->packed, (int)len,
					(int)len - 1, level ? level : 1);
		return lz4 > 0 ? (size_t)lz4 : 0;
	default:
		return 0;
	}
}

static int flush(struct page_writer *w)
{
	size_t len = (size_t)w->buffered * w->config.page_size, packed;
	struct iovec iov = {w->buf, len};
	struct icp_chunk *chunk;

	if (!len)
		return 0;
	w->buffered = 0;
	if (w->config.codec == ICP_CODEC_NONE)
		return emit(w, &iov, 1);
	packed = pack(w, len);
	if (packed)
		iov = (struct iovec){w->packed, packed};
	chunk = vec_push(&w->chunks);
	if (!chunk)
		return fail(-ENOMEM, "write pages");
	*chunk = (struct icp_chunk){
		.offset = w->stats.bytes,
		.size = (uint32_t)iov.iov_len,
		.codec = packed ? w->config.codec : ICP_CODEC_NONE,
		.check = XXH3_64bits(iov.iov_base, iov.iov_len),
	};
	return emit(w, &iov, 1);
}

static int buffer(struct page_writer *w, const void *data)
{
	memcpy(w->buf + (size_t)w->buffered * w->config.page_size, data, w->config.page_size);
	return ++w->buffered == w->chunk_pages ? flush(w) : 0;
}

/* @n new pages: from where they are when there are many and nothing has to be done to them. */
static int store_pages(struct page_writer *w, const void *const *data, size_t n)
{
	size_t page_size = w->config.page_size;
	struct iovec iov[IOV_MAX];
	int used = 0, err = 0;

	if (w->config.codec != ICP_CODEC_NONE || n < DIRECT_PAGES) {
		for (size_t i = 0; !err && i < n; i++)
			err = buffer(w, data[i]);
		return err;
	}
	err = flush(w);
	for (size_t i = 0; !err && i < n; i++) {
		struct iovec *last = used ? &iov[used - 1] : NULL;

		if (last && (const char *)last->iov_base + last->iov_len == data[i]) {
			last->iov_len += page_size;
			continue;
		}
		if (used == IOV_MAX) {
			err = emit(w, iov, used);
			used = 0;
		}
		iov[used++] = (struct iovec){(void *)data[i], page_size};
	}
	return err || !used ? err : emit(w, iov, used);
}

struct icp_hash page_digest(const void *data, size_t len)
{
	return page_is_zero(data, len) ? (struct icp_hash){0, 0} : page_hash(data, len);
}

/* What to do about one page. */
enum fate { KEEP, ENTER, STORE };

static enum fate enter(struct page_writer *w, const struct page_src *src, const struct ctl *ctl,
		       struct ctl_entry *e)
{
	const struct ctl_entry *old = ctl ? ctl_find(ctl, src->page, CTL_DIRECT) : NULL;
	uint32_t page_size = w->config.page_size;

	w->stats.pages++;
	*e = (struct ctl_entry){.version = w->config.version};
	e->hash = src->hash ? *src->hash : page_digest(src->data, page_size);
	if (!e->hash.lo && !e->hash.hi) {
		e->flags = CTL_ZERO;
		if (old && (old->flags & CTL_ZERO)) {
			w->stats.same++;
			return KEEP;
		}
		w->stats.zero++;
		return ENTER;
	}
	if (old && !(old->flags & CTL_ZERO) && hash_equal(&old->hash, &e->hash)) {
		w->stats.same++;
		return KEEP;
	}
	if (old && old->version == w->config.version && !(old->flags & CTL_ZERO))
		w->stats.stale++;
	e->stream = w->config.stream;
	e->slot = (uint32_t)w->stats.stored;
	if (w->config.dedup && dedup_find(w->config.dedup, &e->hash, &e->stream, &e->slot)) {
		w->stats.shared++;
		return ENTER;
	}
	XXH3_128bits_update(w->hash, &e->hash, sizeof(e->hash));
	w->stats.stored++;
	return STORE;
}

int page_writer_put(struct page_writer *w, const struct page_src *src, size_t n,
		    struct ctl *ctl)
{
	const void *fresh[512];
	size_t used = 0;
	int err = 0;

	for (size_t i = 0; i < n && !err; i++) {
		struct ctl_entry e;
		enum fate fate;

		if (w->stats.stored == UINT32_MAX)
			return refuse(-EFBIG, "more pages than a page file can hold");
		fate = enter(w, &src[i], ctl, &e);
		if (fate == STORE)
			fresh[used++] = src[i].data;
		if (ctl && fate != KEEP)
			err = ctl_set(ctl, src[i].page, &e);
		if (!err && used == sizeof(fresh) / sizeof(*fresh)) {
			err = store_pages(w, fresh, used);
			used = 0;
		}
	}
	return err ? err : store_pages(w, fresh, used);
}

int page_writer_put_slot(struct page_writer *w, const void *data, uint32_t slot)
{
	struct icp_hash hash = page_hash(data, w->config.page_size);
	uint32_t *to = vec_push(&w->map);

	if (!to)
		return fail(-ENOMEM, "write pages");
	*to = slot;
	XXH3_128bits_update(w->hash, &hash, sizeof(hash));
	w->stats.pages++;
	w->stats.stored++;
	return buffer(w, data);
}

uint32_t page_writer_stream(const struct page_writer *w)
{
	return w->config.stream;
}

const struct page_stats *page_writer_stats(const struct page_writer *w)
{
	return &w->stats;
}

/* Index and trailer; the file ends at a multiple of the page size. */
static int finish(struct page_writer *w)
{
	size_t chunks = w->chunks.n * sizeof(*w->chunks.data),
	       map = w->map.n * sizeof(*w->map.data);
	size_t page_size = w->config.page_size,
	       len = chunks + map + sizeof(struct icp_page_trailer);
	struct icp_page_trailer t;
	_cleanup_free_ uint8_t *tail = NULL;
	uint64_t end;

	end = (w->stats.bytes + len + page_size - 1) / page_size * page_size;
	len = end - w->stats.bytes;
	tail = calloc(1, len);
	if (!tail)
		return fail(-ENOMEM, "end a page file");
	if (chunks)
		memcpy(tail, w->chunks.data, chunks);
	if (map)
		memcpy(tail + chunks, w->map.data, map);
	t = (struct icp_page_trailer){
		.slots = w->stats.stored,
		.chunks = w->chunks.n,
		.index_offset = w->stats.bytes,
		.index_size = chunks + map,
		.index_check = XXH3_64bits(tail, chunks + map),
		.flags = w->map.n ? ICP_PAGES_SPARSE : 0,
	};
	memcpy(t.magic, ICP_MAGIC_PAGES_END, sizeof(t.magic));
	t.check = XXH3_64bits(&t, offsetof(struct icp_page_trailer, check));
	memcpy(tail + len - sizeof(t), &t,
	       sizeof(t)); /* compressed chunks end anywhere: not aligned */
	return emit_hashed(w, tail, len);
}

int page_writer_finish(struct page_writer *writer, uint64_t *size, struct icp_hash *hash)
{
	_cleanup_page_writer_ struct page_writer *w = writer;
	XXH128_hash_t h;
	int err;

	err = flush(w);
	if (!err)
		err = finish(w);
	if (!err)
		err = store_put_finish(take_ptr(w->put));
	h = XXH3_128bits_digest(w->hash);
	*hash = (struct icp_hash){h.low64, h.high64};
	*size = w->stats.bytes;
	return err;
}

void page_writer_cancel(struct page_writer *w)
{
	if (!w)
		return;
	store_put_cancel(w->put);
	XXH3_freeState(w->hash);
	ZSTD_freeCCtx(w->zstd);
	free(w->buf);
	free(w->packed);
	vec_free(&w->chunks);
	vec_free(&w->map);
	free(w);
}
