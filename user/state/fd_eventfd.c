// SPDX-License-Identifier: GPL-2.0
/* eventfd(2) and signalfd(2): what /proc tells of them is all there is. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io.h"
#include "state/fd_events.pb-c.h"
#include "state/fdkind.h"

/* ---- eventfd ---- */

static int eventfd_check(struct state_process *p, const struct fd_info *f)
{
	if (!procfs_field(f->fdinfo, "eventfd-semaphore"))
		return refuse(-EOPNOTSUPP, "an eventfd of a kernel that doesn't tell its mode");
	return 0;
}

static int eventfd_finish(const struct description *d, Icp__OpenFile *out)
{
	Icp__EventFd msg = ICP__EVENT_FD__INIT;

	msg.count = procfs_number(d->info.fdinfo, "eventfd-count", 16);
	msg.semaphore = procfs_number(d->info.fdinfo, "eventfd-semaphore", 10);
	return fd_pack_detail(out, &msg.base);
}

static int eventfd_open(struct restore_job *job, const Icp__OpenFile *f)
{
	_cleanup_fd_ int fd = -1;
	Icp__EventFd *msg;
	uint64_t count;
	bool semaphore;
	int err = fd_unpack_detail(f, &icp__event_fd__descriptor, &msg);

	if (err)
		return err;
	count = msg->count;
	semaphore = msg->semaphore;
	protobuf_c_message_free_unpacked(&msg->base, NULL);
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | (semaphore ? EFD_SEMAPHORE : 0));
	if (fd < 0)
		return fail(-errno, "make an eventfd");
	if (count)
		err = io_write_full(fd, &count, sizeof(count));
	if (!err && fcntl(fd, F_SETFL, (int)(f->flags & FD_KEPT_FLAGS)))
		err = -errno;
	return err ? fail(err, "set an eventfd to %llu", (unsigned long long)count)
		   : take_fd(&fd);
}

const struct fd_kind fd_eventfd = {.kind = FILE_EVENTFD,
				   .text = "an eventfd",
				   .check = eventfd_check,
				   .finish = eventfd_finish,
				   .open = eventfd_open};

/* ---- signalfd ---- */

static int signalfd_finish(const struct description *d, Icp__OpenFile *out)
{
	Icp__SignalFd msg = ICP__SIGNAL_FD__INIT;

	msg.mask = procfs_number(d->info.fdinfo, "sigmask", 16);
	return fd_pack_detail(out, &msg.base);
}

static int signalfd_open(struct restore_job *job, const Icp__OpenFile *f)
{
	Icp__SignalFd *msg;
	uint64_t mask;
	int err = fd_unpack_detail(f, &icp__signal_fd__descriptor, &msg), fd;

	if (err)
		return err;
	mask = msg->mask;
	protobuf_c_message_free_unpacked(&msg->base, NULL);
	fd = (int)syscall(SYS_signalfd4, -1, &mask, sizeof(mask),
			  O_CLOEXEC | (f->flags & O_NONBLOCK));
	return fd < 0 ? fail(-errno, "make a signalfd") : fd;
}

const struct fd_kind fd_signalfd = {.kind = FILE_SIGNALFD,
				    .text = "a signalfd",
				    .finish = signalfd_finish,
				    .open = signalfd_open};
