// SPDX-License-Identifier: GPL-2.0
/* Kinds of private memory, and what is said of it. */
#include "remade.h"

#include <sys/personality.h>
#include <sys/uio.h>

#define GUARD_INSTALL 102
#define GUARD_REMOVE 103
#define SET_VMA 0x53564d41
#define MSEAL 462
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 8
#endif

/* Through the kernel: what can't be read makes no signal. */
static bool readable(const void *at)
{
	char buf[PAGE];
	struct iovec to = {buf, PAGE}, from = {(void *)at, PAGE};

	return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == PAGE;
}

static char *painted_pages(size_t n, int prot)
{
	char *m = anon(n, PROT_READ | PROT_WRITE, 0);

	for (size_t i = 0; i < n; i++)
		paint(m + i * PAGE, i + 7);
	check(!mprotect(m, n * PAGE, prot));
	return m;
}

static void check_pages(char *m, size_t n)
{
	for (size_t i = 0; i < n; i++)
		check(painted(m + i * PAGE, i + 7));
}

/* Memory with content that can't be read, written or only executed; guard pages. */
void scene_protected(void)
{
	static const int prots[] = {PROT_NONE, PROT_EXEC, PROT_READ, PROT_READ | PROT_EXEC};
	char *m[4], *guarded = painted_pages(16, PROT_READ | PROT_WRITE),
		    *also = painted_pages(4, PROT_READ);

	for (int i = 0; i < 4; i++)
		m[i] = painted_pages(8, prots[i]);
	check(!madvise(guarded + 4 * PAGE, 3 * PAGE, GUARD_INSTALL));
	check(!madvise(guarded + 15 * PAGE, PAGE, GUARD_INSTALL));
	check(!madvise(also + PAGE, PAGE, GUARD_INSTALL) && !mlock(also, PAGE));
	ready();
	wait_go();
	for (int i = 0; i < 4; i++) {
		check(readable(m[i]) == !!(prots[i] & PROT_READ));
		check(!mprotect(m[i], 8 * PAGE, PROT_READ));
		check_pages(m[i], 8);
	}
	for (int i = 0; i < 16; i++) {
		bool is = (i >= 4 && i < 7) || i == 15;

		check(readable(guarded + i * PAGE) == !is);
		check(is || painted(guarded + i * PAGE, (uint64_t)i + 7));
	}
	check(readable(also) && !readable(also + PAGE) && vmflag(also, "lo"));
	check(!madvise(guarded + 4 * PAGE, 3 * PAGE, GUARD_REMOVE));
	check(guarded[4 * PAGE] == 0 && (guarded[4 * PAGE] = 1));
}

/* madvise(2) and mmap(2) flags, names. */
void scene_advice(void)
{
	static const struct {
		int advice;
		const char *flag;
	} how[] = {{MADV_DONTFORK, "dc"},   {MADV_WIPEONFORK, "wf"}, {MADV_DONTDUMP, "dd"},
		   {MADV_HUGEPAGE, "hg"},   {MADV_NOHUGEPAGE, "nh"}, {MADV_MERGEABLE, "mg"},
		   {MADV_SEQUENTIAL, "sr"}, {MADV_RANDOM, "rr"}};
	enum { N = sizeof(how) / sizeof(*how) };
	char *m[N], *locked = painted_pages(4, PROT_READ | PROT_WRITE),
		    *onfault = painted_pages(4, PROT_READ | PROT_WRITE),
		    *named = painted_pages(4, PROT_READ | PROT_WRITE),
		    *noreserve = anon(4, PROT_READ | PROT_WRITE, MAP_NORESERVE),
		    *droppable = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				      MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
	bool held[N], has_names;

	for (size_t i = 0; i < N; i++) {
		m[i] = painted_pages(4, PROT_READ | PROT_WRITE);
		held[i] = !madvise(m[i], 4 * PAGE, how[i].advice);
		check(vmflag(m[i], how[i].flag) == held[i]);
	}
	check(!mlock(locked, 4 * PAGE) && !mlock2(onfault, 4 * PAGE, MLOCK_ONFAULT));
	has_names = !prctl(SET_VMA, 0, named, 4 * PAGE, "the name");
	paint(noreserve, 1);
	ready();
	wait_go();
	for (size_t i = 0; i < N; i++) {
		for (size_t k = 0; k < N; k++)
			check(vmflag(m[i], how[k].flag) == (i == k && held[i]));
		check_pages(m[i], 4);
	}
	check(vmflag(locked, "lo") && !vmflag(locked, "lf"));
	check(vmflag(onfault, "lo") && vmflag(onfault, "lf"));
	check(vmflag(noreserve, "nr") && painted(noreserve, 1) && !vmflag(locked, "nr"));
	check(droppable == MAP_FAILED || vmflag(droppable, "dp"));
	check(!has_names || strstr(slurp("/proc/self/maps"), "[anon:the name]"));
}

