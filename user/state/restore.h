/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The restore halves of the kinds of state. A restart walks state_kinds[] too, per process:
 *
 *     restore_check    in icp-bpf, before anything is made: unpack the messages, refuse
 *     restore_open     in icp-bpf: what all processes inherit from it (open files, memory
 *                      objects); no process of the job exists yet
 *     restore_opened   in icp-bpf: all open files of the job are there
 *     restore_session  in a stub that has begun a session, before it has children in it
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

#include "image/repo.h"
#include "inject/batch.h"
#include "state/state.h"

struct ctl;
struct restore_files;	 /* files_restore.c */
struct restore_objects;	 /* objects.c */
struct restore_segments; /* ipc.c */
struct restore_shares;	 /* shares.c */

enum ipc_existing { IPC_REFUSE, IPC_ADOPT, IPC_REPLACE };

struct ipc_how {
	enum ipc_existing existing; /* what to do where a key is taken */
	bool new_namespace;
	const char *note; /* path of what restarts of this version leave for the next, or "" */
	int keeper;	  /* ipc_keeper.c; borrowed */
};

/* What the processes of a job have in common while they are rebuilt. */
struct restore_job {
	const Icp__Manifest *manifest;
	struct restore_files *files;
	struct restore_objects *objects;
	struct restore_segments *segments;
	struct restore_shares *shares;
	struct ipc_how ipc;
	int first_fd; /* ours that the processes inherit are above: no process has one there */
	bool detach;
	bool rewind;	/* cut files that were open for writing back to what they were */
	int *first_of;	/* contents.c: by index in manifest->contents */
	bool tcp_close; /* connections come back closed */
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
	int (*opened)(struct state_restore *r, void *note);
	int (*session)(struct state_restore *r, void *note);
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
int restore_opened(struct state_restore *r) _must_use_;
int restore_session(struct state_restore *r) _must_use_;
int restore_stub(struct state_restore *r) _must_use_;
int restore_memory(struct state_restore *r, struct batch *b) _must_use_;
int restore_protect(struct state_restore *r, struct batch *b) _must_use_;
int restore_process(struct state_restore *r, struct batch *b) _must_use_;
int restore_thread(struct state_restore *r, size_t thread, struct batch *b) _must_use_;
int restore_settle(struct state_restore *r, struct batch *b) _must_use_;
int restore_release(struct state_restore *r, size_t thread) _must_use_;
void restore_free_notes(struct state_restore *r);

/*
 * Before anything else: a job that was in a pid namespace gets the pids that it knows itself by,
 * which takes a new namespace again (@apart). Its streams keep their numbers.
 */
int pids_translate(Icp__Manifest *m, bool apart) _must_use_;
/* The highest of a process or thread. */
uint32_t pids_highest(const Icp__Manifest *m);

/* ---- zombies, which have none of the kinds ---- */
int zombie_check(const Icp__Process *image) _must_use_;
/* In a stub that is in its place: end as it ended. */
void zombie_become(const Icp__Process *image) __attribute__((noreturn));

/* The message of that kind, which must be there in a version we know; owned by the caller. */
int restore_unpack(Icp__StateBlob *const *blobs, size_t n, const char *kind, uint32_t version,
		   const ProtobufCMessageDescriptor *type, void *out) _must_use_;

/* Whether a private page of zeros says something where @v is mapped: a file has other bytes. */
bool restore_zeros_count(const Icp__Vma *v);
/* Whether pages of @v are in the image and are to be written. */
bool restore_filled(const Icp__Vma *v);
/* Whether @v is private memory without a file, which loses nothing that it was not told to. */
bool restore_private(const Icp__Vma *v);
/* Whether whole pages may be moved into @v between restore_memory() and restore_protect(). */
bool restore_may_move(const Icp__Vma *v);

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
/* Use @fd for all that is known under this inode; taken over in any case. The descriptor. */
int objects_put(struct restore_job *job, uint64_t dev, uint64_t inode, int fd) _must_use_;
/* A mapped file, opened once: for reading, or for both. Negative errno with a message. */
int objects_file(struct restore_job *job, const Icp__Vma *v, bool write) _must_use_;

/* ---- deleted files: their content is to be filled into objects_find() of them ---- */
int contents_restore_new(struct restore_job *job) _must_use_; /* before restore_open() */
void contents_restore_free(struct restore_job *job);
/* ---- private memory that processes shared since a fork: copy-on-write again ---- */
struct shares_source {
	struct repo *repo;
	uint32_t version;
	const Icp__Process **order; /* parents first, without zombies */
	const uint32_t *streams;    /* of each, in the repository */
	size_t n;
};
/* Read it, before the processes are cloned; @pages counts. */
int shares_new(struct restore_job *job, const struct shares_source *from,
	       uint64_t *pages) _must_use_;
/* Where it is in us and in each new process, which unmaps it when its mappings were moved. */
uint64_t shares_arena(const struct restore_job *job, uint64_t *size);
/* All processes were cloned: we need it no more. */
void shares_unmap(struct restore_shares *s);
void shares_free(struct restore_shares *s);
/* Whether @v is to be moved out of it (instead of mapped); do it. */
bool shares_has(const struct restore_job *job, const Icp__Vma *v);
int shares_move(const struct restore_job *job, const Icp__Vma *v, const struct ctl *ctl,
		struct batch *b) _must_use_;
/* What needs no filling any more leaves @ctl. */
int shares_leave_out(const struct restore_job *job, const Icp__Process *image,
		     struct ctl *ctl) _must_use_;

/* ---- open files: all descriptions of the job, after restore_open() of every process ---- */
int files_restore_check(struct restore_job *job) _must_use_;
int files_restore_open(struct restore_job *job) _must_use_;
int files_restore_link(struct restore_job *job) _must_use_; /* all stubs are there */
int files_restore_late(struct restore_job *job) _must_use_; /* the last before all run */

/* The last thing of all that can fail: see job->rewind. */
int files_restore_rewind(struct restore_job *job) _must_use_;
/* ---- clocks: those of all processes that are made from here on ---- */
int clocks_continue(const struct restore_job *job) _must_use_;

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

/*
 * The keeper makes the System V objects of a restart, and removes them when all copies of @sock are closed before
 * ipc_keeper_keep(). Started and ended by the parent of who restarts.
 */
struct ipc_keeper {
	pid_t pid;
	int sock;
};
int ipc_keeper_start(struct ipc_keeper *k) _must_use_;
/* Close @sock and wait: after that the objects are gone, or stay. */
void ipc_keeper_end(struct ipc_keeper *k);
/* The job runs: they stay. */
void ipc_keeper_keep(int sock);

/* Whether no process of the job has anything there; if not, *@next is behind it. */
bool restore_is_free(const Icp__Manifest *m, uint64_t start, uint64_t end, uint64_t *next);

static inline uint64_t restore_dev(uint32_t major, uint32_t minor)
{
	return (uint64_t)major << 32 | minor;
}

#endif
