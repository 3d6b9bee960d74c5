// SPDX-License-Identifier: GPL-2.0
/*
 * Files of /proc, by name again: what they say is of now. Those of a process of the job are opened
 * by who has them, once that process exists; it has no threads then. Seeking reads what is there,
 * so that is left until the process is itself again. And open namespaces: they must be
 * the ones that icp-bpf is in.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "state/fdkind.h"

/* Of "/proc/PID/task/TID/...", 0 for none. */
static void ids_of(const char *path, uint32_t *pid, uint32_t *tid)
{
	*pid = *tid = 0;
	if (sscanf(path, "/proc/%u/task/%u/", pid, tid) < 1)
		*pid = 0;
}

static int check(struct state_process *p, const struct fd_info *f)
{
	uint32_t pid, tid;

	ids_of(f->path, &pid, &tid);
	if (f->deleted || (pid && !f->st.st_nlink))
		return refuse(-EOPNOTSUPP, "a file of /proc of a process that has ended");
	if (tid && tid != pid)
		return refuse(-EOPNOTSUPP, "a file of /proc of a thread");
	return 0;
}

static int refuse_outside(uint32_t holder, uint32_t fd, const char *path)
{
	return refuse(-EOPNOTSUPP,
		      "pid %u: descriptor %u is %s, of a process that is not part of the job: "
		      "that can't be restarted",
		      holder, fd, path);
}

static int check_job(struct look *l)
{
	look_each(s, l, FILE_PROC)
	{
		uint32_t pid, tid;

		ids_of(s->f->path, &pid, &tid);
		if (pid && !look_has_pid(l, (pid_t)pid))
			return look_blame(l, s, pid,
					  refuse_outside((uint32_t)s->pid, (uint32_t)s->f->fd,
							 s->f->path));
	}
	return 0;
}

static int verify(struct restore_job *job, const Icp__OpenFile *f)
{
	uint32_t pid, tid, holder = 0, fd = files_number(job, f->id, &holder);
	char path[PATH_MAX];

	ids_of(fd_path_of(f, path), &pid, &tid);
	if (f->deleted || strncmp(path, "/proc/", 6) || (tid && tid != pid))
		return refuse(-EOPNOTSUPP, "%s can't be opened again", path);
	for (size_t i = 0; pid && i < job->manifest->n_processes; i++)
		if (job->manifest->processes[i]->pid == pid)
			return 0;
	if (!pid)
		return 0;
	return refuse_outside(holder, fd, path);
}

static int reopen(const Icp__OpenFile *f)
{
	char path[PATH_MAX];
	int fd = open(fd_path_of(f, path), (int)(f->flags & FD_KEPT_FLAGS) | O_CLOEXEC);

	return fd < 0 ? fail(-errno, "open %s", path) : fd;
}

static int open_proc(struct restore_job *job, const Icp__OpenFile *f)
{
	uint32_t pid, tid;
	char path[PATH_MAX];

	ids_of(fd_path_of(f, path), &pid, &tid);
	return pid ? FD_IN_STUB : reopen(f);
}

static int open_in_stub(struct restore_job *job, const Icp__OpenFile *f)
{
	return reopen(f);
}

const struct fd_kind fd_proc = {.kind = FILE_PROC,
				.text = "a file of /proc",
				.check = check,
				.check_job = check_job,
				.verify = verify,
				.open = open_proc,
				.open_in_stub = open_in_stub,
				.seek = true};

/* ---- "net:[4026531840]" ---- */

static int own_namespace(const char *name, uint64_t inode)
{
	char path[40];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/ns/%.*s", (int)strcspn(name, ":"), name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && (fstat(fd, &st) || st.st_ino != inode)) {
		close(fd);
		errno = ESTALE;
		fd = -1;
	}
	return fd;
}

static int ns_check(struct state_process *p, const struct fd_info *f)
{
	_cleanup_fd_ int fd = own_namespace(f->path, f->st.st_ino);

	return fd < 0 ? refuse(-EOPNOTSUPP, "a namespace that is not icp-bpf's own") : 0;
}

static int ns_open(struct restore_job *job, const Icp__OpenFile *f)
{
	char path[PATH_MAX];
	int fd = own_namespace(fd_path_of(f, path), f->inode);

	return fd < 0 ? refuse(-ESTALE, "the namespace %s is not the one that icp-bpf is in",
			       path)
		      : fd;
}

const struct fd_kind fd_namespace = {
	.kind = FILE_NAMESPACE, .text = "a namespace", .check = ns_check, .open = ns_open};
