/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kinds of open files. One kind lives in one file, fd_NAME.c, both halves; kinds[] of fdkind.c is
 * the list of them. What has no open() is refused by a checkpoint and can't be restarted.
 *
 *     check    running    refuse one that can't be restarted, before anything is touched: the
 *                         message (-EOPNOTSUPP) is what it is: "a deleted file"
 *     check_job running   the same of what only all processes together tell (look.h): it must
 *                         hold at several looks. What a restart would refuse is asked again
 *                         by verify()
 *     dump     FROZEN     note what /proc doesn't tell, once per description
 *     dumped   FROZEN     a process's table is complete; called per process: for what refers
 *                         to other descriptions
 *     finish   running    into its OpenFile message, mostly the field `detail`
 *     finish_job          into the message of the job
 *
 *     verify   restart    in icp-bpf, before anything is made (also at the end of a checkpoint);
 *                         may raise job->first_fd
 *     open                in icp-bpf: the new descriptor; no process of the job exists
 *     open_in_stub        in each process that has it, as a stub, when all others exist; of what
 *                         has no open(), or where that says FD_IN_STUB. The processes don't
 *                         share it then
 *     stub                in each process that has it, all descriptors are in place: what only
 *                         it can do
 *     link                all descriptions of the job are open, all processes exist as stubs:
 *                         descriptions that refer to others, or to processes
 *     late                all memory, threads and credentials are there, nothing runs yet:
 *                         seals, timers
 *
 * Any may be NULL; one of the opens is there. The restore half gets messages of an untrusted image.
 */
#ifndef ICP_STATE_FDKIND_H
#define ICP_STATE_FDKIND_H

#include <fcntl.h>

#include "state/files.h"
#include "state/files.pb-c.h"
#include "state/look.h"

/* An open file description, known by one descriptor that has it. */
struct description {
	uint32_t id; /* OpenFile.id */
	pid_t pid;
	struct fd_info info;
	struct f_owner_ex owner;
	uint32_t owner_signal;
	bool in_flight; /* on its way through a Unix socket */
	void *note;	/* of its kind */
	uint32_t next;	/* index + 1 of the next one in its bucket */
};

#define FD_IN_STUB (-5000) /* of open(): no errno */

struct fd_kind {
	enum file_kind kind;
	bool seek;	  /* a process sets its offset itself, when all of it is there */
	const char *text; /* "an eventfd" */

	int (*check)(struct state_process *p, const struct fd_info *f);
	int (*check_job)(struct look *l);
	int (*dump)(struct state_process *p, struct file_jobs *jobs, struct description *d);
	int (*dumped)(struct state_process *p, struct file_jobs *jobs);
	int (*finish)(const struct description *d, Icp__OpenFile *out);
	int (*finish_job)(void *slot, Icp__OpenFiles *out);
	void (*free_note)(void *note);
	void (*free_slot)(void *slot); /* of file_jobs_slot() */

	int (*verify)(struct restore_job *job, const Icp__OpenFile *f);
	int (*open)(struct restore_job *job, const Icp__OpenFile *f); /* or a negative errno */
	int (*open_in_stub)(struct restore_job *job, const Icp__OpenFile *f);
	int (*stub)(const struct state_restore *r, const Icp__OpenFile *f, int fd);
	int (*link)(struct restore_job *job, const Icp__OpenFile *f, int fd);
	int (*late)(struct restore_job *job, const Icp__OpenFile *f, int fd);
	void (*free_restored)(void *slot); /* of files_restore_slot() */
};

/* Never NULL: a number that nobody knows is FILE_OTHER. */
const struct fd_kind *fd_kind(uint32_t kind);

extern const struct fd_kind fd_regular, fd_directory, fd_memory_device, fd_path;
extern const struct fd_kind fd_pipe, fd_fifo;
extern const struct fd_kind fd_terminal, fd_pty_master;
extern const struct fd_kind fd_memfd;
extern const struct fd_kind fd_eventfd, fd_signalfd, fd_timerfd, fd_epoll, fd_inotify, fd_pidfd;
extern const struct fd_kind fd_proc, fd_namespace;

/* What has no way to open it can't be restarted. */
static inline bool fd_restorable(uint32_t kind)
{
	return fd_kind(kind)->open || fd_kind(kind)->open_in_stub;
}
extern const struct fd_kind fd_tcp, fd_udp, fd_netlink;
extern const struct fd_kind fd_unix;

/* ---- dump ---- */

/* A pointer that a kind has per job, NULL at first. */
void **file_jobs_slot(struct file_jobs *jobs, enum file_kind kind);
/* All that are known so far, by id from 1; NULL after the last. */
struct description *file_jobs_get(struct file_jobs *jobs, uint32_t id);
/* A copy of a descriptor of the process: pidfd_getfd(2). Opening it through /proc would make
 * another description, and has effects. */
int fd_borrow(const struct state_process *p, int fd) _must_use_;
/* FROZEN: the id of a description that is in flight, which we have as @fd; that is taken over. */
int file_jobs_in_flight(struct state_process *p, int fd) _must_use_;
/* @msg becomes the detail of @out, freed with it. */
int fd_pack_detail(Icp__OpenFile *out, const ProtobufCMessage *msg) _must_use_;

/* ---- restart ---- */

/* As above. */
void **files_restore_slot(const struct restore_job *job, enum file_kind kind);
const Icp__OpenFiles *files_restore_all(const struct restore_job *job);
/* icp-bpf's own descriptor of description @id, -1 when there is none (yet). */
int files_restored_fd(const struct restore_job *job, uint32_t id);
/* The lowest number that a process has the file under, and which one; UINT32_MAX: none has. */
uint32_t files_number(const struct restore_job *job, uint32_t id, uint32_t *pid);
/* The same in a stub: it has some of its own. Opens what isn't yet; or a negative errno. */
int files_restore_here(const struct state_restore *r, uint32_t id);
/* Of the process @p of the manifest: the description under a number, 0 for none; whether it has
 * that description. */
uint32_t files_at(const struct restore_job *job, size_t p, uint32_t fd);
bool files_has(const struct restore_job *job, size_t p, uint32_t id);
#define FD_NUMBER_MAX (1u << 20)
/* Owned by the caller. */
int fd_unpack_detail(const Icp__OpenFile *f, const ProtobufCMessageDescriptor *type,
		     void *out) _must_use_;

/* What a description may be opened with; all others are of open(2) itself or unknown. */
#define FD_KEPT_FLAGS                                                                          \
	(O_ACCMODE | O_APPEND | O_NONBLOCK | O_DIRECT | O_SYNC | O_DSYNC | O_NOATIME |         \
	 O_LARGEFILE | O_DIRECTORY | O_PATH)

const char *fd_path_of(const Icp__OpenFile *f, char path[PATH_MAX]);
/* Another description of the same file. Bare -1 with errno. */
int fd_reopen(int fd, uint32_t flags);
/* By name, with @flags instead of its own. What it is gets looked at before it is really opened,
 * which may have effects. */
int fd_open_path(const Icp__OpenFile *f, uint32_t flags);

#endif
