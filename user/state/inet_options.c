// SPDX-License-Identifier: GPL-2.0
/*
 * Options of sockets. An option is saved when it differs from that of a new socket, so that
 * nothing is set at a restart that the program has not set: some need rights.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "state/inet.h"
#include "state/sock.h"

enum {
	EARLY = SOCK_EARLY,
	LAST = SOCK_LAST,
	TCP = SOCK_TCP,
	UDP = SOCK_UDP,
	V6 = SOCK_V6,
	INET = SOCK_INET,
	NETLINK = SOCK_NETLINK
};

/* Besides those of level SOL_SOCKET. */
static const struct sock_option options[] = {
	{IPPROTO_IP, IP_FREEBIND, INET, EARLY, NULL},
	{IPPROTO_IP, IP_TRANSPARENT, INET, EARLY, NULL},
	{IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, INET, EARLY, NULL},
	{IPPROTO_IP, IP_TOS, INET, 0, NULL},
	{IPPROTO_IP, IP_TTL, INET, 0, NULL},
	{IPPROTO_IP, IP_RECVOPTS, INET, 0, NULL},
	{IPPROTO_IP, IP_RETOPTS, INET, 0, NULL},
	{IPPROTO_IP, IP_PKTINFO, UDP, 0, NULL},
	{IPPROTO_IP, IP_MTU_DISCOVER, INET, 0, NULL},
	{IPPROTO_IP, IP_RECVERR, INET, 0, NULL},
	{IPPROTO_IP, IP_RECVTTL, INET, 0, NULL},
	{IPPROTO_IP, IP_RECVTOS, INET, 0, NULL},
	{IPPROTO_IP, IP_MINTTL, INET, 0, NULL},
	{IPPROTO_IP, IP_RECVORIGDSTADDR, UDP, 0, NULL},
	{IPPROTO_IP, IP_MULTICAST_TTL, UDP, 0, NULL},
	{IPPROTO_IP, IP_MULTICAST_LOOP, UDP, 0, NULL},
	{IPPROTO_IP, IP_MULTICAST_IF, UDP, 0, NULL},
	{IPPROTO_IP, IP_MULTICAST_ALL, UDP, 0, NULL},
	{IPPROTO_IP, IP_UNICAST_IF, UDP, 0, NULL},
	{IPPROTO_IPV6, IPV6_V6ONLY, V6, EARLY, NULL},
	{IPPROTO_IPV6, IPV6_FREEBIND, V6, EARLY, NULL},
	{IPPROTO_IPV6, IPV6_TRANSPARENT, V6, EARLY, NULL},
	{IPPROTO_IPV6, IPV6_UNICAST_HOPS, V6, 0, NULL},
	{IPPROTO_IPV6, IPV6_MULTICAST_HOPS, V6 | UDP, 0, NULL},
	{IPPROTO_IPV6, IPV6_MULTICAST_LOOP, V6 | UDP, 0, NULL},
	{IPPROTO_IPV6, IPV6_MULTICAST_IF, V6 | UDP, 0, NULL},
	{IPPROTO_IPV6, IPV6_UNICAST_IF, V6 | UDP, 0, NULL},
	{IPPROTO_IPV6, IPV6_MTU_DISCOVER, V6, 0, NULL},
	{IPPROTO_IPV6, IPV6_RECVERR, V6, 0, NULL},
	{IPPROTO_IPV6, IPV6_RECVPKTINFO, V6 | UDP, 0, NULL},
	{IPPROTO_IPV6, IPV6_RECVHOPLIMIT, V6 | UDP, 0, NULL},
	{IPPROTO_IPV6, IPV6_RECVTCLASS, V6 | UDP, 0, NULL},
	{IPPROTO_IPV6, IPV6_TCLASS, V6, 0, NULL},
	{IPPROTO_IPV6, IPV6_DONTFRAG, V6 | UDP, 0, NULL},
	{IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, V6, 0, NULL},
	{IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, V6, 0, NULL},
	{IPPROTO_IPV6, IPV6_MINHOPCOUNT, V6, 0, NULL},
	{IPPROTO_TCP, TCP_CONGESTION, TCP, EARLY, NULL},
	{IPPROTO_TCP, TCP_DEFER_ACCEPT, TCP, EARLY, NULL},
	{IPPROTO_TCP, TCP_SAVE_SYN, TCP, EARLY, NULL},
	{IPPROTO_TCP, TCP_FASTOPEN_CONNECT, TCP, LAST, NULL},
	{IPPROTO_TCP, TCP_FASTOPEN, TCP, EARLY, NULL},
	{IPPROTO_TCP, TCP_NODELAY, TCP, 0, NULL},
	{IPPROTO_TCP, TCP_KEEPIDLE, TCP, 0, NULL},
	{IPPROTO_TCP, TCP_KEEPINTVL, TCP, 0, NULL},
	{IPPROTO_TCP, TCP_KEEPCNT, TCP, 0, NULL},
	{IPPROTO_TCP, TCP_SYNCNT, TCP, 0, NULL},
	{IPPROTO_TCP, TCP_LINGER2, TCP, 0, NULL},
	{IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, TCP, 0, NULL},
	{IPPROTO_TCP, TCP_USER_TIMEOUT, TCP, 0, NULL},
	{IPPROTO_TCP, TCP_NOTSENT_LOWAT, TCP, 0, NULL},
	{IPPROTO_TCP, TCP_INQ, TCP, 0, NULL},
	{IPPROTO_TCP, TCP_CORK, TCP, LAST, NULL},
	{IPPROTO_UDP, UDP_CORK, UDP, LAST, NULL},
	{IPPROTO_UDP, UDP_NO_CHECK6_TX, UDP, 0, NULL},
	{IPPROTO_UDP, UDP_NO_CHECK6_RX, UDP, 0, NULL},
	{IPPROTO_UDP, 103 /* UDP_SEGMENT */, UDP, 0, NULL},
	{IPPROTO_UDP, 104 /* UDP_GRO */, UDP, 0, NULL},
	{SOL_NETLINK, NETLINK_PKTINFO, NETLINK, 0, NULL},
	{SOL_NETLINK, NETLINK_BROADCAST_ERROR, NETLINK, 0, NULL},
	{SOL_NETLINK, NETLINK_NO_ENOBUFS, NETLINK, 0, NULL},
	{SOL_NETLINK, NETLINK_CAP_ACK, NETLINK, 0, NULL},
	{SOL_NETLINK, NETLINK_EXT_ACK, NETLINK, 0, NULL},
	{SOL_NETLINK, NETLINK_GET_STRICT_CHK, NETLINK, 0, NULL},
};

