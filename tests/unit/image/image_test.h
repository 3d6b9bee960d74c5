/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A model of a job's memory, kept beside the repository: each page is a number from which its
 * content follows (0: none, 1: zero page), so that every version can be remembered whole and
 * compared byte by byte.
 */
#ifndef IMAGE_TEST_H
#define IMAGE_TEST_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "image/names.h" /* before cmocka.h, which has a macro named fail() */
#include "lib/scratch.h"

#include <cmocka.h>

#define PAGE 4096u
#define STREAMS 3
#ifndef MODEL_PAGES
#define MODEL_PAGES 400
#endif

static const uint32_t model_stream[STREAMS] = {42, 4711, 7 | ICP_STREAM_SHM};

struct snapshot {
	uint32_t page[STREAMS][MODEL_PAGES];
};

struct model {
	struct snapshot now;
	struct snapshot *history; /* by version */
	size_t n_history;
	uint64_t rng;
	char dir[SCRATCH_MAX];
};

static inline uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s * 0x2545f4914f6cdd1dull;
}

static inline uint64_t seed_of_run(void)
{
	const char *text = getenv("SEED");
	struct timespec ts;
	uint64_t seed;

	clock_gettime(CLOCK_REALTIME, &ts);
	seed = text ? strtoull(text, NULL, 0)
		    : (uint64_t)ts.tv_nsec * 2654435761u + (uint64_t)ts.tv_sec;
	print_message("SEED=%#llx\n", (unsigned long long)seed);
	return seed | 1;
}

/* Scattered over leaves, tables and the whole address space. */
static inline uint64_t model_address(int stream, size_t i)
{
	static const uint64_t base[] = {0x400, 0x555555000, 0x7ffff7000, 0x7fffffe00,
					0x1fffffffe00};

	return base[i * 5 / MODEL_PAGES] + i * (1 + (i % 3 == 0)) + (uint64_t)stream * 3;
}

static inline void model_content(uint32_t id, uint8_t *buf)
{
	uint64_t s = id * 0x9e3779b97f4a7c15ull + 1;

	memset(buf, 0, PAGE);
	if (id < 2)
		return;
	for (size_t i = 0; i < (id % 4 ? PAGE / 3 : PAGE);
	     i += 8) { /* some compress, some don't */
		uint64_t v = next_random(&s);

		memcpy(buf + i, &v, 8);
	}
	buf[0] |= 1;
}

/* cmocka compares byte by byte: only for telling what differs. */
static inline void same_page(const uint8_t *is, const uint8_t *want)
{
	if (memcmp(is, want, PAGE))
		assert_memory_equal(is, want, PAGE);
}

/* make check takes a sample of what is random; ICP_LONG=1 takes all of it. */
static inline unsigned rounds(unsigned sample, unsigned all)
{
	return getenv("ICP_LONG") ? all : sample;
}

static inline int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

static inline void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void model_init(struct model *m, uint64_t seed)
{
	memset(m, 0, sizeof(*m));
	m->rng = seed;
	assert_non_null(mkdtemp(scratch_shm(m->dir, "image")));
}

static inline void model_fini(struct model *m)
{
	remove_tree(m->dir);
	free(m->history);
}

static inline void copy_file(int from, int to, const char *name)
{
	int in = openat(from, name, O_RDONLY), out = openat(to, name, O_WRONLY | O_CREAT, 0600);
	struct stat st;

	assert_true(in >= 0 && out >= 0 && !fstat(in, &st));
	for (ssize_t left = st.st_size, n; left; left -= n) {
		n = copy_file_range(in, NULL, out, NULL, (size_t)left, 0);
		assert_true(n > 0);
	}
	close(in);
	close(out);
}

static inline void copy_tree(int from, int to)
{
	DIR *dir = fdopendir(from);
	struct dirent *e;

	assert_true(dir && to >= 0);
	while ((e = readdir(dir))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (e->d_type == DT_DIR) {
			assert_int_equal(mkdirat(to, e->d_name, 0700), 0);
			copy_tree(openat(from, e->d_name, O_RDONLY),
				  openat(to, e->d_name, O_RDONLY));
		} else {
			copy_file(from, to, e->d_name);
		}
	}
	closedir(dir);
	close(to);
}

