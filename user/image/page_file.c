// SPDX-License-Identifier: GPL-2.0
/* Reading one page file. Everything in it may be wrong. */
#include <errno.h>
#include <lz4.h>
#include <stddef.h>
#include <stdlib.h>
#include <zstd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "image/pages.h"

void page_file_close(struct page_file *f)
{
	if (!f)
		return;
	store_obj_close(f->obj);
	free(f->chunks);
	free(f->map);
	free(f->cache);
	free(f->packed);
	free(f);
}

static int read_header(struct page_file *f)
{
	struct icp_page_header h;
	int err;

	if (f->obj->size < sizeof(h))
		return refuse(-EBADMSG, "only %llu bytes", (unsigned long long)f->obj->size);
	err = store_read(f->obj, &h, sizeof(h), 0);
	if (err)
		return err;
	if (memcmp(h.magic, ICP_MAGIC_PAGES, sizeof(h.magic)))
		return refuse(-EBADMSG, "not a page file");
	if (h.check != XXH3_64bits(&h, offsetof(struct icp_page_header, check)))
		return refuse(-EBADMSG, "the header is damaged");
	if (h.format != ICP_FORMAT)
		return refuse(-EBADMSG, "format %u, this program knows %u", h.format,
			      ICP_FORMAT);
	if (!icp_page_size_valid(h.page_size) || h.codec > ICP_CODEC_LZ4 ||
	    h.chunk_pages != ICP_CHUNK_BYTES / h.page_size)
		return refuse(-EBADMSG, "the header makes no sense");
	f->page_size = h.page_size;
	f->version = h.version;
	f->stream = h.stream;
	f->codec = h.codec;
	f->chunk_pages = h.chunk_pages;
	f->generation = h.generation;
	return 0;
}

static int check_trailer(struct page_file *f, const struct icp_page_trailer *t)
{
	uint64_t size = f->obj->size, map = t->flags & ICP_PAGES_SPARSE ? t->slots * 4 : 0,
		 data;

	if (memcmp(t->magic, ICP_MAGIC_PAGES_END, sizeof(t->magic)) ||
	    t->check != XXH3_64bits(t, offsetof(struct icp_page_trailer, check)))
		return refuse(-EBADMSG, "the trailer is damaged");
	if (t->flags & ~ICP_PAGES_SPARSE || t->pad || t->slots > UINT32_MAX ||
	    t->chunks > t->slots)
		return refuse(-EBADMSG, "the trailer makes no sense");
	if (t->chunks != (f->codec ? (t->slots + f->chunk_pages - 1) / f->chunk_pages : 0))
		return refuse(-EBADMSG, "%llu chunks for %llu pages",
			      (unsigned long long)t->chunks, (unsigned long long)t->slots);
	if (t->index_size != t->chunks * sizeof(struct icp_chunk) + map ||
	    t->index_offset > size - sizeof(*t) ||
	    t->index_size > size - sizeof(*t) - t->index_offset)
		return refuse(-EBADMSG, "the index is out of range");
	data = f->codec ? f->page_size : f->page_size * (1 + t->slots);
	if (f->codec ? t->index_offset < data : t->index_offset != data)
		return refuse(-EBADMSG, "the pages are out of range");
	f->slots = t->slots;
	f->n_chunks = t->chunks;
	f->index_offset = t->index_offset;
	f->index_size = t->index_size;
	return 0;
}

static uint64_t pages_in(const struct page_file *f, uint64_t chunk)
{
	uint64_t left = f->slots - chunk * f->chunk_pages;

	return left < f->chunk_pages ? left : f->chunk_pages;
}

static int check_index(const struct page_file *f)
{
	uint64_t at = f->page_size;

	for (uint64_t i = 0; i < f->n_chunks; i++) {
		const struct icp_chunk *c = &f->chunks[i];
		uint64_t full = pages_in(f, i) * f->page_size;

		if (c->offset != at || !c->size || c->size > full ||
		    (c->codec ? c->codec != f->codec : c->size != full))
			return refuse(-EBADMSG, "chunk %llu is out of range",
				      (unsigned long long)i);
		at += c->size;
	}
	if (f->n_chunks && at != f->index_offset)
		return refuse(-EBADMSG, "the chunks do not end where the index begins");
	for (uint64_t i = 1; f->map && i < f->slots; i++) {
		if (f->map[i] <= f->map[i - 1])
			return refuse(-EBADMSG, "the map of slots is not in order");
	}
	return 0;
}