/* What grows by itself. */
void scene_growing(void)
{
	size_t room = 64;
	/* far from others: the kernel wants a gap below */
	char *whole = mmap(NULL, 1024 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *top = whole + 1000 * PAGE, *stack, *end;

	check(whole != MAP_FAILED && !munmap(whole, 1024 * PAGE));
	stack = mmap(top, PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
	check(stack == top);
	paint(stack, 1);
	paint(stack - PAGE, 2);
	end = sbrk(3 * PAGE + 100);
	check(end != (void *)-1);
	memset(end, 5, 3 * PAGE + 100);
	ready();
	wait_go();
	check(painted(stack, 1) && painted(stack - PAGE, 2));
	for (size_t i = 2; i < room; i++)
		paint(stack - i * PAGE, i + 1);
	check(sbrk(0) == end + 3 * PAGE + 100 && end[0] == 5 && end[3 * PAGE + 99] == 5);
	check(sbrk(100 * PAGE) == end + 3 * PAGE + 100);
	memset(end + 3 * PAGE + 100, 6, 100 * PAGE);
	check(!brk(end));
	/* last, since it needs the heap */
	check(vmflag(stack - (room - 1) * PAGE, "gd"));
}

/* Sealed mappings keep what they are. */
void scene_sealed(void)
{
	char *m = painted_pages(8, PROT_READ | PROT_WRITE);

	if (syscall(MSEAL, m, 4 * PAGE, 0)) {
		check(errno == ENOSYS);
		m = NULL;
	}
	ready();
	wait_go();
	if (!m)
		return;
	check(vmflag(m, "sl") && !vmflag(m + 4 * PAGE, "sl"));
	check(munmap(m, PAGE) && errno == EPERM);
	check(mprotect(m, PAGE, PROT_READ) && errno == EPERM);
	check_pages(m, 8);
	m[0]++;
	check(!munmap(m + 4 * PAGE, 4 * PAGE));
}

#define MANY 30000

/* Alternately readable and not, so that none merge. */
void scene_many(void)
{
	char *m = anon(MANY, PROT_READ | PROT_WRITE, 0);

	for (size_t i = 0; i < MANY; i += 100)
		paint(m + i * PAGE, i);
	for (size_t i = 0; i < MANY; i += 2)
		check(!mprotect(m + i * PAGE, PAGE, PROT_READ));
	ready();
	wait_go();
	for (size_t i = 0; i < MANY; i += 100)
		check(painted(m + i * PAGE, i));
	for (size_t i = 1; i < MANY; i += 2)
		m[i * PAGE] = 1;
	check(!mprotect(m, PAGE * MANY, PROT_READ));
}

/* The vdso and its data, moved as gVisor or a checkpointer does. */
void scene_vdso(void)
{
	char *text = slurp("/proc/self/maps"), *line = text, *next, *to;
	struct {
		uintptr_t start, end;
	} parts[4];
	size_t n = 0, size;
	struct timespec t;

	for (; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		if (!strstr(line, "[vdso]") && !strstr(line, "[vvar"))
			continue;
		check(n < 4);
		check(sscanf(line, "%lx-%lx", &parts[n].start, &parts[n].end) == 2);
		n++;
	}
	check(n);
	size = parts[n - 1].end - parts[0].start;
	to = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(to != MAP_FAILED);
	for (size_t i = 0; i < n; i++) {
		size_t len = parts[i].end - parts[i].start;

		/* the C library has its address; nobody asks it any more from here on */
		check((char *)syscall(SYS_mremap, parts[i].start, len, len,
				      MREMAP_MAYMOVE | MREMAP_FIXED,
				      to + (parts[i].start - parts[0].start)) !=
		      (char *)MAP_FAILED);
	}
	ready();
	while (access(in_dir("go"), F_OK))
		syscall(SYS_nanosleep, &(struct timespec){0, 5000000}, NULL);
	text = slurp("/proc/self/maps");
	line = strstr(text, "[vdso]");
	check(line);
	while (line > text && line[-1] != '\n')
		line--;
	check(strtoul(line, NULL, 16) == (uintptr_t)to + parts[n - 1].start - parts[0].start);
	check(!memcmp((char *)strtoul(line, NULL, 16), "\177ELF", 4));
	check(!syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t));
}

/* Huge pages that nobody has touched: there may be none. */
void scene_huge(void)
{
	check(mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE, -1,
		   0) != MAP_FAILED);
	ready();
	wait_go();
}
