// SPDX-License-Identifier: GPL-2.0
/* PostgreSQL on System V shared memory, under load: traced, cut, killed, brought back with the files of that moment. */
#include <signal.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"
#include "proc/sysvshm.h"
#include "proc/tasks.h"

#define PATIENCE 120 /* of each step; usually one or two seconds */

struct server {
	struct job *job;
	char port[16];
	struct run loads[2];
};

/* What leads to the runner must not be open in the server. */
static void close_rest(void *arg)
{
	syscall(SYS_close_range, 3, ~0u, 0);
}

static void begin(struct server *s, struct run *r, const char *verb, const char *more)
{
	const char *argv[] = {
		"bash", "tests/programs/postgres.sh", s->job->dir, s->port, verb, more, NULL};

	run_start(r, &(struct run_how){.before = close_rest}, argv);
}

static int finish(struct run *r)
{
	run_wait(r, PATIENCE);
	return WIFEXITED(r->status) ? WEXITSTATUS(r->status) : -1;
}

static void script(struct server *s, const char *verb, const char *more)
{
	struct run r;

	begin(s, &r, verb, more);
	if (finish(&r))
		fail_msg("%s: %s%s", verb, run_text(r.out), run_text(r.err));
	run_close(&r);
}

static void assert_marks(struct server *s, const char *marks)
{
	struct run r;
	char *said;

	begin(s, &r, "marks", NULL);
	assert_int_equal(finish(&r), 0);
	said = run_text(r.out);
	assert_string_equal(said, marks);
	free(said);
	run_close(&r);
}

static void find_server(struct server *s)
{
	char *text = file_text("%s/data/postmaster.pid", s->job->dir);

	s->job->pid = atoi(text);
	assert_true(s->job->pid > 1);
	free(text);
}

static int server_setup(void **state)
{
	struct server *s = calloc(1, sizeof(*s));

	*state = s;
	/* below the ports that the kernel gives out: it stays free between kill and restart */
	snprintf(s->port, sizeof(s->port), "%d", 12000 + getpid() % 20000);
	return setup((void **)&s->job);
}

static int server_teardown(void **state)
{
	struct server *s = *state;
	int err;

	for (size_t i = 0; i < 2; i++)
		if (s->loads[i].pid > 0) {
			kill(s->loads[i].pid, SIGKILL);
			run_close(&s->loads[i]);
		}
	err = teardown((void **)&s->job);
	free(s);
	return err;
}

/* --- the tests' steps --- */

/* icp-bpf with these arguments, which must go well; what it printed, to be freed. */
static char *icp_bpf(const struct server *s, const char *verb, const char *const *more)
{
	const char *argv[16] = {built("icp-bpf"), verb};
	struct run r;
	char *said;

	for (size_t i = 0; more[i] && i < 13; i++)
		argv[2 + i] = more[i];
	run_start(&r, NULL, argv);
	if (finish(&r))
		fail_msg("%s: %s", verb, run_text(r.err));
	said = run_text(r.out);
	run_close(&r);
	return said;
}

static void trace(const struct server *s)
{
	char pid[16], *said;

	snprintf(pid, sizeof(pid), "%d", s->job->pid);
	said = icp_bpf(
		s, "trace",
		(const char *[]){"--pid", pid, "--tree", "--count", "2", "--top", "50", NULL});
	/* functions of its that write, by name */
	if (!strstr(said, " [postgres]"))
		fail_msg("no writer of postgres: %s", said);
	free(said);
}

static void take(const struct server *s, const char *const *how)
{
	const char *more[12] = {"--pid", NULL, "--dir", s->job->repo, "--tcp-close"};
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", s->job->pid);
	more[1] = pid;
	for (size_t i = 0; how[i]; i++)
		more[5 + i] = how[i];
	free(icp_bpf(s, "checkpoint", more));
}

/* A version, and the files as they are in that moment. */
static void take_with_files(struct server *s, const char *copy)
{
	take(s, (const char *[]){"--leave-frozen", NULL});
	script(s, "keep", copy);
}