static int read_index(struct page_file *f, const struct icp_page_trailer *t)
{
	size_t chunks = f->n_chunks * sizeof(*f->chunks), map = f->index_size - chunks;
	XXH3_state_t *state = NULL;
	uint64_t check;
	int err = 0;

	f->chunks = chunks ? malloc(chunks) : NULL;
	f->map = map ? malloc(map) : NULL;
	if ((chunks && !f->chunks) || (map && !f->map))
		return fail(-ENOMEM, "read an index");
	if (chunks)
		err = store_read(f->obj, f->chunks, chunks, f->index_offset);
	if (!err && map)
		err = store_read(f->obj, f->map, map, f->index_offset + chunks);
	if (err)
		return err;
	state = XXH3_createState();
	if (!state)
		return fail(-ENOMEM, "read an index");
	XXH3_64bits_reset(state);
	if (chunks)
		XXH3_64bits_update(state, f->chunks, chunks);
	if (map)
		XXH3_64bits_update(state, f->map, map);
	check = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	if (check != t->index_check)
		return refuse(-EBADMSG, "the index is damaged");
	return check_index(f);
}

int page_file_load(struct store_obj *obj, struct page_file **out)
{
	_cleanup_page_file_ struct page_file *f = calloc(1, sizeof(*f));
	struct icp_page_trailer t;
	int err;

	if (!f) {
		store_obj_close(obj);
		return fail(-ENOMEM, "open a page file");
	}
	f->obj = obj;
	f->cached = UINT64_MAX;
	err = read_header(f);
	if (err)
		return err;
	if (obj->size < f->page_size + sizeof(t) || obj->size % f->page_size)
		return refuse(-EBADMSG, "%llu bytes are not what a page file can have",
			      (unsigned long long)obj->size);
	err = store_read(obj, &t, sizeof(t), obj->size - sizeof(t));
	if (!err)
		err = check_trailer(f, &t);
	if (!err)
		err = read_index(f, &t);
	if (err)
		return err;
	*out = take_ptr(f);
	return 0;
}

int page_file_open(struct store *store, const char *name, struct page_file **out)
{
	struct store_obj *obj;
	int err = store_open(store, name, &obj);

	if (err)
		return err;
	err = page_file_load(obj, out);
	return err ? wrap(err, "%s", name) : 0;
}

int64_t page_file_slot(const struct page_file *f, uint32_t slot)
{
	uint64_t low = 0, high = f->slots;

	if (!f->map)
		return slot < f->slots ? (int64_t)slot : -ENOENT;
	while (low < high) {
		uint64_t mid = low + (high - low) / 2;

		if (f->map[mid] < slot)
			low = mid + 1;
		else
			high = mid;
	}
	return low < f->slots && f->map[low] == slot ? (int64_t)low : -ENOENT;
}

/* Read and unpack a chunk to @to, which has room for all of it. */
static int unpack(struct page_file *f, uint64_t number, uint8_t *to)
{
	const struct icp_chunk *c = &f->chunks[number];
	size_t full = pages_in(f, number) * f->page_size, got;
	uint8_t *from = c->codec ? f->packed : to;
	int err = store_read(f->obj, from, c->size, c->offset), lz4;

	if (err)
		return err;
	if (XXH3_64bits(from, c->size) != c->check)
		return refuse(-EBADMSG, "chunk %llu is damaged", (unsigned long long)number);
	switch (c->codec) {
	case ICP_CODEC_NONE:
		return 0;
	case ICP_CODEC_ZSTD:
		got = ZSTD_decompress(to, full, from, c->size);
		break;
	default:
		lz4 = LZ4_decompress_safe((char *)from, (char *)to, (int)c->size, (int)full);
		got = lz4 < 0 ? 0 : (size_t)lz4;
	}
	return got == full ? 0
			   : refuse(-EBADMSG, "chunk %llu does not unpack",
				    (unsigned long long)number);
}

