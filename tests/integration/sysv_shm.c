// SPDX-License-Identifier: GPL-2.0
/* Jobs that share System V segments, brought back from every version of a chain, in every order and role. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/sysv_job.h"

#define VERSIONS 3

static void start_ring(struct sysv_job *j, int n, const char *pages)
{
	char name[32], me[16], count[16];

	snprintf(count, sizeof(count), "%d", n);
	for (int i = 0; i < n; i++) {
		snprintf(me, sizeof(me), "%d", i);
		sysv_start(j, "ring", j->key, me, count, pages, NULL);
		snprintf(name, sizeof(name), "ready.%d", i);
		sysv_wait(j, name);
	}
	sysv_turns(j, sysv_id(j, j->key), 8);
}

/* Versions while everybody works. */
static void cut_chain(struct sysv_job *j, int id)
{
	for (int v = 0; v < VERSIONS; v++) {
		free(sysv_cut(j, NULL));
		sysv_turns(j, id, 20);
	}
}

static void again(struct sysv_job *j)
{
	sysv_kill(j);
	sysv_clean(j);
}

static void play_ring(struct sysv_job *j, int n)
{
	start_ring(j, n, "200");
	cut_chain(j, sysv_id(j, j->key));
	again(j);
	for (int v = VERSIONS; v >= 1; v--) {
		free(sysv_restart(j, v, NULL));
		sysv_turns(j, sysv_id(j, j->key), 20);
		sysv_go(j);
		sysv_clean(j);
	}
}

static void test_client_server(void **state)
{
	play_ring(*state, 2);
}

static void test_ring(void **state)
{
	play_ring(*state, 4);
}

static void restart_one(struct sysv_job *j, int version, int which, bool first)
{
	char pid[16], *said;

	snprintf(pid, sizeof(pid), "%d", j->pids[which]);
	said = sysv_restart(j, version, "--pid", pid, NULL);
	/* the first makes the segment, whoever it is; the others link */
	if (!strstr(said, "linked") != first)
		fail_msg("process %d: %s", which, said);
	free(said);
}

/* Every order of four. */
static void test_roles(void **state)
{
	struct sysv_job *j = *state;
	int version = 0;

	start_ring(j, 4, "40");
	cut_chain(j, sysv_id(j, j->key));
	again(j);
	for (int order = 0; order < 256; order++) {
		int who[4] = {order & 3, order >> 2 & 3, order >> 4 & 3, order >> 6};
		int set = 1 << who[0] | 1 << who[1] | 1 << who[2] | 1 << who[3];

		if (set != 15)
			continue;
		for (int i = 0; i < 4; i++)
			restart_one(j, 1 + version % VERSIONS, who[i], !i);
		version++;
		sysv_turns(j, sysv_id(j, j->key), 12);
		sysv_go(j);
		sysv_clean(j);
	}
	assert_int_equal(version, 24);
}

static int newest_of(pid_t pid)
{
	char *maps = file_text("/proc/%d/maps", pid), *at = strstr(maps, "/SYSV");
	unsigned long inode = 0;

	assert_non_null(at);
	while (at > maps && at[-1] != '\n')
		at--;
	assert_int_equal(sscanf(at, "%*s %*s %*s %*s %lu", &inode), 1);
	free(maps);
	return (int)inode;
}

static void play_family(struct sysv_job *j, int key, const char *removed)
{
	int id;

	sysv_start(j, "family", key, "3", "100", removed, NULL);
	sysv_wait(j, "ready.0");
	sysv_wait(j, "ready.2");
	id = newest_of(j->pids[0]);
	cut_chain(j, id);
	again(j);
	for (int v = 1; v <= VERSIONS; v++) {
		free(sysv_restart(j, v, NULL));
		/* it looks for it by its id at the end */
		assert_int_equal(newest_of(j->pids[0]), id);
		sysv_turns(j, id, 20);
		sysv_go(j);
		sysv_clean(j);
	}
}

static void test_parent_child(void **state)
{
	struct sysv_job *j = *state;

	play_family(j, j->key, NULL);
}

static void test_private(void **state)
{
	play_family(*state, IPC_PRIVATE, NULL);
}

static void test_removed(void **state)
{
	struct sysv_job *j = *state;

	play_family(j, j->key, "removed");
}

static void test_attachments(void **state)
{
	struct sysv_job *j = *state;
	char *maps[2];
	int id;

	sysv_start(j, "attach", j->key, NULL);
	sysv_wait(j, "ready.0");
	id = sysv_id(j, j->key);
	cut_chain(j, id);
	maps[0] = file_text("/proc/%d/maps", j->pids[0]);
	again(j);
	for (int v = 1; v <= VERSIONS; v++) {
		free(sysv_restart(j, v, NULL));
		maps[1] = file_text("/proc/%d/maps", j->pids[0]);
		assert_string_equal(maps[0], maps[1]);
		free(maps[1]);
		sysv_turns(j, sysv_id(j, j->key), 5);
		sysv_go(j);
		sysv_clean(j);
	}
	free(maps[0]);
}

static void test_many(void **state)
{
	struct sysv_job *j = *state;

	sysv_start(j, "many", j->key, "200", NULL);
	sysv_wait(j, "ready.0");
	sysv_wait(j, "ready.1");
	cut_chain(j, sysv_id(j, j->key + 199));
	again(j);
	for (int v = 1; v <= VERSIONS; v++) {
		free(sysv_restart(j, v, NULL));
		sysv_turns(j, sysv_id(j, j->key + 100), 5);
		sysv_go(j);
		sysv_clean(j);
	}
}

