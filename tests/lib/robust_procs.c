// SPDX-License-Identifier: GPL-2.0
#include "lib/robust_procs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 20.0

const char *built(const char *name)
{
	static char paths[8][512];
	static unsigned turn;
	const char *build = getenv("ICP_BUILD");
	char *path = paths[turn++ % 8];

	snprintf(path, sizeof(paths[0]), "%s/%s", build ? build : "build", name);
	return path;
}

double seconds_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((double)ts.tv_sec + (double)ts.tv_nsec / 1e9) / patience();
}

int patience(void)
{
	return getenv("ICP_GUEST") ? 8 : 1;
}

void nap_ms(double ms)
{
	struct timespec ts = {.tv_sec = (time_t)(ms / 1000)};

	ts.tv_nsec = (long)((ms - (double)ts.tv_sec * 1000) * 1e6);
	nanosleep(&ts, NULL);
}

/* --- talkers --- */

void talker_start(struct talker *t, const char *program, ...)
{
	const char *argv[8] = {program};
	int to[2], from[2];
	va_list args;

	va_start(args, program);
	for (size_t i = 1; i < 7 && (argv[i] = va_arg(args, const char *)); i++)
		;
	va_end(args);
	assert_int_equal(pipe2(to, O_CLOEXEC), 0);
	assert_int_equal(pipe2(from, O_CLOEXEC), 0);
	t->pid = fork();
	assert_true(t->pid >= 0);
	if (!t->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(to[0], STDIN_FILENO);
		dup2(from[1], STDOUT_FILENO);
		execv(program, (char *const *)argv);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	t->to = to[1];
	t->from = from[0];
}

bool talker_line(struct talker *t, char *line, size_t len)
{
	double end = seconds_now() + PATIENCE;
	size_t n = 0;

	for (;;) {
		struct pollfd p = {.fd = t->from, .events = POLLIN};
		char byte;

		if (poll(&p, 1, 100) <= 0) {
			if (seconds_now() > end)
				fail_msg("process %d does not answer", t->pid);
			continue;
		}
		if (read(t->from, &byte, 1) != 1)
			return false;
		if (byte == '\n')
			break;
		if (n + 1 < len)
			line[n++] = byte;
	}
	line[n] = 0;
	return true;
}

void talker_ask(struct talker *t, const char *text, const char *begins)
{
	char line[256];

	assert_int_equal(write(t->to, text, strlen(text)), strlen(text));
	if (!talker_line(t, line, sizeof(line)))
		fail_msg("process %d has ended", t->pid);
	if (strncmp(line, begins, strlen(begins)))
		fail_msg("process %d says '%s', not '%s'", t->pid, line, begins);
}

void talker_end(struct talker *t)
{
	if (t->pid > 0) {
		kill(t->pid, SIGKILL);
		waitpid(t->pid, NULL, 0);
		close(t->to);
		close(t->from);
	}
	t->pid = 0;
}

/* --- runs --- */

void run_start(struct run *r, const struct run_how *how, const char *const *argv)
{
	/* opened here: another user may not be able to look into our directory */
	int exe = strchr(argv[0], '/') ? open(argv[0], O_PATH | O_CLOEXEC) : -1;

	r->out = memfd_create("out", MFD_CLOEXEC);
	r->err = memfd_create("err", MFD_CLOEXEC);
	assert_true(r->out >= 0 && r->err >= 0);
	r->pid = fork();
	assert_true(r->pid >= 0);
	if (!r->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (how && how->own_group)
			setpgid(0, 0);
		dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
		dup2(how && how->out_fd > 0 ? how->out_fd : r->out, STDOUT_FILENO);
		dup2(r->err, STDERR_FILENO);
		if (how && how->before)
			how->before(how->arg);
		if (exe >= 0)
			syscall(SYS_execveat, exe, "", argv, environ, AT_EMPTY_PATH);
		else
			execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	if (how && how->own_group)
		setpgid(r->pid, r->pid); /* whoever comes first */
	if (exe >= 0)
		close(exe);
}

/* Has it ended? Reaps it. */
static bool has_ended(struct run *r)
{
	return r->pid <= 0 || waitpid(r->pid, &r->status, WNOHANG) == r->pid;
}

void run_wait(struct run *r, double seconds)
{
	double end = seconds_now() + seconds;

	while (!has_ended(r)) {
		if (seconds_now() > end) {
			pid_t pid = r->pid;

			run_close(r);
			fail_msg("process %d does not end", pid);
		}
		nap_ms(2);
	}
	r->pid = 0;
}

char *run_text(int fd)
{
	off_t len = lseek(fd, 0, SEEK_END);
	char *text = calloc(1, (size_t)len + 1);

	assert_non_null(text);
	if (pread(fd, text, (size_t)len, 0) < 0)
		text[0] = 0;
	return text;
}

bool run_says(struct run *r, const char *text, double seconds)
{
	double end = seconds_now() + seconds;
	bool found = false, ended = false;

	while (!found && !ended && seconds_now() < end) {
		char *said;
		double wait;

		ended = has_ended(r);
		said = run_text(r->out);
		found = strstr(said, text);
		wait = 2 + (double)strlen(said) /
				   20000; /* the more there is to look at, the less often */
		free(said);
		if (!found && !ended)
			nap_ms(wait);
	}
	if (ended)
		r->pid = 0;
	return found;
}

void run_close(struct run *r)
{
	if (r->pid > 0) {
		kill(r->pid, SIGKILL);
		waitpid(r->pid, &r->status, 0);
	}
	r->pid = 0;
	close(r->out);
	close(r->err);
}

int icp(struct run *r, const struct run_how *how, ...)
{
	const char *argv[16] = {built("icp-bpf")};
	va_list args;

	va_start(args, how);
	for (size_t i = 1; i < 15 && (argv[i] = va_arg(args, const char *)); i++)
		;
	va_end(args);
	run_start(r, how, argv);
	run_wait(r, PATIENCE);
	return WIFEXITED(r->status) ? WEXITSTATUS(r->status) : 128 + WTERMSIG(r->status);
}

/* --- processes seen from outside --- */

char *file_text(const char *fmt, ...)
{
	size_t len = 0, cap = 1 << 16;
	char path[256], *text = malloc(cap + 1);
	ssize_t got = 0;
	va_list args;
	int fd;

	assert_non_null(text);
	va_start(args, fmt);
	vsnprintf(path, sizeof(path), fmt, args);
	va_end(args);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && (got = read(fd, text + len, cap - len)) > 0) {
		len += (size_t)got;
		if (len == cap) {
			text = realloc(text, 2 * cap + 1);
			assert_non_null(text);
			cap *= 2;
		}
	}
	if (fd >= 0)
		close(fd);
	text[len] = 0;
	return text;
}

long status_number(pid_t pid, const char *key)
{
	char *text = file_text("/proc/%d/status", pid), want[64], *at;
	long value = -1;

	snprintf(want, sizeof(want), "\n%s:", key);
	at = strstr(text, want);
	if (at)
		value = strtol(at + strlen(want), NULL, 10);
	free(text);
	return value;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char *list_fds(pid_t pid)
{
	char path[64], *lines[256], *text = calloc(1, 256 * 300);
	struct dirent *entry;
	size_t n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)) && n < 256) {
		char where[300] = "", from[400];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(from, sizeof(from), "%s/%s", path, entry->d_name);
		if (readlink(from, where, sizeof(where) - 1) < 0)
			where[0] = 0;
		if (asprintf(&lines[n], "%s %s\n", entry->d_name, where) > 0)
			n++;
	}
	if (dir)
		closedir(dir);
	qsort(lines, n, sizeof(lines[0]), by_name);
	for (size_t i = 0; text && i < n; i++) {
		strncat(text, lines[i], 299);
		free(lines[i]);
	}
	return text;
}

