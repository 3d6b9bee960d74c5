// SPDX-License-Identifier: GPL-2.0
/* One process of a version after the other, from every version of a chain: any order, ids that are taken, an IPC namespace of its own. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <unistd.h>

#include "lib/sysv_job.h"

#define VERSIONS 3
#define SERVER 0 /* makes the segment */
#define CLIENT 1

static int begin(struct sysv_job *j)
{
	int id;

	sysv_start(j, "ring", j->key, "0", "2", "60", NULL);
	sysv_wait(j, "ready.0");
	sysv_start(j, "ring", j->key, "1", "2", "60", NULL);
	sysv_wait(j, "ready.1");
	id = sysv_id(j, j->key);
	for (int v = 1; v <= VERSIONS; v++) {
		sysv_turns(j, id, 10);
		free(sysv_cut(j, NULL));
	}
	sysv_kill(j);
	sysv_clean(j);
	return id;
}

/* What icp-bpf says must have @part, unless it is NULL. */
static void bring(struct sysv_job *j, int version, int which, const char *how, const char *part)
{
	char pid[16], *said;

	snprintf(pid, sizeof(pid), "%d", j->pids[which]);
	said = sysv_restart(j, version, "--pid", pid, how, NULL);
	if (part && !strstr(said, part))
		fail_msg("version %d, process %d: expected '%s', got: %s", version, which, part,
			 said);
	free(said);
}

static void test_orders(void **state)
{
	struct sysv_job *j = *state;
	int id = begin(j);

	for (int v = 1; v <= VERSIONS; v++) {
		for (int first = SERVER; first <= CLIENT; first++) {
			bring(j, v, first, NULL, NULL);
			assert_int_equal(sysv_id(j, j->key), id);
			bring(j, v, !first, NULL, "linked");
			sysv_turns(j, id, 10);
			sysv_go(j);
			sysv_clean(j);
		}
	}
}

/* The id is somebody else's: both have the same new one, whoever comes first. */
static void test_taken_ids(void **state)
{
	struct sysv_job *j = *state;
	int id = begin(j), other;
	char text[64];

	for (int v = 1; v <= VERSIONS; v++) {
		for (int first = SERVER; first <= CLIENT; first++) {
			snprintf(text, sizeof(text), "echo %d > /proc/sys/kernel/shm_next_id",
				 id);
			assert_int_equal(system(text), 0);
			other = shmget(IPC_PRIVATE, 4096, 0600);
			assert_int_equal(other, id);
			snprintf(text, sizeof(text), "that had the id %d", id);
			bring(j, v, first, NULL, text);
			bring(j, v, !first, NULL, "linked");
			assert_int_not_equal(sysv_id(j, j->key), id);
			sysv_turns(j, sysv_id(j, j->key), 10);
			sysv_go(j);
			sysv_clean(j);
			assert_int_equal(shmctl(other, IPC_RMID, NULL), 0);
		}
	}
}

static void ipc_of(pid_t pid, char name[64])
{
	char path[40];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/%d/ns/ipc", pid);
	len = readlink(path, name, 63);
	assert_true(len > 0);
	name[len] = 0;
}

/* Key and id are taken here, and free there; who comes second joins the first. */
static void test_namespace(void **state)
{
	struct sysv_job *j = *state;
	int id = begin(j), other;
	char text[64], ours[64], theirs[2][64];

	snprintf(text, sizeof(text), "echo %d > /proc/sys/kernel/shm_next_id", id);
	assert_int_equal(system(text), 0);
	other = shmget(j->key, 4096, IPC_CREAT | IPC_EXCL | 0600);
	assert_int_equal(other, id);
	ipc_of(getpid(), ours);
	for (int v = 1; v <= VERSIONS; v++) {
		for (int first = SERVER; first <= CLIENT; first++) {
			bring(j, v, first, "--new-ipc-namespace", NULL);
			bring(j, v, !first, "--new-ipc-namespace", "linked");
			for (int i = 0; i < 2; i++) {
				assert_int_equal(sysv_attached(j->pids[i]), id);
				ipc_of(j->pids[i], theirs[i]);
			}
			assert_string_equal(theirs[0], theirs[1]);
			assert_string_not_equal(theirs[0], ours);
			sysv_go(j);
		}
	}
	assert_int_equal(shmctl(other, IPC_RMID, NULL), 0);
}

int main(void)
{
#define SYSV(name) cmocka_unit_test_setup_teardown(name, sysv_setup, sysv_teardown)
	const struct CMUnitTest tests[] = {
		SYSV(test_orders),
		SYSV(test_taken_ids),
		SYSV(test_namespace),
	};

	/* nobody else asks for ids there */
	if (unshare(CLONE_NEWIPC))
		return 1;
	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
