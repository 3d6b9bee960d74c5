/* SPDX-License-Identifier: GPL-2.0 */
/* Between the files of Unix sockets: fd_unix.c (dump), unix_*.c. */
#ifndef ICP_STATE_FD_UNIX_H
#define ICP_STATE_FD_UNIX_H

#include <sys/socket.h>
#include <sys/un.h>

#include "state/sock.h"

/* ---- unix_diag.c: what sock_diag(7) tells of one ---- */
struct unix_diag {
	uint8_t state, shutdown; /* TCP_*; 1: no receiving, 2: no sending */
	uint32_t peer;		 /* inode; 0: none that has a descriptor */
	uint32_t received, room; /* bytes; of a listening one: connections, backlog */
	uint32_t *waiting;	 /* inodes of those that connected; owned */
	size_t n_waiting;
};
/* -ENOENT (bare): no such socket in our network namespace. */
int unix_diag(uint32_t inode, struct unix_diag *out) _must_use_;

/* ---- unix_ends.c: what all of the job together tell, of running ones and of an image ---- */
struct unix_end {
	uint64_t inode;
	uint32_t type;
	const Icp__UnixSocket *u;
	uint32_t pid, fd; /* who has it; fd UINT32_MAX: it is in flight */
};
struct unix_ends {
	struct unix_end *data;
	size_t n, cap;
};
/* Before they are searched. */
void unix_ends_sort(struct unix_ends *all);
/* NULL for 0 and for those outside. */
const struct unix_end *unix_ends_find(const struct unix_ends *all, uint64_t inode);
/* Refuse a connection that leads out of the job (-EOPNOTSUPP), or that waits to be accepted and
 * can't be seen into (-EAGAIN). */
int unix_ends_check(const struct unix_ends *all, const struct unix_end *e) _must_use_;

/* ---- unix_queue.c ---- */
/* Refuse (-EAGAIN) what can't be looked at without taking it. */
int unix_queue_check(int type, bool reset, uint32_t received) _must_use_;
/*
 * FROZEN: what is queued in @fd, which stays there. @in_flight gets each descriptor found, in the
 * order of the messages' files, which are numbers into it, from 1, until their ids are known.
 */
typedef VEC(int) fd_vec;
int unix_queue_dump(int fd, int type, const struct unix_diag *diag, Icp__UnixSocket *out,
		    fd_vec *in_flight) _must_use_;
void unix_queue_free(Icp__UnixSocket *u);
/* Restart: put @m into the queue that @to leads to; through what @to is connected with, or to
 * @address. */
int unix_queue_send(const struct restore_job *job, int to, const struct sockaddr_un *address,
		    socklen_t len, const Icp__UnixMessage *m) _must_use_;

/* ---- unix_as.c ---- */
/*
 * Run @fn, which returns 0 or an errno, in a short-lived process that shares our descriptors and
 * has the pid and the effective ids of @c (NULL: any): what it makes has those as SO_PEERCRED.
 * A pid that is taken is not had. Returns 0 or a negative errno, without a message.
 */
int unix_as(const Icp__SocketCredentials *c, int (*fn)(const void *arg),
	    const void *arg) _must_use_;
/* socketpair(), made by @c. */
int unix_pair_as(const Icp__SocketCredentials *c, int type, int fds[2]) _must_use_;
int unix_listen_as(const Icp__SocketCredentials *c, int fd, int backlog) _must_use_;
/* To the socket @to of ours, by name; whatever became of the name. */
int unix_connect_as(const Icp__SocketCredentials *c, int fd, int to) _must_use_;

/* ---- unix_bind.c ---- */
/* Give @fd its name, with the file that it was in, or nowhere. */
int unix_bind(int fd, const Icp__UnixSocket *u) _must_use_;
/* The name only: no file is left. */
int unix_bind_hidden(int fd, const ProtobufCBinaryData *name) _must_use_;
/* How to reach the socket @to: its length. @keep stays open until it was used. */
int unix_address(int to, struct sockaddr_un *out, int *keep) _must_use_;

/* ---- unix_restore.c ---- */
int unix_verify(struct restore_job *job, const Icp__OpenFile *f) _must_use_;
int unix_open(struct restore_job *job, const Icp__OpenFile *f) _must_use_;
int unix_link(struct restore_job *job, const Icp__OpenFile *f, int fd) _must_use_;
int unix_late(struct restore_job *job, const Icp__OpenFile *f, int fd) _must_use_;
void unix_free_restored(void *slot);

#endif
