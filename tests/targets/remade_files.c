// SPDX-License-Identifier: GPL-2.0
/* Mapped files that nobody else keeps, and memory that processes share. */
#include "remade.h"

#define PAGES 16
#define TAIL 100 /* bytes in the last page of a file */

/* A file of PAGES - 1 pages and a bit; page @hole is one. */
static int make_file(const char *name, size_t hole)
{
	int fd = open(in_dir(name), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	char page[PAGE];

	check(fd >= 0 && !ftruncate(fd, (PAGES - 1) * PAGE + TAIL));
	for (size_t i = 0; i < PAGES - 1; i++) {
		paint(page, i);
		check(i == hole || pwrite(fd, page, PAGE, (off_t)(i * PAGE)) == PAGE);
	}
	return fd;
}

static char *map_file(int fd, size_t first, size_t n, int prot, int flags)
{
	char *m = mmap(NULL, n * PAGE, prot, flags, fd, (off_t)(first * PAGE));

	check(m != MAP_FAILED);
	return m;
}

static bool is_zeros(const char *at, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (at[i])
			return false;
	return true;
}

static void check_private(const char *m)
{
	for (size_t i = 0; i < PAGES - 1; i++) {
		if (i == 3)
			check(is_zeros(m + i * PAGE, PAGE));
		else
			check(painted(m + i * PAGE, i % 5 == 1 ? i + 50 : i));
	}
	check(is_zeros(m + (PAGES - 1) * PAGE, TAIL));
}

/* Deleted files, mapped privately: some pages written, most never touched; and code. */
void scene_deleted_private(void)
{
	int fd = make_file("gone", 3);
	char *rw = map_file(fd, 0, PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE),
	     *ro = map_file(fd, 4, 4, PROT_READ | PROT_EXEC, MAP_PRIVATE);

	check(!unlink(in_dir("gone")));
	close(fd);
	for (size_t i = 1; i < PAGES - 1; i += 5)
		paint(rw + i * PAGE, i + 50);
	ready();
	wait_go();
	for (size_t i = 0; i < 4; i++)
		check(painted(ro + i * PAGE, i + 4));
	check_private(rw);
	rw[0]++;
	check(mprotect(ro, PAGE, PROT_READ) == 0);
}

/* One file, mapped shared in two pieces, with a hole, and longer than both. */
void scene_deleted_shared(void)
{
	int fd = make_file("gone", 3);
	char *low = map_file(fd, 0, 6, PROT_READ | PROT_WRITE, MAP_SHARED),
	     *high = map_file(fd, 4, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED),
	     *code = map_file(fd, 0, 2, PROT_READ, MAP_PRIVATE);
	unsigned char there;

	check(!unlink(in_dir("gone")));
	close(fd);
	paint(high, 70); /* page 4 */
	ready();
	wait_go();
	for (size_t i = 0; i < 6; i++)
		check(i == 3 ? is_zeros(low + i * PAGE, PAGE)
			     : painted(low + i * PAGE, i == 4 ? 70 : i));
	for (size_t i = 5; i < PAGES - 1; i++)
		check(painted(high + (i - 4) * PAGE, i));
	check(painted(code, 0) && painted(code + PAGE, 1));
	paint(low + 5 * PAGE, 71);
	check(painted(high + PAGE, 71));
	/* the end of the file is where it was: nothing behind it can be read */
	fd = open(in_dir("null"), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	check(write(fd, high + (PAGES - 1 - 4) * PAGE, 1) == 1);
	check(write(fd, high + (PAGES - 4) * PAGE, 1) == -1 && errno == EFAULT);
	close(fd);
	check(!mincore(low, PAGE, &there));
}

/* A memfd: by two processes, partly, at offsets, with holes, longer than what is mapped. */
void scene_memfd(void)
{
	int fd = memfd_create("the memory", MFD_CLOEXEC), status;
	char *a, *b;

	check(fd >= 0 && !ftruncate(fd, PAGES * PAGE));
	a = map_file(fd, 0, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	b = map_file(fd, 8, 4, PROT_READ | PROT_WRITE, MAP_SHARED);
	for (size_t i = 0; i < PAGES; i += 3)
		paint(a + i * PAGE, i);
	if (!fork()) {
		check(!prctl(PR_SET_PDEATHSIG, SIGKILL));
		check(!munmap(a, 2 * PAGE) && !close(fd));
		while (*(volatile char *)(b + 2 * PAGE) != 1)
			nap_ms(1);
		check(painted(a + 3 * PAGE, 3) && painted(b + PAGE, 9));
		paint(a + 4 * PAGE, 80);
		_exit(7);
	}
	ready();
	wait_go();
	for (size_t i = 0; i < PAGES; i++)
		check(i % 3 ? is_zeros(a + i * PAGE, PAGE) : painted(a + i * PAGE, i));
	b[2 * PAGE] = 1;
	check(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 7);
	check(painted(a + 4 * PAGE, 80) && a[10 * PAGE] == 1);
	check(lseek(fd, 0, SEEK_END) == PAGES * PAGE);
	check(pwrite(fd, "x", 1, 5 * PAGE) == 1 && a[5 * PAGE] == 'x');
}

/* Shared anonymous memory: by a child, and a part that was moved. */
void scene_shared(void)
{
	char *m = map_file(-1, 0, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS),
	     *room = anon(PAGES, PROT_NONE, 0), *moved;
	int status;

	for (size_t i = 0; i < PAGES; i += 2)
		paint(m + i * PAGE, i);
	moved = mremap(m + 8 * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room);
	check(moved == room);
	if (!fork()) {
		check(!prctl(PR_SET_PDEATHSIG, SIGKILL));
		while (*(volatile char *)(m + PAGE) != 1)
			nap_ms(1);
		check(painted(moved, 8) && painted(m, 0));
		paint(moved + PAGE, 90);
		_exit(5);
	}
	ready();
	wait_go();
	for (size_t i = 0; i < PAGES; i++) {
		char *at = i >= 8 && i < 12 ? moved + (i - 8) * PAGE : m + i * PAGE;

		check(i % 2 ? is_zeros(at, PAGE) : painted(at, i));
	}
	m[PAGE] = 1;
	check(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 5);
	check(painted(moved + PAGE, 90));
	/* the old way of telling two copies of one object */
	check(mremap(moved, 0, PAGE, MREMAP_MAYMOVE) != MAP_FAILED);
}
