// SPDX-License-Identifier: GPL-2.0
/* What every store must do, shown on the directory; page files; the table of page hashes from
 * two threads. */
#include "image_test.h"

#include <pthread.h>

static struct store *open_store(struct model *m)
{
	struct store *s;

	model_init(m, 3);
	model_must(store_dir_open(m->dir, false, &s));
	return s;
}

static void test_objects(void **state)
{
	struct store_put *put;
	struct model m;
	struct store *s = open_store(&m);
	struct store_list list = {0};
	struct store_obj *obj;
	struct iovec iov[2000];
	char *big = malloc(2000 * 100), *back;
	size_t len;
	void *data;

	for (size_t i = 0; i < 2000 * 100; i++)
		big[i] = (char)(i * 7 / 3);
	for (size_t i = 0; i < 2000; i++) /* more than one call takes */
		iov[i] = (struct iovec){big + i * 100, 100};
	model_must(store_make_prefix(s, "a"));
	model_must(store_make_prefix(s, "a"));
	model_must(store_put_open(s, "a/one", &put));
	model_must(store_put_write(put, iov, 2000));
	model_must(store_put_write(put, iov, 3));
	model_must(store_put_finish(put));
	assert_int_equal(store_put_open(s, "a/one", &put), -EEXIST);
	model_must(store_load(s, "a/one", 1 << 20, &data, &len));
	assert_int_equal(len, 200300);
	assert_memory_equal(data, big, 200000);
	assert_memory_equal((char *)data + 200000, big, 300);
	free(data);
	assert_int_equal(store_load(s, "a/one", 100, &data, &len), -EFBIG);
	/* scattered reads, and past the end */
	model_must(store_open(s, "a/one", &obj));
	back = calloc(1, 200000);
	for (size_t i = 0; i < 2000; i++)
		iov[i].iov_base = back + i * 100;
	model_must(store_readv(obj, iov, 2000, 0));
	assert_memory_equal(back, big, 200000);
	assert_int_equal(store_readv(obj, iov, 2000, 301), -ENODATA);
	assert_int_equal(store_read(obj, back, 1, 200300), -ENODATA);
	store_obj_close(obj);
	/* records: whole, once */
	model_must(store_create(s, "a/record", "yes", 3));
	assert_int_equal(store_create(s, "a/record", "no!", 3), -EEXIST);
	model_must(store_load(s, "a/record", 10, &data, &len));
	assert_int_equal(len, 3);
	assert_memory_equal(data, "yes", 3);
	free(data);
	/* what is given up is not there */
	model_must(store_put_open(s, "a/two", &put));
	store_put_cancel(put);
	assert_int_equal(store_open(s, "a/two", &obj), -ENOENT);
	model_must(store_list(s, "a", &list));
	assert_int_equal(list.n, 2);
	vec_free(&list);
	assert_int_equal(store_list(s, "b", &list), -ENOENT);
	model_must(store_sync(s, "a"));
	model_must(store_remove(s, "a/one"));
	model_must(store_remove(s, "a/one"));
	model_must(store_remove(s, "a/record"));
	model_must(store_remove_prefix(s, "a"));
	model_must(store_remove_prefix(s, "a"));
	free(big);
	free(back);
	store_close(s);
	model_fini(&m);
}

