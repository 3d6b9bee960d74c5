// SPDX-License-Identifier: GPL-2.0
/* Memory and threads. */
#include <sys/rseq.h>

#include "reborn.h"

#define SPINNERS 3

static volatile int stop;
static __thread uint64_t in_tls[64];
static pthread_barrier_t barrier;

/* Vector registers that nothing else touches while we spin. */
static void spin_in_registers(uint64_t seed)
{
	static const uint64_t general = 0x1122334455667788;
	uint64_t in[16][4], out[16][4], r12, r15;
	bool avx = __builtin_cpu_supports("avx");

	for (unsigned i = 0; i < 64; i++)
		in[i / 4][i % 4] = seed * 1000003 + i * 0x0101010101010101;
	memset(out, 0, sizeof(out));
#define EACH(op)                                                                               \
	op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12)       \
		op(13) op(14) op(15)
#define LOAD256(n) "vmovdqu 32*" #n "(%[in]), %%ymm" #n "\n"
#define STORE256(n) "vmovdqu %%ymm" #n ", 32*" #n "(%[out])\n"
#define LOAD128(n) "movdqu 32*" #n "(%[in]), %%xmm" #n "\n"
#define STORE128(n) "movdqu %%xmm" #n ", 32*" #n "(%[out])\n"
#define SPIN(load, store)                                                                      \
	__asm__ volatile(                                                                      \
		"mov %[general], %%r12\n"                                                      \
		"mov %[seed], %%r15\n" EACH(load) "1: cmpl $0, %[stop]\n"                      \
						  "pause\n"                                    \
						  "je 1b\n" EACH(store) "mov %%r12, %[r12]\n"  \
									"mov %%r15, %[r15]\n"  \
		: [r12] "=m"(r12), [r15] "=m"(r15)                                             \
		: [in] "r"(in), [out] "r"(out), [stop] "m"(stop), [general] "m"(general),      \
		  [seed] "m"(seed)                                                             \
		: "r12", "r15", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",      \
		  "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", \
		  "xmm15")
	if (avx)
		SPIN(LOAD256, STORE256);
	else
		SPIN(LOAD128, STORE128);
	check(r12 == general && r15 == seed);
	for (unsigned i = 0; i < 64; i++)
		check(out[i / 4][i % 4] == in[i / 4][i % 4] || (!avx && i % 4 > 1));
}

static void *spinner(void *arg)
{
	uint64_t seed = (uintptr_t)arg;
	struct rseq *rs = (void *)((char *)__builtin_thread_pointer() + __rseq_offset);
	char name[16], want[16];
	void *head, *head2;
	size_t len;

	snprintf(want, sizeof(want), "spin\\%lu\n", seed);
	prctl(PR_SET_NAME, want);
	for (unsigned i = 0; i < 64; i++)
		in_tls[i] = seed * 77 + i;
	check(!syscall(SYS_get_robust_list, 0, &head, &len));
	pthread_barrier_wait(&barrier);
	spin_in_registers(seed);
	for (unsigned i = 0; i < 64; i++)
		check(in_tls[i] == seed * 77 + i);
	prctl(PR_GET_NAME, name);
	check(!strcmp(name, want));
	check(!syscall(SYS_get_robust_list, 0, &head2, &len) && head == head2);
	check(!__rseq_size || (int)rs->cpu_id >= 0);
	return arg;
}

struct areas {
	char *rw, *ro, *none, *exec, *file, *hole, *heap, *brk;
	size_t heap_len;
};

static char *map(size_t pages, int prot, int flags, int fd)
{
	char *m = mmap(NULL, pages * PAGE, prot, flags | MAP_PRIVATE, fd, 0);

	check(m != MAP_FAILED);
	return m;
}

