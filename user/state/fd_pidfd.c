// SPDX-License-Identifier: GPL-2.0
/* pidfd_open(2), of processes of the job. Each process that has one opens it itself, once all of
 * them exist. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "state/fd_events.pb-c.h"
#include "state/fdkind.h"

#define OF_THREAD O_EXCL /* PIDFD_THREAD */

/* "Pid:\t-1" of a process that was waited for. */
static uint32_t pid_of(const struct fd_info *f)
{
	const char *at = procfs_field(f->fdinfo, "Pid");
	long pid = at ? strtol(at, NULL, 10) : 0;

	return pid > 0 ? (uint32_t)pid : 0;
}

static int check(struct state_process *p, const struct fd_info *f)
{
	if (!pid_of(f))
		return refuse(-EOPNOTSUPP, "a pidfd of a process that has ended");
	if (f->flags & OF_THREAD)
		return refuse(-EOPNOTSUPP, "a pidfd of a thread");
	return 0;
}

static int refuse_outside(uint32_t holder, uint32_t fd, uint32_t pid)
{
	return refuse(
		-EOPNOTSUPP,
		"pid %u: descriptor %u is a pidfd of process %u, which is not part of the "
		"job: that can't be restarted",
		holder, fd, pid);
}

static int check_job(struct look *l)
{
	look_each(s, l, FILE_PIDFD)
	{
		uint32_t pid = pid_of(s->f);

		if (pid && !look_has_pid(l, (pid_t)pid))
			return look_blame(
				l, s, pid,
				refuse_outside((uint32_t)s->pid, (uint32_t)s->f->fd, pid));
	}
	return 0;
}

static int finish(const struct description *d, Icp__OpenFile *out)
{
	Icp__PidFd msg = ICP__PID_FD__INIT;

	msg.pid = pid_of(&d->info);
	return fd_pack_detail(out, &msg.base);
}

static int pid_in(const Icp__OpenFile *f, uint32_t *pid)
{
	Icp__PidFd *msg;
	int err = fd_unpack_detail(f, &icp__pid_fd__descriptor, &msg);

	if (err)
		return err;
	*pid = msg->pid;
	protobuf_c_message_free_unpacked(&msg->base, NULL);
	return 0;
}

static int verify(struct restore_job *job, const Icp__OpenFile *f)
{
	uint32_t pid = 0, holder = 0, fd = files_number(job, f->id, &holder);
	int err = pid_in(f, &pid);

	if (err)
		return err;
	if (f->flags & OF_THREAD)
		return refuse(-EOPNOTSUPP,
			      "pid %u: descriptor %u is a pidfd of a thread, which can't be "
			      "restarted",
			      holder, fd);
	for (size_t i = 0; i < job->manifest->n_processes; i++)
		if (job->manifest->processes[i]->pid == pid)
			return 0;
	return refuse_outside(holder, fd, pid);
}

static int open_pidfd(struct restore_job *job, const Icp__OpenFile *f)
{
	uint32_t pid = 0;
	int err = pid_in(f, &pid), fd;

	if (err)
		return err;
	fd = (int)syscall(SYS_pidfd_open, pid, f->flags & O_NONBLOCK);
	return fd < 0 ? fail(-errno, "open a pidfd of process %u", pid) : fd;
}

const struct fd_kind fd_pidfd = {.kind = FILE_PIDFD,
				 .text = "a pidfd",
				 .check = check,
				 .check_job = check_job,
				 .finish = finish,
				 .verify = verify,
				 .open_in_stub = open_pidfd};
