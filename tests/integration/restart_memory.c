// SPDX-License-Identifier: GPL-2.0
/* Kinds of memory, as tests/targets/remade checks them after a restart. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"

static int setup_remade(void **state)
{
	int err = setup(state);

	((struct job *)*state)->target = "tests/targets/remade";
	return err;
}

static void test_cow(void **state)
{
	if (getuid())
		skip(); /* nobody else sees the numbers of page frames */
	play(*state, "cow");
}

static void test_protected(void **state)
{
	play(*state, "protected");
}

/* In a session that knows that nothing has changed the guard pages are those of before the pause. */
static void test_guards_of_session(void **state)
{
	struct job *j = *state;
	unsigned events = 0;
	char pid[16];
	struct run r;

	start_scene(j, "protected", NULL);
	snprintf(pid, sizeof(pid), "%d", j->pid);
	for (int i = 0; i < 6; i++) {
		char *out;

		if (icp(&r, NULL, "checkpoint", "--json", "--pid", pid, "--dir", j->repo,
			i ? NULL : "--keep-tracking", NULL))
			fail_msg("%s", run_text(r.err));
		out = run_text(r.out);
		events += !!strstr(out, "\"found_by\":\"events\"");
		free(out);
		run_close(&r);
	}
	assert_int_equal(icp(&r, NULL, "checkpoint", "--pid", pid, "--stop-tracking", NULL), 0);
	run_close(&r);
	assert_true(events > 0);
	kill_job(j);
	go_on(j, "2", "direct");
	go_on(j, "6", "rbtree");
}

static void test_advice(void **state)
{
	play(*state, "advice");
}

static void test_growing(void **state)
{
	play(*state, "growing");
}

static void test_sealed(void **state)
{
	play(*state, "sealed");
}

static void test_many(void **state)
{
	play(*state, "many");
}

static void test_vdso(void **state)
{
	play(*state, "vdso");
}

static void test_deleted_private(void **state)
{
	play(*state, "deleted_private");
}

static void test_deleted_shared(void **state)
{
	play(*state, "deleted_shared");
}

static void test_memfd(void **state)
{
	play(*state, "memfd");
}

static void test_shared(void **state)
{
	play(*state, "shared");
}

int main(void)
{
#define MEMORY(name) cmocka_unit_test_setup_teardown(name, setup_remade, teardown)
	const struct CMUnitTest tests[] = {
		MEMORY(test_cow),
		MEMORY(test_protected),
		MEMORY(test_advice),
		MEMORY(test_guards_of_session),
		MEMORY(test_growing),
		MEMORY(test_sealed),
		MEMORY(test_many),
		MEMORY(test_vdso),
		MEMORY(test_deleted_private),
		MEMORY(test_deleted_shared),
		MEMORY(test_memfd),
		MEMORY(test_shared),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
