// SPDX-License-Identifier: GPL-2.0
/*
 * icp-bpf dies at random moments, in all ways, again and again; the target, which checks
 * itself, must not notice. And the other way round: the target ends or changes in the middle,
 * and icp-bpf ends or follows.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/robust_procs.h"

#define KILLS 100
#define SOFT_KILLS 30
#define LATEST_MS 150

struct fixture {
	struct talker target;
	struct outside before;
	char pid[16];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	adopt_orphans();
	talker_start(&f->target, built("tests/targets/checksum"), NULL);
	*state = f;
	talker_ask(&f->target, "", "ok threads");
	talker_ask(&f->target, "?", "ok");
	outside_look(&f->before, f->target.pid);
	snprintf(f->pid, sizeof(f->pid), "%d", f->target.pid);
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	talker_end(&f->target);
	outside_free(&f->before);
	free(f);
	return 0;
}

static void start_trace(struct fixture *f, struct run *r, bool own_group)
{
	const char *argv[] = {built("icp-bpf"), "trace", "--json", "--interval",
			      "20ms",		"--pid", f->pid,   NULL};
	struct run_how how = {.own_group = own_group};

	run_start(r, &how, argv);
}

static void check_target(struct fixture *f)
{
	pid_t keep[] = {f->target.pid, 0};

	assert_no_orphans(keep, 1);
	assert_untouched(f->target.pid, &f->before, true);
	talker_ask(&f->target, "?", "ok");
}

/* The moments are spread evenly over the time, in random order; the seed is shown. */
static double moment(unsigned seed, unsigned i, unsigned n)
{
	return (double)LATEST_MS *
	       ((double)((i * 37u) % n) + (double)((seed * (i + 1)) % 997u) / 997.0) / n;
}

static void kill_often(struct fixture *f, int sig, bool group, unsigned times)
{
	unsigned seed = (unsigned)getpid(), early = 0, late = 0;

	for (unsigned i = 0; i < times; i++) {
		struct run r;
		char *said;

		start_trace(f, &r, group);
		/* every other time from its first line on: loading the eBPF programs takes most
		 * of the time */
		if (i % 2)
			assert_true(run_says(&r, "\"start\"", 10));
		nap_ms(moment(seed, i, times));
		assert_int_equal(group ? killpg(r.pid, sig) : kill(r.pid, sig), 0);
		run_wait(&r, 5);
		said = run_text(r.out);
		early += !strstr(said, "\"sample\"");
		late += strstr(said, "\"sample\"") != NULL;
		if (sig == SIGKILL)
			assert_true(WIFSIGNALED(r.status) && WTERMSIG(r.status) == SIGKILL);
		else if (WIFEXITED(r.status)) /* else it was hit before it blocked the signal */
			assert_int_equal(WEXITSTATUS(r.status), 0);
		if (sig != SIGKILL && strstr(said, "\"start\""))
			assert_non_null(strstr(said, "\"reason\":\"interrupted\""));
		free(said);
		run_close(&r);
		check_target(f);
	}
	print_message("seed %u: %u before the first sample, %u after it\n", seed, early, late);
	/* all phases were hit; what ends in order takes a last sample */
	assert_true(late > 0 && (early > 0 || sig != SIGKILL));
}

static void test_kill_9(void **state)
{
	kill_often(*state, SIGKILL, false, KILLS);
}

static void test_kill_9_of_the_group(void **state)
{
	kill_often(*state, SIGKILL, true, KILLS);
}

static void test_sigint(void **state)
{
	kill_often(*state, SIGINT, true, SOFT_KILLS);
}

static void test_sigterm(void **state)
{
	kill_often(*state, SIGTERM, false, SOFT_KILLS);
}

/* Start, let it be in the middle of sampling. */
static void be_in_the_middle(struct fixture *f, struct run *r)
{
	start_trace(f, r, false);
	assert_true(run_says(r, "\"index\":2", 10));
}

