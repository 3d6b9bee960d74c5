// SPDX-License-Identifier: GPL-2.0
/* System V objects of rarer kinds: huge pages, locked, never used, attached while the job is tracked. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/kid.h"
#include "lib/sysv_job.h"

#define VERSIONS 3
#define PAGE 4096ul

static void begin(struct sysv_job *j, const char *scene)
{
	sysv_start_program(j, "ipc_kinds", j->key, scene, NULL);
	sysv_wait(j, "ready");
}

static void again(struct sysv_job *j)
{
	sysv_kill(j);
	sysv_clean(j);
}

static void test_locked(void **state)
{
	struct sysv_job *j = *state;

	begin(j, "locked");
	for (int v = 1; v <= VERSIONS; v++)
		free(sysv_cut(j, NULL));
	for (int v = 1; v <= VERSIONS; v++) {
		again(j);
		free(sysv_restart(j, v, NULL));
		sysv_go(j);
	}
}

/* Segments, sets and queues: made, and nothing more; from each version of a chain. */
static void test_unused(void **state)
{
	struct sysv_job *j = *state;
	int set, queue, seg;

	begin(j, "unused");
	set = semget(j->key, 0, 0);
	queue = msgget(j->key, 0);
	seg = sysv_id(j, j->key);
	for (int v = 1; v <= VERSIONS;
	     v++) /* what the parent has stays, without being asked for */
		free(sysv_cut(j, "--shm-detached", v == 1 ? "--ipc-unused" : NULL, NULL));
	for (int v = 1; v <= VERSIONS; v++) {
		again(j);
		free(sysv_restart(j, v, NULL));
		assert_int_equal(semget(j->key, 0, 0), set);
		assert_int_equal(msgget(j->key, 0), queue);
		assert_int_equal(sysv_id(j, j->key), seg);
		sysv_go(j);
	}
}

/* Not by itself: nobody knows whose they are. */
static void test_not_asked_for(void **state)
{
	struct sysv_job *j = *state;

	begin(j, "unused");
	free(sysv_cut(j, NULL));
	again(j);
	free(sysv_restart(j, 1, NULL));
	assert_true(semget(j->key, 0, 0) < 0 && msgget(j->key, 0) < 0 &&
		    sysv_id(j, j->key) < 0);
}

/* Somebody else's: of a user that the job has nothing of, or from before it. */
static void test_unused_of_others(void **state)
{
	struct sysv_job *j = *state;
	int old = semget(j->key + 1, 1, IPC_CREAT | IPC_EXCL | 0600), foreign, status;
	pid_t pid;

	assert_true(old >= 0);
	nap_ms(5000); /* times are whole seconds, and believed to two */
	begin(j, "unused");
	pid = fork();
	if (!pid)
		_exit(setresuid(1234, 1234, 1234) ||
		      msgget(j->key + 2, IPC_CREAT | IPC_EXCL | 0600) < 0);
	assert_true(waitpid(pid, &status, 0) == pid && !status);
	foreign = msgget(j->key + 2, 0);
	assert_true(foreign >= 0);
	free(sysv_cut(j, "--shm-detached", "--ipc-unused", NULL));
	again(j);
	assert_true(semget(j->key + 1, 0, 0) < 0);
	free(sysv_restart(j, 1, NULL));
	assert_true(semget(j->key, 0, 0) >= 0);
	assert_true(semget(j->key + 1, 0, 0) < 0 && msgget(j->key + 2, 0) < 0);
	sysv_go(j);
}

/* ---- attached while the tracking is on ---- */

static void say(struct sysv_job *j, const char *what, int n)
{
	char name[16];

	snprintf(name, sizeof(name), "%s.%d", what, n);
	sysv_touch(j, name);
}

static void compare(struct sysv_job *j, int version, const char *want, size_t size)
{
	size_t now;
	char *copy;

	again(j);
	free(sysv_restart(j, version, NULL));
	copy = sysv_copy(sysv_id(j, j->key), &now);
	assert_int_equal(now, size);
	for (size_t at = 0; at < size; at += PAGE)
		if (memcmp(copy + at, want + at, PAGE))
			fail_msg("version %d differs in page %zu", version, at / PAGE);
	free(copy);
}

/* Children of the job attach one after the other, each between two versions of one session. */
static void test_late(void **state)
{
	struct sysv_job *j = *state;
	void *copies[VERSIONS];
	char pid[16], name[16];
	size_t size = 0;
	struct run r;

	begin(j, "late");
	free(sysv_cut(j, "--keep-tracking", NULL));
	for (int n = 1; n <= VERSIONS; n++) {
		say(j, "turn", n);
		snprintf(name, sizeof(name), "done.%d", n);
		sysv_wait(j, name);
		copies[n - 1] = sysv_copy(sysv_id(j, j->key), &size);
		free(sysv_cut(j, NULL));
	}
	snprintf(pid, sizeof(pid), "%d", j->pids[0]);
	assert_int_equal(icp(&r, NULL, "checkpoint", "--pid", pid, "--stop-tracking", NULL), 0);
	run_close(&r);
	for (int n = 1; n <= VERSIONS; n++) {
		snprintf(name, sizeof(name), "turn.%d", n);
		sysv_untouch(j, name);
	}
	for (int n = 1; n <= VERSIONS; n++) {
		compare(j, n + 1, copies[n - 1], size);
		free(copies[n - 1]);
	}
	/* the last one has all of it: on to the good end */
	sysv_go(j);
}

/* ---- huge pages ---- */

static long huge_pages(long n)
{
	char *text = file_text("/proc/sys/vm/nr_overcommit_hugepages");
	long was = atol(text);
	FILE *file = fopen("/proc/sys/vm/nr_overcommit_hugepages", "w");

	free(text);
	if (file) {
		fprintf(file, "%ld", n);
		fclose(file);
	}
	return was;
}

/* Refused before anything is touched; the data can be had. */
static void test_huge(void **state)
{
	struct sysv_job *j = *state;
	long was = huge_pages(8);
	int id = shmget(IPC_PRIVATE, 2 << 20, SHM_HUGETLB | 0600);
	struct outside before;
	char pid[16], *said;
	struct run r;

	if (id < 0) {
		huge_pages(was);
		skip(); /* no huge pages here */
	}
	shmctl(id, IPC_RMID, NULL);
	begin(j, "huge");
	huge_pages(was);
	snprintf(pid, sizeof(pid), "%d", j->pids[0]);
	outside_look(&before, j->pids[0]);
	assert_int_equal(icp(&r, NULL, "checkpoint", "--pid", pid, "--dir", j->repo, NULL), 1);
	said = run_text(r.err);
	if (!strstr(said, "huge pages (SHM_HUGETLB)") ||
	    strchr(said, '\n') != strrchr(said, '\n'))
		fail_msg("%s", said);
	free(said);
	run_close(&r);
	assert_untouched(j->pids[0], &before, true);
	outside_free(&before);
	free(sysv_cut(j, "--no-restart", NULL));
	sysv_go(j);
}

int main(void)
{
#define SYSV(name) cmocka_unit_test_setup_teardown(name, sysv_setup, sysv_teardown)
	const struct CMUnitTest tests[] = {
		SYSV(test_locked),	     SYSV(test_unused), SYSV(test_not_asked_for),
		SYSV(test_unused_of_others), SYSV(test_late),	SYSV(test_huge),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