static int read_packed(struct page_file *f, uint64_t at, uint64_t n, uint8_t *to)
{
	if (!f->cache) {
		f->cache = malloc(ICP_CHUNK_BYTES);
		f->packed = f->packed ? f->packed : malloc(ICP_CHUNK_BYTES);
		if (!f->cache || !f->packed)
			return fail(-ENOMEM, "read pages");
	}
	while (n) {
		uint64_t chunk = at / f->chunk_pages, in = at % f->chunk_pages;
		uint64_t have = pages_in(f, chunk), take = have - in < n ? have - in : n;
		int err = 0;

		if (take == have && f->cached != chunk) {
			err = unpack(f, chunk, to);
		} else {
			if (f->cached != chunk) {
				f->cached = UINT64_MAX;
				err = unpack(f, chunk, f->cache);
				if (!err)
					f->cached = chunk;
			}
			if (!err)
				memcpy(to, f->cache + in * f->page_size, take * f->page_size);
		}
		if (err)
			return err;
		at += take;
		n -= take;
		to += take * f->page_size;
	}
	return 0;
}

int page_file_read(struct page_file *f, uint64_t at, uint64_t n, void *buf)
{
	if (at > f->slots || n > f->slots - at)
		return refuse(-EBADMSG, "page %llu of %llu is not there",
			      (unsigned long long)at, (unsigned long long)f->slots);
	if (f->codec)
		return read_packed(f, at, n, buf);
	return store_read(f->obj, buf, n * f->page_size, f->page_size * (1 + at));
}

static bool all_zero(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (p[i])
			return false;
	}
	return true;
}

/* What is before and behind the pages: hashed as it is, and its padding must be zeros. */
static int hash_rest(struct page_file *f, XXH3_state_t *state, uint8_t *buf, uint64_t from,
		     uint64_t to, uint64_t pad_from, uint64_t pad_to)
{
	while (from < to) {
		size_t len = to - from < ICP_CHUNK_BYTES ? to - from : ICP_CHUNK_BYTES;
		uint64_t a = pad_from > from ? pad_from : from;
		uint64_t b = pad_to < from + len ? pad_to : from + len;
		int err = store_read(f->obj, buf, len, from);

		if (err)
			return err;
		if (a < b && !all_zero(buf + (a - from), b - a))
			return refuse(-EBADMSG, "padding is not zero");
		XXH3_128bits_update(state, buf, len);
		from += len;
	}
	return 0;
}

static int hash_pages(struct page_file *f, XXH3_state_t *state, uint8_t *buf,
		      int (*page)(void *arg, uint64_t at, const struct icp_hash *hash),
		      void *arg)
{
	for (uint64_t at = 0; at < f->slots; at += f->chunk_pages) {
		uint64_t n = pages_in(f, at / f->chunk_pages);
		int err = page_file_read(f, at, n, buf);

		for (uint64_t i = 0; !err && i < n; i++) {
			struct icp_hash hash = page_hash(buf + i * f->page_size, f->page_size);

			XXH3_128bits_update(state, &hash, sizeof(hash));
			if (page)
				err = page(arg, at + i, &hash);
		}
		if (err)
			return err;
	}
	return 0;
}

int page_file_hash(struct page_file *f, struct icp_hash *out,
		   int (*page)(void *arg, uint64_t at, const struct icp_hash *hash), void *arg)
{
	uint64_t size = f->obj->size, index_end = f->index_offset + f->index_size;
	_cleanup_free_ uint8_t *buf = aligned_alloc(4096, ICP_CHUNK_BYTES);
	XXH3_state_t *state = XXH3_createState();
	XXH128_hash_t h;
	int err;

	if (!buf || !state) {
		XXH3_freeState(state);
		return fail(-ENOMEM, "hash a page file");
	}
	XXH3_128bits_reset(state);
	err = hash_rest(f, state, buf, 0, f->page_size, sizeof(struct icp_page_header),
			f->page_size);
	if (!err)
		err = hash_pages(f, state, buf, page, arg);
	if (!err)
		err = hash_rest(f, state, buf, f->index_offset, size, index_end,
				size - sizeof(struct icp_page_trailer));
	h = XXH3_128bits_digest(state);
	*out = (struct icp_hash){h.low64, h.high64};
	XXH3_freeState(state);
	return err;
}
