// SPDX-License-Identifier: GPL-2.0
/* Jobs that start one process after the other are caught as they are: a shell's loop, make. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/program.h"

/* Ten checkpoints in a row; then versions of it go on, and end as the program says. */
static void caught(struct job *j, const char *script)
{
	static const char *const versions[] = {"1", "4", "7", "10"};
	const char *argv[] = {"bash", "-c", script, "bash", j->dir, NULL};

	start(j, argv);
	wait_for(j, "ready");
	for (int i = 0; i < 10; i++)
		cut(j);
	kill_job(j);
	assert_no_orphans((const pid_t[]){0}, 60);
	for (size_t i = 0; i < sizeof(versions) / sizeof(*versions); i++) {
		go_on(j, versions[i], "direct");
		assert_no_orphans((const pid_t[]){0}, 60);
	}
}

/* A child that is there when it is caught has its own memory, and its status counts. */
static void test_loop(void **state)
{
	caught(*state, "cd \"$1\"; : >ready; n=0\n"
		       "while [ ! -e go ]; do n=$((n + 1)); /bin/true || exit 3; done\n"
		       "[ $n -gt 0 ]");
}

/* Subshells and pipes: forks without an exec. */
static void test_subshells(void **state)
{
	caught(*state, "cd \"$1\"; : >ready; n=0\n"
		       "while [ ! -e go ]; do n=$((n + 1)); [ \"$(echo $n)\" = $n ] || exit 3\n"
		       "(exit 7); [ $? = 7 ] || exit 4; [ \"$(echo a $n | cat)\" = \"a $n\" ] "
		       "|| exit 5\n"
		       "done\n");
}

/* Its children come by vfork(). */
static void test_make(void **state)
{
	struct job *j = *state;
	const char *argv[] = {"make", "-s", "-j2", "-C", j->dir, NULL};
	FILE *f = fopen(in(j, "Makefile"), "w");
	struct run r;

	assert_non_null(f);
	assert_true(
		fputs("names := $(shell seq 1 2000)\n"
		      "all: $(names:%=t%)\n"
		      "t%:\n\t@test $* != 50 || : >ready; echo $* >$@.part && mv $@.part $@\n",
		      f) >= 0);
	assert_int_equal(fclose(f), 0);
	start(j, argv);
	wait_for(j, "ready");
	for (int i = 0; i < 3; i++)
		cut(j);
	CUT(j, "--kill");
	assert_false(exists(j, "t2000"));
	kill_job(j);
	assert_no_orphans((const pid_t[]){0}, 60);
	begin_version(j, &r, "4", NULL);
	run_wait(&r, 120);
	if (r.status)
		fail_msg("status %#x: %s%s", r.status, run_text(r.err),
			 file_text("%s", in(j, "output")));
	run_close(&r);
	succeeds((const char *[]){
		"sh", "-c",
		"cd \"$0\" && for i in $(seq 1 2000); do [ \"$(cat t$i)\" = $i ] "
		"|| exit 1; done",
		j->dir, NULL});
}

int main(int argc, char **argv)
{
#define FORKS(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		FORKS(test_loop),
		FORKS(test_subshells),
		FORKS(test_make),
	};

	adopt_orphans();
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
