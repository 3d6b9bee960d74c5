/* SPDX-License-Identifier: GPL-2.0 */
/* Sockets of the internet families and netlink: what TCP, UDP and netlink have in common. */
#ifndef ICP_STATE_INET_H
#define ICP_STATE_INET_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "state/fdkind.h"
#include "state/inet.pb-c.h"

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_storage room;
};

/* ---- dump ---- */

/* check(): that it is in our network namespace, and has nothing that can't be seen. */
int inet_check(struct state_process *p, const struct fd_info *f) _must_use_;

/* The same of one that sends: what was sent with MSG_ZEROCOPY is reported by numbers that go on. */
int inet_check_zerocopy(int fd) _must_use_;

/* A socket's message; everything in it is malloc'ed. inet_free() is also a kind's free_note(). */
int inet_dump(int fd, Icp__InetSocket **out) _must_use_;
int inet_dump_names(int fd, Icp__InetSocket **out) _must_use_; /* type and addresses only */
int inet_dump_options(int fd, Icp__InetSocket *s) _must_use_;  /* by inet_dump() */
void inet_free(void *socket);
int inet_finish(const struct description *d, Icp__OpenFile *out);
/* Copies. */
int inet_bytes(ProtobufCBinaryData *out, const void *data, size_t len) _must_use_;

/* The multicast groups of @fd. */
int inet_dump_groups(int fd, Icp__InetSocket *s) _must_use_;

/* ---- restart ---- */

/* The message of @f, checked; owned by the caller. */
int inet_unpack(const Icp__OpenFile *f, Icp__InetSocket **out) _must_use_;
/* The length of an address, 0: there is none. */
socklen_t inet_address(const ProtobufCBinaryData *data, union address *out);
/* "127.0.0.1:80" */
const char *inet_text(const ProtobufCBinaryData *data, char text[80]);
/* Refuse when one of our addresses is not one of this machine (any more). */
int inet_check_address(const Icp__InetSocket *s) _must_use_;
/* Whether the program had set SO_REUSEADDR. */
bool inet_reuses(const Icp__InetSocket *s);
/* A new socket, with the options that go before bind(); SO_REUSEADDR is on if @reuse. */
int inet_open(const Icp__InetSocket *s, bool reuse) _must_use_;
/* All others; last: buffers, SO_REUSEADDR. */
int inet_set_options(int fd, const Icp__InetSocket *s) _must_use_;
int inet_set_last(int fd, const Icp__InetSocket *s) _must_use_;
int inet_set_groups(int fd, const Icp__InetSocket *s) _must_use_;
int inet_bind(int fd, const Icp__InetSocket *s) _must_use_;

/* ---- packets of connections that are being moved are held back (inet_hold.c) ---- */

/* From now on those of all connections of @p, in both directions; once per process. The table's
 * name, or NULL with *@err. */
const char *inet_hold(struct state_process *p, int *err);
/* A copy of a connection that is held back, while the job is frozen. */
int inet_hold_keep(struct state_process *p, int fd) _must_use_;
/* The job is gone: until a restart. */
void inet_hold_stays(struct state_job *job);
/* The table that does, or NULL. */
const char *inet_held(const struct state_job *job);
/* Unless it stays. */
void inet_hold_end(struct state_job *job);
/* Let go, whichever version of the job was killed: after a restart. */
int inet_let_go(const Icp__Manifest *m) _must_use_;
/* Whether there is nft. */
bool inet_can_hold(void);

#endif
