// SPDX-License-Identifier: GPL-2.0
/*
 * timerfd_create(2). The time that was left goes on after a restart, also of a timer that was set
 * to a time of the monotonic clock, which jumps. One that was set to a time of the day keeps that;
 * when it has passed the timer fires once, not for each interval that passed.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "state/fd_events.pb-c.h"
#include "state/fdkind.h"

#define NS 1000000000u
#define SET_TICKS _IOW('T', 0, uint64_t) /* TFD_IOC_SET_TICKS */

static bool is_known(uint32_t clock)
{
	return clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME ||
	       clock == CLOCK_REALTIME_ALARM || clock == CLOCK_BOOTTIME_ALARM;
}

static int read_info(int fd, char **out)
{
	char path[40];
	int err;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	err = io_read_file(AT_FDCWD, path, out, NULL);
	return err ? fail(err, "look into a timerfd") : 0;
}

static uint64_t pair_ns(const char *text, const char *key)
{
	const char *at = procfs_field(text, key);
	uint64_t sec, nsec;

	return at && sscanf(at, " (%" SCNu64 ", %" SCNu64 ")", &sec, &nsec) == 2
		       ? sec * NS + nsec
		       : 0;
}

static void fill(const char *text, Icp__TimerFd *out)
{
	struct timespec now;

	out->clock = (uint32_t)procfs_number(text, "clockid", 10);
	out->flags = (uint32_t)procfs_number(text, "settime flags", 8);
	out->ticks = procfs_number(text, "ticks", 10);
	out->value_ns = pair_ns(text, "it_value");
	out->interval_ns = pair_ns(text, "it_interval");
	if (!clock_gettime((clockid_t)out->clock, &now))
		out->now_ns = (uint64_t)now.tv_sec * NS + (uint64_t)now.tv_nsec;
}

static int dump(struct state_process *p, struct file_jobs *jobs, struct description *d)
{
	_cleanup_fd_ int fd = fd_borrow(p, d->info.fd);
	Icp__TimerFd *msg = d->note = calloc(1, sizeof(*msg));
	struct itimerspec now;

	if (fd < 0)
		return fd;
	if (!msg)
		return fail(-ENOMEM, "note a timerfd");
	icp__timer_fd__init(msg);
	/* One that is just about to fire shows nothing for a moment. */
	for (int i = 0; i < 3; i++) {
		_cleanup_free_ char *text = NULL;
		int err;

		/* after this the count includes the periods since it first expired */
		if (timerfd_gettime(fd, &now))
			return fail(-errno, "look into descriptor %d", d->info.fd);
		err = read_info(fd, &text);
		if (err)
			return err;
		fill(text, msg);
		if (msg->value_ns || (msg->ticks && !msg->interval_ns))
			break;
		sched_yield();
	}
	return 0;
}

static int finish(const struct description *d, Icp__OpenFile *out)
{
	return fd_pack_detail(out, &((Icp__TimerFd *)d->note)->base);
}

static int verify(struct restore_job *job, const Icp__OpenFile *f)
{
	Icp__TimerFd *msg;
	int err = fd_unpack_detail(f, &icp__timer_fd__descriptor, &msg);

	if (err)
		return err;
	if (!is_known(msg->clock))
		err = refuse(-EOPNOTSUPP, "a timerfd of clock %u can't be restarted",
			     msg->clock);
	protobuf_c_message_free_unpacked(&msg->base, NULL);
	return err;
}

static int open_timer(struct restore_job *job, const Icp__OpenFile *f)
{
	Icp__TimerFd *msg;
	int err = fd_unpack_detail(f, &icp__timer_fd__descriptor, &msg), fd;

	if (err)
		return err;
	fd = timerfd_create((clockid_t)msg->clock, TFD_CLOEXEC | (int)(f->flags & O_NONBLOCK));
	err = fd < 0 ? fail(-errno, "make a timer of clock %u", msg->clock) : 0;
	protobuf_c_message_free_unpacked(&msg->base, NULL);
	return err ? err : fd;
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){(time_t)(ns / NS), (long)(ns % NS)};
}

static int start(int fd, const Icp__TimerFd *t)
{
	struct itimerspec value = {timespec_of(t->interval_ns), timespec_of(t->value_ns)};
	bool time_of_day = t->clock == CLOCK_REALTIME || t->clock == CLOCK_REALTIME_ALARM;
	struct timespec ts;
	uint64_t now, at;

	if (t->flags & TFD_TIMER_ABSTIME) {
		if (clock_gettime((clockid_t)t->clock, &ts))
			return fail(-errno, "clock %u", t->clock);
		now = (uint64_t)ts.tv_sec * NS + (uint64_t)ts.tv_nsec;
		at = (time_of_day ? t->now_ns : now) + t->value_ns;
		value.it_value = timespec_of(at > now ? at : now);
	}
	if (timerfd_settime(fd, (int)t->flags & (TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET),
			    &value, NULL))
		return fail(-errno, "start a timerfd");
	return 0;
}

static int late(struct restore_job *job, const Icp__OpenFile *f, int fd)
{
	Icp__TimerFd *msg;
	int err = fd_unpack_detail(f, &icp__timer_fd__descriptor, &msg);
	uint64_t ticks;

	if (err)
		return err;
	ticks = msg->ticks;
	if (msg->value_ns)
		err = start(fd, msg);
	protobuf_c_message_free_unpacked(&msg->base, NULL);
	if (!err && ticks && ioctl(fd, SET_TICKS, &ticks))
		err = fail(-errno, "set what a timerfd has counted");
	return err;
}

const struct fd_kind fd_timerfd = {.kind = FILE_TIMERFD,
				   .text = "a timerfd",
				   .dump = dump,
				   .finish = finish,
				   .free_note = free,
				   .verify = verify,
				   .open = open_timer,
				   .late = late};
