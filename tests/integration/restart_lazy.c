// SPDX-License-Identifier: GPL-2.0
/* icp-bpf restart --lazy: what the job does while its pages come in, and what befalls us meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"
#include "proc/tasks.h"

#define TRIES 20 /* to be there before the last page is */

static void begin(const struct job *j, struct run *r, unsigned version, const char *lookup,
		  const char *more)
{
	char number[16];
	const char *argv[] = {built("icp-bpf"), "restart",   "--json", "--lazy",   "--dir",
			      j->repo,		"--version", number,   "--lookup", lookup,
			      "--files",	"rewind",    more,     NULL};

	snprintf(number, sizeof(number), "%u", version);
	run_start(r, NULL, argv);
}

/* From @version to its end, which must be a good one; it begins at once. */
static void go_lazily(const struct job *j, unsigned version, const char *lookup,
		      const char *more)
{
	struct run r;

	touch(j, "go");
	begin(j, &r, version, lookup, more);
	run_wait(&r, 120);
	if (exists(j, "wrong"))
		fail_msg("version %u: %s", version, file_text("%s", in(j, "wrong")));
	if (!WIFEXITED(r.status) || WEXITSTATUS(r.status))
		fail_msg("version %u: status %#x, %s", version, r.status, run_text(r.err));
	run_close(&r);
}

static void play_lazily(struct job *j, const char *scene, unsigned versions, const char *more)
{
	start_scene(j, scene, NULL);
	for (unsigned v = 1; v <= versions; v++)
		cut(j);
	kill_job(j);
	for (unsigned v = 1; v <= versions; v++) {
		go_lazily(j, v, "direct", more);
		go_lazily(j, v, "rbtree", more);
	}
}

static void test_lazy(void **state)
{
	play_lazily(*state, "lazy", 3, NULL);
}

static void test_threads(void **state)
{
	play_lazily(*state, "threads", 1, NULL);
}

static void test_tree(void **state)
{
	play_lazily(*state, "tree", 1, NULL);
}

static void test_signals(void **state)
{
	play_lazily(*state, "signals", 1, NULL);
}

static void test_calls(void **state)
{
	play_lazily(*state, "calls", 1, NULL);
}

/* Some memory is shared since a fork, other comes later. */
static void test_shares(void **state)
{
	struct job *j = *state;

	j->target = "tests/targets/remade";
	play_lazily(j, "cow", 1, NULL);
}

static void test_protected(void **state)
{
	struct job *j = *state;

	j->target = "tests/targets/remade";
	play_lazily(j, "protected", 1, NULL);
}

static void test_namespace(void **state)
{
	play_lazily(*state, "lazy", 1, "--new-pid-namespace");
}

/* Its pages lie in the files of all of them. */
static void test_chain(void **state)
{
	struct job *j = *state;

	start_scene(j, "memory", "16");
	for (unsigned v = 1; v <= 20; v++) {
		cut(j);
		nap_ms(20);
	}
	kill_job(j);
	for (unsigned v = 1; v <= 20; v++)
		go_lazily(j, v, "direct", NULL);
}

/* The job, which lost its parent, runs to a good end. */
static void ends_well(struct job *j, pid_t pid)
{
	double end = seconds_now() + 60;
	int status;

	j->pid = pid;
	touch(j, "go");
	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (seconds_now() > end)
			fail_msg("process %d does not end", pid);
		nap_ms(5);
	}
	j->pid = 0;
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
	assert_false(exists(j, "wrong"));
}

static void test_detach(void **state)
{
	struct job *j = *state;
	pid_t pid;
	struct run r;

	start_scene(j, "memory", "64");
	cut(j);
	pid = j->pid;
	kill_job(j);
	begin(j, &r, 1, "direct", "--detach");
	run_wait(&r, 60);
	if (r.status)
		fail_msg("status %#x, %s", r.status, run_text(r.err));
	run_close(&r);
	ends_well(j, pid);
}

/* Whoever brings the pages goes on. */
static void test_parent_killed(void **state)
{
	struct job *j = *state;
	pid_t pid;
	struct run r;

	/* a parent-death signal comes back, too */
	start(j,
	      (const char *[]){"setpriv", "--pdeathsig", "clear", built("tests/targets/reborn"),
			       "memory", j->dir, "256", NULL});
	wait_for(j, "ready");
	cut(j);
	pid = j->pid;
	kill_job(j);
	begin(j, &r, 1, "direct", NULL);
	assert_true(run_says(&r, "\"phases\"", 60));
	kill(r.pid, SIGKILL);
	run_wait(&r, 60);
	run_close(&r);
	ends_well(j, pid);
}

/* Nothing of it runs, and nothing of ours. */
static void gone(const struct job *j, pid_t pid)
{
	const pid_t none[] = {0};

	assert_no_orphans(none, 20);
	assert_int_equal(kill(pid, 0), -1);
	assert_false(exists(j, "wrong"));
}

