// SPDX-License-Identifier: GPL-2.0
/*
 * Monotonic and boot time go on from where they were: a time namespace for the new processes,
 * whose clocks are ours plus an offset.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "state/kinds.h"
#include "state/restore.h"
#include "state/timers.pb-c.h"

#define SECOND 1000000000ll
#define AGES (100ll * 365 * 86400 * SECOND)

struct clocks {
	int64_t monotonic, boottime;
};

static void later(int64_t *max, uint64_t value)
{
	if (value < (uint64_t)AGES && (int64_t)value > *max)
		*max = (int64_t)value;
}

/* The latest that any of its processes has seen. */
static int read_saved(const Icp__Manifest *m, struct clocks *out)
{
	*out = (struct clocks){0};
	for (size_t i = 0; i < m->n_processes; i++) {
		Icp__TimerState *t;
		int err = restore_unpack(m->processes[i]->blobs, m->processes[i]->n_blobs,
					 "timers", 1, &icp__timer_state__descriptor, &t);

		if (err)
			return err;
		later(&out->monotonic, t->monotonic_ns);
		later(&out->boottime, t->boottime_ns);
		protobuf_c_message_free_unpacked(&t->base, NULL);
	}
	return out->monotonic && out->boottime
		       ? 0
		       : refuse(-ENODATA, "this version doesn't say what its clocks said");
}

static int64_t ahead(int64_t saved, clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return saved - (now.tv_sec * SECOND + now.tv_nsec);
}

/* Seconds are rounded down: the rest is never negative. */
static int print_offset(char *out, size_t len, const char *clock, int64_t ns)
{
	int64_t rest = (ns % SECOND + SECOND) % SECOND;

	return snprintf(out, len, "%s %lld %lld\n", clock, (long long)((ns - rest) / SECOND),
			(long long)rest);
}

int clocks_continue(const struct restore_job *job)
{
	struct clocks saved;
	_cleanup_fd_ int fd = -1;
	char text[128];
	int err = read_saved(job->manifest, &saved), len;

	if (err)
		return err;
	if (unshare(CLONE_NEWTIME))
		return fail(-errno, "make a time namespace");
	len = print_offset(text, sizeof(text), "monotonic",
			   ahead(saved.monotonic, CLOCK_MONOTONIC));
	len += print_offset(text + len, sizeof(text) - (size_t)len, "boottime",
			    ahead(saved.boottime, CLOCK_BOOTTIME));
	fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, (size_t)len) != len)
		return fail(-errno, "set the clocks of a time namespace");
	return 0;
}
