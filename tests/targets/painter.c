// SPDX-License-Identifier: GPL-2.0
/*
 * painter: a process to look at. A band of pages that wanders through a mapping, a few pages of the heap, and a System V
 * segment (removed at once), each written by a function of its own, for ever. It prints "ready", and ends with its parent.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define MAP 4096u /* pages */
#define HEAP 16u
#define SHARED 64u
#define BAND 256u

static volatile uint8_t *map, *heap, *shared;

__attribute__((noinline)) static void paint_page(volatile uint8_t *memory, unsigned page)
{
	memory[(size_t)page * PAGE]++;
}

__attribute__((noinline)) static void paint_band(unsigned tick)
{
	unsigned wide = BAND / 2 + BAND / 2 * (tick / 40 % 2);

	for (unsigned i = 0; i < wide; i++)
		paint_page(map, (tick * 16 + i) % MAP);
	__asm__ volatile("");
}

__attribute__((noinline)) static void paint_heap(unsigned tick)
{
	paint_page(heap, tick % HEAP);
	__asm__ volatile("");
}

__attribute__((noinline)) static void paint_segment(unsigned tick)
{
	for (unsigned i = 0; i < SHARED; i += 2)
		paint_page(shared, (tick + i) % SHARED);
	__asm__ volatile("");
}

int main(void)
{
	int id = shmget(IPC_PRIVATE, SHARED * PAGE, IPC_CREAT | 0600);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	map = mmap(NULL, MAP * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		   0);
	/* Below the threshold from which malloc() makes a mapping. */
	heap = malloc(HEAP * PAGE);
	shared = shmat(id, NULL, 0);
	shmctl(id, IPC_RMID, NULL);
	if (map == MAP_FAILED || !heap || shared == (void *)-1)
		return 1;
	printf("ready\n");
	fflush(stdout);
	for (unsigned tick = 0;; tick++) {
		paint_band(tick);
		paint_heap(tick);
		paint_segment(tick);
		nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
	}
}
