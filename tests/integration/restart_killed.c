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

#include "proc/tasks.h"

#define ROUNDS 40

/* Descendants of that name that are no zombies. */
static size_t named(const char *name, pid_t *pids, size_t max)
{
	pid_list all = {0};
	size_t n = 0;

	assert_int_equal(tasks_descendants(getpid(), &all), 0);
	vec_each (p, &all) {
		char *comm = file_text("/proc/%d/comm", *p);
		bool is = comm && !strncmp(comm, name, strlen(name));
		char state = tasks_state(*p);

		free(comm);
		if (is && state && state != 'Z' && state != 'X' && n < max)
			pids[n++] = *p;
	}
	free_pids(&all);
	return n;
}

/* How many processes of the job run on once icp-bpf and all of its are gone, but for an init. */
static size_t survivors(pid_t *pids)
{
	double end = seconds_now() + 30;
	bool settled = false;
	size_t n = 0;

	while (!settled && seconds_now() < end) {
		pid_t left[8];

		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		nap_ms(1);
		n = named("writer", pids, 8);
		settled = n != 1 && named("icp-bpf", left, 8) <= (n > 0);
		for (size_t i = 0; i < n; i++)
			settled &= status_number(pids[i], "TracerPid") == 0;
	}
	assert_true(settled || n == 1);
	return n;
}

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
		n = survivors(pids);
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
		n = survivors(pids);
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