static void thaw(const struct server *s)
{
	pid_list all = {0};

	assert_int_equal(tasks_descendants(s->job->pid, &all), 0);
	kill(s->job->pid, SIGCONT);
	vec_each (p, &all)
		kill(*p, SIGCONT);
	free_pids(&all);
}

static void load(struct server *s)
{
	begin(s, &s->loads[0], "load", s->job->dir);
	begin(s, &s->loads[1], "load", "127.0.0.1");
}

/* The server is gone: they see that. */
static void load_ends(struct server *s)
{
	for (size_t i = 0; i < 2; i++) {
		assert_int_not_equal(finish(&s->loads[i]), 0);
		run_close(&s->loads[i]);
		s->loads[i].pid = 0;
	}
}

static void shut_down(struct server *s)
{
	script(s, "down", NULL);
	assert_int_equal(waitpid(s->job->pid, NULL, __WALL), s->job->pid);
	s->job->pid = 0;
}

/* With the files that belong to it; it must be a sound server in every way. */
static void bring_back(struct server *s, const char *version, const char *copy,
		       const char *marks)
{
	script(s, "back", copy);
	free(icp_bpf(s, "restart",
		     (const char *[]){"--dir", s->job->repo, "--version", version, "--detach",
				      "--tcp-close", "--files", "rewind", "--shm-existing",
				      "replace", NULL}));
	find_server(s);
	script(s, "check", NULL);
	assert_marks(s, marks);
	script(s, "mark", "9"); /* it still writes */
	shut_down(s);
	script(s, "again", NULL);
	find_server(s);
	script(s, "check", NULL);
	shut_down(s);
}

static void test_newest_and_older(void **state)
{
	struct server *s = *state;

	script(s, "up", NULL);
	find_server(s);
	load(s);
	trace(s);
	take(s, (const char *[]){"--every", "2s", "--count", "2", NULL});
	script(s, "mark", "3");
	take_with_files(s, "3");
	thaw(s);
	script(s, "mark", "4");
	take(s, (const char *[]){"--label", "without files", NULL});
	script(s, "mark", "5");
	take_with_files(s, "5");
	kill_job(s->job);
	load_ends(s);
	bring_back(s, "5", "5", "3 4 5\n");
	bring_back(s, "3", "3", "3\n");
}

/* --- what it leaves when it is killed --- */

static size_t segments(void)
{
	struct sysvshm all;
	size_t n;

	assert_int_equal(sysvshm_read(&all), 0);
	n = all.n;
	sysvshm_free(&all);
	return n;
}

/* icp-bpf rm --ipc of the newest version, which must say @part in its only line, or in one of those it removes. */
static void remove_left(const struct server *s, int status, const char *part)
{
	struct run r;
	char *said;

	assert_int_equal(icp(&r, NULL, "rm", "--dir", s->job->repo, "--ipc", NULL), status);
	said = run_text(status ? r.err : r.out);
	if (!strstr(said, part))
		fail_msg("rm: expected '%s', got: %s", part, said);
	free(said);
	run_close(&r);
}

static void test_remove(void **state)
{
	struct server *s = *state;

	script(s, "up", NULL);
	find_server(s);
	script(s, "mark", "6");
	take_with_files(s, "1");
	remove_left(s, 1, "lives");
	thaw(s);
	script(s, "mark", "7");
	kill_job(s->job);
	/* the one that it finds by its key, and those of dynamic_shared_memory_type */
	assert_true(segments() >= 2);
	remove_left(s, 0, "removed: segment with key 0x0");
	assert_int_equal(segments(), 0);
	script(s, "back", "1");
	free(icp_bpf(s, "restart",
		     (const char *[]){"--dir", s->job->repo, "--detach", "--tcp-close",
				      "--files", "rewind", NULL}));
	find_server(s);
	assert_marks(s, "6\n");
	remove_left(s, 1, "lives");
	kill_job(s->job);
	assert_true(segments() >= 2);
	remove_left(s, 0, "removed: segment with key 0x0");
	assert_int_equal(segments(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_newest_and_older, server_setup,
						server_teardown),
		cmocka_unit_test_setup_teardown(test_remove, server_setup, server_teardown),
	};

	/* what a failing test leaves of its segments goes with it */
	if (unshare(CLONE_NEWIPC))
		return 1;
	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
