/* SPDX-License-Identifier: GPL-2.0 */
/* Inside user/state: what segments, semaphores and message queues have in common when they are remade. */
#ifndef ICP_STATE_IPC_H
#define ICP_STATE_IPC_H

#include "base/vec.h"
#include "state/restore.h"

enum sysv_kind { SYSV_SHM, SYSV_SEM, SYSV_MSG };
extern const char *const sysv_names[];	 /* "shm", "sem", "msg": in /proc */
extern const char *const sysv_objects[]; /* for people */

/* ---- ipc_ids.c: calls that differ by kind only ---- */

union semun {
	int val;
	struct semid_ds *buf;
	unsigned short *array;
};

struct sysv_stat {
	uint32_t key, mode, uid, gid;
	uint64_t size;	/* bytes of a segment, semaphores in a set; 0 */
	uint64_t users; /* attachments, those who wait for a semaphore */
	pid_t cpid;	/* of a segment */
};

/* The object with that key, or -1. */
int sysv_find(enum sysv_kind kind, uint32_t key);
int sysv_stat(enum sysv_kind kind, int id, struct sysv_stat *out) _must_use_; /* bare */
int sysv_remove(enum sysv_kind kind, int id) _must_use_;		      /* bare */
int sysv_set_owner(enum sysv_kind kind, int id, uint32_t uid, uint32_t gid,
		   uint32_t mode) _must_use_; /* bare */

struct sysv_wanted {
	enum sysv_kind kind;
	uint32_t id, key;    /* key IPC_PRIVATE: none */
	uint32_t cuid, cgid; /* its creator */
	uint64_t size;	     /* as in struct sysv_stat */
};

/*
 * Make an object, as its creator and with the id that it had, if that is free and we may ask for it.
 * The id that it got, or a negative errno (bare).
 */
int sysv_make(const struct sysv_wanted *w) _must_use_;
/* Tell that an object has another id now. @who: processes that may have kept the old one. */
void sysv_other_id(const struct sysv_wanted *w, int id, const char *who);

/* ---- ipc_keeper.c: the same through the keeper, which removes it again if the restart fails ---- */
int ipc_keeper_make(int sock, const struct sysv_wanted *w) _must_use_; /* bare */
/* From now on in our IPC namespace. */
int ipc_keeper_enter(int sock) _must_use_;

/* ---- sysv_dump.c, sysv_restore.c: semaphores and message queues ---- */

#define SYSV_VERSION 1
typedef struct Icp__SysvObjects Icp__SysvObjects;
typedef struct Icp__SemSet Icp__SemSet;
typedef struct Icp__MessageQueue Icp__MessageQueue;

/* As a version has them, checked; NULL when it has none. Freed with protobuf's own function. */
int sysv_load(const Icp__Manifest *m, Icp__SysvObjects **out) _must_use_;
Icp__SysvObjects *sysv_unpack(const Icp__Manifest *m);
/* Put back the messages of a new queue; add the values to those of a new set, all 0. */
int sysv_send_all(int id, const Icp__MessageQueue *q) _must_use_;
int sysv_set_values(int id, const Icp__SemSet *s) _must_use_;

/* ---- ipc.c ---- */
/* What is being restarted, NULL for none; the new id of the @i-th set or queue of it. */
const Icp__SysvObjects *ipc_sysv(const struct restore_job *job);
int ipc_restored_sysv(const struct restore_job *job, enum sysv_kind kind, size_t i);

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
