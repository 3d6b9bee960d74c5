/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What one interval looked like, as plain data: filled by a session, shown by the views. Page counts are in pages of
 * struct trace_info.page_size bytes; times are seconds.
 */
#ifndef ICP_OBS_SAMPLE_H
#define ICP_OBS_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/vec.h"

#define WINDOWS 3 /* write working sets over 1, 10 and 60 s */
extern const unsigned window_seconds[WINDOWS];

struct vma_stat {
	uint64_t start, end;
	uint64_t dirty_pages;
	char name[256];
};

struct segment_stat {
	int32_t key, id;
	uint64_t size;		  /* bytes */
	uint64_t dirty_pages;	  /* written by this process */
	uint64_t dirty_pages_all; /* written by any traced process */
	uint64_t attach_count;	  /* of the whole system */
	VEC(pid_t) pids;	  /* the processes that have it attached */
};

struct writer_stat {
	pid_t tid;
	char comm[16];
	char function[256];
	uint64_t faults; /* kernel_faults included */
	uint64_t kernel_faults;
};

struct process_sample {
	pid_t pid;
	char comm[16];
	bool ended;		/* this is its last sample */
	double interval_s;	/* what it really was */
	uint64_t dirty_pages;	/* unique pages written in the interval */
	uint64_t unknown_pages; /* of those: may or may not have been written */
	double dirty_bytes_per_s;
	uint64_t wws_pages[WINDOWS];
	uint64_t faults, kernel_faults;
	uint64_t lost_events;
	uint64_t untold_faults;		   /* counted in @faults, not in writers: a storm */
	bool events_complete;		   /* events explain every change of the interval */
	VEC(struct vma_stat) vmas;	   /* most written first */
	VEC(struct segment_stat) segments; /* every attached one */
	VEC(struct writer_stat) writers;   /* most faults first */
	size_t vmas_written, writers_seen; /* before the lists were cut */
};

struct sample {
	double time;	/* seconds since 1970 */
	double elapsed; /* since the start */
	unsigned index; /* from 1 */
	VEC(struct process_sample) processes;
};

struct trace_info {
	const char *tracker;
	uint64_t page_size;
	double interval_s;
	bool events;	     /* eBPF events are there: faults, writers, segment events */
	char no_events[256]; /* else why not */
	double start_time;
};

/* One thing that happened, with names. */
struct trace_event {
	double time;	/* seconds since 1970 */
	uint64_t order; /* ns, monotonic: to sort by */
	pid_t pid, tid;
	enum trace_event_kind { TRACE_WRITE, TRACE_SEGMENT, TRACE_PROCESS } kind;
	const char *
		op; /* segment: "get", "attach", "detach", "remove"; process: "fork", "exec", "exit" */
	const char *
		implied; /* a detach that nobody asked for: "exec" or "exit"; an attach by "fork" */
	uint64_t addr;
	uint64_t ip;	 /* write */
	bool kernel;	 /* write: by the kernel for this thread */
	int32_t key, id; /* segment; id also: child pid of a fork */
	uint64_t size, attach_count;
	char vma[128], function[128]; /* write */
};

struct trace_events {
	struct trace_event *data;
	size_t n, cap;
};

/* Totals of one process over the whole trace. */
struct process_total {
	pid_t pid;
	char comm[16];
	bool ended;
	double seconds;
	double stopped_s; /* how long attaching stopped it */
	uint64_t samples;
	uint64_t dirty_pages;  /* sum over the intervals */
	uint64_t unique_pages; /* written at least once */
	uint64_t peak_pages;   /* of one interval */
	double peak_bytes_per_s;
	uint64_t faults, kernel_faults, lost_events;
};

struct summary {
	const char *reason; /* "duration", "count", "interrupted", "exited" */
	double seconds;
	uint64_t cpu_us; /* of icp-bpf itself */
	VEC(struct process_total) processes;
};

void sample_clear(struct sample *s);
void process_sample_clear(struct process_sample *p); /* its lists */
/* A copy of @from, without the pids of segments. -ENOMEM. */
int process_sample_copy(const struct process_sample *from,
			struct process_sample *out) _must_use_;
void free_summary(struct summary *s);

#endif
