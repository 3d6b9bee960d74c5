/* SPDX-License-Identifier: GPL-2.0 */
/* The progress of what takes longer than a second, on a terminal. */
#ifndef ICP_CLI_TICKER_H
#define ICP_CLI_TICKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct ticker {
	const _Atomic uint64_t *done, *todo; /* pages */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t stop;
	bool stopped, running, shown;
};

/* Starts a thread if stderr is a terminal. */
void ticker_start(struct ticker *t, const _Atomic uint64_t *done, const _Atomic uint64_t *todo);
/* Nothing stays on the terminal. @t may be one that was not started (all zero). */
void ticker_end(struct ticker *t);

#endif
