// SPDX-License-Identifier: GPL-2.0
/*
 * striper PAGES: says the address of that much memory, then obeys lines on stdin and says "done" after each:
 *     write FIRST N   write N pages from page FIRST on, in stripe_inner(), called by stripe_outer()
 *     name TEXT       be called so
 * Built with frame pointers, so that its callers are found.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define PAGE 4096u

static char *memory;
static unsigned rounds;

__attribute__((noinline)) void stripe_inner(size_t first, size_t n)
{
	for (size_t i = first; i < first + n; i++)
		*(volatile unsigned *)(memory + i * PAGE) = ++rounds;
}

__attribute__((noinline)) void stripe_outer(size_t first, size_t n)
{
	stripe_inner(first, n);
	rounds++; /* not a tail call */
}

int main(int argc, char **argv)
{
	size_t pages = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000, first, n;
	char line[128], name[16];

	/* between two pages that nobody may touch, so that it stays a mapping of its own */
	memory = mmap(NULL, (pages + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 1;
	memory += PAGE;
	if (mprotect(memory, pages * PAGE, PROT_READ | PROT_WRITE) ||
	    madvise(memory, pages * PAGE, MADV_NOHUGEPAGE))
		return 1;
	printf("%p\n", (void *)memory);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "write %zu %zu", &first, &n) == 2 && first + n <= pages)
			stripe_outer(first, n);
		else if (sscanf(line, "name %15[^\n]", name) == 1)
			prctl(PR_SET_NAME, name);
		else
			return 2;
		puts("done");
		fflush(stdout);
	}
	return 0;
}
