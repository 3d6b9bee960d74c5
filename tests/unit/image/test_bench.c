// SPDX-License-Identifier: GPL-2.0
/*
 * What things cost, as ratios from one run. Small by default so that it checks the shape;
 * BENCH=1 for 1 GiB and 10^6 pages, printed for docs/results.md; with BENCH_ENTRIES=N only the lookups in N entries.
 */
#include "image_test.h"

#include <pthread.h>
#include <sys/mman.h>

static bool big;
static size_t entries;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint8_t *random_memory(size_t size)
{
	uint8_t *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint64_t s = 99;

	assert_ptr_not_equal(mem, MAP_FAILED);
	for (size_t i = 0; i < size; i += 8) { /* half of each page repeats, as in real ones */
		uint64_t v = i % PAGE < PAGE / 2 ? next_random(&s) : 7;

		memcpy(mem + i, &v, 8);
	}
	return mem;
}

static int commit(struct repo *r, struct txn *t, struct ctl *c)
{
	Icp__Process p, *ps = &p;
	Icp__Manifest m;

	icp__manifest__init(&m);
	icp__process__init(&p);
	p.pid = 42;
	m.processes = &ps;
	m.n_processes = 1;
	return txn_commit(t, &m);
}

static void put_all_pages(struct page_writer *w, const uint8_t *mem, size_t pages,
			  struct ctl *c)
{
	struct page_src src[64];

	for (size_t i = 0; i < pages; i += 64) {
		for (size_t k = 0; k < 64; k++)
			src[k] = (struct page_src){0x10000 + i + k, mem + (i + k) * PAGE, NULL};
		model_must(page_writer_put(w, src, 64, c));
	}
}

static void one(const uint8_t *mem, uint8_t *copy, size_t size, enum icp_codec codec,
		bool dedup, const char *name)
{
	struct txn_config config = {.page_size = PAGE, .codec = codec, .dedup = dedup};
	double start, copied, written, committed, loaded, got;
	struct page_writer *w;
	struct ctl_run run = {0};
	struct reader *rd;
	struct model m;
	struct ctl *c;
	struct txn *t;
	struct repo *r;
	uint64_t bytes;

	model_init(&m, 1);
	model_must(repo_open(m.dir, REPO_CREATE, &r));
	start = now();
	memcpy(copy, mem, size);
	copied = now() - start;
	start = now();
	model_must(txn_begin(r, &config, &t));
	model_must(txn_pages(t, 42, &w));
	model_must(ctl_new(42, PAGE, &c));
	put_all_pages(w, mem, size / PAGE, c);
	model_must(txn_pages_end(t, w, false));
	written = now() - start;
	model_must(txn_ctl(t, c, false));
	bytes = txn_bytes(t);
	model_must(commit(r, t, c));
	committed = now() - start;
	ctl_free(c);
	start = now();
	model_must(repo_ctl(r, 1, 42, &c));
	loaded = now() - start;
	model_must(reader_open(r, &rd));
	memset(copy, 0, size);
	start = now();
	while (ctl_next_run(c, run.page + run.n, 256, &run))
		model_must(reader_pages(rd, c, run.page, run.n,
					copy + (run.page - 0x10000) * PAGE));
	got = now() - start;
	assert_memory_equal(mem, copy, size);
	assert_true(bytes < size * 1.05 + (16 << 10));
	print_message("%4zu MiB %s: memcpy %.0f ms; write %.0f ms, committed %.0f ms (%.2fx); "
		      "ctl load %.1f ms; "
		      "read + verify %.0f ms (%.2fx); %.2f bytes a byte\n",
		      size >> 20, name, copied * 1e3, written * 1e3, committed * 1e3,
		      committed / copied, loaded * 1e3, got * 1e3, got / copied,
		      (double)bytes / (double)size);
	reader_close(rd);
	ctl_free(c);
	repo_close(r);
	model_fini(&m);
}

