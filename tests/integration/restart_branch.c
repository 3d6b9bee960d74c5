// SPDX-License-Identifier: GPL-2.0
/* Checkpoints after a restart: of what they are increments, and that not a byte is lost. */
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/oracle.h"
#include "lib/rebirth.h"
#include "lib/tracer.h"

static int setup_writer(void **state)
{
	int err = setup(state);

	((struct job *)*state)->target = "tests/targets/writer";
	return err;
}

static void start_writer(struct job *j)
{
	const char *argv[] = {built("tests/targets/writer"), j->dir, NULL};

	/* the kernel writes there which CPU it runs on */
	setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
	start(j, argv);
	touch(j, "killed");
	wait_for(j, "half");
	wait_for(j, "ready");
}

static char state_of(pid_t pid)
{
	char *text = file_text("/proc/%d/status", pid), *at = strstr(text, "State:\t"), state;

	state = at ? at[7] : 0;
	free(text);
	return state;
}

/* All of the job, so that it can be compared. */
static void stop(const struct job *j, bool on)
{
	pid_t pids[8];
	size_t n = oracle_job(j->pid, pids, 8);

	assert_int_equal(n, 2);
	for (size_t i = 0; i < n; i++) {
		kill(pids[i], on ? SIGSTOP : SIGCONT);
		while (on && state_of(pids[i]) != 'T')
			nap_ms(1);
	}
}

static void compare(const struct job *j, uint32_t version)
{
	_cleanup_repo_ struct repo *r = NULL;
	struct verdict v;

	assert_int_equal(repo_open(j->repo, REPO_READ, &r), 0);
	oracle_compare(r, version, j->pid, &v);
	if (v.wrong)
		fail_msg("version %u: %lu wrong: %s", version, v.wrong, v.first);
	assert_int_equal(v.processes, 2);
	assert_true(v.pages > 1000);
}

/* Stopped, a checkpoint of the stopped job, which is what its processes hold. */
static json_t *cut_exactly(const struct job *j)
{
	char pid[16], *text;
	json_t *said;
	struct run r;

	stop(j, true);
	snprintf(pid, sizeof(pid), "%d", j->pid);
	if (icp(&r, NULL, "checkpoint", "--json", "--pid", pid, "--dir", j->repo, NULL))
		fail_msg("%s", run_text(r.err));
	text = run_text(r.out);
	said = json_loads(text, 0, NULL);
	free(text);
	run_close(&r);
	assert_non_null(said);
	compare(j, (uint32_t)number(said, "version"));
	return said;
}

/* A stopped version comes back stopped, so it can be compared. */
static void revive(struct job *j, pid_t pid, const char *version, const char *more)
{
	struct run r;

	if (icp(&r, NULL, "restart", "--dir", j->repo, "--version", version, "--detach", more,
		NULL))
		fail_msg("version %s: %s", version, run_text(r.err));
	run_close(&r);
	j->pid = pid;
	compare(j, (uint32_t)atoi(version));
}

static void verb_works(const struct job *j, const char *verb, const char *more, const char *arg,
		       const char *more2, const char *arg2)
{
	struct run r;

	if (icp(&r, NULL, verb, "--dir", j->repo, more, arg, more2, arg2, NULL))
		fail_msg("%s: %s", verb, run_text(r.err));
	run_close(&r);
}

static uint64_t parent_listed(const struct job *j, uint32_t version)
{
	uint64_t parent = UINT64_MAX;
	json_t *list, *each;
	struct run r;
	char *text;
	size_t i;

	assert_int_equal(icp(&r, NULL, "list", "--json", "--dir", j->repo, NULL), 0);
	text = run_text(r.out);
	list = json_loads(text, 0, NULL);
	assert_non_null(list);
	json_array_foreach(json_object_get(list, "versions"), i,
			   each) if (number(each, "version") == version) parent =
		number(each, "parent");
	json_decref(list);
	free(text);
	run_close(&r);
	return parent;
}

static void expect(json_t *said, uint64_t version, uint64_t parent, const char *found_by)
{
	assert_int_equal(number(said, "version"), version);
	assert_int_equal(number(said, "parent"), parent);
	assert_string_equal(text(said, "type"), "incremental");
	if (found_by)
		assert_string_equal(text(said, "found_by"), found_by);
	else
		assert_string_not_equal(text(said, "found_by"), "hash");
	json_decref(said);
}

static uint64_t digest(const struct job *j, uint32_t version)
{
	_cleanup_repo_ struct repo *r = NULL;

	assert_int_equal(repo_open(j->repo, REPO_READ, &r), 0);
	oracle_verify(r, 0);
	return oracle_digest(r, version);
}

/* Versions 1 2 3, back to 2, and 4 5 from there. */
static void branch(struct job *j, pid_t *pid)
{
	const pid_t none[] = {0};

	start_writer(j);
	*pid = j->pid;
	for (int i = 1; i <= 3; i++) {
		json_decref(cut_exactly(j));
		stop(j, false);
		nap_ms(30);
	}
	kill_job(j);
	revive(j, *pid, "2", "--keep-tracking");
	stop(j, false);
	nap_ms(50);
	expect(cut_exactly(j), 4, 2, "hash");
	stop(j, false);
	nap_ms(50);
	expect(cut_exactly(j), 5, 4, NULL);
	kill_job(j);
	assert_no_orphans(none, 20); /* the session ends with its job */
}

static void test_branch(void **state)
{
	struct job *j = *state;
	uint64_t three;
	pid_t pid;

	branch(j, &pid);
	assert_int_equal(parent_listed(j, 4), 2);
	assert_int_equal(parent_listed(j, 5), 4);
	three = digest(j, 3);
	assert_int_not_equal(three, digest(j, 5));
	revive(j, pid, "3", NULL);
	kill_job(j);
	verb_works(j, "diff", "--from", "3", "--to", "5");
	/* the trunk goes: the branch stands on it */
	verb_works(j, "prune", "--drop", "1..3", NULL, NULL);
	digest(j, 5);
	revive(j, pid, "5", NULL);
	kill_job(j);
	revive(j, pid, "4", NULL);
}

/* Nobody remembers what was restarted: it is compared with the newest version. */
static void test_untracked(void **state)
{
	struct job *j = *state;
	pid_t pid;

	branch(j, &pid);
	revive(j, pid, "1", NULL);
	stop(j, false);
	nap_ms(30);
	expect(cut_exactly(j), 6, 5, "hash");
	kill_job(j);
	revive(j, pid, "6", NULL);
	touch(j, "go");
	stop(j, false);
	j->pid = 0;
	assert_no_orphans((const pid_t[]){0}, 20);
	assert_false(exists(j, "wrong"));
}

/* The restarted version is gone when the next one is due: the newest takes its place. */
static void test_pruned_meanwhile(void **state)
{
	const pid_t none[] = {0};
	struct job *j = *state;
	pid_t pid;

	branch(j, &pid);
	revive(j, pid, "3", "--keep-tracking");
	verb_works(j, "prune", "--drop", "3..3", NULL, NULL);
	stop(j, false);
	nap_ms(30);
	expect(cut_exactly(j), 6, 5, "hash");
	stop(j, false);
	expect(cut_exactly(j), 7, 6, NULL);
	kill_job(j);
	revive(j, pid, "7", NULL);
	kill_job(j);
	assert_no_orphans(none, 20);
}

int main(void)
{
#define BRANCH(name) cmocka_unit_test_setup_teardown(name, setup_writer, teardown)
	const struct CMUnitTest tests[] = {
		BRANCH(test_branch),
		BRANCH(test_untracked),
		BRANCH(test_pruned_meanwhile),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
