/* SPDX-License-Identifier: GPL-2.0 */
/* What sockets of all families have in common: type and options of level SOL_SOCKET. */
#ifndef ICP_STATE_SOCK_H
#define ICP_STATE_SOCK_H

#include "state/fdkind.h"
#include "state/sock.pb-c.h"

/*
 * FROZEN, on a borrowed descriptor, in a way that nobody notices. @out owns what it holds:
 * sock_free(), which leaves the part of the family alone.
 */
int sock_dump(int fd, Icp__Socket *out) _must_use_;
void sock_free(Icp__Socket *s);
/* Note one option of any level; one that the kernel doesn't know isn't noted. */
int sock_dump_option(int fd, int level, int name, Icp__Socket *out) _must_use_;
/* Refuse what can't be restarted: an eBPF filter. */
int sock_check(int fd) _must_use_;

/* The message of @f, whose options are known ones of level SOL_SOCKET, or of @level. */
int sock_unpack(const Icp__OpenFile *f, int level, Icp__Socket **out) _must_use_;
static inline void cleanup_sock(Icp__Socket **s)
{
	if (*s)
		protobuf_c_message_free_unpacked(&(*s)->base, NULL);
}
#define _cleanup_sock_ _cleanup_(cleanup_sock)
/* Make the options that differ as they were: last, for they may stand in the way. */
int sock_set_options(int fd, const Icp__Socket *s, int level) _must_use_;
/* As much as the image says may be sent and received: before queues are filled. */
int sock_set_room(int fd, int bytes) _must_use_;

#endif