static void test_pages(void **state)
{
	size_t size = big ? 1ull << 30 : 16ull << 20;
	uint8_t *mem = random_memory(size), *copy = random_memory(size);

	one(mem, copy, size, ICP_CODEC_NONE, false, "none");
	one(mem, copy, size, ICP_CODEC_NONE, true, "none, dedup");
	one(mem, copy, size, ICP_CODEC_LZ4, false, "lz4");
	one(mem, copy, size, ICP_CODEC_ZSTD, false, "zstd");
	munmap(mem, size);
	munmap(copy, size);
}

/* Version by version scattered: what reading all of it costs, by address and by file, against
 * version 1. */
static void test_scattered(void **state)
{
	size_t pages = big ? 1u << 16 : 1u << 12;
	unsigned versions = big ? 1000 : 60, dirty = 64;
	struct txn_config config = {.page_size = PAGE};
	uint8_t *mem = random_memory(pages * PAGE), *buf = malloc(64 * PAGE);
	double by_file = 0, by_address = 0, first = 0, start;
	uint64_t s = 9;
	struct model m;
	struct repo *r;
	struct ctl *c;

	model_init(&m, 3);
	model_must(repo_open(m.dir, REPO_CREATE, &r));
	model_must(ctl_new(42, PAGE, &c));
	for (unsigned v = 1; v <= versions; v++) {
		struct page_src src[64];
		struct page_writer *w;
		struct txn *t;

		config.parent = v - 1;
		model_must(txn_begin(r, &config, &t));
		model_must(txn_pages(t, 42, &w));
		if (v == 1)
			put_all_pages(w, mem, pages, c);
		for (size_t k = 0; k < dirty; k++) {
			size_t at = next_random(&s) % pages;

			mem[at * PAGE] ^= (uint8_t)(1 + v % 255);
			src[k] = (struct page_src){0x10000 + at, mem + at * PAGE, NULL};
		}
		model_must(v == 1 ? 0 : page_writer_put(w, src, dirty, c));
		model_must(txn_pages_end(t, w, false));
		model_must(txn_ctl(t, c, false));
		model_must(commit(r, t, c));
		if (v == 1 || v == versions) {
			struct ctl_run run = {0};
			const uint64_t *list;
			const uint8_t *data;
			struct sweep *sweep;
			struct reader *rd;
			size_t seen = 0;
			int n;

			model_must(reader_open(r, &rd));
			start = now();
			while (ctl_next_run(c, run.page + run.n, 64, &run))
				model_must(reader_pages(rd, c, run.page, run.n, buf));
			by_address = now() - start;
			reader_close(rd);
			model_must(reader_open(r, &rd));
			start = now();
			model_must(sweep_open(rd, c, &sweep));
			for (; (n = sweep_next(sweep, &list, &data)) > 0; seen += (size_t)n)
				;
			model_must(n);
			by_file = now() - start;
			first = v == 1 ? by_file : first;
			assert_int_equal(seen, pages);
			sweep_close(sweep);
			reader_close(rd);
		}
	}
	print_message("read through %zu pages of version %u: by file %.1f ms (%.2fx of version "
		      "1), by address %.1f ms\n",
		      pages, versions, by_file * 1e3, by_file / first, by_address * 1e3);
	free(buf);
	munmap(mem, pages * PAGE);
	ctl_free(c);
	repo_close(r);
	model_fini(&m);
}

/* A structure of @pages with 1000 changed ones in each version: what opening version n costs.
 */