/* A program that has just said that it is ready may still have open what it said it with. */
static char *settled_fds(pid_t pid)
{
	double end = seconds_now() + PATIENCE;
	char *fds = list_fds(pid), *again;

	for (int same = 0; same < 3; same++) {
		if (seconds_now() > end)
			fail_msg("the descriptors of process %d change all the time:\n%s", pid,
				 fds);
		nap_ms(5);
		again = list_fds(pid);
		if (strcmp(again, fds))
			same = -1;
		free(fds);
		fds = again;
	}
	return fds;
}

void outside_look(struct outside *o, pid_t pid)
{
	o->fds = settled_fds(pid);
	o->maps = file_text("/proc/%d/maps", pid);
}

void outside_free(struct outside *o)
{
	free(o->fds);
	free(o->maps);
	*o = (struct outside){0};
}

/* Every thread: nobody traces it, it is not stopped. */
static void assert_threads_free(pid_t pid)
{
	struct dirent *entry;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		char *text, *tracer, *state;

		if (entry->d_name[0] == '.')
			continue;
		text = file_text("%s/%s/status", path, entry->d_name);
		tracer = strstr(text, "\nTracerPid:\t");
		state = strstr(text, "\nState:\t");
		if (tracer && tracer[12] != '0')
			fail_msg("thread %s is still traced:%.20s", entry->d_name, tracer);
		if (state && (state[8] == 't' || state[8] == 'T'))
			fail_msg("thread %s is still stopped:%.20s", entry->d_name, state);
		free(text);
	}
	closedir(dir);
}

void assert_untouched(pid_t pid, const struct outside *before, bool same_maps)
{
	struct outside now;
	char *smaps, *flags;

	assert_threads_free(pid);
	outside_look(&now, pid);
	assert_string_equal(now.fds, before->fds);
	if (same_maps)
		assert_string_equal(now.maps, before->maps);
	outside_free(&now);
	smaps = file_text("/proc/%d/smaps", pid);
	for (flags = smaps; (flags = strstr(flags, "\nVmFlags:")); flags++) {
		char line[256];

		snprintf(line, sizeof(line), "%.*s ", (int)strcspn(flags + 1, "\n"), flags + 1);
		if (strstr(line, " uw ") || strstr(line, " um "))
			fail_msg("memory of process %d is still registered: %s", pid, line);
	}
	free(smaps);
}

void adopt_orphans(void)
{
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
}

/* A child that is not one of @keep, or 0. Reaps it if it has ended; its own children may be ours since. */
static pid_t some_orphan(const pid_t *keep)
{
	char *text = file_text("/proc/self/task/%d/children", gettid()), *at = text;
	pid_t found = 0;

	for (long pid; !found && (pid = strtol(at, &at, 10)) > 0;) {
		bool ours = false;

		for (const pid_t *k = keep; *k; k++)
			ours |= *k == pid;
		if (!ours) {
			waitpid((pid_t)pid, NULL, WNOHANG);
			found = (pid_t)pid;
		}
	}
	free(text);
	return found;
}

void assert_no_orphans(const pid_t *keep, double seconds)
{
	double end = seconds_now() + seconds;
	pid_t pid;

	while ((pid = some_orphan(keep))) {
		if (seconds_now() > end) {
			char *comm = file_text("/proc/%d/comm", pid);

			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
			fail_msg("process %d (%s) is left", pid, comm);
		}
		nap_ms(1);
	}
}
