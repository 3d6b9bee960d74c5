// SPDX-License-Identifier: GPL-2.0
/*
 * A job needs its numbers back: no process, thread, process group or session may have one. Those of a job that
 * was killed a moment ago are free as soon as the last of it has been reaped.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/io.h"
#include "proc/tasks.h"
#include "restore/internal.h"
#include "state/procfs.h"

#define REAP_MS 5000
#define MEMBER_MS 1000 /* until a killed member of a group is gone */

static void await_reaping(pid_t pid)
{
	for (int ms = 0; ms < REAP_MS && tasks_state(pid) == 'Z'; ms += 10)
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

static int check_pid(pid_t pid)
{
	char comm[16];

	await_reaping(pid);
	if (tasks_comm(pid, comm))
		return refuse(-EEXIST, "pid %d is taken by another process (%s)", pid, comm);
	return kill(pid, 0) && errno == ESRCH
		       ? 0
		       : refuse(-EEXIST, "pid %d is taken by another process", pid);
}

static bool needs(const struct restore *r, int64_t number)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->procs[i].pid == number)
			return true;
	return false;
}

/* Whose process group or session has a number of the job: that pid, or 0; which number, in @taken. */
static pid_t find_member(const struct restore *r, bool *session, int64_t *taken)
{
	_cleanup_dir_ DIR *proc = opendir("/proc");
	struct dirent *entry;

	while (proc && (entry = readdir(proc))) {
		_cleanup_free_ char *stat = NULL;
		pid_t pid = (pid_t)atoi(entry->d_name);
		int64_t ids[2]; /* process group, session */
		char path[32];

		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
		if (pid <= 0 || io_read_file(AT_FDCWD, path, &stat, NULL) ||
		    procfs_stat(stat, 5, 6, ids))
			continue;
		*session = needs(r, ids[1]);
		*taken = ids[*session];
		if (*session || needs(r, ids[0]))
			return pid;
	}
	return 0;
}

static int check_groups(const struct restore *r)
{
	int64_t number;
	bool session;
	pid_t member = find_member(r, &session, &number);
	char comm[16];

	for (int ms = 0; member && ms < MEMBER_MS; ms += 10) {
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
		member = find_member(r, &session, &number);
	}
	if (!member)
		return 0;
	if (!tasks_comm(member, comm))
		comm[0] = 0;
	return refuse(-EEXIST, "pid %d is taken: process %d (%s) is in the %s of that number",
		      (int)number, member, comm, session ? "session" : "process group");
}

int taken_check(const struct restore *r)
{
	int err = 0;

	for (size_t i = 0; i < r->n && !err; i++) {
		const Icp__Process *p = r->procs[i].state.image;

		err = check_pid((pid_t)p->pid);
		for (size_t t = 1; t < p->n_threads && !err; t++)
			err = check_pid((pid_t)p->threads[t]->tid);
	}
	return err ? err : check_groups(r);
}
