// SPDX-License-Identifier: GPL-2.0
/*
 * A program that notices when it is harmed. Workers keep a big array and a sum of it in
 * registers (integer and floating point) and compare all of them over and over; sleepers sit in
 * system calls and report any EINTR and any short sleep. The first thing wrong is printed and
 * ends the program with status 3. Bytes on stdin, each answered by a line "ok ...": ?  say so
 * when every thread has got further       f  fork children        t  a storm of short threads
 *   x  execute itself anew (says "ok threads")        q  end
 */
#include <errno.h>
#include <linux/futex.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 4
#define WORDS (1u << 17) /* 1 MiB each */
#define SLEEP_MS 20

enum { SLEEP_EPOLL, SLEEP_NANO, SLEEP_POLL, SLEEP_READ, SLEEP_FUTEX, SLEEPERS };

static int epoll, timer;
static _Atomic uint64_t rounds[WORKERS + SLEEPERS];

__attribute__((format(printf, 1, 2))) static void wrong(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	printf("wrong: ");
	vprintf(fmt, args);
	printf("\n");
	fflush(stdout);
	_exit(3);
}

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* Leave some of the processor to others. */
static void rest(void)
{
	struct timespec ms = {.tv_nsec = 3000000};

	if (nanosleep(&ms, NULL))
		wrong("nanosleep of a worker: %s", strerror(errno));
}

/*
 * The sums live in registers across thousands of changes. Each step changes one word and keeps
 * the sums right, then all of the memory must add up to them. The floating-point sum is of
 * whole numbers below 2^53, so it is exact.
 */