#define N_OPTIONS (sizeof(options) / sizeof(*options))
#define MOST_OPTIONS (SOCK_OPTIONS_MAX + N_OPTIONS) /* of both lists */
#define USUAL_NS 1000000000ull

/* Of both lists, by number; NULL after the last. */
static const struct sock_option *nth_option(size_t i)
{
	if (i < sock_n_options)
		return &sock_options[i];
	return i - sock_n_options < N_OPTIONS ? &options[i - sock_n_options] : NULL;
}

static bool is_for(const struct sock_option *o, const Icp__InetSocket *s)
{
	unsigned who = s->family == AF_NETLINK ? NETLINK : s->type == SOCK_STREAM ? TCP : UDP;

	if (o->who & V6)
		return s->family == AF_INET6 && (o->who == V6 || o->who & who);
	/* of a connection it is something else */
	if (o->level == IPPROTO_TCP && o->name == TCP_FASTOPEN && s->state != TCP_LISTEN &&
	    s->state != TCP_CLOSE)
		return false;
	return o->who & who;
}

/* Takes over @value. */
static int add_option(Icp__InetSocket *s, const struct sock_option *o,
		      ProtobufCBinaryData value)
{
	Icp__InetOption *msg = malloc(sizeof(*msg));

	if (!msg) {
		free(value.data);
		return fail(-ENOMEM, "note a socket");
	}
	icp__inet_option__init(msg);
	s->options[s->n_options++] = msg;
	msg->level = (uint32_t)o->level;
	msg->name = (uint32_t)o->name;
	msg->value = value;
	return 0;
}

/*
 * The options of a new socket of the same kind as the last one that was looked at: a server has
 * thousands alike, and a job waits, frozen. An administrator may change what is usual, so not for
 * long.
 */
static struct usual {
	uint32_t family, type, protocol;
	uint64_t since; /* ns; 0: nothing is known */
	ProtobufCBinaryData values[MOST_OPTIONS];
	bool known[MOST_OPTIONS];
} usual;

static void forget_usual(void)
{
	for (size_t i = 0; i < MOST_OPTIONS; i++)
		free(usual.values[i].data);
	usual = (struct usual){0};
}

static void begin_usual(const Icp__InetSocket *s)
{
	if (usual.family == s->family && usual.type == s->type &&
	    usual.protocol == s->protocol && now_ns() - usual.since < USUAL_NS)
		return;
	forget_usual();
	usual.family = s->family;
	usual.type = s->type;
	usual.protocol = s->protocol;
	usual.since = now_ns();
}

