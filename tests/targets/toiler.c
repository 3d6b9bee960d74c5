// SPDX-License-Identifier: GPL-2.0
/*
 * toiler DIR: four processes that work all the time and check all that they work with. Each has
 * - two threads that change memory and keep its sums in registers, and hand a baton to each other;
 * - a thread that passes a token on through pipes, from process to process, and writes what came
 *   into a file; records written earlier are read again;
 * - memory that it has from its parent, some pages of it changed.
 * One makes short-lived children, another one short-lived threads; in the first a timer ticks.
 * DIR/ready says that all run. DIR/ask is removed when every thread has got further. DIR/go ends
 * it, after a last look at everything, with status 0. What is wrong is in DIR/wrong.
 */
#include "reborn.h"

#include <stdatomic.h>
#include <sys/time.h>

#define PROCESSES 4
#define WORKERS 2
#define WORDS (1u << 15) /* 256 KiB for each worker */
#define INHERITED 64	 /* pages */
#define RECORD 64

enum { HOP = WORKERS, CHURN, TICK, KINDS };

static struct board {
	_Atomic uint64_t rounds[PROCESSES][KINDS];
	_Atomic int stop;
	_Atomic uint64_t records[PROCESSES];
} * board;

static unsigned me; /* which process */
static int ring[PROCESSES][2];
static char *inherited;
static uint64_t repainted[INHERITED];			     /* by us: their seed */
static pthread_mutex_t painting = PTHREAD_MUTEX_INITIALIZER; /* a child has all of it or none */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static uint64_t baton; /* whose turn it is: the worker with that parity */

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static bool stopped(void)
{
	return atomic_load(&board->stop);
}

static void got_further(unsigned kind)
{
	atomic_fetch_add(&board->rounds[me][kind], 1);
}

/* ---- memory, registers, mutexes ---- */

static void take_turns(unsigned self)
{
	pthread_mutex_lock(&lock);
	while (baton % WORKERS != self && !stopped()) {
		struct timespec until;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec++; /* to see that it is to stop */
		pthread_cond_timedwait(&turn, &lock, &until);
	}
	baton++;
	pthread_cond_broadcast(&turn);
	pthread_mutex_unlock(&lock);
}

static void add_up(const uint64_t *mem, uint64_t sum, double fp)
{
	uint64_t again = 0;

	for (size_t i = 0; i < WORDS; i++)
		again += mem[i];
	check(again == sum && fp == (double)sum);
}

