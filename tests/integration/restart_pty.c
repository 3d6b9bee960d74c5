// SPDX-License-Identifier: GPL-2.0
/* Pseudo-terminals through checkpoint and restart: tests/targets/ptys. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"

static int setup_ptys(void **state)
{
	int err = setup(state);

	((struct job *)*state)->target = "tests/targets/ptys";
	return err;
}

static void test_pair(void **state)
{
	play(*state, "pair");
}

static void test_session(void **state)
{
	play(*state, "session");
}

static void test_shell(void **state)
{
	if (system("command -v bash >/dev/null"))
		skip();
	play(*state, "shell");
}

static void ends_well(struct job *j)
{
	int status;

	touch(j, "go");
	assert_int_equal(waitpid(j->pid, &status, 0), j->pid);
	j->pid = 0;
	if (exists(j, "wrong"))
		fail_msg("%s", file_text("%s", in(j, "wrong")));
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
}

/* Nobody sees that it was looked at. */
static void test_runs_on(void **state)
{
	struct job *j = *state;

	start_scene(j, "session", NULL);
	for (int i = 0; i < 3; i++)
		cut(j);
	ends_well(j);
}

/* What can't be seen without taking it is left alone. */
static void left_alone(struct job *j, const char *scene, const char *says)
{
	struct run r;
	char pid[16];

	start_scene(j, scene, NULL);
	snprintf(pid, sizeof(pid), "%d", j->pid);
	assert_int_equal(icp(&r, NULL, "checkpoint", "--pid", pid, "--dir", j->repo, NULL), 1);
	assert_non_null(strstr(run_text(r.err), says));
	run_close(&r);
	ends_well(j);
}

static void test_waiting(void **state)
{
	left_alone(*state, "waiting", "12 bytes of output wait in a terminal");
}

static void test_typed(void **state)
{
	left_alone(*state, "typed", "12 bytes of input wait in a terminal");
}

/* In canonical mode half a line can't be seen: a restart has lost it, a mere checkpoint hasn't. */
static void test_unended(void **state)
{
	struct job *j = *state;

	start_scene(j, "unended", NULL);
	cut(j);
	ends_well(j);
	unlink(in(j, "ready"));
	unlink(in(j, "go"));
	start_scene(j, "unended", NULL);
	cut(j);
	kill_job(j);
	touch(j, "again");
	go_on(j, "2", "direct");
}

int main(void)
{
#define PTY(name) cmocka_unit_test_setup_teardown(name, setup_ptys, teardown)
	const struct CMUnitTest tests[] = {
		PTY(test_pair),	   PTY(test_session), PTY(test_shell),	 PTY(test_runs_on),
		PTY(test_waiting), PTY(test_typed),   PTY(test_unended),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
