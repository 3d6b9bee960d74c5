// SPDX-License-Identifier: GPL-2.0
/* Page files, from a store in memory. */
#include <errno.h>
#include <xxhash.h>

#include "image/pages.h"
#include "seed.h"
#include "lib/scratch.h"

struct mem_obj {
	struct store_obj base;
	const uint8_t *data;
};

static int mem_read(struct store_obj *obj, const struct iovec *iov, int n, uint64_t at)
{
	struct mem_obj *o = (struct mem_obj *)obj;

	for (int i = 0; i < n; i++) {
		if (at > obj->size || iov[i].iov_len > obj->size - at)
			return -ENODATA;
		memcpy(iov[i].iov_base, o->data + at, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	return 0;
}

static void mem_close(struct store_obj *o)
{
	free(o);
}

static const struct store_ops mem_ops = {
	.name = "memory", .read = mem_read, .obj_close = mem_close};
static struct store mem_store = {&mem_ops};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char dir[SCRATCH_MAX];
	struct store *store;

	if (!getenv("FUZZ_SEED_DIR"))
		return 0;
	if (!mkdtemp(scratch(dir, "fuzz")) || store_dir_open(dir, true, &store))
		abort();
	for (unsigned i = 0; i < 6; i++) {
		struct page_writer_config config = {
			.version = 1, .stream = 42, .page_size = 4096, .codec = i % 3};
		struct page_writer *w;
		struct icp_hash hash;
		uint8_t page[4096];
		uint64_t size;
		size_t len;
		void *data;

		if (page_writer_open(store, "f", &config, &w))
			abort();
		for (unsigned k = 0; k < 3; k++) {
			memset(page, (int)(k + 1), sizeof(page));
			if (i < 3 ? page_writer_put(w, &(struct page_src){k, page, NULL}, 1,
						    NULL)
				  : page_writer_put_slot(w, page, k * 5))
				abort();
		}
		if (page_writer_finish(w, &size, &hash) ||
		    store_load(store, "f", 1 << 20, &data, &len))
			abort();
		seed_write((char[]){(char)('0' + i), 0}, data, len);
		free(data);
		if (store_remove(store, "f"))
			abort();
	}
	store_close(store);
	rmdir(dir);
	return 0;
}

/* Make the checks of header, index and trailer right. */
static void mend(uint8_t *data, size_t size)
{
	struct icp_page_header *h = (void *)data;
	struct icp_page_trailer *t;

	if (size < sizeof(*h) + sizeof(*t))
		return;
	h->check = XXH3_64bits(h, offsetof(struct icp_page_header, check));
	t = (void *)(data + (size & ~7ull) - sizeof(*t));
	if (size % 8)
		return;
	const struct icp_page_trailer was = *t; /* the index may lie over the trailer */

	if (was.index_offset < size && was.index_size < size - was.index_offset) {
		uint8_t *index = data + was.index_offset;

		for (uint64_t i = 0;
		     i < was.chunks && i < was.index_size / sizeof(struct icp_chunk); i++) {
			struct icp_chunk chunk;

			memcpy(&chunk, index + i * sizeof(chunk), sizeof(chunk));
			if (chunk.offset < size && chunk.size < size - chunk.offset)
				chunk.check = XXH3_64bits(data + chunk.offset, chunk.size);
			memcpy(index + i * sizeof(chunk), &chunk, sizeof(chunk));
		}
		t->index_check = XXH3_64bits(index, was.index_size);
	}
	t->check = XXH3_64bits(t, offsetof(struct icp_page_trailer, check));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t buf[ICP_CHUNK_BYTES];
	uint8_t *copy = aligned_alloc(64, (size + 64) & ~63ull);
	struct mem_obj *obj = calloc(1, sizeof(*obj));
	struct page_file *f;
	struct icp_hash hash;

	memcpy(copy, data, size);
	mend(copy, size);
	*obj = (struct mem_obj){{&mem_store, size}, copy};
	if (!page_file_load(&obj->base, &f)) {
		for (uint32_t slot = 0; slot < 20; slot++) {
			int64_t at = page_file_slot(f, slot);

			if (at >= 0 && !page_file_read(f, (uint64_t)at, 1, buf))
				hash = page_hash(buf, f->page_size);
		}
		if (!page_file_hash(f, &hash, NULL, NULL) && f->slots > size * 4096)
			abort(); /* no codec packs that well */
		page_file_close(f);
	}
	free(copy);
	return 0;
}
