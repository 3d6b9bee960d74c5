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
	play(*state, "cow");
}

int main(void)
{
#define MEMORY(name) cmocka_unit_test_setup_teardown(name, setup_remade, teardown)
	const struct CMUnitTest tests[] = {
		MEMORY(test_cow),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
