/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The restore halves of the kinds of state. A restart walks state_kinds[] too, per process:
 *
 *     restore_check    in icp-bpf, before anything is made: unpack the messages, refuse
 *     restore_open     in icp-bpf: what all processes inherit from it (open files, memory
 *                      objects); no process of the job exists yet
 *     restore_stub     in the new process, while it is still a copy of icp-bpf
 *     restore_memory   its memory is empty: mappings (injected calls)
 *     restore_protect  its pages are filled: protections and the like (injected calls)
 *     restore_process  all of its threads are there: calls for the main thread
 *     restore_thread   calls for one thread, after restore_process
 *     restore_settle   all threads have run theirs: the last calls for the main thread
 *     restore_release  by ptrace, after the last call: registers, signal mask
 *
 * An image is untrusted: every number in it is checked before use, and nothing is opened for
 * writing that was not open for writing.
 */
#ifndef ICP_STATE_RESTORE_H
#define ICP_STATE_RESTORE_H

#include "inject/batch.h"
#include "state/state.h"

struct ctl;
struct restore_files;	 /* files_restore.c */
struct restore_objects;	 /* objects.c */
struct restore_segments; /* ipc.c */

enum ipc_existing { IPC_REFUSE, IPC_ADOPT, IPC_REPLACE };

struct ipc_how {
	enum ipc_existing existing; /* what to do where a key is taken */
	bool new_namespace;
	const char *note; /* path of what restarts of this version leave for the next, or "" */
};

/* What the processes of a job have in common while they are rebuilt. */
struct restore_job {
	const Icp__Manifest *manifest;
	struct restore_files *files;
	struct restore_objects *objects;
	struct restore_segments *segments;
	struct ipc_how ipc;
	int first_fd; /* ours that the processes inherit are above: no process has one there */
	bool detach;
};

int restore_job_init(struct restore_job *job, const Icp__Manifest *m) _must_use_;
void restore_job_fini(struct restore_job *job);
/* Move @fd above first_fd, for processes to inherit; closes it in any case. */
int restore_high_fd(const struct restore_job *job, int fd);

struct state_restore {
	struct restore_job *job;
	const Icp__Process *image;
	const struct ctl *ctl; /* which pages it has, from restore_memory on */
	bool is_root;	       /* its parent is icp-bpf */
	void *notes[STATE_KINDS_MAX];
};

struct restore_ops {
	int (*check)(struct state_restore *r, void **note);
	int (*open)(struct state_restore *r, void *note);
	int (*stub)(struct state_restore *r, void *note);
	int (*memory)(struct state_restore *r, void *note, struct batch *b);
	int (*protect)(struct state_restore *r, void *note, struct batch *b);
	int (*process)(struct state_restore *r, void *note, struct batch *b);
	int (*thread)(struct state_restore *r, void *note, size_t thread, struct batch *b);
	int (*settle)(struct state_restore *r, void *note, struct batch *b);
	int (*release)(struct state_restore *r, void *note, size_t thread);
	void (*free_note)(void *note);
};

int restore_check(struct state_restore *r) _must_use_;
int restore_open(struct state_restore *r) _must_use_;
int restore_stub(struct state_restore *r) _must_use_;
int restore_memory(struct state_restore *r, struct batch *b) _must_use_;
int restore_protect(struct state_restore *r, struct batch *b) _must_use_;
int restore_process(struct state_restore *r, struct batch *b) _must_use_;
int restore_thread(struct state_restore *r, size_t thread, struct batch *b) _must_use_;
int restore_settle(struct state_restore *r, struct batch *b) _must_use_;
int restore_release(struct state_restore *r, size_t thread) _must_use_;
void restore_free_notes(struct state_restore *r);

/* The message of that kind, which must be there in a version we know; owned by the caller. */
int restore_unpack(Icp__StateBlob *const *blobs, size_t n, const char *kind, uint32_t version,
		   const ProtobufCMessageDescriptor *type, void *out) _must_use_;

/* Whether a private page of zeros says something where @v is mapped: a file has other bytes. */
bool restore_zeros_count(const Icp__Vma *v);
/* Whether pages of @v are in the image and are to be written. */
bool restore_filled(const Icp__Vma *v);

/* Memory that only its mappings keep: shared by fork, memfd, deleted files. */
bool restore_is_object(const Icp__Vma *v);
/* Where the attachment that @v is a part of begins and ends, as a whole; other kinds: @v. */
void restore_span(const Icp__Manifest *m, const Icp__Vma *v, uint64_t *start, uint64_t *end);

/* Whether a thread has seccomp filters; its blobs are checked. */
bool restore_under_seccomp(const Icp__Thread *t);

/* ---- memory that several mappings share: shared anonymous memory, memfd ---- */
int objects_new(struct restore_objects **out) _must_use_;
void objects_free(struct restore_objects *o);
/* A descriptor for all that is known under this inode, -1 for none. */
int objects_find(const struct restore_objects *o, uint64_t dev, uint64_t inode);
int objects_add(struct restore_job *job, uint64_t dev, uint64_t inode, const char *name,
		uint64_t size) _must_use_;
/* A mapped file, opened once: for reading, or for both. Negative errno with a message. */
int objects_file(struct restore_job *job, const Icp__Vma *v, bool write) _must_use_;

/* ---- open files: all descriptions of the job, after restore_open() of every process ---- */
int files_restore_check(const struct restore_job *job) _must_use_;
int files_restore_open(struct restore_job *job) _must_use_;
int files_restore_seal(struct restore_job *job) _must_use_; /* memfds; their content is there */

/* ---- System V segments: job-wide ---- */
/*
 * Have those of the manifest: made, or linked to where an earlier restart of the version made them and somebody of it
 * lives; where a key is taken otherwise it goes by job->ipc.existing.
 */
int ipc_restore_new(struct restore_job *job) _must_use_;
/* The new id of segment @shmid, -1 when there is none. */
int ipc_restored(const struct restore_job *job, uint32_t shmid);
/* All processes have what they will undo: the values of semaphores. */
int ipc_restore_values(struct restore_job *job) _must_use_;
/* Our own attachment of the segment @i of the manifest, to fill it; NULL: it keeps its content. */
void *ipc_restore_memory(const struct restore_job *job, size_t i);
/* All are filled and attached: owners, modes, removed marks. */
int ipc_restore_end(struct restore_job *job) _must_use_;
/* Remove those that were made, unless ended. */
void ipc_restore_free(struct restore_job *job);

static inline uint64_t restore_dev(uint32_t major, uint32_t minor)
{
	return (uint64_t)major << 32 | minor;
}

#endif