static void test_flat(void **state)
{
	unsigned last = big ? 1000 : 100, dirty = big ? 1000 : 50;
	size_t pages = big ? 1u << 20 : 1u << 14;
	static uint8_t content[64][PAGE];
	struct txn_config config = {.page_size = PAGE};
	struct page_writer *w;
	struct model m;
	struct repo *r;
	struct ctl *c;
	double first = 0, cost = 0, worst = 0;
	uint64_t s = 5, table_bytes = 0;

	model_init(&m, 3);
	model_must(repo_open(m.dir, REPO_CREATE, &r));
	model_must(ctl_new(42, PAGE, &c));
	for (unsigned v = 1; v <= last; v++) {
		struct ctl_image image;
		struct txn *t;

		config.parent = v - 1;
		model_must(txn_begin(r, &config, &t));
		model_must(txn_pages(t, 42, &w));
		for (size_t i = 0; i < (v == 1 ? pages : dirty); i += 50) {
			struct page_src src[50];

			for (size_t k = 0; k < 50;
			     k++) { /* different, but cheap to make: only the head differs */
				uint64_t page = v == 1 ? i + k : next_random(&s) % pages;

				memcpy(content[k], &(uint64_t[]){v, i + k, 1}, 24);
				src[k] = (struct page_src){page, content[k], NULL};
			}
			model_must(v == 1 ? 0 : page_writer_put(w, src, 50, c));
			for (size_t k = 0; v == 1 && k < 50;
			     k++) { /* the data itself does not matter here */
				struct ctl_entry e = {
					.version = 1, .stream = 42, .slot = (uint32_t)(i + k)};

				e.hash = page_hash(content[k], 24);
				model_must(ctl_set(c, i + k, &e));
			}
		}
		model_must(txn_pages_end(t, w, false));
		model_must(txn_ctl(t, c, false));
		model_must(commit(r, t, c));
		model_must(repo_ctl_image(r, v, 42, &image));
		table_bytes += v > 1 ? image.size : 0;
		ctl_image_free(&image);
		if (v == 1 || v == 10 || v == 100 || v == 1000 || v % (last / 20) == 0) {
			struct repo *fresh;
			struct ctl *again;
			double start = now();

			model_must(repo_open(m.dir, REPO_READ, &fresh));
			model_must(repo_ctl(fresh, v, 42, &again));
			cost = now() - start;
			assert_int_equal(ctl_pages(again), ctl_pages(c));
			ctl_free(again);
			repo_close(fresh);
			first = v == 1 ? cost : first;
			worst = cost > worst ? cost : worst;
			if (v == 1 || v == 10 || v == 100 || v == 1000)
				print_message("version %4u: open and read %zu entries: %.1f ms "
					      "(%.2fx)\n",
					      v, pages, cost * 1e3, cost / first);
		}
	}
	print_message("worst of 20 on the way %.2fx; tables %.0f bytes per changed page\n",
		      worst / first, (double)table_bytes / (last - 1) / dirty);
	ctl_free(c);
	repo_close(r);
	model_fini(&m);
}

static void test_lookup(void **state)
{
	size_t pages = entries ?: big ? 1u << 20 : 1u << 14, n = big ? 2000000 : 20000;
	double direct, tree, build;
	uint64_t s = 17, sum = 0;
	struct ctl *c;

	model_must(ctl_new(42, PAGE, &c));
	for (size_t i = 0; i < pages; i++)
		model_must(ctl_set(c, 0x10000 + i,
				   &(struct ctl_entry){.version = 1, .slot = (uint32_t)i}));
	build = now();
	model_must(ctl_index(c));
	build = now() - build;
	direct = now();
	for (size_t i = 0; i < n; i++)
		sum += ctl_find(c, 0x10000 + next_random(&s) % pages, CTL_DIRECT)->slot;
	direct = now() - direct;
	tree = now();
	s = 17;
	for (size_t i = 0; i < n; i++)
		sum -= ctl_find(c, 0x10000 + next_random(&s) % pages, CTL_RBTREE)->slot;
	tree = now() - tree;
	print_message("%zu entries, random lookups: direct %.0f ns, red-black tree %.0f ns "
		      "(%.1fx), built in %.0f ms; "
		      "%.1f bytes an entry in memory with the tree\n",
		      pages, direct / (double)n * 1e9, tree / (double)n * 1e9, tree / direct,
		      build * 1e3, (double)ctl_memory(c) / (double)pages);
	ctl_free(c);
	assert_true(tree > 0 && direct > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lookup),
		cmocka_unit_test(test_flat),
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_scattered),
	};

	big = getenv("BENCH");
	if (getenv("BENCH_ENTRIES")) {
		entries = strtoul(getenv("BENCH_ENTRIES"), NULL, 10);
		cmocka_set_test_filter("test_lookup");
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
