// SPDX-License-Identifier: GPL-2.0
/* icp-bpf restart under a shell with job control on a terminal, which the test is. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"

/* A shell that runs one job: obeys bytes, tells what waitpid() said. */
struct shell {
	pid_t pid;
	int terminal; /* the side of who types */
	int to, from;
};

struct told {
	int status;
	bool has_terminal; /* the job's group, when it stopped or ended */
};

static pid_t start_job(const char *const *argv, bool front, bool leader)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (leader) {
		setsid();
		ioctl(0, TIOCSCTTY, 1);
	} else {
		setpgid(0, 0);
	}
	if (front)
		tcsetpgrp(0, getpid());
	for (int sig = 1; sig < 32; sig++)
		signal(sig, SIG_DFL);
	execv(argv[0], (char *const *)argv);
	_exit(127);
}

static void shell_main(const char *const *argv, bool front, bool leader, int in, int out)
{
	struct told told;
	pid_t job;
	char byte;

	signal(SIGTTOU, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	job = start_job(argv, front, leader);
	if (write(out, &job, sizeof(job)) != sizeof(job))
		_exit(1);
	if (!leader)
		setpgid(job, job); /* whoever comes first */
	while (waitpid(job, &told.status, WUNTRACED) == job) {
		told.has_terminal = tcgetpgrp(0) == job;
		tcsetpgrp(0, getpgrp());
		if (write(out, &told, sizeof(told)) != sizeof(told) || !WIFSTOPPED(told.status))
			break;
		if (read(in, &byte, 1) != 1)
			break;
		tcsetpgrp(0, job);
		kill(-job, SIGCONT);
	}
	/* the terminal hangs up with us */
	if (read(in, &byte, 1) < 0)
		_exit(1);
	_exit(0);
}

/* Starts @argv on a new terminal; its pid. */
static pid_t shell_start(struct shell *s, const char *const *argv, bool front, bool leader)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), in[2], out[2];
	pid_t job;

	assert_true(master >= 0 && !grantpt(master) && !unlockpt(master));
	assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC), 0);
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (!s->pid) {
		int fd;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid();
		fd = open(ptsname(master), O_RDWR | (leader ? O_NOCTTY : 0));
		if (fd < 0 || dup2(fd, 0) || dup2(fd, 1) != 1 || dup2(fd, 2) != 2)
			_exit(1);
		close(fd);
		close(in[1]);
		close(out[0]);
		shell_main(argv, front, leader, in[0], out[1]);
	}
	close(in[0]);
	close(out[1]);
	s->terminal = master;
	s->to = in[1];
	s->from = out[0];
	assert_int_equal(read(s->from, &job, sizeof(job)), sizeof(job));
	return job;
}

static struct told shell_hears(struct shell *s)
{
	struct told told;

	assert_int_equal(read(s->from, &told, sizeof(told)), sizeof(told));
	return told;
}

static void shell_end(struct shell *s)
{
	close(s->to);
	assert_int_equal(waitpid(s->pid, NULL, 0), s->pid);
	close(s->from);
	close(s->terminal);
}

static void type(const struct shell *s, char key)
{
	assert_int_equal(write(s->terminal, &key, 1), 1);
}

/* Like wait_for(), of a job that is no child of ours. */
static void wait_said(const struct job *j, const char *name)
{
	double end = seconds_now() + 30;

	while (!exists(j, name)) {
		if (seconds_now() > end)
			fail_msg("no %s", in(j, name));
		nap_ms(2);
	}
	unlink(in(j, name));
}

static void is_in(const struct job *j, const char *where)
{
	touch(j, "check");
	wait_said(j, where);
}

/* A version of a program on a terminal that is gone afterwards. */
static pid_t save_program(struct job *j, const char *const *argv, bool leader)
{
	struct shell s;
	struct job copy = *j;

	copy.pid = shell_start(&s, argv, true, leader);
	wait_said(j, "ready");
	cut(&copy);
	kill(copy.pid, SIGKILL);
	assert_int_equal(WTERMSIG(shell_hears(&s).status), SIGKILL);
	shell_end(&s);
	return copy.pid;
}

