/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the processes of a job have open while they run: for what only all of them together tell,
 * such as who has the other end of a pipe. It changes while one looks, so what stands in the way
 * must do so at several looks in a row; the freeze has the last word.
 */
#ifndef ICP_STATE_LOOK_H
#define ICP_STATE_LOOK_H

#include "state/files.h"

struct seen_fd {
	pid_t pid;
	const struct fd_info *f;
};

struct look {
	struct state_job *job;
	VEC(struct seen_fd) seen; /* by process, by number */
	bool in_flight;	    /* some are on their way through sockets: the list lacks them */
	struct looks *more; /* look.c */
};

#define look_each(it, l, what)                                                                 \
	vec_each (it, &(l)->seen)                                                              \
		if (it->f->kind == (what))

/* All that have the inode: how many, from *@out on. */
size_t look_inode(const struct look *l, uint64_t inode, struct seen_fd *const **out);
bool look_has_pid(const struct look *l, pid_t pid);
/* A copy of it; -1 when it isn't open any more. */
int look_borrow(const struct seen_fd *s);
/* The result of check_job() when @s stands in the way: @err, from refuse(). @other: whatever else
 * tells that it is the same at the next look. -EAGAIN: it may go away by itself. */
int look_blame(struct look *l, const struct seen_fd *s, uint64_t other, int err) _must_use_;

/* Of a job. */
int look_new(struct state_job *job) _must_use_;
void look_free(struct look *l);
/* What check() saw; takes over what is in @fds. */
int look_add(struct look *l, pid_t pid, struct fd_list *fds) _must_use_;
/* state_check_job() */
int look_check(struct look *l, const pid_t *pids, size_t n) _must_use_;

#endif
