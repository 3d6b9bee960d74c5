/* SPDX-License-Identifier: GPL-2.0 */
/* What a recording says, added up by process (pid). */
#ifndef ICP_OBS_REPORT_H
#define ICP_OBS_REPORT_H

#include "obs/flamegraph.h"
#include "obs/intern.h"
#include "obs/rec.h"
#include "obs/touched.h"

struct report_take {
	uint64_t time_us, interval_us;
	uint64_t pages, faults, kernel_faults, lost;
};

struct report_vma {
	uint64_t start, end;
	const char *name;
	uint64_t pages; /* sum over the takes */
};

struct report_writer {
	pid_t tid;
	const char *comm, *function;
	uint64_t faults, kernel_faults;
};

struct report_process {
	pid_t pid;
	const char *comm; /* the last one */
	bool exited;
	VEC(struct report_take) takes;
	VEC(struct report_vma) vmas;	   /* most written first */
	VEC(struct report_writer) writers; /* most faults first */
	struct intern vma_keys, writer_keys;
	struct touched touched;
	struct flamegraph stacks; /* of the sampled faults */
	uint64_t pages, faults, kernel_faults, lost;
};

struct report {
	struct rec_reader *reader; /* owns the names */
	VEC(struct report_process) processes;
	struct intern pids;
	uint64_t end_us;
	const char *reason; /* NULL: the file does not say */
	char damage[200];   /* "" for none */
};

/* Reads all of it. Damage is not a failure: what is before it is there. */
int report_read(const char *path, struct report *out) _must_use_;
void report_free(struct report *r);

/* The process of @pid, for 0 the one that wrote most; NULL for none. */
struct report_process *report_of(struct report *r, pid_t pid);

/* Cut [start, end) where it crosses mappings: hand out the first piece, and the name of its mapping ("?": none). */
uint64_t report_piece(const struct rec_process *p, uint64_t start, uint64_t end,
		      const struct rec_vma **vma);

#endif
