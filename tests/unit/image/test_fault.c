// SPDX-License-Identifier: GPL-2.0
/*
 * Death and errors at every single operation of opening, committing and pruning. Afterwards the
 * repository opens, shows only whole versions, each is byte-exact, and life goes on.
 */
#define MODEL_PAGES 60 /* each operation is one repository */
#include "image_test.h"

#include <sys/prctl.h>

#define BASE 5 /* versions before the one that is disturbed */
#define DIED 111

enum action { COMMIT, PRUNE, PRUNE_TIGHT, COMMIT_AND_PRUNE };

static int act(struct model *m, struct repo *r, enum action what)
{
	struct txn_config config = {
		.page_size = PAGE, .parent = BASE, .dedup = true, .codec = ICP_CODEC_LZ4};
	struct prune_config prune = {.from = 1, .to = BASE - 1, .tight = what != PRUNE};
	struct prune_result result;
	int err = 0;

	if (what == COMMIT || what == COMMIT_AND_PRUNE)
		err = model_version(m, r, &config, 3);
	if (!err && what != COMMIT)
		err = repo_prune(r, &prune, &result);
	return err;
}

/* A repository of BASE versions, the same for the same seed; version 2 is dropped, 3 has no
 * parent. */
static void set_up(struct model *m, uint64_t seed)
{
	struct txn_config config = {.page_size = PAGE, .codec = ICP_CODEC_ZSTD};
	struct prune_result result;
	struct repo *r;

	model_init(m, seed);
	model_must(repo_open(m->dir, REPO_CREATE, &r));
	for (unsigned v = 1; v <= BASE; v++) {
		model_must(model_version(m, r, &config, config.parent ? 3 : 12));
		model_must(repo_latest(r, &config.parent));
	}
	model_must(repo_prune(r, &(struct prune_config){.from = 2, .to = 2, .tight = true},
			      &result));
	repo_close(r);
}

/* In a process of its own: 0, 1 for an error, DIED. */
static int disturbed(struct model *m, enum action what, const struct store_fault *fault)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct store *dir, *store;
		struct repo *r;
		int err;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		model_must(store_dir_open(m->dir, false, &dir));
		model_must(store_fault_wrap(dir, fault, &store));
		err = repo_open_store(store, m->dir, REPO_WRITE, &r);
		if (!err) {
			err = act(m, r, what);
			repo_close(r);
		}
		if (err && !strstr(err_text(err), "injected"))
			_exit(2); /* the cause must not be lost behind another message */
		_exit(err ? 1 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void check_after(struct model *m, enum action what, int outcome, uint64_t nth)
{
	bool commit = what == COMMIT || what == COMMIT_AND_PRUNE;
	struct prune_result result;
	struct txn_config config = {.page_size = PAGE};
	const struct version *v;
	struct repo *r;
	size_t n;

	model_must(repo_open(m->dir, REPO_READ,
			     &r)); /* as somebody sees it who resolves nothing */
	model_check_all(m, r);
	repo_close(r);
	model_must(repo_open(m->dir, REPO_WRITE, &r));
	n = model_check_all(m, r);
	if (outcome == 0)
		assert_int_equal(n, what == COMMIT ? BASE : what == COMMIT_AND_PRUNE ? 2 : 1);
	assert_true(n >= 1 && n <= (commit ? BASE : BASE - 1));
	for (size_t i = 0; i < r->n_numbers; i++) { /* nothing is left open */
		model_must(repo_version(r, r->numbers[i], &v));
		assert_true(v->state != VERSION_PENDING && v->state != VERSION_DAMAGED);
	}
	/* the interrupted prune goes on; then one more version */
	model_must(
		repo_prune(r, &(struct prune_config){.keep_last = 1, .tight = true}, &result));
	assert_int_equal(model_check_all(m, r), 1);
	model_must(repo_latest(r, &config.parent));
	m->now = m->history[config.parent];
	model_must(model_version(m, r, &config, 2));
	assert_int_equal(model_check_all(m, r), 2);
	repo_close(r);
}

static uint64_t operations(struct model *m, enum action what)
{
	uint64_t count = 0;
	struct store_fault none = {.count = &count};
	struct store *dir, *store;
	struct repo *r;

	model_must(store_dir_open(m->dir, false, &dir));
	model_must(store_fault_wrap(dir, &none, &store));
	model_must(repo_open_store(store, m->dir, REPO_WRITE, &r));
	model_must(act(m, r, what));
	repo_close(r);
	return count;
}

static void everywhere(enum action what)
{
	static const struct store_fault kinds[] = {
		{.err = 0}, {.err = EIO}, {.err = ENOSPC}, {.err = EIO, .sticky = true}};
	uint64_t seed = seed_of_run(), count, died = 0, failed = 0;
	struct model base, golden;

	set_up(&base, seed);
	model_copy(&golden, &base);
	count = operations(&golden, what);
	print_message("%llu operations\n", (unsigned long long)count);
	for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		for (uint64_t nth = 1; nth <= count; nth++) {
			struct store_fault fault = kinds[k];
			struct model m;
			int outcome;

			fault.nth = nth;
			model_copy(&m, &base); /* making one anew costs more than the test */
			outcome = disturbed(&m, what, &fault);
			if (outcome == 2)
				fail_msg("operation %llu: the message is lost",
					 (unsigned long long)nth);
			if (!fault.err)
				assert_int_equal(outcome, DIED);
			died += outcome == DIED;
			failed += outcome == 1;
			free(m.history);
			m.n_history = golden.n_history;
			m.history = malloc(m.n_history * sizeof(*m.history));
			memcpy(m.history, golden.history, m.n_history * sizeof(*m.history));
			check_after(&m, what, outcome, nth);
			model_fini(&m);
		}
	}
	print_message("%llu deaths, %llu failures\n", (unsigned long long)died,
		      (unsigned long long)failed);
	assert_int_equal(died, count);
	assert_true(failed > count);
	model_fini(&golden);
	model_fini(&base);
}

static void test_commit(void **state)
{
	everywhere(COMMIT);
}

static void test_prune(void **state)
{
	everywhere(PRUNE);
}

static void test_prune_tight(void **state)
{
	everywhere(PRUNE_TIGHT);
}

static void test_both(void **state)
{
	everywhere(COMMIT_AND_PRUNE);
}

/* A repository that dies while it is being made can be made again. */
static void test_create(void **state)
{
	for (uint64_t nth = 1; nth <= 3; nth++) {
		struct store_fault fault = {.nth = nth};
		struct store *dir, *store;
		struct model m;
		struct repo *r;
		int status;
		pid_t pid;

		model_init(&m, 1);
		pid = fork();
		if (!pid) {
			model_must(store_dir_open(m.dir, true, &dir));
			model_must(store_fault_wrap(dir, &fault, &store));
			model_must(repo_open_store(store, m.dir, REPO_CREATE, &r));
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(WEXITSTATUS(status), DIED);
		model_must(repo_open(m.dir, REPO_CREATE, &r));
		repo_close(r);
		model_fini(&m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commit),	    cmocka_unit_test(test_prune),
		cmocka_unit_test(test_prune_tight), cmocka_unit_test(test_both),
		cmocka_unit_test(test_create),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
