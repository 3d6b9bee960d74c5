// SPDX-License-Identifier: GPL-2.0
/* Unix sockets through checkpoint and restart: tests/targets/unixes. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"

static int setup_unixes(void **state)
{
	int err = setup(state);

	((struct job *)*state)->target = "tests/targets/unixes";
	return err;
}

static void test_pairs(void **state)
{
	play(*state, "pairs");
}

static void test_names(void **state)
{
	play(*state, "names");
}

static void test_datagrams(void **state)
{
	play(*state, "datagrams");
}

static void test_passing(void **state)
{
	play(*state, "passing");
}

static void test_server(void **state)
{
	play(*state, "server");
}

/* The job runs on as if nothing had been: every checkpoint is without --kill. */
static void runs_on(void **state, const char *scene)
{
	struct job *j = *state;
	int status;

	start_scene(j, scene, NULL);
	for (int i = 0; i < 3; i++)
		cut(j);
	touch(j, "go");
	assert_int_equal(waitpid(j->pid, &status, 0), j->pid);
	j->pid = 0;
	if (exists(j, "wrong"))
		fail_msg("%s", file_text("%s", in(j, "wrong")));
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
}

static void test_pairs_run_on(void **state)
{
	runs_on(state, "pairs");
}

static void test_passing_runs_on(void **state)
{
	runs_on(state, "passing");
}

static void test_server_runs_on(void **state)
{
	runs_on(state, "server");
}

static int bound(const struct job *j, int type, const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", in(j, name));
	assert_true(fd >= 0 && !bind(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

static int try_cut(const struct job *j, const char *more, const char *says)
{
	struct run r;
	char pid[16], *err;
	int status;

	snprintf(pid, sizeof(pid), "%d", j->pid);
	status = icp(&r, NULL, "checkpoint", "--pid", pid, "--dir", j->repo, more, NULL);
	err = run_text(r.err);
	if (says && !strstr(err, says))
		fail_msg("expected '%s', got: %s", says, err);
	if (!says && status)
		fail_msg("%s", err);
	free(err);
	run_close(&r);
	return status;
}

/* Refused; with --tcp-close it is saved as closed, and the running one goes on. */
static void test_outside(void **state)
{
	struct job *j = *state;
	int l = bound(j, SOCK_STREAM, "outside"), fd;
	const char *argv[] = {built(j->target), "outside", j->dir, NULL};

	assert_int_equal(listen(l, 1), 0);
	start(j, argv);
	fd = accept(l, NULL, NULL);
	assert_int_equal(send(fd, "hello", 5, 0), 5);
	wait_for(j, "ready");
	assert_int_equal(try_cut(j, NULL, "connected to a process outside of the job"), 1);
	assert_int_equal(try_cut(j, "--tcp-close", NULL), 0);
	kill_job(j);
	close(fd);
	go_on(j, "1", "direct");
	close(l);
}

/* By its name it is found again. */
static void test_log(void **state)
{
	struct job *j = *state;
	int d = bound(j, SOCK_DGRAM, "log");
	char buf[16] = "";

	start_scene(j, "log", NULL);
	cut(j);
	kill_job(j);
	assert_int_equal(recv(d, buf, sizeof(buf), 0), 6);
	go_on(j, "1", "direct");
	assert_int_equal(recv(d, buf, sizeof(buf), MSG_DONTWAIT), 5);
	assert_memory_equal(buf, "after", 5);
	close(d);
}

/* Its name belongs to somebody else by now. */
static void test_name_taken(void **state)
{
	struct job *j = *state;
	struct run r;
	int l;

	start_scene(j, "datagrams", NULL);
	cut(j);
	kill_job(j);
	assert_int_equal(unlink(in(j, "server")), 0);
	l = bound(j, SOCK_STREAM, "server");
	assert_int_equal(listen(l, 1), 0);
	assert_int_equal(icp(&r, NULL, "restart", "--dir", j->repo, NULL), 1);
	assert_non_null(strstr(run_text(r.err), "server is used by another process"));
	run_close(&r);
	assert_int_equal(poll(&(struct pollfd){l, POLLIN, 0}, 1, 0), 0);
	close(l);
}

int main(void)
{
#define UNIX(name) cmocka_unit_test_setup_teardown(name, setup_unixes, teardown)
	const struct CMUnitTest tests[] = {
		UNIX(test_pairs),	    UNIX(test_names),
		UNIX(test_datagrams),	    UNIX(test_passing),
		UNIX(test_server),	    UNIX(test_pairs_run_on),
		UNIX(test_passing_runs_on), UNIX(test_server_runs_on),
		UNIX(test_outside),	    UNIX(test_log),
		UNIX(test_name_taken),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
