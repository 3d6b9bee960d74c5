// SPDX-License-Identifier: GPL-2.0
#include "cli/ticker.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "obs/view.h"

static void show_progress(struct ticker *t, uint64_t start)
{
	uint64_t done = *t->done, todo = *t->todo;
	double seconds = (double)(now_ns() - start) / 1e9;
	char bytes[16], rate[16];

	if (seconds < 1 || !todo)
		return;
	fprintf(stderr, "\r%lu of %lu pages (%lu %%), %s, %s/s ", done, todo, done * 100 / todo,
		human_bytes((double)done * (double)sysconf(_SC_PAGESIZE), bytes),
		human_bytes((double)done * (double)sysconf(_SC_PAGESIZE) / seconds, rate));
	t->shown = true;
}

static void *ticker_main(void *arg)
{
	struct ticker *t = arg;
	uint64_t start = now_ns();

	pthread_mutex_lock(&t->lock);
	while (!t->stopped) {
		struct timespec until;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 250000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000;
		}
		pthread_cond_timedwait(&t->stop, &t->lock, &until);
		if (!t->stopped)
			show_progress(t, start);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

void ticker_start(struct ticker *t, const _Atomic uint64_t *done, const _Atomic uint64_t *todo)
{
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->stop, NULL);
	t->done = done;
	t->todo = todo;
	t->running = isatty(STDERR_FILENO) && !pthread_create(&t->thread, NULL, ticker_main, t);
}

void ticker_end(struct ticker *t)
{
	if (!t->running)
		return;
	pthread_mutex_lock(&t->lock);
	t->stopped = true;
	pthread_cond_signal(&t->stop);
	pthread_mutex_unlock(&t->lock);
	pthread_join(t->thread, NULL);
	if (t->shown)
		fputs("\r\033[K", stderr);
}
