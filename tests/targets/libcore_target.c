// SPDX-License-Identifier: GPL-2.0
/* A library of core_target with data of its own and a frame in the backtraces. */
#include "targets/core_target.h"

int library_counter = 1000;
static const char library_text[] = "constant in a library";

const char *library_constant(void)
{
	return library_text;
}

__attribute__((noinline)) int library_wait(int (*wait)(int worker), int worker)
{
	int library_local = 7000 + worker;
	int ret;

	__atomic_add_fetch(&library_counter, 1, __ATOMIC_SEQ_CST);
	ret = wait(worker);
	__asm__ volatile("" : "+m"(library_local));
	return ret + library_local;
}
