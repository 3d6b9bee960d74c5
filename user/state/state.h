/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kinds of process state other than memory. One kind lives in one file, its dump half and (from the next issue on) its restore
 * half side by side; state_kinds[] gives their order. A checkpoint walks it three times:
 *
 *     check    running    refuse what can't be restored, before anything is touched (skipped with --no-restart)
 *     prepare  running    read what is slow to read and can be checked cheaply later (smaps)
 *     dump     FROZEN     what must be consistent: short, no storage, no allocation of size that the target chooses
 *     finish   running    turn what dump() noted into messages (build ids, names, formatting)
 */
#ifndef ICP_STATE_STATE_H
#define ICP_STATE_STATE_H

#include <stdbool.h>
#include <stddef.h>

#include "image/manifest.h"
#include "inject/warden.h"
#include "proc/maps.h"

/* One process of the job while it is dumped. Filled by the dumper, except where said. */
struct state_process {
	struct target *target;
	struct warden *warden;
	Icp__Process *image;	      /* owned by the manifest; the kinds fill it in */
	struct maps maps;	      /* as of the freeze (dump, finish); of a moment ago in check and prepare */
	struct warden_thread *threads; /* dump: its frozen threads, the main thread first */
	size_t n_threads;
	bool first_of_job;	      /* for what is saved once per job */
	void *notes[16];	      /* one per kind, by its index in state_kinds[]: owned and freed by the kind */
};

struct state_ops {
	const char *name; /* of the StateBlob */
	int (*check)(struct state_process *p);
	int (*prepare)(struct state_process *p, void **note);
	int (*dump)(struct state_process *p, void **note);
	int (*finish)(struct state_process *p, void **note);
	void (*free_note)(void *note);
};

/* In order; NULL-terminated. Any function may be NULL. */
extern const struct state_ops *const state_kinds[];

/* Walk all kinds; errors name the kind. */
int state_check(struct state_process *p) _must_use_;
int state_prepare(struct state_process *p) _must_use_;
int state_dump(struct state_process *p) _must_use_;
int state_finish(struct state_process *p) _must_use_;
void state_free_notes(struct state_process *p);

/* Append a blob: @data is a packed message, copied. */
int state_add_blob(Icp__StateBlob ***blobs, size_t *n, const char *kind, uint32_t version, const void *data,
		   size_t len) _must_use_;

#endif
