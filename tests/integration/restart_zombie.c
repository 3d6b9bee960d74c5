// SPDX-License-Identifier: GPL-2.0
/* Children that have ended and that nobody has waited for yet. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"

static int setup_mourner(void **state)
{
	int err = setup(state);

	((struct job *)*state)->target = "tests/targets/mourner";
	return err;
}

static void test_zombies(void **state)
{
	play(*state, "-");
}

static void test_in_namespace(void **state)
{
	struct job *j = *state;
	struct run r;

	start_scene(j, "-", NULL);
	cut(j);
	kill_job(j);
	begin_restart(j, &r, "1", "direct", "--new-pid-namespace");
	touch(j, "go");
	run_wait(&r, 60);
	if (r.status || exists(j, "wrong"))
		fail_msg("status %#x: %s", r.status, run_text(r.err));
	run_close(&r);
}

/* Who looks at versions knows of processes without memory. */
static void test_verbs(void **state)
{
	static const char *const verbs[][4] = {{"verify"},
					       {"list", "--verify"},
					       {"show", "--version", "2"},
					       {"diff", "--from=1", "--to=2"},
					       {"prune", "--drop=1"}};
	struct job *j = *state;

	start_scene(j, "-", NULL);
	cut(j);
	cut(j);
	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++) {
		struct run r;

		if (icp(&r, NULL, verbs[i][0], "--dir", j->repo, verbs[i][1], verbs[i][2],
			verbs[i][3], NULL))
			fail_msg("%s: %s", verbs[i][0], run_text(r.err));
		run_close(&r);
	}
	kill_job(j);
	go_on(j, "2", "direct");
}

int main(void)
{
#define ZOMBIE(name) cmocka_unit_test_setup_teardown(name, setup_mourner, teardown)
	const struct CMUnitTest tests[] = {
		ZOMBIE(test_zombies),
		ZOMBIE(test_in_namespace),
		ZOMBIE(test_verbs),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
