// SPDX-License-Identifier: GPL-2.0
/*
 * ICP_ROUNDS times: checkpoint, kill -9, restart of a job (tests/targets/toiler) at random
 * moments and in random ways. It checks itself; from outside nothing may be left or grow.
 */
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"

#include "proc/tasks.h"

#define ROUNDS 5
#define PROCESSES 4
#define KEPT "5"
#define PATIENCE 120 /* s; on a busy machine */

static unsigned chance(unsigned one_in)
{
	return (unsigned)random() % one_in == 0;
}

static size_t entries(pid_t pid, const char *what)
{
	struct dirent *e;
	char path[64];
	size_t n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, what);
	dir = opendir(path);
	assert_non_null(dir);
	while ((e = readdir(dir)))
		n += e->d_name[0] != '.';
	closedir(dir);
	return n;
}

/* What it does all the time is done, by every thread. */
static void still_right(struct job *j, unsigned round)
{
	double end = seconds_now() + PATIENCE;

	touch(j, "ask");
	while (exists(j, "ask")) {
		if (exists(j, "wrong")) {
			nap_ms(500); /* until all of it is said */
			fail_msg("round %u: %s", round, file_text("%s", in(j, "wrong")));
		}
		if (seconds_now() > end)
			fail_msg("round %u: process %d gets no further", round, j->pid);
		nap_ms(2);
	}
}

/* The same descriptors, threads and processes (but for a child of a moment) as at the start. */
static void nothing_more(struct job *j, size_t fds, size_t threads)
{
	pid_list all = {0};

	assert_int_equal(tasks_descendants(j->pid, &all), 0);
	assert_in_range(all.n, PROCESSES - 1, PROCESSES);
	assert_int_equal(entries(j->pid, "fd"), fds);
	assert_int_equal(entries(j->pid, "task"), threads);
	free_pids(&all);
}

static void run_icp(const char *const *argv, unsigned round)
{
	struct run r;

	run_start(&r, NULL, argv);
	run_wait(&r, PATIENCE);
	if (r.status)
		fail_msg("round %u: %s: status %#x, %s", round, argv[1], r.status,
			 run_text(r.err));
	run_close(&r);
}

static void checkpoint(struct job *j, unsigned round, bool kill_it)
{
	char pid[16];
	const char *argv[16] = {built("icp-bpf"), "checkpoint", "--pid", pid, "--dir", j->repo};
	size_t n = 6;

	snprintf(pid, sizeof(pid), "%d", j->pid);
	if (kill_it)
		argv[n++] = "--kill";
	else if (chance(3))
		argv[n++] = "--keep-tracking";
	if (chance(4))
		argv[n++] = "--full";
	if (chance(4))
		argv[n++] = "--compress=zstd";
	run_icp(argv, round);
}

static void prune(struct job *j, unsigned round)
{
	const char *argv[] = {built("icp-bpf"), "prune", "--dir", j->repo,
			      "--keep-last",	KEPT,	 NULL};

	run_icp(argv, round);
}

/* Either way the job is our child when it runs: detached, or its restarter was killed. */
static void restart(struct job *j, struct run *r, pid_t pid, unsigned round)
{
	const char *argv[16] = {built("icp-bpf"), "restart",  "--json",
				"--dir",	  j->repo,    "--files",
				"rewind",	  "--lookup", chance(2) ? "direct" : "rbtree"};
	size_t n = 9;

	if (chance(4))
		argv[n++] = "--lazy";
	else if (chance(3))
		argv[n++] = "--keep-tracking";
	if (chance(2))
		argv[n++] = "--detach";
	if (!restart_runs(r, argv))
		fail_msg("round %u: %s", round, run_text(r->err));
	j->pid = pid;
}

/* kill -9 of all of it; stopped first, so that none sees another one die and calls that wrong. */
static void kill_all(struct job *j)
{
	pid_list all = {0};
	pid_t pid = j->pid;

	assert_int_equal(tasks_descendants(pid, &all), 0);
	kill(pid, SIGSTOP);
	vec_each (p, &all)
		kill(*p, SIGSTOP);
	kill(pid, SIGKILL);
	vec_each (p, &all)
		kill(*p, SIGKILL);
	free_pids(&all);
	j->pid = 0;
}

/* A restarter in the foreground ends as its job did. */
static void its_end(struct run *r)
{
	run_wait(r, PATIENCE);
	assert_true(WIFEXITED(r->status));
	assert_true(WEXITSTATUS(r->status) == 0 || WEXITSTATUS(r->status) == 128 + SIGKILL);
	run_close(r);
}

static void one_round(struct job *j, struct run *r, unsigned round, bool *running)
{
	bool kill_it = chance(4);
	pid_t pid = j->pid;

	nap_ms((double)(random() % 100));
	checkpoint(j, round, kill_it);
	if (!kill_it) {
		nap_ms((double)(random() % 30));
		kill_all(j);
	}
	j->pid = 0;
	if (*running)
		its_end(r);
	*running = false;
	assert_no_orphans((const pid_t[]){0}, PATIENCE);
	restart(j, r, pid, round);
	*running = true;
	still_right(j, round);
}

static void test_soak(void **state)
{
	struct job *j = *state;
	const char *argv[] = {built("tests/targets/toiler"), j->dir, NULL};
	const char *text = getenv("ICP_ROUNDS");
	unsigned rounds = text ? (unsigned)strtoul(text, NULL, 10) : ROUNDS;
	size_t fds, threads;
	bool running = false;
	struct run r;

	start(j, argv);
	wait_for(j, "ready");
	still_right(j, 0);
	fds = entries(j->pid, "fd");
	threads = entries(j->pid, "task");
	for (unsigned round = 1; round <= rounds; round++) {
		one_round(j, &r, round, &running);
		nothing_more(j, fds, threads);
		if (round % 10 == 0)
			prune(j, round);
		if (round % 50 == 0)
			print_message("%u rounds of %u\n", round, rounds);
	}
	touch(j, "go");
	for (double end = seconds_now() + PATIENCE; !kill(j->pid, 0);) {
		waitpid(j->pid, NULL, WNOHANG);
		waitpid(r.pid, &r.status, WNOHANG);
		assert_true(seconds_now() < end);
		nap_ms(2);
	}
	j->pid = 0;
	if (exists(j, "wrong"))
		fail_msg("%s", file_text("%s", in(j, "wrong")));
	assert_no_orphans((const pid_t[]){0}, PATIENCE);
	close(r.out);
	close(r.err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_soak, setup, teardown),
	};

	srandom((unsigned)getpid());
	print_message("seed %d\n", getpid());
	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