/* The same in a directory of its own. */
static inline void model_copy(struct model *m, const struct model *of)
{
	size_t bytes = of->n_history * sizeof(*of->history);

	model_init(m, of->rng);
	m->now = of->now;
	m->n_history = of->n_history;
	m->history = malloc(bytes);
	assert_non_null(m->history);
	memcpy(m->history, of->history, bytes);
	copy_tree(open(of->dir, O_RDONLY), open(m->dir, O_RDONLY));
}

static inline void model_remember(struct model *m, uint32_t version)
{
	if (version >= m->n_history) {
		m->history = realloc(m->history, (version + 1) * sizeof(*m->history));
		assert_non_null(m->history);
		m->n_history = version + 1;
	}
	m->history[version] = m->now;
}

static inline void model_must(int err)
{
	if (err)
		fail_msg("%d: %s", err, err_text(err));
}

/* Change about @changes pages of each stream and enter that into @ctl and a page file. */
static inline int model_change(struct model *m, struct txn *t, struct ctl **ctl, size_t changes)
{
	static uint8_t buf[64][PAGE];

	for (int s = 0; s < STREAMS; s++) {
		struct page_writer *w;
		int err = txn_pages(t, model_stream[s], &w);

		if (err)
			return err;
		for (size_t i = 0; i < changes && !err; i++) {
			size_t at = next_random(&m->rng) % MODEL_PAGES,
			       n = 1 + next_random(&m->rng) % (MODEL_PAGES < 200 ? 10 : 40);
			uint64_t what = next_random(&m->rng) % 10;
			struct page_src src[64];

			for (size_t k = 0; k < n && at + k < MODEL_PAGES && !err; k++) {
				uint32_t *p = &m->now.page[s][at + k];
				uint64_t page = model_address(s, at + k);

				src[k] = (struct page_src){page, buf[k], NULL};
				if (what == 0) { /* unmapped */
					*p = 0;
					err = ctl_remove(ctl[s], page, 1);
				} else { /* few different contents, so that some are shared */
					*p = what == 1 ? 1
						       : 2 + (uint32_t)(next_random(&m->rng) %
									5000);
					model_content(*p, buf[k]);
				}
			}
			if (n > MODEL_PAGES - at)
				n = MODEL_PAGES - at;
			if (!err && what)
				err = page_writer_put(w, src, n, ctl[s]);
		}
		if (err) {
			model_must(txn_pages_end(t, w, true));
			return err;
		}
		err = txn_pages_end(t, w, false);
		if (err)
			return err;
	}
	return 0;
}

static inline void model_manifest(Icp__Manifest *m, Icp__Process *p, Icp__Process **ps,
				  Icp__Segment *s, Icp__Segment **ss)
{
	icp__manifest__init(m);
	m->arch = (char *)"x86_64";
	for (int i = 0; i < 2; i++) {
		icp__process__init(&p[i]);
		p[i].pid = model_stream[i];
		p[i].comm = (char *)"model";
		ps[i] = &p[i];
	}
	icp__segment__init(s);
	s->shmid = model_stream[2] & ~ICP_STREAM_SHM;
	*ss = s;
	m->processes = ps;
	m->n_processes = 2;
	m->segments = ss;
	m->n_segments = 1;
}

/* One version on top of @parent; @ctl NULL: read from the parent. What is committed is
 * remembered. */
static inline int model_version(struct model *m, struct repo *r,
				const struct txn_config *config, size_t changes)
{
	struct ctl *ctl[STREAMS] = {NULL};
	Icp__Process p[2], *ps[2];
	Icp__Segment s, *ss;
	struct snapshot before = m->now;
	Icp__Manifest manifest;
	struct txn *t = NULL;
	uint32_t version = 0;
	int err = 0;

	model_manifest(&manifest, p, ps, &s, &ss);
	if (!config->parent)
		memset(&m->now, 0, sizeof(m->now));
	for (int i = 0; i < STREAMS && !err; i++)
		err = config->parent ? repo_ctl(r, config->parent, model_stream[i], &ctl[i])
				     : ctl_new(model_stream[i], PAGE, &ctl[i]);
	if (!err)
		err = txn_begin(r, config, &t);
	if (!err)
		version = txn_version(t);
	if (!err)
		err = model_change(m, t, ctl, changes);
	for (int i = 0; i < STREAMS && !err; i++)
		err = txn_ctl(t, ctl[i], false);
	if (!err) {
		model_remember(m, version);
		err = txn_commit(t, &manifest);
		t = NULL;
	}
	if (t)
		txn_abort(t);
	if (err)
		m->now = before;
	for (int i = 0; i < STREAMS; i++)
		ctl_free(ctl[i]);
	return err;
}

