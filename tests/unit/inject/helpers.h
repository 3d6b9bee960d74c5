/* SPDX-License-Identifier: GPL-2.0 */
/* For the tests of inject/: targets of our own, and what /proc says about them. */
#ifndef TEST_INJECT_HELPERS_H
#define TEST_INJECT_HELPERS_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* fail() is ours, of base/err.h. */
#undef fail
#undef fail_msg
#define fail_msg(...)                                                                          \
	do {                                                                                   \
		print_error(__VA_ARGS__);                                                      \
		print_error("\n");                                                             \
		_fail(__FILE__, __LINE__);                                                     \
	} while (0)

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/io.h"
#include "inject/warden.h"

#define GIVE_UP_S 30

/* Wait for a state; fail the test when it does not come. */
#define wait_for(cond)                                                                         \
	do {                                                                                   \
		double end_ = clock_s() + GIVE_UP_S;                                           \
		while (!(cond)) {                                                              \
			if (clock_s() > end_)                                                  \
				fail_msg("never came: %s", #cond);                             \
			usleep(500);                                                           \
		}                                                                              \
	} while (0)

#define assert_ok(call)                                                                        \
	do {                                                                                   \
		long err_ = (call);                                                            \
		if (err_)                                                                      \
			fail_msg("%s: %ld: %s", #call, err_, err_text((int)err_));             \
	} while (0)

static inline double clock_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Memory that the test and its target share. */
static inline void *shared(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

/* Fork a target that runs @body and dies with us. */
static inline pid_t spawn(void (*body)(void *), void *arg)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	body(arg);
	_exit(0);
}

static inline void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static inline void slurp(char *out, size_t size, const char *fmt, int pid, int tid)
{
	char path[64];
	int fd;
	ssize_t got = 0;

	snprintf(path, sizeof(path), fmt, pid, tid);
	fd = open(path, O_RDONLY);
	if (fd >= 0) {
		got = read(fd, out, size - 1);
		close(fd);
	}
	out[got > 0 ? got : 0] = 0;
}

static inline long status_of(pid_t pid, pid_t tid, const char *key)
{
	char text[4096], line[32];
	const char *at;

	slurp(text, sizeof(text), "/proc/%d/task/%d/status", pid, tid);
	snprintf(line, sizeof(line), "\n%s:\t", key);
	at = strstr(text, line);
	return at ? strtol(at + strlen(line), NULL, 10) : -1;
}

static inline char state_of(pid_t pid, pid_t tid)
{
	char text[1024], *at;

	slurp(text, sizeof(text), "/proc/%d/task/%d/stat", pid, tid);
	at = strrchr(text, ')');
	return at ? at[2] : 0;
}

/* The system call that a sleeping thread is in, -1 for none. */
static inline long syscall_of(pid_t pid, pid_t tid)
{
	char text[256];

	slurp(text, sizeof(text), "/proc/%d/task/%d/syscall", pid, tid);
	return text[0] >= '0' && text[0] <= '9' ? strtol(text, NULL, 10) : -1;
}

/* How many threads of @pid are traced or in state @state. */
static inline int count_threads(pid_t pid, bool traced, char state)
{
	char path[32];
	struct dirent *e;
	DIR *dir;
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		pid_t tid = atoi(e->d_name);

		if (tid > 0 && (traced ? status_of(pid, tid, "TracerPid") > 0
				       : state_of(pid, tid) == state))
			n++;
	}
	if (dir)
		closedir(dir);
	return n;
}

/* The names and links of the descriptors, and the maps, as one text to compare; to be freed. */
static inline char *snapshot(pid_t pid)
{
	char path[300], link[300], *maps = NULL, *out;
	struct dirent *e;
	size_t used = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	assert_int_equal(io_read_file(AT_FDCWD, path, &maps, NULL), 0);
	out = calloc(1, strlen(maps) + 65536);
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	assert_non_null(dir);
	while ((e = readdir(dir))) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/%d/fd/%s", pid, e->d_name);
		n = readlink(path, link, sizeof(link) - 1);
		if (n > 0 && used < 60000)
			used += (size_t)sprintf(out + used, "%s %.*s\n", e->d_name, (int)n,
						link);
	}
	closedir(dir);
	strcpy(out + used, maps);
	free(maps);
	return out;
}

#endif
