/* SPDX-License-Identifier: GPL-2.0 */
/* A run of `icp-bpf trace --json`, read line by line. */
#ifndef ICP_TESTS_TRACER_H
#define ICP_TESTS_TRACER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct tracer {
	pid_t pid;
	FILE *out;
	json_t *samples; /* array: every sample line so far */
	json_t *events;	 /* array: segment, write and process lines */
	json_t *summary;
	int status; /* exit status after tracer_end() */
};

/* Start it with these arguments besides --json --top 1000000; returns after its "start" line. NULL-terminated. */
struct tracer *tracer_start(const char *first, ...) __attribute__((sentinel));
/* Read until there is a sample that began after now: everything done before is in what was read. */
void tracer_catch_up(struct tracer *t);
/* Forget what was read. */
void tracer_forget(struct tracer *t);
/* Interrupt it (unless it ends by itself), read the rest, expect exit status 0. */
void tracer_stop(struct tracer *t);
void tracer_end(struct tracer *t);
/*
 * Between @start and @end exactly @pages were written, or a few more where that is documented: see tracer_slack().
 */
void tracer_expect(const struct tracer *t, pid_t pid, uint64_t start, uint64_t end,
		   uint64_t pages);
/*
 * How many pages too many may be told. On a machine of its own: none. In an emulated guest: those that were looked at between the
 * fault and the instruction that runs again, one a sample. With soft-dirty bits: of mappings that grew or were merged all, @whole.
 */
uint64_t tracer_slack(uint64_t whole);
bool tracer_splits_huge_pages(void);
/* For teardown. */
void tracers_kill(void);

/* Sum over the samples of @pid: dirty pages of the VMAs that begin in [start, end). */
uint64_t tracer_dirty(const struct tracer *t, pid_t pid, uint64_t start, uint64_t end);
/* The last sample of @pid, or NULL. */
json_t *tracer_last(const struct tracer *t, pid_t pid);
uint64_t number(const json_t *object, const char *key);
uint64_t hex(const json_t *object, const char *key);
const char *text(const json_t *object, const char *key);
const char *decimal(long n);

#endif
