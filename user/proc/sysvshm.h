/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The System V shared memory segments of our IPC namespace, and which processes attach them
 * where. The kernel gives /proc/sysvipc/shm of the reader's namespace only, so segments of
 * another one (a container's) are not seen, and processes of another one are left out: the same
 * shmid there is another segment.
 */
#ifndef ICP_PROC_SYSVSHM_H
#define ICP_PROC_SYSVSHM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/vec.h"

struct sysvshm_segment {
	int32_t key; /* 0: IPC_PRIVATE, and after IPC_RMID */
	int32_t shmid;
	uint32_t mode;	  /* permission bits, 0777 */
	bool removed;	  /* IPC_RMID: goes away with the last detach */
	bool locked;	  /* SHM_LOCK */
	uint64_t size;	  /* bytes, as asked for: the memory is whole pages */
	pid_t cpid, lpid; /* creator, last attach or detach; 0: not of our pid namespace, or
			     nobody */
	uint64_t nattch;
	uid_t uid, cuid; /* owner, creator */
	gid_t gid, cgid;
	int64_t atime, dtime, ctime; /* seconds since 1970, 0 never */
	uint64_t rss, swap;	     /* bytes */
};

struct sysvshm {
	struct sysvshm_segment *data; /* sorted by shmid */
	size_t n, cap;
};

/* Every segment. A kernel without System V IPC has none. Freed by sysvshm_free(). */
int sysvshm_read(struct sysvshm *out) _must_use_;
void sysvshm_free(struct sysvshm *s);
#define _cleanup_sysvshm_ _cleanup_(sysvshm_free)

/* The segment, or NULL. */
const struct sysvshm_segment *sysvshm_find(const struct sysvshm *s, int32_t shmid);

/* Parse text in the format of /proc/sysvipc/shm. -EPROTO with a message when it isn't. */
int sysvshm_parse(const char *text, struct sysvshm *out) _must_use_;

/*
 * See what the processes @pids see: enter their IPC namespace, if all are in one that isn't ours and we may. The calling
 * thread only.
 */
void sysvshm_join(const pid_t *pids, size_t n);

/* One place where a process attaches a segment; what mprotect() split is one again. */
struct sysvshm_attachment {
	int32_t shmid;
	pid_t pid;
	uint64_t start, end; /* bytes; less than the segment when part of it was unmapped */
	uint64_t offset;     /* of start, in the segment */
};

struct sysvshm_attachments {
	struct sysvshm_attachment *data; /* sorted by shmid, pid, start */
	size_t n, cap;
	size_t unread; /* processes that we may not look at: they may attach, too */
};

/*
 * The attachments of all segments, by one pass over every process of /proc. Reads only their
 * maps, which takes no lock of theirs. Processes that share their memory (vfork, CLONE_VM)
 * appear each, so there may be more than nattch says.
 */
int sysvshm_attachments(struct sysvshm_attachments *out) _must_use_;
void sysvshm_attachments_free(struct sysvshm_attachments *a);
#define _cleanup_sysvshm_attachments_ _cleanup_(sysvshm_attachments_free)

/* Those of one segment: a pointer into @a and how many. */
const struct sysvshm_attachment *sysvshm_attachments_of(const struct sysvshm_attachments *a,
							int32_t shmid, size_t *n);

#endif
