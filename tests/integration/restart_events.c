// SPDX-License-Identifier: GPL-2.0
/* icp-bpf restart on descriptors that tell of events (tests/targets/events), and what a checkpoint
 * refuses before it touches the job. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"

static void play_events(void **state, const char *scene)
{
	struct job *j = *state;

	j->target = "tests/targets/events";
	play(j, scene);
}

static void test_eventfd(void **state)
{
	play_events(state, "eventfd");
}

static void test_signalfd(void **state)
{
	play_events(state, "signalfd");
}

static void test_timerfd(void **state)
{
	play_events(state, "timerfd");
}

static void test_epoll(void **state)
{
	play_events(state, "epoll");
}

static void test_epoll_fork(void **state)
{
	play_events(state, "epoll_fork");
}

static void test_inotify(void **state)
{
	play_events(state, "inotify");
}

static void test_pidfd(void **state)
{
	play_events(state, "pidfd");
}

static void test_proc(void **state)
{
	play_events(state, "proc");
}

static void test_owner(void **state)
{
	play_events(state, "owner");
}

static void test_memfd(void **state)
{
	play_events(state, "memfd");
}

/* A version of what a restart brought back. */
static void test_again(void **state)
{
	static const char *const scenes[] = {"eventfd", "timerfd", "epoll", "inotify",
					     "pidfd",	"proc",	   "owner"};
	struct job *j = *state;

	j->target = "tests/targets/events";
	for (size_t i = 0; i < sizeof(scenes) / sizeof(*scenes); i++) {
		char version[16];
		struct run r;
		pid_t pid;

		unlink(in(j, "ready"));
		unlink(in(j, "go"));
		start_scene(j, scenes[i], NULL);
		pid = j->pid;
		cut(j);
		kill_job(j);
		snprintf(version, sizeof(version), "%zu", 2 * i + 1);
		begin_restart(j, &r, version, "direct", "--detach");
		run_wait(&r, 60);
		if (r.status)
			fail_msg("%s: %s", scenes[i], run_text(r.err));
		run_close(&r);
		j->pid = pid;
		cut(j);
		kill_job(j);
		snprintf(version, sizeof(version), "%zu", 2 * i + 2);
		go_on(j, version, "direct");
	}
}

/* Refused with @text, and the job goes on as if nothing had been. */
static void refuses(struct job *j, const char *what, const char *text)
{
	struct outside before;
	char pid[16], *err;
	struct run r;
	int status;

	unlink(in(j, "ready"));
	unlink(in(j, "go"));
	unlink(in(j, "missing"));
	j->target = "tests/targets/events";
	start_scene(j, "refuse", what);
	for (outside_look(&before, j->pid); strstr(before.fds, "/ready");
	     outside_look(&before, j->pid)) {
		outside_free(&before); /* it is about to close that */
		nap_ms(1);
	}
	snprintf(pid, sizeof(pid), "%d", j->pid);
	if (exists(j, "missing")) {
		print_message("%s: not on this machine\n", what);
	} else {
		assert_int_equal(
			icp(&r, NULL, "checkpoint", "--pid", pid, "--dir", j->repo, NULL), 1);
		err = run_text(r.err);
		if (!strstr(err, text))
			fail_msg("%s: expected '%s', got: %s", what, text, err);
		free(err);
		run_close(&r);
		assert_untouched(j->pid, &before, true);
		if (icp(&r, NULL, "checkpoint", "--no-restart", "--pid", pid, "--dir", j->repo,
			NULL))
			fail_msg("%s: %s", what, run_text(r.err));
		run_close(&r);
	}
	outside_free(&before);
	touch(j, "go");
	assert_int_equal(waitpid(j->pid, &status, 0), j->pid);
	j->pid = 0;
	assert_int_equal(status, 0);
}

static void test_refused(void **state)
{
	static const struct {
		const char *what, *text;
	} all[] = {
		{"fanotify", "is a fanotify group"},
		{"userfaultfd", "is a userfaultfd"},
		{"io_uring", "is an io_uring"},
		{"perf", "is a perf event"},
		{"bpf", "is a BPF object"},
		{"aio", "/[aio]"},
		{"device", "is a device (/dev/net/tun)"},
		{"kvm", "is a device (/dev/kvm)"},
		{"ended", "is a pidfd of a process that has ended"},
		{"namespace", "a namespace that is not icp-bpf's own"},
		{"sealed", "is a memfd that is sealed against writing"},
		{"unlinked", "watches a file whose name can't be found"},
		{"outside", "which is not part of the job"},
		{"outside_proc", "of a process that is not part of the job"},
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		refuses(*state, all[i].what, all[i].text);
}

int main(void)
{
#define RESTART(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		RESTART(test_eventfd), RESTART(test_signalfd),	 RESTART(test_timerfd),
		RESTART(test_epoll),   RESTART(test_epoll_fork), RESTART(test_inotify),
		RESTART(test_pidfd),   RESTART(test_proc),	 RESTART(test_owner),
		RESTART(test_memfd),   RESTART(test_again),	 RESTART(test_refused),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
