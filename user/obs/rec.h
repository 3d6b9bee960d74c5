/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Recordings: what a session saw of its processes, in a file, to be looked at later. The writer appends blocks that are each
 * whole by themselves; the reader goes up to the first that is not. docs/recording-format.md has the bytes.
 *
 * Processes, threads, write sites and stacks are known by numbers that count from 0 in the order in which they are added. Times are in
 * us since the start of the recording.
 */
#ifndef ICP_OBS_REC_H
#define ICP_OBS_REC_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/vec.h"

struct rec_start {
	uint64_t start_ns; /* CLOCK_REALTIME */
	uint64_t interval_us;
	uint64_t page_size;
	char tracker[17];
};

struct rec_vma {
	uint64_t start, end; /* bytes */
	const char *name;    /* "" for none */
	bool shared, writable;
};

enum rec_run_kind { REC_WRITTEN = 1, REC_NEW, REC_UNKNOWN };

struct rec_run {
	uint64_t start, end; /* bytes */
	enum rec_run_kind kind;
};

/* What was written in the interval that ended at time_us. */
struct rec_take {
	uint64_t time_us, interval_us;
	uint32_t process;
	uint64_t faults, kernel_faults, lost;
	const struct rec_run *runs; /* sorted */
	size_t n;
};

struct rec_fault {
	uint64_t time_us, addr;
	uint32_t thread, site;
	bool kernel;
};

enum rec_event { REC_FORK = 1, REC_EXEC, REC_EXIT };

/* ---- writing ---- */

struct rec_writer;

/* @path must not exist, or be no regular file. 0600. */
int rec_create(const char *path, const struct rec_start *start,
	       struct rec_writer **out) _must_use_;
int rec_add_process(struct rec_writer *w, pid_t pid, const char *comm,
		    uint32_t *process) _must_use_;
bool rec_find_thread(const struct rec_writer *w, uint32_t process, pid_t tid, uint32_t *thread);
int rec_add_thread(struct rec_writer *w, uint32_t process, pid_t tid, const char *comm,
		   uint32_t *thread) _must_use_;
bool rec_find_site(const struct rec_writer *w, uint32_t process, uint64_t ip, uint32_t *site);
int rec_add_site(struct rec_writer *w, uint32_t process, uint64_t ip, const char *function,
		 uint32_t *site) _must_use_;
/* The whole table as it is now: what has changed is recorded. */
int rec_put_maps(struct rec_writer *w, uint32_t process, const struct rec_vma *vmas,
		 size_t n) _must_use_;
int rec_put_fault(struct rec_writer *w, const struct rec_fault *f) _must_use_;
int rec_put_take(struct rec_writer *w, const struct rec_take *t) _must_use_;
/* The stack of a fault of @thread, innermost function first; it stands for @faults of them. */
int rec_put_stack(struct rec_writer *w, uint64_t time_us, uint32_t thread,
		  const char *const *functions, size_t n, uint32_t faults) _must_use_;
int rec_put_event(struct rec_writer *w, uint64_t time_us, uint32_t process,
		  enum rec_event event, uint64_t arg) _must_use_;
/* Bytes in the file; what is not there yet follows with rec_flush(). */
uint64_t rec_bytes(const struct rec_writer *w);
/* End the block. After a failure the file is what it was before the block, and nothing more is written. */
int rec_flush(struct rec_writer *w) _must_use_;
/* Say that the recording is complete, or why not; and free @w. */
int rec_finish(struct rec_writer *w, uint64_t time_us, const char *reason) _must_use_;

/* ---- reading ---- */

struct rec_reader;

enum rec_kind { REC_FAULT = 1, REC_TAKE, REC_MAPS, REC_STACKED, REC_EVENT, REC_END };

struct rec_item {
	enum rec_kind kind;
	uint64_t time_us; /* not of MAPS */
	uint32_t process;
	uint32_t thread, site; /* FAULT; thread of STACKED, too */
	uint64_t addr;
	bool kernel;
	struct rec_take
		take; /* a big one comes in several, of which the first has interval and counters */
	uint32_t stack, faults; /* STACKED */
	enum rec_event event;
	uint64_t arg;
	const char *reason; /* END */
};

struct rec_table {
	VEC(struct rec_vma) vmas;
};

struct rec_process {
	pid_t pid;
	const char *comm;
	struct rec_table maps; /* as of the last MAPS */
};

struct rec_thread {
	uint32_t process;
	pid_t tid;
	const char *comm;
};

struct rec_site {
	uint32_t process;
	uint64_t ip;
	const char *function;
};

struct rec_stack {
	uint32_t n;
	const char *functions[];
};

/* Refuses what is no recording, or one of another format. */
int rec_open(const char *path, struct rec_reader **out) _must_use_;
/* The same of a stream, which is @file's owner's until it returns 0. */
int rec_open_file(FILE *file, struct rec_reader **out) _must_use_;
void rec_close(struct rec_reader *r);

static inline void cleanup_rec(struct rec_reader **r)
{
	rec_close(*r);
}
#define _cleanup_rec_ _cleanup_(cleanup_rec)

/* 1 and the next item, valid until the next call; 0 at the end, or where the file is damaged; -ENOMEM. */
int rec_next(struct rec_reader *r, struct rec_item *out) _must_use_;
/* After 0: what is wrong, or NULL when the recording was ended and read to its end. */
const char *rec_damage(const struct rec_reader *r);

const struct rec_start *rec_started(const struct rec_reader *r);
size_t rec_processes(const struct rec_reader *r);
const struct rec_process *rec_process_of(const struct rec_reader *r, uint32_t i);
const struct rec_thread *rec_thread_of(const struct rec_reader *r, uint32_t i);
const struct rec_site *rec_site_of(const struct rec_reader *r, uint32_t i);
const struct rec_stack *rec_stack_of(const struct rec_reader *r, uint32_t i);

#endif