static void expect_summary(struct run *r, const char *reason)
{
	char *said, *err, want[64];

	run_wait(r, 10);
	said = run_text(r->out);
	err = run_text(r->err);
	assert_string_equal(err, "");
	assert_true(WIFEXITED(r->status));
	assert_int_equal(WEXITSTATUS(r->status), 0);
	assert_non_null(strstr(said, "\"type\":\"summary\""));
	snprintf(want, sizeof(want), "\"reason\":\"%s\"", reason);
	if (!strstr(said, want))
		fail_msg("no %s in %s", want, strstr(said, "\"type\":\"summary\""));
	free(said);
	free(err);
	run_close(r);
}

static void interrupt_and_check(struct fixture *f, struct run *r)
{
	kill(r->pid, SIGINT);
	expect_summary(r, "interrupted");
	talker_ask(&f->target, "?", "ok");
}

static void test_target_killed(void **state)
{
	for (int i = 0; i < 10; i++) {
		struct fixture *f;
		struct run r;

		if (i) {
			tear_down(state);
			set_up(state);
		}
		f = *state;
		be_in_the_middle(f, &r);
		nap_ms(i * 3);
		kill(f->target.pid, SIGKILL);
		expect_summary(&r, "exited");
		assert_no_orphans((pid_t[]){f->target.pid, 0}, 1);
	}
}

/* At any moment of the attach too: a summary, or one line that says that it ended. */
static void test_target_killed_while_attaching(void **state)
{
	for (int i = 0; i < 25; i++) {
		struct fixture *f;
		struct run r;
		char *err;

		if (i) {
			tear_down(state);
			set_up(state);
		}
		f = *state;
		start_trace(f, &r, false);
		nap_ms(i * 4);
		kill(f->target.pid, SIGKILL);
		run_wait(&r, 10);
		assert_true(WIFEXITED(r.status));
		err = run_text(r.err);
		if (WEXITSTATUS(r.status)) {
			assert_int_equal(WEXITSTATUS(r.status), 1);
			if (!strchr(err, '\n') || strchr(err, '\n')[1] || !strstr(err, f->pid))
				fail_msg("not one line that names the process: '%s'", err);
		} else {
			assert_string_equal(err, "");
		}
		free(err);
		run_close(&r);
		assert_no_orphans((pid_t[]){f->target.pid, 0}, 1);
	}
}

static void test_target_exits(void **state)
{
	struct fixture *f = *state;
	struct run r;

	be_in_the_middle(f, &r);
	assert_int_equal(write(f->target.to, "q", 1), 1);
	expect_summary(&r, "exited");
}

static void test_target_execs(void **state)
{
	struct fixture *f = *state;
	struct run r;

	for (int i = 0; i < 5; i++) {
		be_in_the_middle(f, &r);
		talker_ask(&f->target, "x", "ok threads");
		talker_ask(&f->target, "x", "ok threads");
		interrupt_and_check(f, &r);
		assert_no_orphans((pid_t[]){f->target.pid, 0}, 1);
		assert_untouched(f->target.pid, &f->before, false);
	}
}

static void test_target_forks(void **state)
{
	struct fixture *f = *state;
	struct run r;

	be_in_the_middle(f, &r);
	for (int i = 0; i < 5; i++)
		talker_ask(&f->target, "f", "ok forks");
	interrupt_and_check(f, &r);
	check_target(f);
}

static void test_thread_storm(void **state)
{
	struct fixture *f = *state;
	struct run r;

	/* while sampling, and while attaching */
	be_in_the_middle(f, &r);
	talker_ask(&f->target, "t", "ok threads");
	interrupt_and_check(f, &r);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(write(f->target.to, "tttt", 4), 4);
		be_in_the_middle(f, &r);
		for (int j = 0; j < 4; j++)
			talker_ask(&f->target, "", "ok threads");
		interrupt_and_check(f, &r);
	}
	assert_no_orphans((pid_t[]){f->target.pid, 0}, 1);
	assert_untouched(f->target.pid, &f->before, false);
}

#define ON_TARGET(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_TARGET(test_kill_9),	       ON_TARGET(test_kill_9_of_the_group),
		ON_TARGET(test_sigint),	       ON_TARGET(test_sigterm),
		ON_TARGET(test_target_killed), ON_TARGET(test_target_killed_while_attaching),
		ON_TARGET(test_target_exits),  ON_TARGET(test_target_execs),
		ON_TARGET(test_target_forks),  ON_TARGET(test_thread_storm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
