// SPDX-License-Identifier: GPL-2.0
/*
 * busyloop MIB: for each number of seconds on stdin work on MIB of memory as a program with a large working set does, and answer
 * with the steps done. A step changes a random word and mixes a little.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	size_t len = (argc > 1 ? strtoul(argv[1], NULL, 10) : 16) << 20, words = len / 8;
	uint64_t *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			     0),
		 x = 88172645463325252ull;
	double seconds;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (mem == MAP_FAILED || madvise(mem, len, MADV_NOHUGEPAGE))
		return 1;
	for (size_t i = 0; i < words; i++)
		mem[i] = i;
	puts("ready");
	fflush(stdout);
	while (scanf("%lf", &seconds) == 1) {
		double end = now() + seconds;
		uint64_t steps = 0;

		for (; now() < end; steps += 4096)
			for (int i = 0; i < 4096; i++) {
				x ^= x << 13;
				x ^= x >> 7;
				x ^= x << 17;
				mem[x % words] += x;
			}
		printf("%lu\n", (unsigned long)steps);
		fflush(stdout);
	}
	return 0;
}
