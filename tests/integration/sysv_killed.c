// SPDX-License-Identifier: GPL-2.0
/* kill -9 of icp-bpf at any moment of a restart: the System V objects that it made are gone, or the job runs and has them. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sem.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"
#include "lib/sysv_job.h"

#define ROUNDS 30
#define PROCESSES 2
#define OBJECTS 4

/* We have an IPC namespace of our own: all that is there. */
static size_t objects(void)
{
	static const char *const kinds[] = {"shm", "sem", "msg"};
	size_t lines = 0;

	for (size_t i = 0; i < 3; i++) {
		char *text = file_text("/proc/sysvipc/%s", kinds[i]);

		for (char *at = strchr(text, '\n'); at && at[1]; at = strchr(at + 1, '\n'))
			lines++;
		free(text);
	}
	return lines;
}

static void clean(void)
{
	assert_int_equal(system("ipcrm --all"), 0);
	assert_int_equal(objects(), 0);
}

static void begin(struct sysv_job *j)
{
	sysv_start_program(j, "ipc_kinds", j->key, "each", NULL);
	sysv_wait(j, "ready");
	assert_int_equal(objects(), OBJECTS);
	free(sysv_cut(j, NULL));
	sysv_kill(j);
	clean();
}

static void end_all(pid_t *pids, size_t n)
{
	while (n--)
		kill(pids[n], SIGKILL);
	assert_no_orphans((const pid_t[]){0}, 30);
	clean();
}

/* What was killed may take a moment to be gone. */
static size_t settle(pid_t *pids, size_t max)
{
	double end = seconds_now() + 30;
	size_t n, left;

	do {
		n = survivors("ipc_kinds", PROCESSES, pids, max);
		left = objects();
	} while (left != (n ? OBJECTS : 0) && seconds_now() < end);
	if ((n && n != PROCESSES) || left != (n ? OBJECTS : 0))
		fail_msg("%zu objects, %zu processes", left, n);
	return n;
}

/* Returns whether the job was there. */
static bool kill_one(struct run *r, bool group)
{
	pid_t pids[16];
	size_t n;

	kill(group ? -r->pid : r->pid, SIGKILL);
	run_wait(r, 30);
	run_close(r);
	n = settle(pids, 16);
	end_all(pids, n);
	return n;
}

static void killed(struct sysv_job *j, const char *more, bool group)
{
	const char *argv[] = {built("icp-bpf"), "restart", "--json", "--dir",
			      j->repo,		more,	   NULL};
	struct run_how how = {.own_group = group};
	double took = 0;
	unsigned whole = 0;

	begin(j);
	for (unsigned i = 0; i <= ROUNDS; i++) {
		double start = seconds_now();
		struct run r;

		run_start(&r, &how, argv);
		if (!i) {
			assert_true(run_says(&r, "\"phases\"", 30));
			took = (seconds_now() - start) * 1000;
		} else {
			nap_ms(took * (double)random() / (double)RAND_MAX);
		}
		whole += kill_one(&r, group);
	}
	assert_true(whole > 0); /* the first one at least */
	/* nothing is in the way of the next one */
	free(sysv_restart(j, 1, NULL));
	sysv_go(j);
	clean();
}

static void test_killed(void **state)
{
	killed(*state, NULL, false);
}

static void test_group_killed(void **state)
{
	killed(*state, NULL, true);
}

static void test_killed_in_namespace(void **state)
{
	killed(*state, "--new-pid-namespace", false);
}

/* A restart that fails by itself after they were made: a page of a process is damaged. */
static void test_failed(void **state)
{
	struct sysv_job *j = *state;
	char command[160];

	begin(j);
	snprintf(command, sizeof(command),
		 "for f in %s/000001/0/task_mm_*.bin; do "
		 "dd if=/dev/urandom of=$f bs=4096 seek=1 count=9 conv=notrunc status=none; "
		 "done",
		 j->repo);
	assert_int_equal(system(command), 0);
	sysv_refused(j, "restart:", 1, NULL);
	assert_int_equal(objects(), 0);
}

int main(void)
{
#define SYSV(name) cmocka_unit_test_setup_teardown(name, sysv_setup, sysv_teardown)
	const struct CMUnitTest tests[] = {
		SYSV(test_killed),
		SYSV(test_group_killed),
		SYSV(test_killed_in_namespace),
		SYSV(test_failed),
	};

	if (unshare(CLONE_NEWIPC))
		return 1;
	srandom((unsigned)getpid());
	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
