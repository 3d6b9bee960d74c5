/* SPDX-License-Identifier: GPL-2.0 */
/* Inside user/state: what segments, semaphores and message queues have in common when they are remade. */
#ifndef ICP_STATE_IPC_H
#define ICP_STATE_IPC_H

#include "base/vec.h"
#include "state/restore.h"

enum sysv_kind { SYSV_SHM, SYSV_SEM, SYSV_MSG };
extern const char *const sysv_names[];	 /* "shm", "sem", "msg": in /proc */
extern const char *const sysv_objects[]; /* for people */

/* ---- ipc_ids.c ---- */

struct sysv_wanted {
	enum sysv_kind kind;
	uint32_t id, key;
	uint32_t cuid, cgid; /* its creator */
};

/*
 * Make an object through @get, as its creator and with the id that it had, if that is free and we may ask for it.
 * The id that it got, or a negative errno (bare).
 */
int sysv_make(const struct sysv_wanted *w, int (*get)(void *arg), void *arg) _must_use_;
/* Tell that an object has another id now. @who: processes that may have kept the old one. */
void sysv_other_id(const struct sysv_wanted *w, int id, const char *who);

/* ---- ipc_note.c: what restarts of one version made, and whom they brought back ---- */

struct ipc_object {
	enum sysv_kind kind;
	uint32_t key, old; /* as in the manifest */
	int id;
};

struct ipc_process {
	pid_t pid;
	uint64_t start_time;
};

struct ipc_note {
	VEC(struct ipc_object) objects;
	VEC(struct ipc_process) processes;
	uint64_t ns; /* inode of the IPC namespace */
};

/* Of this boot; an empty one when there is none. */
int ipc_note_read(const char *path, struct ipc_note *out) _must_use_;
int ipc_note_write(const char *path, const struct ipc_note *note) _must_use_;
void ipc_note_free(struct ipc_note *note);
#define _cleanup_ipc_note_ _cleanup_(ipc_note_free)
const struct ipc_object *ipc_note_find(const struct ipc_note *note, enum sysv_kind kind,
				       uint32_t old);
/* One of its processes that lives, 0 for none. */
pid_t ipc_note_alive(const struct ipc_note *note);
/* The IPC namespace that we are in. */
uint64_t ipc_namespace(void);

#endif
