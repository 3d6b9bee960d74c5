/* SPDX-License-Identifier: GPL-2.0 */
/* Between the files of user/restore. */
#ifndef ICP_RESTORE_INTERNAL_H
#define ICP_RESTORE_INTERNAL_H

#include <signal.h>

#include "restore/restore.h"
#include "state/restore.h"

struct restore_proc {
	struct state_restore state;
	struct ctl *ctl;
	pid_t pid;
	uint32_t stream; /* its pid when it was saved */
	size_t parent;	 /* index, SIZE_MAX: icp-bpf */
	bool traced;
	bool made; /* a first process: is there until icp-bpf reaps it */
};

struct restore {
	const struct restart_config *config;
	struct restart_result *result;
	struct repo *repo;
	Icp__Manifest *manifest;
	struct restore_job job;
	uint32_t *streams;	    /* of the processes, in the order of the manifest */
	struct restore_proc *procs; /* parents first */
	size_t n;
	struct batch *batch;
	struct builder *builder;
	struct lazy *lazy; /* NULL: all pages are filled before the release */
	int die;   /* zombies end when its other end is closed: groups are complete then */
	bool made; /* there may be processes */
	int go;	   /* eventfd: a stub waits until all are there */
	char ipc_note[128];
};

/* ---- tree.c ---- */
/* Sort the processes of the manifest: parents first. */
int tree_plan(struct restore *r) _must_use_;
/* Make all stubs and wait until each is ready. */
int tree_make(struct restore *r) _must_use_;
/* Kill whatever was made. */
void tree_stop(struct restore *r);
/* The same, and reap it. */
void tree_kill(struct restore *r);

/* ---- taken.c ---- */
/* Refuse when a number that the job needs is taken, naming who has it; waits a little for the dying. */
int taken_check(const struct restore *r) _must_use_;

/* ---- choose.c ---- */
/* Leave in the manifest what the restart of some of its processes needs. */
int choose_processes(struct restore *r) _must_use_;

/* ---- tracees.c: all of them one process at a time, through r->batch ---- */
int tracee_seize(struct restore *r, struct restore_proc *p) _must_use_;
/* Unmap everything and map what it had, still empty. */
int tracee_map(struct restore *r, struct restore_proc *p) _must_use_;
int tracee_protect(struct restore *r, struct restore_proc *p) _must_use_;
/* Threads and all other state. */
int tracee_state(struct restore *r, struct restore_proc *p) _must_use_;
/* Last things before the release: remove our own traces, set registers. */
int tracee_settle(struct restore *r, struct restore_proc *p) _must_use_;
int tracee_detach(struct restore *r, struct restore_proc *p) _must_use_;

/* ---- huge.c: pages that are filled elsewhere, and then moved ---- */
struct huge_range {
	uint64_t start, end, staged; /* where: bytes behind huge.stage */
};
struct huge {
	struct huge_range *data; /* in the order of the addresses; vec_free() */
	size_t n, cap;
	uint64_t size, bytes, map, stage;
};
int huge_plan(struct restore *r, struct restore_proc *p, struct huge *h) _must_use_;
/* Where to write what belongs to @addr. */
uint64_t huge_place(const struct huge *h, uint64_t addr);
int huge_move(struct restore *r, struct huge *h) _must_use_;

/* ---- lazy.c: pages that come when the job runs ---- */
/* Whether the pages of @v come later. */
bool lazy_vma(const struct restore *r, const Icp__Vma *v);
/* Make the guard: as long as we have no threads. */
int lazy_prepare(struct restore *r) _must_use_;
/* The control structure of @p without what comes later. */
int lazy_ctl(struct restore *r, struct restore_proc *p) _must_use_;
/* Watch for page faults in such memory of @p, which is mapped and still empty. */
int lazy_register(struct restore *r, struct restore_proc *p) _must_use_;
int lazy_start(struct restore *r) _must_use_;
/* Wait until all pages are there, or the job has ended, and free @l (may be NULL). An error: one could
 * not be brought, and the job was killed. */
int lazy_end(struct lazy *l) _must_use_;
/* The job is killed anyhow: no need to go on. */
void lazy_cancel(struct lazy *l);

/* ---- fill.c ---- */
int fill_process(struct restore *r, struct restore_proc *p) _must_use_;
int fill_segments(struct restore *r) _must_use_;
int fill_contents(struct restore *r) _must_use_; /* of deleted files */

#endif
