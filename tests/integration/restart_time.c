// SPDX-License-Identifier: GPL-2.0
/* What a restarted program sees of time (tests/targets/clocks). */
#include <sys/wait.h>

#include "lib/rebirth.h"

#define GAP_MS 2100

static void sleep_over(struct job *j, const char *scene, const char *option)
{
	struct run r;

	j->target = "tests/targets/clocks";
	start_scene(j, scene, NULL);
	cut(j);
	kill_job(j);
	nap_ms(GAP_MS);
	begin_restart(j, &r, "1", "direct", option);
	if (!run_says(&r, "\"phases\"", 30))
		fail_msg("%s", run_text(r.err));
	nap_ms(300); /* the timer fires */
	touch(j, "go");
	run_wait(&r, 30);
	if (exists(j, "wrong"))
		fail_msg("%s", file_text("%s", in(j, "wrong")));
	assert_int_equal(r.status, 0);
	run_close(&r);
}

static void test_jumps(void **state)
{
	sleep_over(*state, "jumps", NULL);
}

static void test_goes_on(void **state)
{
	sleep_over(*state, "goes_on", "--time-namespace");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_jumps, setup, teardown),
		cmocka_unit_test_setup_teardown(test_goes_on, setup, teardown),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
