// SPDX-License-Identifier: GPL-2.0
/* clocks goes_on|jumps DIR: the clocks, and a timer, after a gap of GAP_S seconds at least. */
#include "reborn.h"

#define GAP_S 2.0
#define EVERY_S 0.1

static double seconds(clockid_t clock)
{
	struct timespec t;

	check(!clock_gettime(clock, &t));
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	struct itimerspec every = {{0, 100000000}, {0, 100000000}};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	double real, mono, boot, fired = 0, gone;
	struct timespec none = {0, 0};
	bool goes_on;
	siginfo_t info;
	timer_t timer;
	sigset_t set;

	if (argc < 3)
		return 2;
	set_dir(argv[2]);
	goes_on = !strcmp(argv[1], "goes_on");
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	check(!sigprocmask(SIG_BLOCK, &set, NULL));
	real = seconds(CLOCK_REALTIME);
	mono = seconds(CLOCK_MONOTONIC);
	boot = seconds(CLOCK_BOOTTIME);
	check(!timer_create(CLOCK_MONOTONIC, &event, &timer));
	check(!timer_settime(timer, 0, &every, NULL));
	ready();
	wait_go();
	real = seconds(CLOCK_REALTIME) - real;
	mono = seconds(CLOCK_MONOTONIC) - mono;
	boot = seconds(CLOCK_BOOTTIME) - boot;
	check(mono >= 0 && boot >= 0 && real >= GAP_S);
	gone = goes_on ? GAP_S : 0;
	if (real - mono < gone - 0.1 || real - boot < gone - 0.1)
		wrong("real %f, monotonic %f, boot %f", real, mono, boot);
	if (!goes_on && (real - mono > 0.5 || real - boot > 0.5))
		wrong("real %f, monotonic %f, boot %f", real, mono, boot);
	while (sigtimedwait(&set, &info, &none) == SIGUSR1)
		fired += 1 + info.si_overrun;
	if (!fired || fired > (real - GAP_S) / EVERY_S + 2)
		wrong("the timer fired %f times in %f seconds", fired, real);
	return 0;
}
