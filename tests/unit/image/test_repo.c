// SPDX-License-Identifier: GPL-2.0
/* Chains of versions against a model of what was written; parents, prune, permissions,
 * exclusion. */
#include "image_test.h"

#include <fcntl.h>

static void chain(uint64_t seed, enum icp_codec codec, unsigned versions)
{
	struct txn_config config = {.page_size = PAGE, .codec = codec, .dedup = true};
	struct model m;
	struct repo *r;

	model_init(&m, seed);
	model_must(repo_open(m.dir, REPO_CREATE, &r));
	for (unsigned v = 1; v <= versions; v++) {
		model_must(model_version(&m, r, &config, v == 1 ? 40 : 2));
		model_must(repo_latest(r, &config.parent));
		assert_int_equal(config.parent, v);
	}
	for (unsigned v = 1; v <= versions; v += 1 + versions / 20) {
		model_compare(&m, r, v, CTL_DIRECT);
		model_compare(&m, r, v, CTL_RBTREE);
	}
	model_compare(&m, r, versions, CTL_RBTREE);
	model_verify(r);
	repo_close(r);
	/* a reader that knows nothing yet sees the same, while nobody holds the lock */
	model_must(repo_open(m.dir, REPO_READ, &r));
	assert_int_equal(model_check_all(&m, r), versions);
	repo_close(r);
	model_fini(&m);
}

static void test_chain_none(void **state)
{
	chain(seed_of_run(), ICP_CODEC_NONE, rounds(60, 200));
}

static void test_chain_zstd(void **state)
{
	chain(seed_of_run(), ICP_CODEC_ZSTD, rounds(60, 200));
}

static void test_chain_lz4(void **state)
{
	chain(seed_of_run(), ICP_CODEC_LZ4, rounds(60, 200));
}

static uint64_t disk_bytes;

static int add_size(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	disk_bytes += flag == FTW_F ? (uint64_t)st->st_size : 0;
	return 0;
}

static uint64_t size_of(const char *dir)
{
	disk_bytes = 0;
	nftw(dir, add_size, 16, FTW_PHYS);
	return disk_bytes;
}

/* Trees of versions, pruned at random; what is kept stays exact, and what is not needed goes
 * away. */
static void prune_randomly(uint64_t seed, enum icp_codec codec)
{
	struct txn_config config = {.page_size = PAGE, .codec = codec, .dedup = true};
	struct prune_result result;
	struct model m;
	struct repo *r;
	uint64_t before;

	model_init(&m, seed);
	model_must(repo_open(m.dir, REPO_CREATE, &r));
	for (unsigned step = 0; step < 60; step++) {
		uint32_t *list;
		size_t n;

		model_must(repo_committed(r, &list, &n));
		/* mostly on the latest, at times on an older one, or from nothing */
		config.parent = !n || next_random(&m.rng) % 20 == 0 ? 0
				: next_random(&m.rng) % 6	    ? list[n - 1]
							  : list[next_random(&m.rng) % n];
		if (config.parent)
			m.now = m.history[config.parent];
		model_must(model_version(&m, r, &config, config.parent ? 3 : 30));
		if (n > 4 && next_random(&m.rng) % 3 == 0) {
			size_t a = next_random(&m.rng) % n,
			       b = a + next_random(&m.rng) % (n - a);
			struct prune_config prune = {
				.from = list[a],
				.to = list[b],
				.tight = next_random(&m.rng) % 2,
			};

			model_must(repo_prune(r, &prune, &result));
			assert_int_equal(result.dropped, b - a + 1);
			assert_int_equal(model_check_all(&m, r), n + 1 - (b - a + 1));
		}
		free(list);
	}
	model_check_all(&m, r);
	before = size_of(m.dir);
	model_must(
		repo_prune(r, &(struct prune_config){.keep_last = 1, .tight = true}, &result));
	assert_int_equal(model_check_all(&m, r), 1);
	/* one version: no more than its pages (stored once or more), its tables, and small
	 * records */
	print_message("pruned to one version: %llu -> %llu bytes\n", (unsigned long long)before,
		      (unsigned long long)size_of(m.dir));
	assert_true(size_of(m.dir) <
		    STREAMS * MODEL_PAGES * (PAGE + 200ull) + 60 * 3 * (3 * PAGE));
	assert_true(result.bytes_after < result.bytes_before);
	repo_close(r);
	model_must(repo_open(m.dir, REPO_WRITE, &r));
	assert_int_equal(model_check_all(&m, r), 1);
	repo_close(r);
	model_fini(&m);
}

static void test_prune(void **state)
{
	uint64_t seed = seed_of_run();

	for (unsigned i = 0; i < rounds(3, 12); i++)
		prune_randomly(seed + i * 1000003, i % 3);
}

