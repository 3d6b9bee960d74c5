/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kinds of process state other than memory. One kind lives in one file, its dump half and its
 * restore half (restore.h) side by side; state_kinds[] gives their order. A
 * checkpoint walks it, per process:
 *
 *     check    running    refuse what can't be restored, before anything is touched (skipped
 *                         with --no-restart)
 *     prepare  running    read what is slow to read and can be checked cheaply later (smaps)
 *     plan     FROZEN     say what is wanted of ptrace and of injected system calls; they are
 *                         all run together after the last plan
 *     dump     FROZEN     what must be consistent: short, no storage
 *     finish   running    turn what was noted into messages (build ids, names, formatting)
 *
 * state_dump() does plan and dump. Injected calls use a little of the target's memory for
 * their results, below a stack, which is put back at once: do not read that process's memory
 * at the same time.
 */
#ifndef ICP_STATE_STATE_H
#define ICP_STATE_STATE_H

#include <stdbool.h>
#include <stddef.h>

#include "image/manifest.h"
#include "inject/warden.h"
#include "proc/maps.h"

#define STATE_KINDS_MAX 16

struct restore_ops;
struct state_job;    /* what the processes of a job have in common: open files, build ids */
struct state_gather; /* calls.h */
struct guards;	     /* guards.h */

/* The text of smaps, which walks all page tables: kept by the process's owner from one checkpoint to the next. */
struct state_smaps {
	char *text; /* NULL: none */
	uint64_t
		write_locks; /* how often the lock of its memory had been taken for writing before it was read */
};

/* One process of the job while it is dumped. Filled by the dumper, except where said. */
struct state_process {
	struct target *target;
	struct warden *warden;
	struct state_job *job;
	Icp__Process *image; /* owned by the manifest; the kinds fill it in */
	struct maps maps;    /* as of the freeze (dump, finish); of a moment ago in check and
				prepare */
	struct warden_thread *threads; /* dump: its frozen threads, the main thread first */
	size_t n_threads;
	struct state_smaps *smaps; /* prepare: the owner's, or NULL */
	bool smaps_good;	   /* it is as it was when that was read */
	struct guards
		*guards;  /* read while the process ran (state_look_ahead()), or NULL; ours */
	bool guards_good; /* dump: nobody can have changed them since */
	bool checked;	  /* by state_check(): it is to be restarted; prepare() refuses, too */
	char **status; /* of each thread: the text of /proc/PID/task/TID/status; by the walk */
	struct state_gather *gather;  /* of state_dump(); by the walk */
	void *notes[STATE_KINDS_MAX]; /* one per kind: owned and freed by the kind */
};

struct state_ops {
	const char *name; /* of the StateBlob */
	int (*check)(struct state_process *p);
	int (*prepare)(struct state_process *p, void **note);
	int (*plan)(struct state_process *p, void **note);
	int (*dump)(struct state_process *p, void **note);
	int (*finish)(struct state_process *p, void **note);
	void (*free_note)(void *note);
	const struct restore_ops *restore; /* restore.h */
};

/* In order; NULL-terminated. Any function may be NULL. */
extern const struct state_ops *const state_kinds[];

/* What the checkpoint is for. */
struct state_job_how {
	bool kill;	 /* the job ends after it */
	bool tcp_close;	 /* connections out of the job are saved as closed */
	bool no_restart; /* only the data is wanted */
	bool ipc_unused; /* semaphore sets and queues, too, that nobody has used yet */
	pid_t asker;	 /* who wants it, when that is another process; else 0 */
};

int state_job_new(struct state_job **out) _must_use_;
void state_job_set(struct state_job *job, const struct state_job_how *how);
/* The job was killed: packets of its connections are held back until a restart. The table of
 * nft that does it, or NULL. */
void state_job_killed(struct state_job *job);
const char *state_held(const struct state_job *job);
void state_job_free(struct state_job *job);

static inline void cleanup_state_job(struct state_job **job)
{
	state_job_free(*job);
}
#define _cleanup_state_job_ _cleanup_(cleanup_state_job)

/*
 * Walk all kinds; errors name the process. After a failure state_free_notes() is still due.
 * What state_dump() noted of the job (open files) goes into the manifest by
 * state_job_finish(), once, after the last state_finish().
 */
int state_check(struct state_process *p) _must_use_;
/*
 * After state_check() of all processes, while they run; @pids: all that are there by now.
 * STATE_LOOK_AGAIN, in a moment and with those that are there then: something stands in the way
 * that may be gone soon.
 */
#define STATE_LOOK_AGAIN 1
int state_check_job(struct state_job *job, const pid_t *pids, size_t n) _must_use_;
int state_prepare(struct state_process *p) _must_use_;
/* RUNNING, after the last look at what was written: what need not be read in the pause where nothing happens until then. */
int state_look_ahead(struct state_process *p, const struct maps *maps) _must_use_;
int state_dump(struct state_process *p) _must_use_;
int state_finish(struct state_process *p) _must_use_;
void state_free_notes(struct state_process *p);
int state_job_finish(struct state_job *job, Icp__Manifest *m) _must_use_;
/*
 * FROZEN, after state_dump() of every process: what belongs to the job as a whole. @parent: of the same boot, or NULL.
 * @lose_undo: go on where SEM_UNDO adjustments can't be read.
 */
int state_job_dump(struct state_job *job, const Icp__Manifest *parent, const pid_t *pids,
		   size_t n, bool lose_undo) _must_use_;
/* Refuse what a restart of this finished manifest would refuse, whatever the machine: what
 * state_check() can't see before the freeze. */
int state_restorable(const Icp__Manifest *m) _must_use_;

/*
 * Files that only descriptors of the job keep (deleted ones): their content belongs to the
 * version. The list grows in state_prepare() and state_dump().
 */
struct state_content {
	uint64_t dev, inode; /* as in OpenFile */
	int fd;		     /* of our own, for reading */
	bool open;	     /* at the freeze */
	bool unseen; /* may be written without a change of its times: mapped, O_DIRECT */
	char *path;  /* where it was */
};

struct state_contents {
	struct state_content *data;
	size_t n, cap;
};
struct state_contents *state_contents(struct state_job *job);

/* A zombie has no memory, no threads to freeze, and no target: all that is left of it. */
int state_zombie(pid_t pid, Icp__Process *image) _must_use_;

/*
 * Tells whether a process was restarted from one of an image: addresses that are random at each
 * execve and come back with a restart, and the pid that it knows itself by. Good enough to
 * compare pages with that image's, never to believe that they are equal.
 */
struct state_origin {
	uint64_t mm[3];
	uint32_t pid;
};
bool state_origin_read(const struct target *t, struct state_origin *out);
bool state_origin_is(const struct state_origin *o, const Icp__Process *image);

/* Architecture, page size, kernel release, boot id of @m. */
int state_fill_machine(Icp__Manifest *m) _must_use_;

struct sysvshm_segment;
/* What is known of a segment but its memory. */
void state_fill_segment(const struct sysvshm_segment *s, Icp__Segment *out);

/* Append a blob: @data is a packed message, copied. */
int state_add_blob(Icp__StateBlob ***blobs, size_t *n, const char *kind, uint32_t version,
		   const void *data, size_t len) _must_use_;
/* The same of a message. */
int state_pack_blob(Icp__StateBlob ***blobs, size_t *n, const char *kind, uint32_t version,
		    const ProtobufCMessage *msg) _must_use_;
/* The blob of that kind, or NULL. */
const Icp__StateBlob *state_find_blob(Icp__StateBlob *const *blobs, size_t n, const char *kind);

#endif
