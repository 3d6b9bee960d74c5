// SPDX-License-Identifier: GPL-2.0
/*
 * mgs_target DIR KEY N WORKERS [PARTS]: modified Gram-Schmidt on an N x N matrix in a System V segment, by forked workers. Column k is
 * normalised by its owner; every worker then takes it out of its own columns behind k. The columns go round, so each page
 * is written by one process and read by all. It writes DIR/result (the norms and a hash of every bit of Q and R), the same
 * for any number of workers and however often it was interrupted, and removes the segment. With PARTS the work waits before
 * each part of the columns but the first for DIR/part.1, DIR/part.2...
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct shared {
	volatile uint64_t done; /* columns that are normalised */
	volatile uint64_t arrived[64];
	double r_sum[64];
};

static struct shared *shared;
static double *q; /* column by column */
static size_t n, workers, parts = 1;
static const char *dir;

static void die(const char *what)
{
	fprintf(stderr, "mgs_target: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void nap(void)
{
	struct timespec t = {0, 50000};

	nanosleep(&t, NULL);
}

/* The same numbers every time. */
static void fill(void)
{
	uint64_t x = 88172645463325252u;

	for (size_t i = 0; i < n * n; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		q[i] = (double)(x >> 11) / 9007199254740992.0 - 0.5 + (i % (n + 1) ? 0 : 2);
	}
}

static double dot(const double *a, const double *b)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += a[i] * b[i];
	return sum;
}

static void wait_part(size_t k)
{
	size_t part = k * parts / n;
	char path[512];

	snprintf(path, sizeof(path), "%s/part.%zu", dir, part);
	while (part && access(path, F_OK))
		nap();
}

static void normalise(size_t k, size_t me)
{
	double norm = sqrt(dot(q + k * n, q + k * n));

	for (size_t i = 0; i < n; i++)
		q[k * n + i] /= norm;
	shared->r_sum[me] += norm;
	__atomic_store_n(&shared->done, k + 1, __ATOMIC_RELEASE);
}

static void work(size_t me)
{
	for (size_t k = 0; k < n; k++) {
		if (k % workers == me) {
			wait_part(k);
			normalise(k, me);
		}
		while (__atomic_load_n(&shared->done, __ATOMIC_ACQUIRE) <= k)
			nap();
		for (size_t j = k + 1; j < n; j++) {
			double r;

			if (j % workers != me)
				continue;
			r = dot(q + k * n, q + j * n);
			for (size_t i = 0; i < n; i++)
				q[j * n + i] -= r * q[k * n + i];
		}
		shared->arrived[me] = k + 1;
	}
}

static uint64_t hash(const void *data, size_t len)
{
	const unsigned char *at = data;
	uint64_t h = 1469598103934665603u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ at[i]) * 1099511628211u;
	return h;
}

static void write_result(void)
{
	char path[512], fresh[520];
	double worst = 0;
	FILE *out;

	for (size_t k = 1; k < n; k++)
		worst = fmax(worst, fabs(dot(q + (k - 1) * n, q + k * n)));
	snprintf(path, sizeof(path), "%s/result", dir);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	out = fopen(fresh, "w");
	if (!out)
		die("write the result");
	fprintf(out, "%zu columns, worst product of neighbours %.3g, hash %016lx\n", n, worst,
		hash(q, n * n * sizeof(*q)));
	if (fclose(out) || rename(fresh, path))
		die("write the result");
}

int main(int argc, char **argv)
{
	int id, status;
	char path[512];

	if (argc < 5)
		return 2;
	dir = argv[1];
	n = strtoul(argv[3], NULL, 10);
	workers = strtoul(argv[4], NULL, 10);
	if (argc > 5)
		parts = strtoul(argv[5], NULL, 10);
	if (n < 2 || !workers || workers > 64)
		return 2;
	id = shmget((key_t)strtol(argv[2], NULL, 0), 4096 + n * n * sizeof(*q),
		    IPC_CREAT | IPC_EXCL | 0600);
	shared = id < 0 ? (void *)-1 : shmat(id, NULL, 0);
	if (shared == (void *)-1)
		die("make the segment");
	q = (double *)((char *)shared + 4096);
	fill();
	for (size_t i = 1; i < workers; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (!pid) {
			work(i);
			_exit(0);
		}
	}
	snprintf(path, sizeof(path), "%s/ready.0", dir);
	close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
	work(0);
	for (size_t i = 1; i < workers; i++)
		if (wait(&status) < 0 || status)
			die("a worker failed");
	write_result();
	return shmctl(id, IPC_RMID, NULL) ? 1 : 0;
}