static pid_t save(struct job *j, bool leader)
{
	return save_program(j, (const char *[]){built("tests/targets/ttyjob"), j->dir, NULL},
			    leader);
}

static pid_t revive(const struct job *j, struct shell *s, bool front, const char *more)
{
	const char *argv[] = {built("icp-bpf"), "restart", "--dir", j->repo, more, NULL};

	return shell_start(s, argv, front, false);
}

static void ends(struct job *j, struct shell *s, bool front)
{
	struct told told;

	touch(j, "go");
	told = shell_hears(s);
	assert_true(WIFEXITED(told.status));
	assert_int_equal(WEXITSTATUS(told.status), 3);
	assert_int_equal(told.has_terminal, front);
	shell_end(s);
	assert_no_orphans((const pid_t[]){0}, 20);
}

static void keys(struct job *j, const char *more)
{
	struct winsize size = {.ws_row = 7, .ws_col = 70};
	struct told told;
	struct shell s;

	revive(j, &s, true, more);
	is_in(j, "fore");
	type(&s, 3);
	wait_said(j, "int");
	assert_int_equal(ioctl(s.terminal, TIOCSWINSZ, &size), 0);
	wait_said(j, "winch");
	for (int i = 0; i < 2; i++) {
		type(&s, 26);
		told = shell_hears(&s);
		assert_true(WIFSTOPPED(told.status));
		assert_true(told.has_terminal);
		assert_int_equal(write(s.to, "f", 1), 1);
		is_in(j, "fore");
	}
	type(&s, 3);
	wait_said(j, "int");
	ends(j, &s, true);
}

static void test_keys(void **state)
{
	save(*state, false);
	keys(*state, NULL);
}

static void test_keys_in_namespace(void **state)
{
	save(*state, false);
	keys(*state, "--new-pid-namespace");
}

/* The terminal is somebody else's. */
static void test_background(void **state)
{
	struct job *j = *state;
	struct shell s;
	pid_t pid;

	save(j, false);
	pid = revive(j, &s, false, NULL);
	is_in(j, "back");
	kill(pid, SIGINT);
	wait_said(j, "int");
	ends(j, &s, false);
}

/* A session of its own has no terminal to hear of: what icp-bpf hears goes on to it. */
static void test_other_session(void **state)
{
	struct job *j = *state;
	struct shell s;
	pid_t job;

	job = save(j, true);
	revive(j, &s, true, NULL);
	is_in(j, "back");
	assert_int_equal(getsid(job), job);
	type(&s, 3);
	wait_said(j, "int");
	ends(j, &s, true);
}

/* Every signal that is passed on, by its default: the status is what a shell shows. */
static void test_signals(void **state)
{
	static const int signals[] = {SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM};
	struct job *j = *state;

	save(j, false);
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		struct told told;
		struct shell s;
		pid_t pid = revive(j, &s, i % 2, NULL);

		is_in(j, i % 2 ? "fore" : "back");
		kill(pid, signals[i]);
		told = shell_hears(&s);
		assert_true(WIFEXITED(told.status));
		assert_int_equal(WEXITSTATUS(told.status), 128 + signals[i]);
		shell_end(&s);
	}
	assert_no_orphans((const pid_t[]){0}, 20);
}

/* It waits for a line: in the background it would be stopped for that. */
static void test_reads(void **state)
{
	static const char script[] =
		": >\"$0/ready\"; read x && [ \"$x\" = hello ] && exit 3; exit 4";
	struct job *j = *state;

	save_program(j, (const char *[]){"/bin/sh", "-c", script, j->dir, NULL}, false);
	for (int i = 0; i < 10; i++) {
		struct told told;
		struct shell s;

		revive(j, &s, true, NULL);
		assert_int_equal(write(s.terminal, "hello\n", 6), 6);
		told = shell_hears(&s);
		assert_true(WIFEXITED(told.status));
		assert_int_equal(WEXITSTATUS(told.status), 3);
		shell_end(&s);
	}
	assert_no_orphans((const pid_t[]){0}, 20);
}

int main(void)
{
#define TTY(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TTY(test_keys),		 TTY(test_keys_in_namespace), TTY(test_background),
		TTY(test_other_session), TTY(test_signals),	      TTY(test_reads),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