static void *worker(void *arg)
{
	size_t self = (size_t)arg;
	uint64_t *mem = mmap(NULL, WORDS * 8, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t x = 88172645463325252ull + self, sum = 0;
	double fp = 0, angle = 0.5 + (double)self;

	if (mem == MAP_FAILED)
		wrong("no memory");
	for (size_t i = 0; i < WORDS; i++) {
		mem[i] = next(&x) & 0xffffffff;
		sum += mem[i];
		fp += (double)mem[i];
	}
	for (;;) {
		double a = angle, b = angle;
		uint64_t again = 0;

		for (int i = 0; i < 20000; i++) {
			uint64_t at = next(&x) % WORDS, value = next(&x) & 0xffffffff;

			fp += (double)value - (double)mem[at];
			sum += value - mem[at];
			mem[at] = value;
			/* the same long way twice, in other registers */
			a = sqrt(a * 1.0000001 + 0.25);
			b = sqrt(b * 1.0000001 + 0.25);
		}
		for (size_t i = 0; i < WORDS; i++)
			again += mem[i];
		if (again != sum)
			wrong("worker %zu: memory adds up to %#lx, not %#lx", self, again, sum);
		if (fp != (double)sum)
			wrong("worker %zu: floating-point sum %.1f, not %.1f", self, fp,
			      (double)sum);
		if (memcmp(&a, &b, sizeof(a)))
			wrong("worker %zu: %.17g is not %.17g", self, a, b);
		rest();
		atomic_fetch_add(&rounds[self], 1);
	}
	return NULL;
}

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

/* Sleep in one kind of system call: 0, or what it said (-errno when it failed). */
static long doze(size_t kind)
{
	const struct timespec time = {.tv_nsec = SLEEP_MS * 1000000L};
	const struct itimerspec once = {.it_value = time};
	struct pollfd fd = {.fd = epoll, .events = POLLIN};
	struct epoll_event event;
	unsigned word = 0;
	uint64_t ticks;
	long got;

	switch (kind) {
	case SLEEP_EPOLL:
		got = epoll_wait(epoll, &event, 1, SLEEP_MS);
		break;
	case SLEEP_NANO:
		got = nanosleep(&time, NULL);
		break;
	case SLEEP_POLL:
		got = poll(&fd, 1, SLEEP_MS);
		break;
	case SLEEP_FUTEX:
		got = syscall(SYS_futex, &word, FUTEX_WAIT, 0, &time, NULL, 0);
		if (got < 0 && errno == ETIMEDOUT)
			got = 0;
		break;
	default:
		got = timerfd_settime(timer, 0, &once, NULL);
		if (!got)
			got = read(timer, &ticks, sizeof(ticks));
		if (got == sizeof(ticks))
			got = 0;
	}
	return got < 0 ? -errno : got;
}

static void *sleeper(void *arg)
{
	static const char *const names[] = {"epoll_wait", "nanosleep", "poll", "read", "futex"};
	size_t kind = (size_t)arg;

	for (;;) {
		double begin = now_ms(), took;
		long got = doze(kind);

		took = now_ms() - begin;
		if (got)
			wrong("%s: %ld (%s)", names[kind], got, strerror((int)-got));
		if (took < SLEEP_MS - 0.1)
			wrong("%s of %d ms took %.3f ms", names[kind], SLEEP_MS, took);
		atomic_fetch_add(&rounds[WORKERS + kind], 1);
	}
	return NULL;
}

/* Every thread gets round once more, from here on. */
static void answer(void)
{
	uint64_t seen[WORKERS + SLEEPERS], all = 0;

	for (size_t i = 0; i < WORKERS + SLEEPERS; i++)
		seen[i] = atomic_load(&rounds[i]);
	for (size_t i = 0; i < WORKERS + SLEEPERS; i++) {
		/* the round that was going on may have begun before the question */
		while (atomic_load(&rounds[i]) < seen[i] + 2)
			usleep(500);
		all += atomic_load(&rounds[i]);
	}
	printf("ok %lu\n", all);
}

static void forks(void)
{
	for (int i = 0; i < 20; i++) {
		int status;
		pid_t child = fork();

		if (!child) {
			char some[4096 * 8];

			memset(some, i, sizeof(some));
			_exit(some[4096] == i ? 0 : 1);
		}
		while (waitpid(child, &status, 0) < 0)
			if (errno != EINTR)
				wrong("fork: %s", strerror(errno));
		if (status)
			wrong("a child ended with %#x", status);
	}
	printf("ok forks\n");
}

static void *short_life(void *arg)
{
	volatile uint64_t sum = 0;

	for (uint64_t i = 0; i < 1000; i++)
		sum += i;
	return sum == 499500 ? arg : NULL;
}

static void thread_storm(void)
{
	for (int i = 0; i < 60; i++) {
		pthread_t threads[10];
		void *got;

		for (size_t j = 0; j < 10; j++)
			if (pthread_create(&threads[j], NULL, short_life, &rounds))
				wrong("pthread_create");
		for (size_t j = 0; j < 10; j++)
			if (pthread_join(threads[j], &got) || got != &rounds)
				wrong("a thread returned %p", got);
	}
	printf("ok threads\n");
}

int main(int argc, char **argv)
{
	pthread_t thread;
	char command;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (epoll < 0 || timer < 0)
		wrong("no descriptors");
	for (size_t i = 0; i < WORKERS; i++)
		if (pthread_create(&thread, NULL, worker, (void *)i))
			return 1;
	for (size_t i = 0; i < SLEEPERS; i++)
		if (pthread_create(&thread, NULL, sleeper, (void *)i))
			return 1;
	setvbuf(stdout, NULL, _IOLBF, 0);
	thread_storm(); /* glibc has its stacks cached from here on: the maps stay as they are
			 */
	while (read(STDIN_FILENO, &command, 1) == 1) {
		switch (command) {
		case '?':
			answer();
			break;
		case 'f':
			forks();
			break;
		case 't':
			thread_storm();
			break;
		case 'x':
			execv("/proc/self/exe", argv);
			return 1;
		case 'q':
			return 0;
		}
	}
	return 0;
}
