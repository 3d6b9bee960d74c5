/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the daemon knows, for those who ask over HTTP: filled by the loop that owns the session, read by the thread that answers.
 * Everything here is read and written with the lock held. All of it is bounded: PROCESSES_MAX processes, rings, top lists.
 */
#ifndef ICP_SERVE_MODEL_H
#define ICP_SERVE_MODEL_H

#include <pthread.h>

#include "obs/sample.h"
#include "proc/maps.h"
#include "serve/flame.h"
#include "serve/heat.h"
#include "session/session.h"

#define PROCESSES_MAX SESSION_PROCESSES_MAX /* shown */
#define HISTORY 600u			    /* samples */
#define AREAS_MAX 256u			    /* VMAs shown of a process */
#define WRITERS_MAX 256u		    /* of a process and minute */
#define CUTS_MAX 500u
#define REFUSED_MAX 64u
#define MEASURED 8u	   /* checkpoints that a forecast remembers */
#define GENERATION_S 60u   /* writers and stacks: of this one and the last one */
#define NAMES_MAX_COMM 64u /* label values */

struct point {
	double time;
	double bytes_per_s;
	uint64_t dirty, faults, wws[WINDOWS]; /* pages */
};

struct area {
	uint64_t start, end;
	enum vma_kind kind;
	uint32_t prot;
	bool shared;
	uint64_t dirty, wws[WINDOWS]; /* pages */
	char name[96];
};

/* One followed process. */
struct proc {
	pid_t pid, job;
	char comm[16];
	double since;		    /* time */
	double time;		    /* of the last sample */
	struct process_sample last; /* its lists are empty, but for the segments */
	struct process_total total;
	uint64_t untold;
	struct point ring[HISTORY];
	size_t points; /* ever; the ring holds the last HISTORY */
	VEC(struct area) areas;
	VEC(struct writer_stat) writers[2]; /* of this minute, and of the one before */
	struct flame flames[2];
	struct heat heat;
	/* for the forecast */
	uint64_t resident;		  /* bytes of its own */
	uint32_t version;		  /* what `written` is since; 0: there is none */
	uint64_t written, written_before; /* pages; at the last sample and the one before */
};

/* A checkpoint of a job, for the forecast. */
struct measured {
	uint64_t pages, bytes, pause_ns, copy_ns, total_ns;
	double rate; /* pages a second that the job wrote */
	double meanwhile_s; /* what was written for so long after it began is in it; below 0: not known */
};

struct job {
	pid_t pid; /* the topmost of its processes */
	char comm[16];
	char dir[512]; /* of the last version; "" for none */
	uint32_t version;
	size_t n_measured; /* increments, ever */
	struct measured measured[MEASURED], full;
	bool has_full;
};

#define BUCKETS_MAX 16
struct histogram {
	uint64_t counts[BUCKETS_MAX + 1]; /* not cumulative; the last: above all bounds */
	double sum;
};
extern const double pause_bounds[], duration_bounds[];
extern const size_t n_pause_bounds, n_duration_bounds;

/* Checkpoints by the name of the job's first process. */
struct cut_stats {
	char comm[16];
	uint64_t full, incremental, failed, bytes_full, bytes_incremental;
	double last_time;
	struct histogram pause, duration;
};

struct segment_total {
	int32_t key, id;
	uint64_t size, attach_count, dirty, total; /* pages */
	double bytes_per_s;
	unsigned index; /* of the sample that saw it last */
	VEC(pid_t) pids;
};

struct key_total {
	int32_t key;
	uint64_t pages;
};

struct refused {
	pid_t pid;
	char comm[16], why[256];
	double time;
};

struct model {
	pthread_mutex_t lock;
	struct trace_info info;
	double start_time, time; /* of the daemon, of the last sample */
	double interval_s, mtbf_s;
	unsigned index;
	uint64_t sample_ns; /* CLOCK_MONOTONIC of the last sample */
	bool ended;
	uint64_t faults, kernel_faults, lost, untold, untold_now, samples;
	double cpu_s;
	uint64_t rss_bytes;
	double generation_time[2]; /* when this minute began, and the one before */
	VEC(struct proc *) procs;
	VEC(struct job) jobs;
	VEC(struct segment_total) segments;
	VEC(struct key_total) keys;
	VEC(struct session_cut) cuts; /* versions and failures, oldest first */
	VEC(struct cut_stats) stats;
	VEC(struct refused) refused;
	/* what was asked for, for /api/status */
	const pid_t *pids;
	size_t n_pids;
	const char *const *cgroups;
	size_t n_cgroups;
	const char *match;
	char *const *dirs; /* repositories to look into besides */
	size_t n_dirs;
};

int model_new(struct model **out) _must_use_;
void model_free(struct model *m);

struct proc *model_proc(struct model *m, pid_t pid);
struct job *model_job(struct model *m, pid_t pid);

/* Take in a sample and what it was made of. Takes the segment lists out of @sample. Called with the lock held. */
int model_sample(struct model *m, struct session *s, struct sample *sample) _must_use_;
/* A checkpoint. Called with the lock held. */
int model_cut(struct model *m, const struct session_cut *cut) _must_use_;

/* model_detail.c: VMAs, heatmap, stacks, what the forecast needs. */
int model_detail(struct model *m, struct session *s, struct proc *p) _must_use_;

#endif
