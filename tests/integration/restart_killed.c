// SPDX-License-Identifier: GPL-2.0
/* kill -9 of icp-bpf at any moment of a restart: all of the job is there, or none of it. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/oracle.h"
#include "lib/rebirth.h"

#define ROUNDS 40

/* Kill at moments spread over the time that one takes. Returns how often all of it was there. */
static unsigned kill_at_random(struct job *j, const char *more)
{
	double took = 0;
	unsigned whole = 0;

	for (unsigned i = 0; i <= ROUNDS; i++) {
		const char *argv[] = {built("icp-bpf"), "restart", "--json", "--dir",
				      j->repo,		more,	   NULL};
		double begin = seconds_now();
		struct run r;
		pid_t pids[8];
		size_t n;

		run_start(&r, NULL, argv);
		if (!i) {
			assert_true(run_says(&r, "\"phases\"", 30));
			took = (seconds_now() - begin) * 1000;
		} else {
			nap_ms(took * (double)random() / (double)RAND_MAX);
		}
		kill(r.pid, SIGKILL);
		run_wait(&r, 30);
		run_close(&r);
		n = survivors("writer", 2, pids, 8);
		if (n != 0 && n != 2)
			fail_msg("round %u: %zu processes of 2", i, n);
		whole += n == 2;
		for (size_t k = n; k--;)
			kill(pids[k], SIGKILL);
		assert_no_orphans((const pid_t[]){0}, 30);
	}
	return whole;
}

static int setup_writer(void **state)
{
	struct job *j;
	int err = setup(state);

	j = *state;
	j->target = "tests/targets/writer";
	return err;
}

static void killed(struct job *j, const char *more)
{
	const char *argv[] = {built("tests/targets/writer"), j->dir, NULL};

	start(j, argv);
	touch(j, "killed");
	wait_for(j, "half");
	wait_for(j, "ready");
	cut(j);
	kill_job(j);
	assert_true(kill_at_random(j, more) > 0); /* the first one at least */
	assert_false(exists(j, "wrong"));
}

static void test_killed(void **state)
{
	killed(*state, NULL);
}

static void test_killed_in_namespace(void **state)
{
	killed(*state, "--new-pid-namespace");
}

/* What the terminal or a supervisor kills is the whole group. */
static void test_builder_killed(void **state)
{
	struct job *j = *state;
	const char *argv[] = {built("tests/targets/writer"), j->dir, NULL};
	const char *again[] = {built("icp-bpf"), "restart", "--dir", j->repo, NULL};
	struct run_how how = {.own_group = true};

	start(j, argv);
	touch(j, "killed");
	wait_for(j, "ready");
	cut(j);
	kill_job(j);
	for (int i = 0; i < 10; i++) {
		struct run r;
		pid_t pids[8];
		size_t n;

		run_start(&r, &how, again);
		nap_ms(5 * i);
		kill(-r.pid, SIGKILL);
		run_wait(&r, 30);
		run_close(&r);
		n = survivors("writer", 2, pids, 8);
		assert_true(n == 0 || n == 2);
		for (size_t k = n; k--;)
			kill(pids[k], SIGKILL);
		assert_no_orphans((const pid_t[]){0}, 30);
	}
}

int main(void)
{
#define KILLED(name) cmocka_unit_test_setup_teardown(name, setup_writer, teardown)
	const struct CMUnitTest tests[] = {
		KILLED(test_killed),
		KILLED(test_killed_in_namespace),
		KILLED(test_builder_killed),
	};

	srandom((unsigned)getpid());
	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
