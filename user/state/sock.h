/* SPDX-License-Identifier: GPL-2.0 */
/* What sockets of all families have in common: type and options, mostly of level SOL_SOCKET. */
#ifndef ICP_STATE_SOCK_H
#define ICP_STATE_SOCK_H

#include "state/fdkind.h"
#include "state/sock.pb-c.h"

/* Options that are saved, where they can be had: those of SOL_SOCKET here, others by family. */
struct sock_option {
	int level, name;
	unsigned who, when;
	const char *text;
};
enum {
	SOCK_TCP = 1,
	SOCK_UDP = 2,
	SOCK_V6 = 4, /* IPv6 only */
	SOCK_NETLINK = 8,
	SOCK_UNIX = 16,
	SOCK_INET = SOCK_TCP | SOCK_UDP,
	SOCK_ALL = SOCK_INET | SOCK_NETLINK | SOCK_UNIX,
};
/* With inet_set_...(); the others in between. Unix sockets get all in one go, in this order. */
enum { SOCK_EARLY = 1, /* before bind() */ SOCK_LAST = 2, /* when the data is there */ };
extern const struct sock_option sock_options[];
#define SOCK_OPTIONS_MAX 64
extern const size_t sock_n_options;

/* Its value, malloc'ed, as sock_set() takes it; nothing where the kernel or family lacks it. */
int sock_get(int fd, int level, int name, ProtobufCBinaryData *out) _must_use_;
/* Make it that, unless it is already. */
int sock_set(int fd, int level, int name, const ProtobufCBinaryData *value) _must_use_;

/*
 * FROZEN, on a borrowed descriptor, in a way that nobody notices. @out owns what it holds:
 * sock_free(), which leaves the part of the family alone.
 */
int sock_dump(int fd, Icp__Socket *out) _must_use_;
void sock_free(Icp__Socket *s);
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