static void *worker(void *arg)
{
	unsigned self = (unsigned)(uintptr_t)arg;
	uint64_t *mem = mmap(NULL, WORDS * 8, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t x = 88172645463325252u + me * WORKERS + self, sum = 0;
	double fp = 0; /* of whole numbers below 2^53: exact */

	check(mem != MAP_FAILED);
	while (!stopped()) {
		for (unsigned i = 0; i < 3000; i++) {
			uint64_t at = next(&x) % WORDS, value = next(&x) & 0xffffffff;

			fp += (double)value - (double)mem[at];
			sum += value - mem[at];
			mem[at] = value;
		}
		add_up(mem, sum, fp);
		if (next(&x) % 16 == 0) {
			char *page = (char *)mem + next(&x) % (WORDS / 512) * PAGE;

			for (size_t i = 0; i < PAGE / 8; i++) {
				sum -= ((uint64_t *)page)[i];
				fp -= (double)((uint64_t *)page)[i];
			}
			check(!madvise(page, PAGE, MADV_DONTNEED));
		}
		take_turns(self);
		nap_ms(3);
		got_further(self);
	}
	add_up(mem, sum, fp);
	return NULL;
}

/* What was there before the fork, and a page of it changed now and then. */
static void look_at_inherited(uint64_t round)
{
	uint64_t i = round * 7 % INHERITED, seed = repainted[i] ? repainted[i] : i;

	check(painted(inherited + i * PAGE, seed));
	if (i % PROCESSES == me) {
		pthread_mutex_lock(&painting);
		repainted[i] = 1000 + round;
		paint(inherited + i * PAGE, repainted[i]);
		pthread_mutex_unlock(&painting);
	}
}

/* ---- pipes, files ---- */

static void make_record(char *record, uint64_t number)
{
	char page[PAGE];

	paint(page, number * PROCESSES + me);
	memcpy(record, page, RECORD);
}

static void write_record(int fd, uint64_t number)
{
	char record[RECORD], old[RECORD];
	uint64_t past = number * 2654435761u % (number + 1);

	make_record(record, number);
	check(write(fd, record, RECORD) == RECORD);
	check(lseek(fd, 0, SEEK_CUR) == (off_t)(number + 1) * RECORD);
	check(pread(fd, old, RECORD, (off_t)past * RECORD) == RECORD);
	make_record(record, past);
	check(!memcmp(record, old, RECORD));
}

/* The token says how far it has got; it is as long as makes a read short now and then. */
static void *hop(void *arg)
{
	char name[16], token[3 * PAGE];
	uint64_t number = 0;
	int fd;

	snprintf(name, sizeof(name), "records%u", me);
	fd = open(in_dir(name), O_RDWR | O_CREAT | O_TRUNC, 0600);
	check(fd >= 0);
	for (;; number++) {
		size_t len = 0;
		ssize_t got = 1;

		for (; len < sizeof(token) && got > 0; len += (size_t)got)
			check((got = read(ring[me][0], token + len, sizeof(token) - len)) >= 0);
		if (!got) /* the one before us stopped */
			break;
		for (unsigned i = 0; i < 3; i++)
			check(painted(token + (size_t)i * PAGE, (number + !!me) * 3 + i));
		write_record(fd, number);
		look_at_inherited(number);
		atomic_store(&board->records[me], number + 1);
		if (!me) {
			if (stopped())
				break;
			for (unsigned i = 0; i < 3; i++)
				paint(token + (size_t)i * PAGE, (number + 1) * 3 + i);
			nap_ms(2);
		}
		check(write(ring[(me + 1) % PROCESSES][1], token, sizeof(token)) ==
		      sizeof(token));
		got_further(HOP);
	}
	for (uint64_t i = 0; i < atomic_load(&board->records[me]); i++) {
		char want[RECORD], is[RECORD];

		make_record(want, i);
		check(pread(fd, is, RECORD, (off_t)i * RECORD) == RECORD &&
		      !memcmp(want, is, RECORD));
	}
	check(!close(fd) && !close(ring[(me + 1) % PROCESSES][1]));
	return arg;
}

/* ---- what comes and goes ---- */

static void *short_life(void *arg)
{
	nap_ms(1);
	return arg;
}

static void churn(void)
{
	uint64_t round = 0;

	while (!stopped()) {
		pthread_t thread;
		void *got;
		int status;
		pid_t pid;

		nap_ms(15);
		if (me == 1) {
			pthread_mutex_lock(&painting);
			pid = fork();
			pthread_mutex_unlock(&painting);
			check(pid >= 0);
			if (!pid)
				_exit(painted(inherited + 1 * PAGE,
					      repainted[1] ? repainted[1] : 1)
					      ? (int)(round % 100)
					      : 111);
			nap_ms(1); /* a zombie */
			check(waitpid(pid, &status, 0) == pid);
			check(WIFEXITED(status) && WEXITSTATUS(status) == (int)(round % 100));
		} else if (me == 2) {
			check(!pthread_create(&thread, NULL, short_life, &round));
			check(!pthread_join(thread, &got) && got == &round);
		}
		round++;
		got_further(CHURN);
	}
}

static volatile sig_atomic_t ticks;

static void tick(int sig)
{
	ticks++;
	got_further(TICK);
}

/* The only thread of the first process that takes the signal. */
static void *ticker(void *arg)
{
	const struct itimerval every = {{0, 7000}, {0, 7000}};
	struct sigaction sa = {.sa_handler = tick};
	sigset_t alarm;

	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	check(!sigaction(SIGALRM, &sa, NULL) && !setitimer(ITIMER_REAL, &every, NULL));
	check(!pthread_sigmask(SIG_UNBLOCK, &alarm, NULL));
	while (!stopped())
		check(pause() == -1 && errno == EINTR);
	return arg;
}

/* ---- all together ---- */

/* A process: its threads, and what the first one has to do. */
static void toil(void (*first)(void))
{
	pthread_t threads[WORKERS + 2];
	unsigned n = 0;

	for (unsigned i = 0; i < PROCESSES; i++) {
		if (i != me)
			check(!close(ring[i][0]));
		if (i != (me + 1) % PROCESSES)
			check(!close(ring[i][1]));
	}
	check(!pthread_create(&threads[n++], NULL, hop, NULL));
	for (uintptr_t i = 0; i < WORKERS; i++)
		check(!pthread_create(&threads[n++], NULL, worker, (void *)i));
	if (!me)
		check(!pthread_create(&threads[n++], NULL, ticker, NULL));
	first();
	while (n--)
		check(!pthread_join(threads[n], NULL));
	for (uint64_t i = 0; i < INHERITED; i++)
		check(painted(inherited + i * PAGE, repainted[i] ? repainted[i] : i));
}

/* Every thread once more from here on, by two: a round was going on. */
static void all_get_further(void)
{
	for (unsigned p = 0; p < PROCESSES; p++)
		for (unsigned kind = 0; kind < KINDS; kind++) {
			uint64_t seen = atomic_load(&board->rounds[p][kind]);
			bool is = kind == TICK ? !p : kind != CHURN || p;

			while (is && atomic_load(&board->rounds[p][kind]) < seen + 2)
				nap_ms(1);
		}
}

/* No more than this may be gained without being root. */
static void no_more_rights(void)
{
	check(!getuid() || (open("/etc/shadow", O_RDONLY) < 0 && errno == EACCES));
}

static void supervise(void)
{
	all_get_further();
	ready();
	while (access(in_dir("go"), F_OK)) {
		if (!access(in_dir("ask"), F_OK)) {
			all_get_further();
			no_more_rights();
			check(!unlink(in_dir("ask")) || errno == ENOENT);
		}
		nap_ms(3);
	}
	all_get_further();
	no_more_rights();
	atomic_store(&board->stop, 1);
}

static void first_token(void)
{
	char token[3 * PAGE];

	for (unsigned i = 0; i < 3; i++)
		paint(token + (size_t)i * PAGE, i);
	check(write(ring[0][1], token, sizeof(token)) == sizeof(token));
}

/* 0 has the children 1 and 2, and 2 has 3. */
static void start_child(unsigned number)
{
	pid_t pid = fork(), parent = getppid();

	check(pid >= 0);
	if (pid)
		return;
	check(!prctl(PR_SET_PDEATHSIG, SIGKILL) && parent);
	me = number;
	if (me == 2)
		start_child(3);
	toil(churn);
	if (me == 2) {
		int status;

		check(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 20 + 3);
	}
	_exit(20 + (int)me);
}

int main(int argc, char **argv)
{
	int status, sum = 0;
	sigset_t alarm;

	if (argc != 2)
		return 2;
	set_dir(argv[1]);
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	sigprocmask(SIG_BLOCK, &alarm, NULL);
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		     -1, 0);
	inherited = mmap(NULL, INHERITED * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(board != MAP_FAILED && inherited != MAP_FAILED);
	for (uint64_t i = 0; i < INHERITED; i++)
		paint(inherited + i * PAGE, i);
	for (unsigned i = 0; i < PROCESSES; i++)
		check(!pipe2(ring[i], O_CLOEXEC));
	start_child(1);
	start_child(2);
	first_token();
	toil(supervise);
	for (unsigned i = 1; i <= 2; i++) {
		check(wait(&status) > 0 && WIFEXITED(status));
		sum += WEXITSTATUS(status);
	}
	check(sum == 21 + 22);
	return 0;
}
