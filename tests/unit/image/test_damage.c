// SPDX-License-Identifier: GPL-2.0
/* Random damage: each is found by verify, none crashes anything. DAMAGE=n changes how many. */
#define MODEL_PAGES 60 /* structure matters here, not size */
#include "image_test.h"

#include <fcntl.h>

struct file {
	char path[200];
	uint64_t size;
};

static struct file files[4000];
static size_t n_files;

static int add_file(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	const char *last = strrchr(path, '/') + 1;

	if (flag != FTW_F || !strcmp(last, NAME_LOCK) || !st->st_size)
		return 0;
	assert_true(n_files < 4000);
	snprintf(files[n_files].path, sizeof(files[n_files].path), "%s", path);
	files[n_files++].size = (uint64_t)st->st_size;
	return 0;
}

static void set_up(struct model *m, uint64_t seed)
{
	struct txn_config config = {.page_size = PAGE, .dedup = true};
	struct prune_result result;
	struct repo *r;

	model_init(m, seed);
	model_must(repo_open(m->dir, REPO_CREATE, &r));
	for (unsigned v = 1; v <= 9; v++) {
		config.codec = v % 3;
		model_must(model_version(m, r, &config, config.parent ? 3 : 12));
		model_must(repo_latest(r, &config.parent));
	}
	/* dropped ones whose pages and tables are needed belong to it */
	model_must(repo_prune(r, &(struct prune_config){.from = 2, .to = 4, .tight = true},
			      &result));
	model_must(repo_prune(r, &(struct prune_config){.from = 7, .to = 7}, &result));
	assert_int_equal(model_check_all(m, r), 5);
	repo_close(r);
	n_files = 0;
	nftw(m->dir, add_file, 16, FTW_PHYS);
}

/* Number of problems; a repository that can not be opened at all counts as one found. */
static uint64_t problems_now(struct model *m)
{
	struct problems p;
	struct repo *r;
	uint64_t n;

	if (repo_open(m->dir, REPO_READ, &r))
		return 1;
	model_must(repo_verify(r, 0, &p));
	n = p.n + p.more;
	for (size_t i = 0; i < p.n; i++)
		assert_true(p.data[i].what[0] && p.data[i].file[0]);
	problems_free(&p);
	repo_close(r);
	return n;
}

/* What a restart would do with it: fail or succeed, not crash. */
static void use_it(struct model *m, uint32_t version)
{
	static uint8_t buf[64 * PAGE];
	struct reader *rd;
	struct repo *r;

	if (repo_open(m->dir, REPO_READ, &r))
		return;
	model_must(reader_open(r, &rd));
	for (int s = 0; s < STREAMS; s++) {
		struct ctl_run run = {0};
		struct ctl *c;

		if (repo_ctl(r, version, model_stream[s], &c))
			continue;
		while (ctl_next_run(c, run.page + run.n, 64, &run)) {
			if (reader_pages(rd, c, run.page, run.n, buf))
				break;
		}
		ctl_free(c);
	}
	reader_close(rd);
	repo_close(r);
}

static uint8_t *load(const struct file *f)
{
	uint8_t *data = malloc(f->size);
	int fd = open(f->path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(read(fd, data, f->size), f->size);
	close(fd);
	return data;
}

static void store(const struct file *f, const uint8_t *data, uint64_t size)
{
	int fd = open(f->path, O_WRONLY | O_TRUNC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
	close(fd);
}

/* Small files are as likely as large ones: that is where the structure is. */
static const char *harm(struct model *m, struct file *f, uint8_t *data)
{
	struct file *other = &files[next_random(&m->rng) % n_files];
	uint64_t at = next_random(&m->rng) % f->size;
	static char what[300];
	uint8_t *theirs;

	switch (next_random(&m->rng) % 8) {
	case 0:
		store(f, data, at);
		snprintf(what, sizeof(what), "%s cut at %llu", f->path, (unsigned long long)at);
		return what;
	case 1:
		theirs = load(other);
		if (other->size == f->size && !memcmp(theirs, data, f->size)) {
			free(theirs);
			return NULL;
		}
		store(f, theirs, other->size);
		free(theirs);
		snprintf(what, sizeof(what), "%s replaced by %s", f->path, other->path);
		return what;
	default:
		if (next_random(&m->rng) % 2) /* headers and trailers more often */
			at = at % 2 ? at % (f->size < 256 ? f->size : 256)
				    : f->size - 1 - at % (f->size < 128 ? f->size : 128);
		data[at] ^= (uint8_t)(1u << (next_random(&m->rng) % 8));
		store(f, data, f->size);
		snprintf(what, sizeof(what), "%s changed at %llu", f->path,
			 (unsigned long long)at);
		return what;
	}
}

static void test_damage(void **state)
{
	unsigned total = getenv("DAMAGE") ? (unsigned)atoi(getenv("DAMAGE")) : 10000,
		 harmed = 0;
	struct model m;

	set_up(&m, seed_of_run());
	print_message("%zu files\n", n_files);
	assert_int_equal(problems_now(&m), 0);
	for (unsigned i = 0; i < total; i++) {
		struct file *f = &files[next_random(&m.rng) % n_files];
		uint8_t *good = load(f), *data = load(f);
		const char *what = harm(&m, f, data);

		if (what) {
			if (!problems_now(&m))
				fail_msg("not found: %s", what);
			use_it(&m, 9);
			harmed++;
		}
		store(f, good, f->size);
		free(good);
		free(data);
	}
	print_message("%u kinds of damage found\n", harmed);
	assert_true(harmed > total * 9 / 10);
	assert_int_equal(problems_now(&m), 0);
	model_fini(&m);
}

/* The one that names: a flipped bit in a page of version 1 is told with its address for the
 * version that uses it. */
static void test_names(void **state)
{
	const struct ctl_entry *e;
	struct problems p;
	char path[300];
	uint64_t page = 0;
	struct model m;
	struct ctl *c;
	struct repo *r;
	uint8_t byte;
	int fd;

	set_up(&m, 77);
	model_must(repo_open(m.dir, REPO_READ, &r));
	model_must(repo_ctl(r, 9, 42, &c));
	while ((e = ctl_next(c, &page)) && (e->flags & CTL_ZERO || e->version != 6))
		page++; /* 6 is not compressed */
	assert_non_null(e);
	snprintf(path, sizeof(path), "%s/%s", m.dir,
		 name_file(ICP_FILE_PAGES, 6, e->stream, 0).s);
	fd = open(path, O_RDWR);
	assert_int_equal(pread(fd, &byte, 1, (off_t)(PAGE * (1 + e->slot) + 5)), 1);
	byte ^= 16;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)(PAGE * (1 + e->slot) + 5)), 1);
	close(fd);
	model_must(repo_verify(r, 9, &p));
	assert_true(p.n >= 1);
	assert_int_equal(p.data[0].version, 9);
	assert_true(p.data[0].has_page);
	assert_int_equal(p.data[0].address, page * PAGE);
	assert_non_null(strstr(path, p.data[0].file));
	problems_free(&p);
	ctl_free(c);
	repo_close(r);
	model_fini(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
