// SPDX-License-Identifier: GPL-2.0
/* Signals and timers; system calls that go on as if nothing had happened. */
#include <linux/futex.h>
#include <poll.h>
#include <sys/time.h>

#include "reborn.h"

/* ---- signals ---- */

static volatile int handled;
static volatile uintptr_t stack_seen;

static void handler(int sig, siginfo_t *info, void *context)
{
	int local;

	handled = info->si_value.sival_int;
	stack_seen = (uintptr_t)&local;
}

static void nothing(int sig)
{
	handled = sig;
}

struct actions {
	uint64_t list[65][4]; /* as the kernel has them */
};

static void read_actions(struct actions *a)
{
	memset(a, 0, sizeof(*a));
	for (int sig = 1; sig <= 64; sig++)
		syscall(SYS_rt_sigaction, sig, NULL, &a->list[sig], 8);
}

static void check_actions(const struct actions *a)
{
	struct actions now;

	read_actions(&now);
	for (int sig = 1; sig <= 64; sig++)
		if (memcmp(&now.list[sig], &a->list[sig], sizeof(now.list[0])))
			wrong("the action of signal %d", sig);
}

static void expect_pending(int sig, int value)
{
	struct timespec none = {0};
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	check(sigtimedwait(&set, &info, &none) == sig);
	check(info.si_value.sival_int == value && info.si_pid == getpid());
	check(info.si_code == SI_QUEUE);
}

static timer_t make_timer(int sig, int value)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL,
				 .sigev_signo = sig,
				 .sigev_value.sival_int = value};
	timer_t id;

	check(!timer_create(CLOCK_MONOTONIC, &event, &id));
	return id;
}

void scene_signals(void)
{
	const size_t stack_size = 1 << 16;
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	stack_t stack = {.ss_sp = malloc(stack_size), .ss_size = stack_size}, now;
	struct itimerval itimer = {{7, 0}, {1000, 0}};
	struct itimerspec left = {{3, 0}, {2000, 0}};
	sigset_t mask, mask_now, pending;
	struct actions actions;
	timer_t gone, slow, quick;

	check(!sigaltstack(&stack, NULL) && !sigaction(SIGUSR1, &sa, NULL));
	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, SIGHUP);
	sa.sa_flags = SA_RESTART | SA_SIGINFO | SA_NODEFER;
	check(!sigaction(SIGRTMIN + 3, &sa, NULL));
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTRAP, SIG_IGN); /* tracers like to use it */
	signal(SIGALRM, nothing);
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	sigaddset(&mask, SIGRTMIN + 1);
	sigaddset(&mask, SIGCHLD);
	check(!sigprocmask(SIG_BLOCK, &mask, NULL));
	check(!sigqueue(getpid(), SIGUSR2, (union sigval){.sival_int = 42}));
	for (int i = 1; i <= 3; i++)
		check(!sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i}));
	check(!kill(getpid(), SIGCHLD));
	check(!setitimer(ITIMER_REAL, &itimer, NULL));
	gone = make_timer(SIGUSR1, 1);
	slow = make_timer(SIGUSR1, 2);
	check(!timer_delete(gone) && !timer_settime(slow, 0, &left, NULL));
	quick = make_timer(SIGUSR1, 4711);
	read_actions(&actions);
	ready();
	wait_go();
	check_actions(&actions);
	sigpending(&pending);
	check(sigismember(&pending, SIGUSR2) && sigismember(&pending, SIGCHLD));
	expect_pending(SIGUSR2, 42);
	for (int i = 1; i <= 3; i++)
		expect_pending(SIGRTMIN + 1, i);
	check(!sigprocmask(SIG_BLOCK, NULL, &mask_now) &&
	      !memcmp(&mask, &mask_now, sizeof(uint64_t)));
	check(!sigaltstack(NULL, &now) && now.ss_sp == stack.ss_sp &&
	      now.ss_size == stack_size && !now.ss_flags);
	check(!getitimer(ITIMER_REAL, &itimer));
	check(itimer.it_interval.tv_sec == 7 && itimer.it_value.tv_sec > 900 &&
	      itimer.it_value.tv_sec < 1000);
	check(!timer_gettime(slow, &left) && left.it_interval.tv_sec == 3 &&
	      left.it_value.tv_sec > 1900 && left.it_value.tv_sec < 2000);
	left = (struct itimerspec){{0}, {0, 1000000}};
	check(!timer_settime(quick, 0, &left, NULL));
	while (!handled) /* an EINTR that is earned */
		usleep(1000);
	check(handled == 4711);
	check(stack_seen >= (uintptr_t)stack.ss_sp &&
	      stack_seen < (uintptr_t)stack.ss_sp + stack_size);
	itimer = (struct itimerval){{0}, {0, 1000}};
	check(!setitimer(ITIMER_REAL, &itimer, NULL));
	while (handled != SIGALRM)
		usleep(1000);
}

