// SPDX-License-Identifier: GPL-2.0
/* Modified Gram-Schmidt in a System V segment: the same result with and without ten cycles of checkpoint, kill, restart. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <unistd.h>

#include "lib/sysv_job.h"

#define CYCLES 10

static char *result(struct sysv_job *j)
{
	char *text;

	sysv_go(j);
	text = file_text("%s", sysv_path(j, "result"));
	assert_non_null(text);
	unlink(sysv_path(j, "result"));
	return text;
}

/* How far it is. */
static uint64_t columns(const struct sysv_job *j)
{
	int id = sysv_id(j, j->key);

	return id < 0 ? UINT64_MAX : sysv_token(id);
}

static void allow(const struct sysv_job *j, int part)
{
	char name[16];

	snprintf(name, sizeof(name), "part.%d", part);
	sysv_touch(j, name);
}

static void test_cycles(void **state)
{
	struct sysv_job *j = *state;
	char *plain, *cut;

	sysv_start_program(j, "mgs_target", j->key, "500", "3", NULL);
	plain = result(j);
	j->n = 0;
	sysv_untouch(j, "ready.0");
	sysv_start_program(j, "mgs_target", j->key, "500", "3", "11", NULL);
	sysv_wait(j, "ready.0");
	for (int v = 1; v <= CYCLES; v++) {
		uint64_t before = columns(j);

		free(sysv_cut(j, NULL)); /* in the middle of a part, or before the next */
		sysv_kill(j);
		sysv_clean(j);
		free(sysv_restart(j, v, NULL));
		assert_true(columns(j) >= before);
		allow(j, v);
	}
	cut = result(j);
	assert_string_equal(plain, cut);
	free(plain);
	free(cut);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_cycles, sysv_setup, sysv_teardown),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