static void test_damaged(void **state)
{
	struct job *j = *state;
	char path[160], byte, *err;
	pid_t pid;
	struct run r;
	struct stat st;
	int fd;

	start_scene(j, "memory", "32");
	cut(j);
	pid = j->pid;
	kill_job(j);
	snprintf(path, sizeof(path), "%s/000001/0/task_mm_%d.1.bin", j->repo, pid);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0 && !fstat(fd, &st));
	assert_int_equal(pread(fd, &byte, 1, st.st_size / 2), 1);
	byte = (char)~byte;
	assert_int_equal(pwrite(fd, &byte, 1, st.st_size / 2), 1);
	close(fd);
	begin(j, &r, 1, "direct", NULL);
	run_wait(&r, 60);
	err = run_text(r.err);
	if (!strstr(err, "the job was killed") || !strstr(err, "not what its hash says") ||
	    strchr(err, '\n') != err + strlen(err) - 1)
		fail_msg("got: %s", err);
	free(err);
	assert_true(WIFEXITED(r.status));
	assert_int_equal(WEXITSTATUS(r.status), 1);
	run_close(&r);
	gone(j, pid);
}

static pid_t parent_of(pid_t pid)
{
	char *stat = file_text("/proc/%d/stat", pid);
	pid_t parent = stat ? atoi(strrchr(stat, ')') + 4) : 0;

	free(stat);
	return parent;
}

/* The process below @pid that guards its job, 0 when all pages are there. */
static pid_t guard_of(pid_t pid)
{
	pid_list all = {0};
	pid_t found = 0;

	if (tasks_descendants(pid, &all))
		all.n = 0;
	vec_each (p, &all) {
		char *comm = file_text("/proc/%d/comm", *p);

		if (comm && !strcmp(comm, "icp-bpf guard\n"))
			found = *p;
		free(comm);
	}
	vec_free(&all);
	return found;
}

static void stop(pid_t pid)
{
	double end = seconds_now() + 60;
	char state = 0;

	kill(pid, SIGSTOP);
	while (state != 'T' && seconds_now() < end) {
		char *stat = file_text("/proc/%d/stat", pid);

		state = stat ? strrchr(stat, ')')[2] : 'T';
		free(stat);
	}
}

/* Kill the one who brings pages, or the guard, while some are to come: true when there was such a
 * moment. */
static bool kill_one(struct job *j, pid_t pid, bool the_guard)
{
	pid_t guard, server, zombie;
	struct run r;
	bool hit = false;
	char *err;

	begin(j, &r, 1, "direct", NULL);
	assert_true(run_says(&r, "\"phases\"", 60));
	guard = guard_of(r.pid);
	server = guard ? parent_of(guard) : 0;
	if (server > 1 && server != getpid() && server != r.pid) {
		/* nobody brings pages now: still some to come? */
		stop(server);
		hit = guard_of(r.pid) == guard && parent_of(guard) == server;
	}
	if (!hit) {
		if (server > 1)
			kill(server, SIGCONT);
		kill(pid, SIGKILL);
		run_wait(&r, 60);
		run_close(&r);
		return false;
	}
	kill(the_guard ? guard : server, SIGKILL);
	kill(server, SIGCONT);
	run_wait(&r, 60);
	assert_true(WIFEXITED(r.status));
	assert_int_equal(WEXITSTATUS(r.status), 1);
	err = run_text(r.err);
	if (!strstr(err, "was killed") || strchr(err, '\n') != err + strlen(err) - 1)
		fail_msg("got: %s", err);
	free(err);
	run_close(&r);
	while ((zombie = waitpid(-1, NULL, WNOHANG)) > 0)
		;
	gone(j, pid);
	return true;
}

static void kill_while_lazy(struct job *j, bool the_guard)
{
	pid_t pid;
	int hits = 0;

	start_scene(j, "memory", "256");
	cut(j);
	pid = j->pid;
	kill_job(j);
	for (int i = 0; i < TRIES && hits < 3; i++)
		hits += kill_one(j, pid, the_guard);
	if (!hits)
		fail_msg("all pages were there before anything could be killed");
}

static void test_killed(void **state)
{
	kill_while_lazy(*state, false);
}

static void test_guard_killed(void **state)
{
	kill_while_lazy(*state, true);
}

int main(int argc, char **argv)
{
#define LAZY(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		LAZY(test_lazy),	 LAZY(test_threads),	   LAZY(test_tree),
		LAZY(test_signals),	 LAZY(test_calls),	   LAZY(test_chain),
		LAZY(test_detach),	 LAZY(test_damaged),	   LAZY(test_killed),
		LAZY(test_guard_killed), LAZY(test_parent_killed), LAZY(test_shares),
		LAZY(test_protected),	 LAZY(test_namespace),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
