// SPDX-License-Identifier: GPL-2.0
/*
 * Threads in known functions, known values in every kind of variable and in the vector registers. Prints "PID ready", then
 * waits: worker 1 in pause(), the others in a loop that leaves the vector registers alone, the main thread in read(0).
 */
#include "targets/core_target.h"

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

struct node {
	struct node *next;
	int value;
	char name[12];
};

int global_data = 0x1234;
int global_bss;
int table[CORE_TABLE];
int never_touched[CORE_TABLE];
const char *const constant = "constant in the program";
struct node *list;
char *shared_memory, *segment, *huge;
_Thread_local int thread_number = -1;
volatile int ready, go_on;

static uint32_t vector[8] = {0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88};

/* Leaf that uses no vector register: they keep what it loads. */
__attribute__((noinline)) static void spin(int worker)
{
	long double nine = 9.5L;

#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx"))
		__asm__ volatile("vmovdqu %0, %%ymm0\n\tvmovdqu %0, %%ymm9" : : "m"(vector));
	__asm__ volatile("fldt %0" : : "m"(nine));
#endif
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	while (!go_on)
		__asm__ volatile("" : : "r"(worker));
}

__attribute__((noinline)) static int wait_here(int worker)
{
	int local = 40 + worker;
	struct node frame_node = {list, worker, "on the stack"};

	thread_number = worker;
	__asm__ volatile("" : "+m"(local), "+m"(frame_node));
	if (worker == 1) {
		__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
		pause();
	} else {
		spin(worker);
	}
	__asm__ volatile("" : "+m"(local), "+m"(frame_node));
	return local;
}

static void *worker_main(void *arg)
{
	int ret = library_wait(wait_here, (int)(intptr_t)arg);

	return (void *)(intptr_t)ret;
}

static void fill(void)
{
	for (int i = 0; i < CORE_TABLE; i++)
		table[i] = i * 3;
	for (int i = 0; i < 10; i++) {
		struct node *n = calloc(1, sizeof(*n));

		n->next = list;
		n->value = i * i;
		snprintf(n->name, sizeof(n->name), "node %d", i);
		list = n;
	}
	shared_memory =
		mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	strcpy(shared_memory + 8192, "in shared memory");
	huge = mmap(NULL, 1ul << 40, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	huge[1ul << 39] = 'h';
}

int main(void)
{
	int id = shmget(IPC_PRIVATE, CORE_SHM_KEY_SIZE, IPC_CREAT | 0600);
	pthread_t threads[CORE_WORKERS];
	char c;

	segment = shmat(id, NULL, 0);
	if (segment == (void *)-1)
		return 1;
	shmctl(id, IPC_RMID, NULL); /* goes with the last of us */
	strcpy(segment + 4096, "in a segment");
	fill();
	global_bss = (int)lround(cbrt(27.0 * getpid() / getpid())) + 74;
	for (intptr_t i = 0; i < CORE_WORKERS; i++)
		pthread_create(&threads[i], NULL, worker_main, (void *)(i + 1));
	while (ready < CORE_WORKERS)
		usleep(1000);
	printf("%d ready\n", (int)getpid());
	fflush(stdout);
	global_data = 0x4321;
	while (read(0, &c, 1) > 0)
		global_data++;
	return never_touched[getpid() % 7] + table[5] != 15;
}
