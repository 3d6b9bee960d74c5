// SPDX-License-Identifier: GPL-2.0
/* System V semaphores and message queues: values, adjustments, waiting processes, messages in order. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/sysv_job.h"

#define VERSIONS 3

/* After the end of all: what the parent held is given back, too; and all of it is gone. */
static void check_end(const struct sysv_job *j)
{
	int set = semget(j->key, 0, 0);

	assert_true(set >= 0);
	assert_int_equal(semctl(set, 0, GETVAL), 5);
	sysv_clean(j);
	assert_true(semget(j->key, 0, 0) < 0 && msgget(j->key, 0) < 0);
}

static void start_calls(struct sysv_job *j)
{
	sysv_start(j, "calls", j->key, NULL);
	sysv_wait(j, "ready.0");
}

static void test_calls(void **state)
{
	struct sysv_job *j = *state;
	int set, queue;

	start_calls(j);
	set = semget(j->key, 0, 0);
	queue = msgget(j->key, 0);
	for (int v = 1; v <= VERSIONS; v++)
		free(sysv_cut(j, NULL));
	/* nothing of it was taken away or changed */
	sysv_go(j);
	check_end(j);
	for (int v = 1; v <= VERSIONS; v++) {
		free(sysv_restart(j, v, NULL));
		/* those that wait do so by id */
		assert_int_equal(semget(j->key, 0, 0), set);
		assert_int_equal(msgget(j->key, 0), queue);
		sysv_go(j);
		check_end(j);
	}
}

/* A chain over restarts. */
static void test_again_and_again(void **state)
{
	struct sysv_job *j = *state;

	start_calls(j);
	for (int v = 1; v <= VERSIONS; v++) {
		free(sysv_cut(j, NULL));
		sysv_kill(j);
		sysv_clean(j);
		free(sysv_restart(j, v, NULL));
	}
	sysv_go(j);
	check_end(j);
}

static void test_existing(void **state)
{
	struct sysv_job *j = *state;
	int set;

	start_calls(j);
	free(sysv_cut(j, NULL));
	sysv_kill(j);
	sysv_clean(j);
	set = semget(j->key, 4, IPC_CREAT | IPC_EXCL | 0600);
	assert_true(set >= 0);
	sysv_refused(j, "semaphore set with key", 1, NULL);
	sysv_refused(j, "4 semaphores instead of 3", 1, "--shm-existing", "adopt", NULL);
	free(sysv_restart(j, 1, "--shm-existing", "replace", NULL));
	sysv_go(j);
	check_end(j);
}

static int remove_objects(struct sysv_job *j, const char *expected)
{
	struct run r;
	int status = icp(&r, NULL, "rm", "--dir", j->repo, "--ipc", NULL);
	char *text = run_text(status ? r.err : r.out);

	if (!strstr(text, expected))
		fail_msg("expected '%s', got: %s", expected, text);
	free(text);
	run_close(&r);
	return status;
}

/* Not while one of the job lives or somebody uses it; then all of it, of the job and of its restarts. */
static void test_remove(void **state)
{
	struct sysv_job *j = *state;
	struct sembuf up = {0, 1, 0};

	start_calls(j);
	free(sysv_cut(j, NULL));
	assert_int_equal(remove_objects(j, "lives"), 1);
	sysv_kill(j);
	assert_int_equal(semop(semget(j->key, 0, 0), &up, 1), 0);
	assert_int_equal(remove_objects(j, "is in use by pid"), 1);
	sysv_clean(j);
	free(sysv_restart(j, 1, NULL));
	assert_int_equal(remove_objects(j, "lives"), 1);
	sysv_kill(j);
	assert_int_equal(remove_objects(j, "removed: message queue"), 0);
	assert_true(semget(j->key, 0, 0) < 0 && msgget(j->key, 0) < 0);
	assert_int_equal(remove_objects(j, ""), 0);
}

int main(void)
{
#define SYSV(name) cmocka_unit_test_setup_teardown(name, sysv_setup, sysv_teardown)
	const struct CMUnitTest tests[] = {SYSV(test_calls), SYSV(test_again_and_again),
					   SYSV(test_existing), SYSV(test_remove)};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