/* Each page with data once, in whatever order the files have them. */
static inline void model_sweep(struct model *m, struct reader *rd, struct ctl *c,
			       const uint32_t *want, int s)
{
	static uint8_t page[PAGE];
	uint64_t seen = 0;
	const uint64_t *pages;
	const uint8_t *data;
	struct sweep *sweep;
	int n;

	model_must(sweep_open(rd, c, &sweep));
	while ((n = sweep_next(sweep, &pages, &data))) {
		if (n < 0)
			model_must(n);
		for (int i = 0; i < n; i++) {
			size_t at = 0;

			while (at < MODEL_PAGES && model_address(s, at) != pages[i])
				at++;
			assert_true(at < MODEL_PAGES && want[at] > 1);
			model_content(want[at], page);
			same_page(data + (size_t)i * PAGE, page);
			seen++;
		}
	}
	assert_int_equal(seen, ctl_pages(c));
	sweep_close(sweep);
}

/* Compare all pages of @version with what is remembered, found through @how and in runs. */
static inline void model_compare(struct model *m, struct repo *r, uint32_t version,
				 enum ctl_lookup how)
{
	struct snapshot *want = &m->history[version];
	static uint8_t buf[8 * PAGE], page[PAGE];
	struct reader *rd;

	model_must(reader_open(r, &rd));
	for (int s = 0; s < STREAMS; s++) {
		struct ctl *c;
		uint64_t count = 0;

		model_must(repo_ctl(r, version, model_stream[s], &c));
		if (how == CTL_RBTREE)
			model_must(ctl_index(c));
		for (size_t i = 0; i < MODEL_PAGES; i++) {
			const struct ctl_entry *e = ctl_find(c, model_address(s, i), how);
			uint32_t id = want->page[s][i];

			if (!!e != !!id || (e && !!(e->flags & CTL_ZERO) != (id == 1)))
				fail_msg("version %u stream %d page %zu: entry %p for %u",
					 version, s, i, (const void *)e, id);
			count += !!id;
			model_content(id, page);
			model_must(reader_page(rd, e, PAGE, buf));
			same_page(buf, page);
		}
		assert_int_equal(ctl_pages(c) + ctl_zeros(c), count);
		for (size_t i = 0; i < MODEL_PAGES; i += 8) {
			uint64_t at = model_address(s, i);

			model_must(reader_pages(rd, c, at, 8, buf));
			for (size_t k = 0; k < MODEL_PAGES; k++) {
				uint64_t other = model_address(s, k);

				if (other < at || other >= at + 8)
					continue;
				model_content(want->page[s][k], page);
				same_page(buf + (other - at) * PAGE, page);
			}
		}
		model_sweep(m, rd, c, want->page[s], s);
		ctl_free(c);
	}
	reader_close(rd);
}

static inline void model_verify(struct repo *r)
{
	struct problems p;

	model_must(repo_verify(r, 0, &p));
	if (p.n)
		fail_msg("%zu problems; version %u, %s: %s", p.n, p.data[0].version,
			 p.data[0].file, p.data[0].what);
	problems_free(&p);
}

/* Every visible version is whole and as remembered. */
static inline size_t model_check_all(struct model *m, struct repo *r)
{
	uint32_t *list;
	size_t n;

	model_must(repo_committed(r, &list, &n));
	for (size_t i = 0; i < n; i++) {
		assert_true(list[i] < m->n_history);
		model_compare(m, r, list[i], CTL_DIRECT);
	}
	free(list);
	model_verify(r);
	return n;
}

#endif
