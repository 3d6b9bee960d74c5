// SPDX-License-Identifier: GPL-2.0
/*
 * faultloop MIB [THREADS]: for each number of seconds on stdin write one word of every page of
 * MIB of memory, over and over, and answer with the pages written per second. Further threads
 * sleep.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void *sleeper(void *arg)
{
	for (;;)
		pause();
	return arg;
}

int main(int argc, char **argv)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE),
	       len = (argc > 1 ? strtoul(argv[1], NULL, 10) : 64) << 20;
	long threads = argc > 2 ? strtol(argv[2], NULL, 10) : 1;
	double seconds;
	char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t thread;

	if (mem == MAP_FAILED || madvise(mem, len, MADV_NOHUGEPAGE))
		return 1;
	for (size_t at = 0; at < len; at += page)
		mem[at] = 1;
	for (long i = 1; i < threads; i++)
		if (pthread_create(&thread, NULL, sleeper, NULL))
			return 1;
	puts("ready");
	fflush(stdout);
	while (scanf("%lf", &seconds) == 1) {
		double start = now(), end = start + seconds, t;
		uint64_t pages = 0;

		/* the clock is looked at once per round: a round is some ten milliseconds
		 */
		do {
			for (size_t at = 0; at < len; at += page, pages++)
				*(volatile uint64_t *)(mem + at) += 1;
			madvise(mem, len, MADV_DONTNEED);
			t = now();
		} while (t < end);
		printf("%.0f\n", (double)pages / (t - start));
		fflush(stdout);
	}
	return 0;
}
