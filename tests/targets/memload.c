// SPDX-License-Identifier: GPL-2.0
/*
 * A process of a given size for the benchmarks: memload MIB [N [private]]. With N the memory is a System V segment (removed at once) that N
 * processes attach: the others are children that do nothing. "private": such children, but memory that they don't have. Fills its memory with random data, prints "ready", then obeys lines on stdin
 * and answers each with one line:
 *     rate N    write N random pages a second from now on (0: none)
 *     dirty N   write N different pages once, spread over all of it
 *     together N  write N pages once, one after the other
 *     memcpy    milliseconds to copy all of it into populated memory
 *     write F   milliseconds to write all of it into the new file F, in pieces of 256 KiB; removes it
 */
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u

static uint64_t state = 88172645463325252ull;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static double time_memcpy(const char *mem, size_t size)
{
	char *copy = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	double start, end;

	if (copy == MAP_FAILED)
		return -1;
	start = now_ms();
	memcpy(copy, mem, size);
	end = now_ms();
	munmap(copy, size);
	return end - start;
}

static double time_write(const char *mem, size_t size, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	double start = now_ms();

	for (size_t at = 0; fd >= 0 && at < size; at += 256u << 10)
		if (write(fd, mem + at, 256u << 10) < 0)
			return -1;
	close(fd);
	start = now_ms() - start;
	unlink(path);
	return start;
}

/* Every stride-th page, from a place that moves on: different pages, spread over all of it. */
static void dirty(char *mem, size_t pages, size_t n)
{
	size_t stride = n ? pages / n : 1, first = next() % (stride ? stride : 1);

	for (size_t i = 0; i < n; i++)
		*(uint64_t *)(mem + (first + i * stride) % pages * PAGE) = next();
}

static void together(char *mem, size_t pages, size_t n)
{
	size_t first = next() % (pages - n + 1);

	for (size_t i = 0; i < n; i++)
		*(uint64_t *)(mem + (first + i) * PAGE) = next();
}

static void obey(char *mem, size_t size, char *line, long *rate)
{
	line[strcspn(line, "\n")] = 0;
	if (!strncmp(line, "rate ", 5)) {
		*rate = atol(line + 5);
		puts("ok");
	} else if (!strncmp(line, "dirty ", 6)) {
		dirty(mem, size / PAGE, (size_t)atol(line + 6));
		puts("ok");
	} else if (!strncmp(line, "together ", 9) && (size_t)atol(line + 9) <= size / PAGE) {
		together(mem, size / PAGE, (size_t)atol(line + 9));
		puts("ok");
	} else if (!strcmp(line, "memcpy")) {
		printf("%.3f\n", time_memcpy(mem, size));
	} else if (!strncmp(line, "write ", 6)) {
		printf("%.3f\n", time_write(mem, size, line + 6));
	} else {
		puts("what?");
	}
	fflush(stdout);
}

static char *new_segment(size_t size)
{
	int id = shmget(IPC_PRIVATE, size, IPC_CREAT | 0600);
	char *mem = id < 0 ? MAP_FAILED : shmat(id, NULL, 0);

	shmctl(id, IPC_RMID, NULL);
	return mem;
}

/* Each with the whole segment in its page table. */
static void start_attachers(const char *mem, size_t size, int n)
{
	for (int i = 0; i < n; i++) {
		volatile char sum = 0;
		int pipe_ends[2];
		char byte;

		if (pipe(pipe_ends))
			exit(1);
		if (fork()) {
			close(pipe_ends[1]);
			if (read(pipe_ends[0], &byte, 1) != 1)
				exit(1);
			close(pipe_ends[0]);
			continue;
		}
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (size_t at = 0; at < size; at += PAGE)
			sum += mem[at];
		if (write(pipe_ends[1], "", 1) != 1)
			exit(1);
		for (;;)
			pause();
	}
}

int main(int argc, char **argv)
{
	size_t size = (size_t)(argc > 1 ? atol(argv[1]) : 64) << 20;
	int attached = argc > 2 ? atoi(argv[2]) : 0;
	bool private = argc > 3 || !attached;
	char *mem = !private ? new_segment(size)
			     : mmap(NULL, size, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char line[512];
	long rate = 0;

	if (!getenv("MEMLOAD_STAYS")) /* its parent ends: criu, which restored it */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (mem == MAP_FAILED)
		return 1;
	madvise(mem, size, MADV_NOHUGEPAGE);
	if (private)
		start_attachers(mem, 0, attached - 1);
	for (size_t i = 0; i < size / 8; i++)
		((uint64_t *)mem)[i] = next();
	if (!private)
		start_attachers(mem, size, attached - 1);
	setvbuf(stdin, NULL, _IONBF, 0);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct pollfd p = {.fd = 0, .events = POLLIN};

		if (poll(&p, 1, rate ? 1 : -1) > 0 && !fgets(line, sizeof(line), stdin))
			return 0;
		if (p.revents)
			obey(mem, size, line, &rate);
		for (long i = 0; i < rate / 1000; i++)
			*(uint64_t *)(mem + next() % (size / PAGE) * PAGE) = next();
	}
}