static void test_no_links(void **state)
{
	char path[200];
	struct store_obj *obj;
	struct model m;
	struct store *s = open_store(&m);

	snprintf(path, sizeof(path), "%s/link", m.dir);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	assert_int_equal(store_open(s, "link", &obj), -ELOOP);
	snprintf(path, sizeof(path), "%s/pipe", m.dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(store_open(s, "pipe", &obj), -EBADMSG);
	store_close(s);
	model_fini(&m);
}

/* Every page size and codec, batches of all sizes, a sparse file. */
static void page_file(struct store *s, uint32_t page_size, enum icp_codec codec, unsigned pages,
		      bool sparse)
{
	struct page_writer_config config = {
		.version = 3, .stream = 42, .page_size = page_size, .codec = codec};
	uint8_t *mem = aligned_alloc(page_size, (size_t)page_size * (pages + 1)),
		*buf = malloc((size_t)page_size * (pages + 1));
	struct page_src *src = calloc(pages + 1, sizeof(*src));
	struct icp_hash hash, again;
	struct page_writer *w;
	struct page_file *f;
	uint64_t size, rng = page_size + pages;

	for (size_t i = 0; i < (size_t)page_size * pages; i++)
		mem[i] = (uint8_t)(i % page_size < 1000 ? next_random(&rng) : 3);
	for (unsigned i = 0; i < pages; i++)
		src[i] = (struct page_src){i, mem + (size_t)i * page_size, NULL};
	model_must(page_writer_open(s, "f", &config, &w));
	for (unsigned i = 0, n; i < pages; i += n) {
		n = sparse ? 1 : 1 + (unsigned)(next_random(&rng) % 90);
		n = n < pages - i ? n : pages - i;
		model_must(sparse ? page_writer_put_slot(w, src[i].data, i * 3 + 1)
				  : page_writer_put(w, src + i, n, NULL));
	}
	model_must(page_writer_finish(w, &size, &hash));
	model_must(page_file_open(s, "f", &f));
	assert_int_equal(f->slots, pages);
	assert_int_equal(f->obj->size, size);
	assert_int_equal(size % page_size, 0);
	assert_int_equal(page_file_slot(f, sparse ? pages * 3 : pages), -ENOENT);
	assert_int_equal(page_file_slot(f, 0), sparse || !pages ? -ENOENT : 0);
	model_must(page_file_read(f, 0, pages, buf));
	assert_memory_equal(buf, mem, (size_t)page_size * pages);
	for (unsigned i = 0; i < pages * 2; i++) {
		unsigned at = (unsigned)(next_random(&rng) % pages),
			 n = 1 + (unsigned)(next_random(&rng) % (pages - at));

		n = n < 9 ? n : 9;
		if (sparse)
			assert_int_equal(page_file_slot(f, at * 3 + 1), at);
		model_must(page_file_read(f, at, n, buf));
		assert_memory_equal(buf, mem + (size_t)at * page_size, (size_t)n * page_size);
	}
	assert_int_equal(page_file_read(f, pages, 1, buf), -EBADMSG);
	model_must(page_file_hash(f, &again, NULL, NULL));
	assert_true(hash_equal(&hash, &again));
	page_file_close(f);
	model_must(store_remove(s, "f"));
	free(mem);
	free(buf);
	free(src);
}

static void test_page_files(void **state)
{
	struct model m;
	struct store *s = open_store(&m);
	static const unsigned counts[] = {0, 1, 63, 64, 65, 128, 600};

	for (uint32_t page_size = 4096; page_size <= 65536; page_size *= 4) {
		for (unsigned codec = 0; codec <= ICP_CODEC_LZ4; codec++) {
			for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
				page_file(s, page_size, codec, counts[i], false);
				if (counts[i])
					page_file(s, page_size, codec, counts[i], true);
			}
		}
	}
	store_close(s);
	model_fini(&m);
}

#define HASHES 20000

struct finder {
	struct dedup *d;
	uint32_t stream, wins;
};

static void *find_all(void *arg)
{
	struct finder *f = arg;

	for (uint32_t i = 1; i <= HASHES; i++) {
		struct icp_hash hash = {i * 0x9e3779b97f4a7c15ull, i * 0xc2b2ae3d27d4eb4full};
		uint32_t stream = f->stream, slot = i;

		f->wins += !dedup_find(f->d, &hash, &stream, &slot);
		if (slot != i)
			f->wins += HASHES;
	}
	return NULL;
}

static void test_dedup(void **state)
{
	struct finder f[2] = {{.stream = 1}, {.stream = 2}};
	pthread_t thread[2];
	struct dedup *d;

	model_must(dedup_new(0, &d));
	for (int i = 0; i < 2; i++) {
		f[i].d = d;
		assert_int_equal(pthread_create(&thread[i], NULL, find_all, &f[i]), 0);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	/* each page has exactly one owner */
	assert_int_equal(f[0].wins + f[1].wins, HASHES);
	dedup_free(d);
	/* a full table finds what it knows and stays as it is */
	model_must(dedup_new(1000, &d));
	f[0] = f[1] = (struct finder){.d = d, .stream = 1};
	find_all(&f[0]);
	find_all(&f[1]);
	assert_int_equal(f[0].wins, HASHES);
	assert_true(f[1].wins < HASHES && f[1].wins > HASHES / 2);
	dedup_free(d);
}

static void test_zero(void **state)
{
	static uint8_t page[65536] __attribute__((aligned(64)));

	assert_true(page_is_zero(page, sizeof(page)));
	for (size_t i = 0; i < sizeof(page); i += 61) {
		page[i] = 1;
		assert_false(page_is_zero(page, sizeof(page)));
		page[i] = 0;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_objects),	   cmocka_unit_test(test_no_links),
		cmocka_unit_test(test_page_files), cmocka_unit_test(test_dedup),
		cmocka_unit_test(test_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
