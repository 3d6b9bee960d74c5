// SPDX-License-Identifier: GPL-2.0
/* events SCENE DIR [WHAT]: eventfd, signalfd, timerfd; the other files have the other scenes. */
#include "events.h"

#include <inttypes.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

int as(int fd, int to)
{
	check(fd >= 0 && dup2(fd, to) == to);
	close(fd);
	return to;
}

char *fd_info(int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	return slurp(path);
}

bool is_ready(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	return poll(&p, 1, 0) == 1 && p.revents & events;
}

static uint64_t take(int fd)
{
	uint64_t value;
	ssize_t got = read(fd, &value, sizeof(value));

	return got == sizeof(value) ? value : 0;
}

static void give(int fd, uint64_t value)
{
	check(write(fd, &value, sizeof(value)) == sizeof(value));
}

/* ---- eventfd ---- */

#define FULL (UINT64_MAX - 1)

static void eventfd_child(int shared, int back)
{
	wait_go();
	check(take(shared) == 11);
	give(back, 5);
	_exit(0);
}

static void scene_eventfd(void)
{
	int count = as(eventfd(7, 0), 20), semaphore = as(eventfd(3, EFD_SEMAPHORE), 21),
	    empty = as(eventfd(0, EFD_NONBLOCK), 22), full = as(eventfd(0, EFD_NONBLOCK), 23),
	    shared = as(eventfd(0, 0), 24), back = as(eventfd(0, 0), 25), copy = dup(count),
	    status;
	pid_t child;

	give(full, FULL);
	fcntl(copy, F_SETFD, FD_CLOEXEC);
	child = fork();
	if (!child)
		eventfd_child(shared, back);
	ready();
	wait_go();
	check(!(fcntl(count, F_GETFL) & O_NONBLOCK) && fcntl(empty, F_GETFL) & O_NONBLOCK);
	check(fcntl(copy, F_GETFD) == FD_CLOEXEC && !fcntl(count, F_GETFD));
	check(take(copy) == 7 && !is_ready(count, POLLIN));
	give(count, 1);
	check(take(copy) == 1);
	check(take(semaphore) == 1 && take(semaphore) == 1 && take(semaphore) == 1);
	check(!is_ready(semaphore, POLLIN));
	check(!take(empty) && errno == EAGAIN);
	check(!is_ready(full, POLLOUT) && take(full) == FULL);
	give(shared, 11);
	check(take(back) == 5);
	check(waitpid(child, &status, 0) == child && !status);
}

/* ---- signalfd ---- */

static void scene_signalfd(void)
{
	struct signalfd_siginfo info;
	union sigval value = {.sival_int = 4711};
	sigset_t all, queued;
	char *before, *after;
	int fd, rest;

	sigemptyset(&all);
	sigaddset(&all, SIGUSR1);
	sigaddset(&all, SIGRTMIN + 1);
	sigemptyset(&queued);
	sigaddset(&queued, SIGUSR2);
	check(!sigprocmask(SIG_BLOCK, &all, NULL) && !sigprocmask(SIG_BLOCK, &queued, NULL));
	fd = as(signalfd(-1, &all, SFD_NONBLOCK), 20);
	rest = as(signalfd(-1, &queued, 0), 21);
	check(!sigqueue(getpid(), SIGRTMIN + 1, value));
	before = fd_info(fd);
	ready();
	wait_go();
	after = fd_info(fd);
	check(!strcmp(strstr(before, "sigmask"), strstr(after, "sigmask")));
	check(is_ready(fd, POLLIN) && read(fd, &info, sizeof(info)) == sizeof(info));
	check(info.ssi_signo == (uint32_t)SIGRTMIN + 1 && info.ssi_int == 4711 &&
	      info.ssi_pid == (uint32_t)getpid());
	check(read(fd, &info, sizeof(info)) == -1 && errno == EAGAIN);
	check(!raise(SIGUSR1) && !raise(SIGUSR2) && is_ready(rest, POLLIN));
	check(read(fd, &info, sizeof(info)) == sizeof(info) && info.ssi_signo == SIGUSR1);
	check(read(rest, &info, sizeof(info)) == sizeof(info) && info.ssi_signo == SIGUSR2);
}

/* ---- timerfd ---- */

enum { FAR, ONCE, REPEATED, SOON, IDLE, DAY, ABSOLUTE, BOOT, ALARM, BOOT_ALARM, TIMERS };

