// SPDX-License-Identifier: GPL-2.0
/* ticking SCENE DIR: a timer whose signal is pending when a version is cut; it must tick on. */
#include "reborn.h"

#include <sys/time.h>

static volatile sig_atomic_t ticks;

static void tick(int sig)
{
	ticks++;
}

int main(int argc, char **argv)
{
	const struct itimerval every = {{0, 5000}, {0, 5000}};
	struct itimerval left;
	sigset_t alarm;

	if (argc != 3)
		return 2;
	set_dir(argv[2]);
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	signal(SIGALRM, tick);
	check(!sigprocmask(SIG_BLOCK, &alarm, NULL));
	check(!setitimer(ITIMER_REAL, &every, NULL));
	/* sent, and not started again before it is taken */
	do {
		nap_ms(1);
		check(!getitimer(ITIMER_REAL, &left));
	} while (left.it_value.tv_usec);
	ready();
	wait_go();
	check(!sigprocmask(SIG_UNBLOCK, &alarm, NULL));
	for (int i = 0; ticks < 5 && i < 30000; i++) /* a signal ends the sleep */
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	check(ticks >= 5);
	check(!getitimer(ITIMER_REAL, &left) && left.it_interval.tv_usec == 5000);
	return 0;
}
