/* SPDX-License-Identifier: GPL-2.0 */
/* Locks on open files: the dump half, which goes with reading the descriptors. */
#ifndef ICP_STATE_LOCKS_H
#define ICP_STATE_LOCKS_H

#include "state/files.h"

/* The numbers are in images: only append. */
enum lock_kind {
	LOCK_FLOCK = 1, /* of the description */
	LOCK_OFD,	/* of the description, a range */
	LOCK_POSIX,	/* of the process, a range */
	LOCK_LEASE,	/* of the description; its signal tells a descriptor of the process */
};

struct lock {
	uint32_t file; /* OpenFile.id */
	int fd;
	enum lock_kind kind;
	bool write;
	uint64_t start, length;
};

struct lock_list {
	struct lock *data;
	size_t n, cap;
};

/* Why the locks of @f can't be restarted, or NULL. */
const char *locks_reason(const struct fd_info *f);
/* Note those of one descriptor of @pid; @fresh: the first one of its description in the job. */
int locks_note(struct lock_list *list, pid_t pid, const struct fd_info *f, uint32_t file,
	       bool fresh) _must_use_;
int locks_pack(const struct lock_list *list, Icp__Process *image) _must_use_;

#endif