static void test_prune_refuses(void **state)
{
	struct txn_config config = {.page_size = PAGE};
	struct prune_result result;
	struct model m;
	struct repo *r;

	model_init(&m, 5);
	model_must(repo_open(m.dir, REPO_CREATE, &r));
	model_must(model_version(&m, r, &config, 3));
	assert_int_equal(repo_prune(r, &(struct prune_config){.from = 1, .to = 9}, &result),
			 -EINVAL);
	assert_int_equal(repo_prune(r, &(struct prune_config){.from = 0, .to = 9}, &result),
			 -EINVAL);
	assert_int_equal(model_check_all(&m, r), 1);
	repo_close(r);
	model_fini(&m);
}

static int check_mode(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	mode_t want = flag == FTW_D ? 0700 : 0600;

	if ((st->st_mode & 0777) != want)
		fail_msg("%s has mode %o", path, st->st_mode & 0777);
	return 0;
}

static void test_permissions(void **state)
{
	struct txn_config config = {.page_size = PAGE};
	char dir[200];
	struct model m;
	struct repo *r;
	mode_t mask = umask(0);

	model_init(&m, 6);
	snprintf(dir, sizeof(dir), "%s/new", m.dir);
	model_must(repo_open(dir, REPO_CREATE, &r));
	model_must(model_version(&m, r, &config, 3));
	repo_close(r);
	nftw(dir, check_mode, 16, FTW_PHYS);
	umask(mask);
	model_fini(&m);
}

static void test_foreign(void **state)
{
	char path[200], text[8] = "";
	struct model m;
	struct repo *r;
	int fd;

	model_init(&m, 7);
	assert_int_equal(repo_open(m.dir, REPO_READ, &r), -ENOENT);
	assert_int_equal(repo_open(m.dir, REPO_WRITE, &r), -ENOENT);
	snprintf(path, sizeof(path), "%s/000001", m.dir);
	fd = open(path, O_CREAT | O_RDWR | O_EXCL, 0644);
	assert_int_equal(write(fd, "theirs", 6), 6);
	assert_int_equal(repo_open(m.dir, REPO_CREATE, &r), -ENOTEMPTY);
	assert_non_null(strstr(err_text(-ENOTEMPTY), "not a repository"));
	assert_int_equal(pread(fd, text, 8, 0), 6);
	assert_string_equal(text, "theirs");
	close(fd);
	snprintf(path, sizeof(path), "%s/lock", m.dir);
	assert_int_not_equal(access(path, F_OK), 0);
	model_fini(&m);
}

static void test_two_writers(void **state)
{
	struct repo *r, *second;
	struct model m;
	int status, sync[2];
	char c;
	pid_t pid;

	model_init(&m, 8);
	model_must(repo_open(m.dir, REPO_CREATE, &r));
	assert_int_equal(repo_open(m.dir, REPO_WRITE, &second), -EBUSY);
	model_must(repo_open(m.dir, REPO_READ, &second));
	repo_close(second);
	repo_close(r);
	/* the lock of a killed holder is free at once */
	assert_int_equal(pipe(sync), 0);
	pid = fork();
	if (!pid) {
		if (repo_open(m.dir, REPO_WRITE, &r) || write(sync[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(sync[0], &c, 1), 1);
	assert_int_equal(repo_open(m.dir, REPO_WRITE, &second), -EBUSY);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	model_must(repo_open(m.dir, REPO_WRITE, &second));
	repo_close(second);
	close(sync[0]);
	close(sync[1]);
	model_fini(&m);
}

static void test_abort_and_numbers(void **state)
{
	struct txn_config config = {.page_size = PAGE};
	struct model m;
	struct repo *r;
	struct txn *t;
	uint32_t latest;

	model_init(&m, 9);
	model_must(repo_open(m.dir, REPO_CREATE, &r));
	model_must(model_version(&m, r, &config, 3));
	model_must(txn_begin(r, &config, &t));
	assert_int_equal(txn_version(t), 2);
	txn_abort(t);
	repo_close(r);
	/* 2 is gone for good */
	model_must(repo_open(m.dir, REPO_WRITE, &r));
	config.parent = 1;
	model_must(txn_begin(r, &config, &t));
	assert_int_equal(txn_version(t), 3);
	txn_abort(t);
	config.parent = 2;
	assert_int_equal(txn_begin(r, &config, &t), -ENOENT);
	model_must(repo_latest(r, &latest));
	assert_int_equal(latest, 1);
	config.parent = 1;
	m.now = m.history[1];
	model_must(model_version(&m, r, &config, 3));
	assert_int_equal(model_check_all(&m, r), 2);
	repo_close(r);
	model_fini(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chain_none),	  cmocka_unit_test(test_chain_zstd),
		cmocka_unit_test(test_chain_lz4),	  cmocka_unit_test(test_prune),
		cmocka_unit_test(test_prune_refuses),	  cmocka_unit_test(test_permissions),
		cmocka_unit_test(test_foreign),		  cmocka_unit_test(test_two_writers),
		cmocka_unit_test(test_abort_and_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