static void make_areas(struct areas *a)
{
	const int rw = PROT_READ | PROT_WRITE;
	int fd = open(in_dir("mapped"), O_RDWR | O_CREAT | O_TRUNC, 0600);
	char page[PAGE];

	for (uint64_t i = 0; i < 16; i++) {
		paint(page, 100 + i);
		check(write(fd, page, PAGE) == PAGE);
	}
	a->rw = map(1000, rw, MAP_ANONYMOUS, -1);
	a->ro = map(4, rw, MAP_ANONYMOUS, -1);
	a->none = map(4, rw, MAP_ANONYMOUS, -1);
	a->exec = map(1, rw, MAP_ANONYMOUS, -1);
	a->file = map(16, rw, 0, fd);
	a->hole = map(1 << 20, PROT_NONE, MAP_ANONYMOUS | MAP_NORESERVE, -1);
	a->heap_len = 3 << 16; /* below the size that malloc() maps */
	a->heap = sbrk(0);
	check(sbrk((intptr_t)a->heap_len) == a->heap);
	close(fd);
	for (uint64_t i = 0; i < 1000; i += 2)
		paint(a->rw + i * PAGE, i);
	for (uint64_t i = 0; i < 4; i++) {
		paint(a->ro + i * PAGE, 2000 + i);
		paint(a->none + i * PAGE, 3000 + i);
	}
	memcpy(a->exec, "\xb8\x2a\x00\x00\x00\xc3", 6); /* return 42 */
	paint(a->file + 3 * PAGE, 4000);
	memset(a->file + 5 * PAGE, 0, PAGE);
	for (uint64_t i = 0; i < a->heap_len / PAGE; i++)
		paint(a->heap + i * PAGE, 5000 + i);
	check(!mprotect(a->ro, 4 * PAGE, PROT_READ));
	check(!mprotect(a->none, 4 * PAGE, PROT_NONE));
	check(!mprotect(a->exec, PAGE, PROT_READ | PROT_EXEC));
	check(!mlock(a->ro, PAGE));
	check(!madvise(a->rw, 16 * PAGE, MADV_DONTDUMP));
}

static void check_areas(const struct areas *a)
{
	static const char zeros[PAGE];

	for (uint64_t i = 0; i < 1000; i++)
		check(i % 2 ? !memcmp(a->rw + i * PAGE, zeros, PAGE)
			    : painted(a->rw + i * PAGE, i));
	check(!mprotect(a->none, 4 * PAGE, PROT_READ));
	for (uint64_t i = 0; i < 4; i++) {
		check(painted(a->ro + i * PAGE, 2000 + i));
		check(painted(a->none + i * PAGE, 3000 + i));
	}
	check(((int (*)(void))a->exec)() == 42);
	for (uint64_t i = 0; i < 16; i++)
		check(i == 3   ? painted(a->file + i * PAGE, 4000)
		      : i == 5 ? !memcmp(a->file + i * PAGE, zeros, PAGE)
			       : painted(a->file + i * PAGE, 100 + i));
	for (uint64_t i = 0; i < a->heap_len / PAGE; i++)
		check(painted(a->heap + i * PAGE, 5000 + i));
	memset(a->brk, 1, 1 << 20);
}

static uint64_t deep(unsigned n)
{
	volatile char room[1024];

	room[0] = (char)n;
	return n ? deep(n - 1) + (uint64_t)room[0] * 0 : 1;
}

/* What can't be the same: counters. */
static char *smaps_without_numbers(void)
{
	char *text = slurp("/proc/self/smaps"), *out = calloc(1, 1 << 18), *at = out;

	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		char *mark = strncmp(line, "VmFlags", 7) ? NULL : strstr(line, " sd ");

		if (mark) /* soft-dirty: some trackers take it off */
			memmove(mark, mark + 3, strlen(mark + 3) + 1);
		if (!strncmp(line, "VmFlags", 7) || strchr("0123456789abcdef", *line))
			at += sprintf(at, "%s\n", line);
	}
	free(text);
	return out;
}

void scene_threads(void)
{
	pthread_t threads[SPINNERS];
	struct areas a;
	char *before = calloc(1, 1 << 18), *now;
	void *ret;

	pthread_barrier_init(&barrier, NULL, SPINNERS + 1);
	for (uintptr_t i = 0; i < SPINNERS; i++)
		check(!pthread_create(&threads[i], NULL, spinner, (void *)(i + 1)));
	pthread_barrier_wait(&barrier);
	make_areas(&a);
	now = smaps_without_numbers(); /* so that malloc has what it needs */
	free(now);
	now = smaps_without_numbers();
	strcpy(before, now);
	free(now);
	a.brk = sbrk(0);
	ready();
	wait_go();
	check(sbrk(0) == a.brk);
	now = smaps_without_numbers();
	if (strcmp(before, now))
		wrong("mappings differ, before:\n%s\nafter:\n%s", before, now);
	a.brk = sbrk(1 << 20);
	check_areas(&a);
	stop = 1;
	for (uintptr_t i = 0; i < SPINNERS; i++)
		check(!pthread_join(threads[i], &ret) && ret == (void *)(i + 1));
	check(deep(2000));
	/* threads can be made as before */
	pthread_barrier_init(&barrier, NULL, 2);
	check(!pthread_create(&threads[0], NULL, spinner, (void *)9));
	pthread_barrier_wait(&barrier);
	check(!pthread_join(threads[0], &ret) && ret == (void *)9);
}