/* ---- calls ---- */

enum { NANO, NANO_ABS, POLL, POLL_LONG, FUTEX, FUTEX_LONG, READ, PAUSE, WAIT, SIGWAIT, CALLS };

static int pipes[CALLS][2];
static uint32_t word[CALLS];
static _Atomic int returned[CALLS], inside[CALLS];
static pid_t waited;

static long futex_wait(uint32_t *at, const struct timespec *timeout)
{
	return syscall(SYS_futex, at, FUTEX_WAIT, 0, timeout, NULL, 0);
}

static void call(int which)
{
	struct pollfd fd = {.fd = pipes[which][0], .events = POLLIN};
	struct timespec t = {1, 500000000}, hour = {3600, 0};
	siginfo_t info;
	sigset_t set;
	char byte;

	switch (which) {
	case NANO:
		check(!nanosleep(&t, NULL));
		break;
	case NANO_ABS:
		clock_gettime(CLOCK_MONOTONIC, &t);
		t.tv_sec += 1;
		check(!clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL));
		break;
	case POLL:
		check(poll(&fd, 1, -1) == 1);
		break;
	case POLL_LONG:
		check(poll(&fd, 1, 3600000) == 1);
		break;
	case FUTEX:
		check(!futex_wait(&word[which], NULL));
		break;
	case FUTEX_LONG:
		check(!futex_wait(&word[which], &hour));
		break;
	case READ:
		check(read(fd.fd, &byte, 1) == 1 && byte == 'x');
		break;
	case PAUSE:
		check(pause() == -1 && errno == EINTR && handled == SIGUSR1);
		break;
	case WAIT:
		check(waitpid(waited, NULL, 0) == waited);
		break;
	case SIGWAIT:
		sigemptyset(&set);
		sigaddset(&set, SIGUSR2);
		check(sigtimedwait(&set, &info, &hour) == SIGUSR2);
		break;
	}
}

static void *caller(void *arg)
{
	int which = (int)(uintptr_t)arg;

	inside[which] = (int)syscall(SYS_gettid);
	call(which);
	returned[which] = 1;
	return NULL;
}

/* Is it asleep? */
static bool sleeps(int tid)
{
	char path[64], *text;
	bool is;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	text = slurp(path);
	is = strrchr(text, ')')[2] == 'S';
	free(text);
	return is;
}

void scene_calls(void)
{
	pthread_t threads[CALLS];
	sigset_t usr2;
	int quit[2];
	char byte;

	signal(SIGUSR1, nothing);
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	sigprocmask(SIG_BLOCK, &usr2, NULL);
	check(!pipe(quit));
	waited = fork();
	if (!waited) {
		close(quit[1]);
		check(read(quit[0], &byte, 1) == 0);
		_exit(0);
	}
	close(quit[0]);
	for (int i = 0; i < CALLS; i++) {
		check(!pipe(pipes[i]));
		check(!pthread_create(&threads[i], NULL, caller, (void *)(uintptr_t)i));
		while (!inside[i] || !sleeps(inside[i]))
			nap_ms(1);
	}
	ready();
	wait_go();
	nap_ms(100);
	for (int i = POLL; i < CALLS; i++) {
		while (!returned[i] && !sleeps(inside[i]))
			nap_ms(1);
		if (returned[i])
			wrong("call %d has returned", i);
	}
	check(write(pipes[POLL][1], "x", 1) == 1 && write(pipes[POLL_LONG][1], "x", 1) == 1);
	check(write(pipes[READ][1], "x", 1) == 1);
	check(syscall(SYS_futex, &word[FUTEX], FUTEX_WAKE, 1, NULL, NULL, 0) == 1);
	check(syscall(SYS_futex, &word[FUTEX_LONG], FUTEX_WAKE, 1, NULL, NULL, 0) == 1);
	check(!syscall(SYS_tgkill, getpid(), inside[PAUSE], SIGUSR1));
	check(!syscall(SYS_tgkill, getpid(), inside[SIGWAIT], SIGUSR2));
	close(quit[1]);
	for (int i = 0; i < CALLS; i++)
		check(!pthread_join(threads[i], NULL));
}
