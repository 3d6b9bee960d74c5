// SPDX-License-Identifier: GPL-2.0
/*
 * unseen DIR: a program that would notice if somebody did more than look at it. It is checkpointed
 * between DIR/ready and DIR/go, and not restarted; then it says what it saw in DIR/wrong, or nothing.
 */
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <termios.h>

#include "reborn.h"

#define TICK_NS 3000000

static uint64_t now(clockid_t clock)
{
	struct timespec t;

	check(!clock_gettime(clock, &t));
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- edges ---- */

static struct {
	int epoll, told, untold, once, level;
} edges;

static int counter(uint64_t value, uint32_t events)
{
	int fd = eventfd((unsigned)value, EFD_NONBLOCK);
	struct epoll_event e = {.events = events, .data.fd = fd};

	check(fd >= 0 && !epoll_ctl(edges.epoll, EPOLL_CTL_ADD, fd, &e));
	return fd;
}

static int next_event(void)
{
	struct epoll_event e;
	int n = epoll_wait(edges.epoll, &e, 1, 0);

	check(n >= 0);
	return n ? e.data.fd : -1;
}

/* One that was told, and must not be told again; one that is yet to be told, once. */
static void begin_edges(void)
{
	edges.epoll = epoll_create1(0);
	edges.told = counter(1, EPOLLIN | EPOLLET);
	check(next_event() == edges.told && next_event() == -1);
	edges.once = counter(1, EPOLLIN | EPOLLONESHOT);
	check(next_event() == edges.once && next_event() == -1);
	edges.untold = counter(1, EPOLLIN | EPOLLET);
	edges.level = counter(0, EPOLLIN);
}

static void check_edges(void)
{
	uint64_t one = 1;

	check(next_event() == edges.untold);
	check(next_event() == -1);
	check(write(edges.told, &one, 8) == 8);
	check(next_event() == edges.told && next_event() == -1);
	check(write(edges.level, &one, 8) == 8);
	check(next_event() == edges.level && next_event() == edges.level);
}

/* ---- timers ---- */

static struct {
	int every;
	uint64_t start, interval_timer;
	volatile sig_atomic_t alarms;
} timers;

static void on_alarm(int sig)
{
	timers.alarms = timers.alarms + 1;
}

static void begin_timers(void)
{
	struct itimerspec spec = {{0, TICK_NS}, {0, 0}};
	struct itimerval once = {.it_value = {0, 30000}};
	uint64_t start = now(CLOCK_MONOTONIC) + TICK_NS;

	timers.start = start;
	spec.it_value.tv_sec = (time_t)(start / 1000000000);
	spec.it_value.tv_nsec = (long)(start % 1000000000);
	timers.every = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	check(!timerfd_settime(timers.every, TFD_TIMER_ABSTIME, &spec, NULL));
	signal(SIGALRM, on_alarm);
	check(!setitimer(ITIMER_REAL, &once, NULL));
}

/* Every tick is counted once, whatever came in between. */
static void check_timers(void)
{
	uint64_t ticks = 0, before, after;
	sigset_t none;

	sigemptyset(&none);
	while (!timers.alarms) /* once: it was pending, or comes now */
		sigsuspend(&none);
	before = now(CLOCK_MONOTONIC);
	check(read(timers.every, &ticks, sizeof(ticks)) == sizeof(ticks));
	after = now(CLOCK_MONOTONIC);
	check(ticks >= (before - timers.start) / TICK_NS + 1);
	check(ticks <= (after - timers.start) / TICK_NS + 1);
	check(timers.alarms == 1);
}

/* ---- a watched directory, with open files in it ---- */

static struct {
	int notify, file, deleted, locked;
	struct stat st, deleted_st;
} files;

static void drain(int fd)
{
	char buf[4096];

	while (read(fd, buf, sizeof(buf)) > 0)
		;
}

static void begin_files(void)
{
	files.file = open(in_dir("watched/file"), O_RDWR | O_CREAT, 0600);
	files.deleted = open(in_dir("watched/deleted"), O_RDWR | O_CREAT, 0600);
	check(files.file >= 0 && files.deleted >= 0 && !unlink(in_dir("watched/deleted")));
	check(write(files.file, "content", 7) == 7 && write(files.deleted, "content", 7) == 7);
	files.notify = inotify_init1(IN_NONBLOCK);
	check(inotify_add_watch(files.notify, in_dir("watched"), IN_ALL_EVENTS) > 0);
	check(inotify_add_watch(files.notify, in_dir("watched/file"), IN_ALL_EVENTS) > 0);
	check(write(files.file, "!", 1) == 1);
	check(!fstat(files.file, &files.st) && !fstat(files.deleted, &files.deleted_st));
}

/* What only descriptors keep is saved, so it is read: who watches where it was may see that. */
static bool is_reading_of_deleted(const struct inotify_event *e)
{
	return e->len && !strcmp(e->name, "deleted") &&
	       !(e->mask & ~(uint32_t)(IN_OPEN | IN_ACCESS | IN_CLOSE_NOWRITE));
}

/* The one event of the write, to the file and to its directory; times as they were. */
static void check_files(void)
{
	char buf[4096] __attribute__((aligned(8)));
	ssize_t got = read(files.notify, buf, sizeof(buf)), at = 0;
	unsigned n = 0;
	struct stat st, deleted;

	check(got > 0 && !fstat(files.file, &st) && !fstat(files.deleted, &deleted));
	while (at < got) {
		struct inotify_event *e = (void *)(buf + at);

		at += (ssize_t)(sizeof(*e) + e->len);
		if (e->mask == IN_MODIFY)
			n++;
		else if (!is_reading_of_deleted(e))
			wrong("an event %#x of '%s'", e->mask, e->len ? e->name : "");
	}
	check(n == 2);
	check(!memcmp(&st.st_atim, &files.st.st_atim, sizeof(st.st_atim)));
	check(!memcmp(&st.st_ctim, &files.st.st_ctim, sizeof(st.st_ctim)));
	check(!memcmp(&deleted.st_atim, &files.deleted_st.st_atim, sizeof(st.st_atim)));
	check(lseek(files.file, 0, SEEK_CUR) == 8 && lseek(files.deleted, 0, SEEK_CUR) == 7);
	drain(files.notify);
}

/* ---- a child, a terminal, signals: all of them are blocked, so that each shows ---- */

static struct {
	int signals, master, pair[2];
	pid_t child;
} others;

static void be_child(const char *name)
{
	sigset_t all;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	check(setsid() > 0 && open(name, O_RDWR) >= 0); /* its controlling terminal */
	sigfillset(&all);
	check(!sigprocmask(SIG_BLOCK, &all, NULL));
	check(write(others.pair[1], "x", 1) == 1);
	for (;;) { /* whatever comes is told */
		int sig;

		check(!sigwait(&all, &sig));
		if (sig == SIGUSR1)
			_exit(5);
		wrong("the child got signal %d", sig);
	}
}

static void begin_others(void)
{
	sigset_t all;
	char byte;

	sigfillset(&all);
	check(!sigprocmask(SIG_BLOCK, &all, NULL));
	sigdelset(&all, SIGALRM); /* the timer's */
	others.signals = signalfd(-1, &all, SFD_NONBLOCK);
	others.master = posix_openpt(O_RDWR | O_NOCTTY);
	check(!grantpt(others.master) && !unlockpt(others.master));
	check(!socketpair(AF_UNIX, SOCK_STREAM, 0, others.pair));
	others.child = fork();
	if (!others.child)
		be_child(ptsname(others.master));
	check(read(others.pair[0], &byte, 1) == 1);
	/* asked to tell of everything */
	check(!fcntl(others.pair[0], F_SETOWN, getpid()));
	check(!fcntl(others.pair[0], F_SETFL, O_ASYNC));
}

static void check_others(void)
{
	struct signalfd_siginfo info;
	siginfo_t child = {0};
	char byte;

	if (read(others.signals, &info, sizeof(info)) > 0)
		wrong("signal %u", info.ssi_signo);
	/* neither stopped nor continued */
	check(!waitid(P_PID, (id_t)others.child, &child,
		      WEXITED | WSTOPPED | WCONTINUED | WNOHANG));
	check(!child.si_pid);
	check(recv(others.pair[0], &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	check(!kill(others.child, SIGUSR1));
	check(!waitid(P_PID, (id_t)others.child, &child, WEXITED) && child.si_status == 5);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	set_dir(argv[2]);
	check(!mkdir(in_dir("watched"), 0700));
	begin_others();
	begin_edges();
	begin_files();
	begin_timers();
	ready();
	wait_go();
	check_files();
	check_edges();
	check_timers();
	check_others();
	return 0;
}