static const struct {
	int clock, flags;
	long sec, nsec, interval;
} timers[TIMERS] = {
	[FAR] = {CLOCK_MONOTONIC, 0, 1000, 0, 3},
	[ONCE] = {CLOCK_MONOTONIC, 0, 0, 1, 0},
	[REPEATED] = {CLOCK_MONOTONIC, 0, 0, 1, 5000},
	[SOON] = {CLOCK_REALTIME, 0, 2, 0, 0},
	[IDLE] = {CLOCK_BOOTTIME, 0, 0, 0, 0},
	[DAY] = {CLOCK_REALTIME, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, 1000, 0, 0},
	[ABSOLUTE] = {CLOCK_MONOTONIC, TFD_TIMER_ABSTIME, 1000, 0, 7},
	[BOOT] = {CLOCK_BOOTTIME, TFD_TIMER_ABSTIME, 1000, 0, 0},
	[ALARM] = {CLOCK_REALTIME_ALARM, 0, 1000, 0, 0},
	[BOOT_ALARM] = {CLOCK_BOOTTIME_ALARM, 0, 1000, 0, 0},
};

static double now_of(int clock)
{
	struct timespec t;

	check(!clock_gettime(clock, &t));
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void start_timer(int which, int fd)
{
	struct itimerspec v = {.it_value = {timers[which].sec, timers[which].nsec},
			       .it_interval.tv_sec = timers[which].interval};
	struct timespec t;

	if (timers[which].flags & TFD_TIMER_ABSTIME) {
		check(!clock_gettime(timers[which].clock, &t));
		v.it_value.tv_sec += t.tv_sec;
	}
	check(!timerfd_settime(fd, timers[which].flags, &v, NULL));
}

static double left(int fd, double *interval)
{
	struct itimerspec v;

	check(!timerfd_gettime(fd, &v));
	*interval = (double)v.it_interval.tv_sec;
	return (double)v.it_value.tv_sec + (double)v.it_value.tv_nsec / 1e9;
}

static void check_timer(int which, int fd)
{
	double interval, value = left(fd, &interval);
	char want[64], *info = fd_info(fd);

	snprintf(want, sizeof(want), "clockid: %d\n", timers[which].clock);
	check(strstr(info, want));
	snprintf(want, sizeof(want), "settime flags: 0%o\n", timers[which].flags);
	check(strstr(info, want) || which == IDLE || which == ONCE);
	free(info);
	switch (which) {
	case ONCE:
		check(!value && take(fd) == 1 && !take(fd) && errno == EAGAIN);
		break;
	case REPEATED:
		check(take(fd) == 1 && !take(fd) && errno == EAGAIN);
		check(value > 0 && value <= 5000 && interval == 5000);
		break;
	case SOON:
		fcntl(fd, F_SETFL, 0);
		check(take(fd) == 1);
		break;
	case IDLE:
		check(!value && !take(fd) && errno == EAGAIN);
		break;
	default:
		check(value > 0 && value <= 1000 && interval == (double)timers[which].interval);
		check(!take(fd) && errno == EAGAIN);
	}
}

static void scene_timerfd(void)
{
	double until, now, interval;
	int fds[TIMERS];

	for (int i = 0; i < TIMERS; i++) {
		int fd = timerfd_create(timers[i].clock, TFD_NONBLOCK);

		fds[i] = -1;
		if (fd < 0 && (i == ALARM || i == BOOT_ALARM))
			continue; /* CAP_WAKE_ALARM */
		fds[i] = as(fd, 20 + i);
		start_timer(i, fds[i]);
	}
	while (!is_ready(fds[ONCE], POLLIN) || !is_ready(fds[REPEATED], POLLIN))
		nap_ms(1);
	now = now_of(CLOCK_REALTIME);
	until = now + left(fds[DAY], &interval);
	ready();
	wait_go();
	for (int i = 0; i < TIMERS; i++)
		if (fds[i] >= 0)
			check_timer(i, fds[i]);
	now = now_of(CLOCK_REALTIME);
	check(now + left(fds[DAY], &interval) < until + 1);
	check(left(fds[DAY], &interval) + now_of(CLOCK_REALTIME) > until - 1);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*play)(void);
	} scenes[] = {{"eventfd", scene_eventfd},	{"signalfd", scene_signalfd},
		      {"timerfd", scene_timerfd},	{"epoll", scene_epoll},
		      {"epoll_fork", scene_epoll_fork}, {"inotify", scene_inotify},
		      {"pidfd", scene_pidfd},		{"proc", scene_proc},
		      {"owner", scene_owner},		{"memfd", scene_memfd}};

	if (argc < 3)
		return 2;
	set_dir(argv[2]);
	if (!strcmp(argv[1], "refuse") && argc > 3)
		return refuse(argv[3]), 0;
	for (size_t i = 0; i < sizeof(scenes) / sizeof(*scenes); i++)
		if (!strcmp(argv[1], scenes[i].name))
			return scenes[i].play(), 0;
	return 2;
}
