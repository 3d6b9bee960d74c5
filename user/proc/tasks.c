// SPDX-License-Identifier: GPL-2.0
#include "proc/tasks.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/io.h"

static int by_number(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

int tasks_threads(const struct target *t, pid_list *out)
{
	int fd = openat(t->proc_fd, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_dir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir)
		return -ESRCH;
	out->n = 0;
	for (struct dirent *entry; (entry = readdir(dir));) {
		pid_t tid = (pid_t)atoi(entry->d_name), *slot;

		if (tid <= 0)
			continue;
		slot = vec_push(out);
		if (!slot)
			return fail(-ENOMEM, "threads of pid %d", t->pid);
		*slot = tid;
	}
	if (out->n)
		qsort(out->data, out->n, sizeof(*out->data), by_number);
	return out->n ? 0 : -ESRCH;
}

/* The children of one thread, from /proc/PID/task/TID/children (CONFIG_PROC_CHILDREN). */
static int add_children(pid_t pid, pid_t tid, pid_list *out)
{
	_cleanup_free_ char *text = NULL;
	char path[64];
	int err;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, tid);
	err = io_read_file(AT_FDCWD, path, &text, NULL);
	if (err)
		return err == -ENOENT || err == -ESRCH ? 0 : err;
	for (char *at = text, *end;; at = end) {
		long child = strtol(at, &end, 10);
		pid_t *slot;

		if (end == at)
			return 0;
		slot = vec_push(out);
		if (!slot)
			return -ENOMEM;
		*slot = (pid_t)child;
	}
}

static int add_children_of_process(pid_t pid, pid_list *out)
{
	char path[32];
	_cleanup_dir_ DIR *dir = NULL;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		return 0;
	for (struct dirent *entry; (entry = readdir(dir));) {
		pid_t tid = (pid_t)atoi(entry->d_name);
		int err = tid > 0 ? add_children(pid, tid, out) : 0;

		if (err)
			return err;
	}
	return 0;
}

int tasks_descendants(pid_t pid, pid_list *out)
{
	int err;

	out->n = 0;
	err = add_children_of_process(pid, out);
	for (size_t i = 0; !err && i < out->n; i++)
		err = add_children_of_process(out->data[i], out);
	return err ? fail(err, "children of pid %d", pid) : 0;
}

char tasks_state(pid_t pid)
{
	_cleanup_free_ char *text = NULL;
	char path[32];
	const char *after;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (io_read_file(AT_FDCWD, path, &text, NULL))
		return 0;
	after = strrchr(text, ')');
	return after && after[1] ? after[2] : 0;
}

uint64_t tasks_start_time(pid_t pid)
{
	_cleanup_free_ char *text = NULL;
	unsigned long long start;
	char path[32], state;
	const char *after;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (pid <= 0 || io_read_file(AT_FDCWD, path, &text, NULL))
		return 0;
	after = strrchr(text, ')');
	if (!after ||
	    sscanf(after,
		   ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
		   "%*d %llu",
		   &state, &start) != 2)
		return 0;
	return state == 'Z' || state == 'X' ? 0 : start;
}

pid_t tasks_parent(pid_t pid)
{
	_cleanup_free_ char *text = NULL;
	const char *after;
	char path[32];
	int parent;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (pid <= 0 || io_read_file(AT_FDCWD, path, &text, NULL))
		return 0;
	after = strrchr(text, ')');
	return after && sscanf(after, ") %*c %d", &parent) == 1 ? parent : 0;
}

bool tasks_comm(pid_t pid, char comm[16])
{
	_cleanup_free_ char *text = NULL;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	if (pid <= 0 || io_read_file(AT_FDCWD, path, &text, NULL))
		return false;
	snprintf(comm, 16, "%.*s", (int)strcspn(text, "\n"), text);
	return true;
}
