/* SPDX-License-Identifier: GPL-2.0 */
/* The body of the symbols_* targets: one program, linked in several ways. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

__attribute__((noinline)) int known_function(int x)
{
	return x * 3 + getppid();
}

int main(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	printf("%#lx %#lx\n", (unsigned long)(uintptr_t)known_function,
	       (unsigned long)(uintptr_t)getppid);
	fflush(stdout);
	for (;;)
		pause();
}
