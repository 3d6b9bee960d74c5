// SPDX-License-Identifier: GPL-2.0
/* What a program does to its memory while pages of it are still to come. */
#include "reborn.h"

#define PAGES ((size_t)4096) /* of each area */
#define THREADS 2
#define BIG (PAGES * THREADS)

static char *big, *given, *moved, *holed, *forked, *io;
static const char zeros[PAGE];

static char *area(size_t pages, uint64_t seed)
{
	/* pages without access keep the areas apart */
	char *m = mmap(NULL, (pages + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(m != MAP_FAILED);
	m += PAGE;
	check(!mprotect(m, pages * PAGE, PROT_READ | PROT_WRITE));
	for (size_t i = 0; i < pages; i++)
		paint(m + i * PAGE, seed + i);
	return m;
}

/* Backwards, which is not the order in which they come by themselves. */
static void *writer(void *arg)
{
	size_t me = (uintptr_t)arg;

	for (size_t n = BIG; n-- > 0;) {
		if (n % THREADS != me)
			continue;
		check(painted(big + n * PAGE, n));
		paint(big + n * PAGE, n + 1000000);
	}
	return arg;
}

static void check_range(const char *m, size_t from, size_t to, uint64_t seed)
{
	for (size_t i = from; i < to; i++)
		check(painted(m + i * PAGE, seed + i));
}

static void check_zeros(const char *m, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		check(!memcmp(m + i * PAGE, zeros, PAGE));
}

/* Every second piece of 16 pages. */
static void give_back(char *m, size_t from)
{
	for (size_t i = from; i < PAGES; i += 32)
		check(!madvise(m + i * PAGE, 16 * PAGE, MADV_DONTNEED));
}

static void check_given(const char *m, size_t from, uint64_t seed)
{
	for (size_t i = 0; i < PAGES; i += 16) {
		if (i % 32 == from)
			check_zeros(m, i, i + 16);
		else
			check_range(m, i, i + 16, seed);
	}
}

static void by_the_kernel(void)
{
	char page[PAGE], file[64];
	int fd;

	snprintf(file, sizeof(file), "%s", in_dir("io"));
	fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0600);
	check(fd >= 0);
	for (size_t i = 0; i < PAGES; i += 64)
		check(pwrite(fd, io + i * PAGE, PAGE, 0) == PAGE &&
		      pread(fd, page, PAGE, 0) == PAGE && painted(page, 500000 + i));
	/* into the middle of one that is not there yet */
	for (size_t i = 1; i < PAGES; i += 64) {
		check(pread(fd, io + i * PAGE + 100, 200, 0) == 200);
		check(!memcmp(io + i * PAGE + 100, page, 200));
		paint(page, 500000 + i);
		check(!memcmp(io + i * PAGE, page, 100));
		check(!memcmp(io + i * PAGE + 300, page + 300, PAGE - 300));
		check(pread(fd, page, PAGE, 0) == PAGE);
	}
	close(fd);
}

static void move_and_cut(void)
{
	char *to = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *fresh;

	check(to != MAP_FAILED);
	check(mremap(moved, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) ==
	      to);
	moved = to;
	/* a quarter of it once more, and its end is cut off */
	to = mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(mremap(moved, PAGES / 4 * PAGE, PAGES / 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		     to) == to);
	check(!munmap(moved + PAGES / 4 * 3 * PAGE, PAGES / 4 * PAGE));
	check(!munmap(holed + PAGES / 4 * PAGE, PAGES / 2 * PAGE));
	fresh = mmap(holed + PAGES / 4 * PAGE, PAGES / 2 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	check(fresh == holed + PAGES / 4 * PAGE);
	check_range(to, 0, PAGES / 4, 300000);
	check_range(moved, PAGES / 4, PAGES / 4 * 3, 300000);
	check_range(holed, 0, PAGES / 4, 400000);
	check_zeros(holed, PAGES / 4, PAGES / 4 * 3);
	check_range(holed, PAGES / 4 * 3, PAGES, 400000);
}

static void end_well(pid_t pid)
{
	int status;

	check(waitpid(pid, &status, 0) == pid);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A child and a grandchild have the same memory, and each gives back another part of it. */
static pid_t fork_lazily(void)
{
	pid_t child = fork(), grandchild;

	check(child >= 0);
	if (child) {
		give_back(forked, 0);
		return child;
	}
	check(!prctl(PR_SET_PDEATHSIG, SIGKILL));
	grandchild = fork();
	check(grandchild >= 0);
	if (!grandchild) {
		check(!prctl(PR_SET_PDEATHSIG, SIGKILL));
		check_range(forked, 0, PAGES, 600000);
		_exit(0);
	}
	give_back(forked, 16);
	check_given(forked, 16, 600000);
	end_well(grandchild);
	_exit(0);
}

void scene_lazy(void)
{
	pthread_t threads[THREADS];
	pid_t child;

	big = area(BIG, 0);
	given = area(PAGES, 200000);
	moved = area(PAGES, 300000);
	holed = area(PAGES, 400000);
	io = area(PAGES, 500000);
	forked = area(PAGES, 600000);
	ready();
	wait_go();
	child = fork_lazily();
	give_back(given, 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		check(!pthread_create(&threads[i], NULL, writer, (void *)i));
	move_and_cut();
	by_the_kernel();
	check_given(given, 0, 200000);
	check_given(forked, 0, 600000);
	for (uintptr_t i = 0; i < THREADS; i++)
		check(!pthread_join(threads[i], NULL));
	end_well(child);
	/* what has come late would have overwritten it */
	nap_ms(300);
	check_range(big, 0, BIG, 1000000);
	check_given(given, 0, 200000);
	check_given(forked, 0, 600000);
	check_zeros(holed, PAGES / 4, PAGES / 4 * 3);
}