/* @fresh: a new socket, made when it is needed, or -1. */
static int find_usual(size_t i, const Icp__InetSocket *s, int *fresh)
{
	const struct sock_option *o = nth_option(i);
	int err;

	if (usual.known[i])
		return 0;
	if (*fresh < 0)
		*fresh = socket((int)s->family, (int)s->type | SOCK_CLOEXEC, (int)s->protocol);
	if (*fresh < 0)
		return fail(-errno, "make a socket to compare with");
	err = sock_get(*fresh, o->level, o->name, &usual.values[i]);
	usual.known[i] = !err;
	return err;
}

static int compare_option(int fd, size_t i, int *fresh, Icp__InetSocket *s)
{
	const struct sock_option *o = nth_option(i);
	const ProtobufCBinaryData *as_usual = &usual.values[i];
	ProtobufCBinaryData value = {0};
	int err = sock_get(fd, o->level, o->name, &value);

	if (!err)
		err = find_usual(i, s, fresh);
	if (!err && value.len &&
	    (value.len != as_usual->len || memcmp(value.data, as_usual->data, value.len)))
		return add_option(s, o, value);
	free(value.data);
	return err;
}

static int compare_options(int fd, Icp__InetSocket *s)
{
	_cleanup_fd_ int fresh = -1;
	const struct sock_option *o;
	int err = 0;

	s->options = calloc(sock_n_options + N_OPTIONS, sizeof(*s->options));
	if (!s->options)
		return fail(-ENOMEM, "note a socket");
	begin_usual(s);
	for (size_t i = 0; (o = nth_option(i)) && !err; i++)
		if (is_for(o, s))
			err = compare_option(fd, i, &fresh, s);
	return err;
}

static int get_int(int fd, int level, int name)
{
	socklen_t len = sizeof(int);
	int value = 0;

	return getsockopt(fd, level, name, &value, &len) ? 0 : value;
}

int inet_dump_options(int fd, Icp__InetSocket *s)
{
	s->send_buffer = (uint32_t)get_int(fd, SOL_SOCKET, SO_SNDBUF);
	s->receive_buffer = (uint32_t)get_int(fd, SOL_SOCKET, SO_RCVBUF);
	s->buffer_lock = (uint32_t)get_int(fd, SOL_SOCKET, SO_BUF_LOCK);
	return compare_options(fd, s);
}

/* ---- restart ---- */

static const struct sock_option *known(const Icp__InetSocket *s, const Icp__InetOption *msg)
{
	const struct sock_option *o;

	for (size_t i = 0; (o = nth_option(i)); i++)
		if ((uint32_t)o->level == msg->level && (uint32_t)o->name == msg->name &&
		    is_for(o, s))
			return o;
	return NULL;
}

static int set_when(int fd, const Icp__InetSocket *s, unsigned when)
{
	int err = 0;

	for (size_t i = 0; i < s->n_options && !err; i++) {
		const struct sock_option *o = known(s, s->options[i]);

		if (o && o->when == when)
			err = sock_set(fd, o->level, o->name, &s->options[i]->value);
	}
	return err;
}

int inet_set_options(int fd, const Icp__InetSocket *s)
{
	return set_when(fd, s, 0);
}

/* The kernel doubles what is set, and what was set stays as it is from then on: the lock says
 * whether the program has set it. */
static int set_buffer(int fd, uint32_t size, int force, int plain)
{
	int half = (int)(size / 2);

	if (!size || !setsockopt(fd, SOL_SOCKET, force, &half, sizeof(half)) ||
	    !setsockopt(fd, SOL_SOCKET, plain, &half, sizeof(half)))
		return 0;
	return fail(-errno, "set a buffer of a socket");
}

int inet_set_last(int fd, const Icp__InetSocket *s)
{
	int off = 0, lock = (int)s->buffer_lock;
	int err = set_buffer(fd, s->send_buffer, SO_SNDBUFFORCE, SO_SNDBUF);

	if (!err)
		err = set_buffer(fd, s->receive_buffer, SO_RCVBUFFORCE, SO_RCVBUF);
	if (!err && setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &lock, sizeof(lock)))
		errno = 0; /* since Linux 5.14 */
	if (!err && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &off, sizeof(off)))
		err = fail(-errno, "set an option of a socket");
	return err ? err : set_when(fd, s, LAST);
}

bool inet_reuses(const Icp__InetSocket *s)
{
	for (size_t i = 0; i < s->n_options; i++)
		if (s->options[i]->level == SOL_SOCKET && s->options[i]->name == SO_REUSEADDR)
			return true;
	return false;
}

int inet_open(const Icp__InetSocket *s, bool reuse)
{
	_cleanup_fd_ int fd =
		socket((int)s->family, (int)s->type | SOCK_CLOEXEC, (int)s->protocol);
	int on = reuse, err;

	if (fd < 0)
		return fail(-errno, "make a socket");
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)))
		return fail(-errno, "set an option of a socket");
	err = set_when(fd, s, EARLY);
	return err ? err : take_fd(&fd);
}
