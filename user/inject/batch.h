/* SPDX-License-Identifier: GPL-2.0 */
/*
 * System calls for a stopped thread of ours, run many at a time: a few instructions in memory
 * that is shared with it take them one after the other from an array there.
 *
 *     area:   code (one page, read-only there) | header | calls | data
 *
 * The area lies at the same address in us and in every stub (they are forked from us, or from
 * one another), so results and data need no copying. It serves one thread at a time. Nothing
 * else of the thread's memory is needed: all of it may be unmapped and mapped anew.
 */
#ifndef ICP_INJECT_BATCH_H
#define ICP_INJECT_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct batch;

/* Bytes of an area. */
size_t batch_size(void);
/* Make one at @address, where nothing may be mapped. */
int batch_new(uint64_t address, struct batch **out) _must_use_;
void batch_free(struct batch *b);
uint64_t batch_address(const struct batch *b);

static inline void cleanup_batch(struct batch **b)
{
	batch_free(*b);
}
#define _cleanup_batch_ _cleanup_(cleanup_batch)

/* From now on calls are for this thread, which is in a ptrace stop and shares the area. */
int batch_begin(struct batch *b, pid_t pid, pid_t tid) _must_use_;

/* Bytes that the next few calls (16 at most) refer to; their address there, 0: too many. */
#define BATCH_DATA_MAX 131072
int batch_data(struct batch *b, const void *data, size_t len, uint64_t *address) _must_use_;

/*
 * Add a call. It is run at the latest by batch_run(); @what is for the message if it fails, and
 * must live until then: "map", "set its name".
 */
int batch_call(struct batch *b, const char *what, long nr, const uint64_t args[6]) _must_use_;
/* The same of a call whose failure doesn't matter. */
int batch_try(struct batch *b, long nr, const uint64_t args[6]) _must_use_;
/* Run what was added, in order, up to the first failure. */
int batch_run(struct batch *b) _must_use_;
/* Run what was added and this one; what it returned. */
int batch_now(struct batch *b, const char *what, long nr, const uint64_t args[6],
	      long *ret) _must_use_;
/* The same of a call that may fail. */
int batch_now_try(struct batch *b, long nr, const uint64_t args[6], long *ret) _must_use_;

#define BATCH_ARGS(...) ((const uint64_t[6]){__VA_ARGS__})

#endif