static void contains(char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("expected '%s', got: %s", part, text);
	free(text);
}

/* The key is somebody else's. */
static void test_existing(void **state)
{
	struct sysv_job *j = *state;
	char *seg, by_us[64];
	int id;

	start_ring(j, 2, "20");
	free(sysv_cut(j, NULL));
	sysv_kill(j);
	/* the job's own, left behind: still not taken without being told to */
	sysv_refused(j, "exists already", 1, NULL);
	sysv_clean(j);
	id = shmget(j->key, 20 * 4096, IPC_CREAT | IPC_EXCL | 0600);
	seg = shmat(id, NULL, 0);
	assert_true(id >= 0 && seg != (void *)-1);
	snprintf(by_us, sizeof(by_us),
		 "made by pid %d (sysv_shm), attached by pid %d (sysv_shm)", getpid(),
		 getpid());
	sysv_refused(j, by_us, 1, NULL);
	sysv_refused(j, "mode is 600 instead of 640", 1, "--shm-existing", "adopt", NULL);
	sysv_refused(j, "can't be replaced: it is attached by", 1, "--shm-existing", "replace",
		     NULL);
	assert_int_equal(sysv_id(j, j->key), id);
	shmdt(seg);
	contains(sysv_restart(j, 1, "--shm-existing", "replace", NULL), "restarted version 1");
	sysv_turns(j, sysv_id(j, j->key), 10);
	sysv_go(j);
	sysv_clean(j);
	id = shmget(j->key, 21 * 4096, IPC_CREAT | IPC_EXCL | 0640);
	sysv_refused(j, "bytes instead of", 1, "--shm-existing", "adopt", NULL);
	assert_int_equal(shmctl(id, IPC_RMID, NULL), 0);
}

/* Killed, with its segment left as it was: adopted, it is the same job again. */
static void test_adopt(void **state)
{
	struct sysv_job *j = *state;

	start_ring(j, 2, "20");
	sysv_touch(j, "quiet");
	nap_ms(200);
	free(sysv_cut(j, NULL));
	sysv_kill(j);
	sysv_untouch(j, "quiet");
	contains(sysv_restart(j, 1, "--shm-existing", "adopt", NULL), "is adopted");
	sysv_turns(j, sysv_id(j, j->key), 10);
	sysv_go(j);
}

/* The id is taken: another one, and it is said who may have kept the old. */
static void test_other_id(void **state)
{
	struct sysv_job *j = *state;
	int id, other;
	char text[64];

	start_ring(j, 2, "20");
	id = sysv_id(j, j->key);
	free(sysv_cut(j, NULL));
	again(j);
	snprintf(text, sizeof(text), "echo %d > /proc/sys/kernel/shm_next_id", id);
	assert_int_equal(system(text), 0);
	other = shmget(IPC_PRIVATE, 4096, 0600);
	assert_int_equal(other, id);
	snprintf(text, sizeof(text), "that had the id %d", id);
	contains(sysv_restart(j, 1, NULL), text);
	assert_int_equal(shmctl(other, IPC_RMID, NULL), 0);
	assert_int_not_equal(sysv_id(j, j->key), id);
	sysv_turns(j, sysv_id(j, j->key), 10);
	sysv_go(j);
}

static void test_new_namespace(void **state)
{
	struct sysv_job *j = *state;
	char *ours = malloc(64), *theirs = malloc(64);
	char path[64];
	ssize_t len;
	int id;

	sysv_start(j, "family", IPC_PRIVATE, "2", "30", NULL);
	sysv_wait(j, "ready.1");
	id = newest_of(j->pids[0]);
	free(sysv_cut(j, NULL));
	sysv_kill(j);
	/* the segment stays here, and so its id is taken here */
	free(sysv_restart(j, 1, "--new-ipc-namespace", NULL));
	assert_int_equal(newest_of(j->pids[0]), id);
	snprintf(path, sizeof(path), "/proc/%d/ns/ipc", j->pids[0]);
	len = readlink("/proc/self/ns/ipc", ours, 63);
	ours[len] = 0;
	len = readlink(path, theirs, 63);
	theirs[len] = 0;
	assert_string_not_equal(ours, theirs);
	free(ours);
	free(theirs);
	/* a checkpoint from outside looks into the job's namespace */
	free(sysv_cut(j, NULL));
	sysv_kill(j);
	free(sysv_restart(j, 2, "--new-ipc-namespace", NULL));
	assert_int_equal(newest_of(j->pids[0]), id);
	sysv_go(j);
}

int main(void)
{
#define SYSV(name) cmocka_unit_test_setup_teardown(name, sysv_setup, sysv_teardown)
	const struct CMUnitTest tests[] = {
		SYSV(test_client_server), SYSV(test_ring),     SYSV(test_roles),
		SYSV(test_parent_child),  SYSV(test_private),  SYSV(test_removed),
		SYSV(test_attachments),	  SYSV(test_many),     SYSV(test_existing),
		SYSV(test_adopt),	  SYSV(test_other_id), SYSV(test_new_namespace),
	};

	adopt_orphans();
	cmocka_set_test_filter(getenv("ICP_TEST_FILTER"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
