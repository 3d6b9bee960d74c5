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

#include "state/inet.h"

#define VALUE_MAX 64

enum { EARLY = 1, /* before bind() */ LAST = 2, /* when the data is there */ };
enum { TCP = 1, UDP = 2, V6 = 4, NETLINK = 8, INET = TCP | UDP, ALL = INET | NETLINK };

static const struct option {
	int level, name;
	unsigned when, who;
} options[] = {
	{SOL_SOCKET, SO_REUSEPORT, EARLY, ALL},
	{SOL_SOCKET, SO_BINDTODEVICE, EARLY, INET},
	{SOL_SOCKET, SO_MARK, EARLY, ALL},
	{SOL_SOCKET, SO_DEBUG, 0, ALL},
	{SOL_SOCKET, SO_KEEPALIVE, 0, TCP},
	{SOL_SOCKET, SO_DONTROUTE, 0, INET},
	{SOL_SOCKET, SO_BROADCAST, 0, ALL},
	{SOL_SOCKET, SO_OOBINLINE, 0, TCP},
	{SOL_SOCKET, SO_LINGER, 0, TCP},
	{SOL_SOCKET, SO_RCVLOWAT, 0, ALL},
	{SOL_SOCKET, SO_RCVTIMEO, 0, ALL},
	{SOL_SOCKET, SO_SNDTIMEO, 0, ALL},
	{SOL_SOCKET, SO_TIMESTAMP, 0, ALL},
	{SOL_SOCKET, SO_TIMESTAMPNS, 0, ALL},
	{SOL_SOCKET, SO_TIMESTAMPING, 0, INET},
	{SOL_SOCKET, SO_RXQ_OVFL, 0, ALL},
	{SOL_SOCKET, SO_NO_CHECK, 0, UDP},
	{SOL_SOCKET, SO_SELECT_ERR_QUEUE, 0, ALL},
	{SOL_SOCKET, SO_BUSY_POLL, 0, INET},
	{SOL_SOCKET, SO_MAX_PACING_RATE, 0, INET},
	{SOL_SOCKET, SO_ZEROCOPY, 0, TCP},
	{IPPROTO_IP, IP_FREEBIND, EARLY, INET},
	{IPPROTO_IP, IP_TRANSPARENT, EARLY, INET},
	{IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, EARLY, INET},
	{IPPROTO_IP, IP_TOS, 0, INET},
	{IPPROTO_IP, IP_TTL, 0, INET},
	{IPPROTO_IP, IP_RECVOPTS, 0, INET},
	{IPPROTO_IP, IP_RETOPTS, 0, INET},
	{IPPROTO_IP, IP_PKTINFO, 0, UDP},
	{IPPROTO_IP, IP_MTU_DISCOVER, 0, INET},
	{IPPROTO_IP, IP_RECVERR, 0, INET},
	{IPPROTO_IP, IP_RECVTTL, 0, INET},
	{IPPROTO_IP, IP_RECVTOS, 0, INET},
	{IPPROTO_IP, IP_MINTTL, 0, INET},
	{IPPROTO_IP, IP_RECVORIGDSTADDR, 0, UDP},
	{IPPROTO_IP, IP_MULTICAST_TTL, 0, UDP},
	{IPPROTO_IP, IP_MULTICAST_LOOP, 0, UDP},
	{IPPROTO_IP, IP_MULTICAST_IF, 0, UDP},
	{IPPROTO_IP, IP_MULTICAST_ALL, 0, UDP},
	{IPPROTO_IP, IP_UNICAST_IF, 0, UDP},
	{IPPROTO_IPV6, IPV6_V6ONLY, EARLY, V6},
	{IPPROTO_IPV6, IPV6_FREEBIND, EARLY, V6},
	{IPPROTO_IPV6, IPV6_TRANSPARENT, EARLY, V6},
	{IPPROTO_IPV6, IPV6_UNICAST_HOPS, 0, V6},
	{IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 0, V6 | UDP},
	{IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0, V6 | UDP},
	{IPPROTO_IPV6, IPV6_MULTICAST_IF, 0, V6 | UDP},
	{IPPROTO_IPV6, IPV6_UNICAST_IF, 0, V6 | UDP},
	{IPPROTO_IPV6, IPV6_MTU_DISCOVER, 0, V6},
	{IPPROTO_IPV6, IPV6_RECVERR, 0, V6},
	{IPPROTO_IPV6, IPV6_RECVPKTINFO, 0, V6 | UDP},
	{IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 0, V6 | UDP},
	{IPPROTO_IPV6, IPV6_RECVTCLASS, 0, V6 | UDP},
	{IPPROTO_IPV6, IPV6_TCLASS, 0, V6},
	{IPPROTO_IPV6, IPV6_DONTFRAG, 0, V6 | UDP},
	{IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, 0, V6},
	{IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, 0, V6},
	{IPPROTO_IPV6, IPV6_MINHOPCOUNT, 0, V6},
	{IPPROTO_TCP, TCP_CONGESTION, EARLY, TCP},
	{IPPROTO_TCP, TCP_DEFER_ACCEPT, EARLY, TCP},
	{IPPROTO_TCP, TCP_SAVE_SYN, EARLY, TCP},
	{IPPROTO_TCP, TCP_FASTOPEN_CONNECT, LAST, TCP},
	{IPPROTO_TCP, TCP_FASTOPEN, EARLY, TCP},
	{IPPROTO_TCP, TCP_NODELAY, 0, TCP},
	{IPPROTO_TCP, TCP_KEEPIDLE, 0, TCP},
	{IPPROTO_TCP, TCP_KEEPINTVL, 0, TCP},
	{IPPROTO_TCP, TCP_KEEPCNT, 0, TCP},
	{IPPROTO_TCP, TCP_SYNCNT, 0, TCP},
	{IPPROTO_TCP, TCP_LINGER2, 0, TCP},
	{IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 0, TCP},
	{IPPROTO_TCP, TCP_USER_TIMEOUT, 0, TCP},
	{IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0, TCP},
	{IPPROTO_TCP, TCP_INQ, 0, TCP},
	{IPPROTO_TCP, TCP_CORK, LAST, TCP},
	{IPPROTO_UDP, UDP_CORK, LAST, UDP},
	{IPPROTO_UDP, UDP_NO_CHECK6_TX, 0, UDP},
	{IPPROTO_UDP, UDP_NO_CHECK6_RX, 0, UDP},
	{IPPROTO_UDP, 103 /* UDP_SEGMENT */, 0, UDP},
	{IPPROTO_UDP, 104 /* UDP_GRO */, 0, UDP},
	{SOL_NETLINK, NETLINK_PKTINFO, 0, NETLINK},
	{SOL_NETLINK, NETLINK_BROADCAST_ERROR, 0, NETLINK},
	{SOL_NETLINK, NETLINK_NO_ENOBUFS, 0, NETLINK},
	{SOL_NETLINK, NETLINK_CAP_ACK, 0, NETLINK},
	{SOL_NETLINK, NETLINK_EXT_ACK, 0, NETLINK},
	{SOL_NETLINK, NETLINK_GET_STRICT_CHK, 0, NETLINK},
	{SOL_SOCKET, SO_PRIORITY, LAST, ALL}, /* IP_TOS changes it */
	{SOL_SOCKET, SO_REUSEADDR, LAST, INET},
};

#define N_OPTIONS (sizeof(options) / sizeof(*options))

static bool is_for(const struct option *o, const Icp__InetSocket *s)
{
	unsigned who = s->family == AF_NETLINK ? NETLINK : s->type == SOCK_STREAM ? TCP : UDP;

	if (o->who & V6)
		return s->family == AF_INET6 && (o->who == V6 || o->who & who);
	return o->who & who;
}

/* 0 for what isn't known here. */
static socklen_t read_option(int fd, const struct option *o, void *value)
{
	socklen_t len = VALUE_MAX;

	memset(value, 0, VALUE_MAX);
	return getsockopt(fd, o->level, o->name, value, &len) ? 0 : len;
}

static int add_option(Icp__InetSocket *s, const struct option *o, const void *value,
		      socklen_t len)
{
	Icp__InetOption *msg = malloc(sizeof(*msg));

	if (!msg)
		return fail(-ENOMEM, "note a socket");
	icp__inet_option__init(msg);
	s->options[s->n_options++] = msg;
	msg->level = (uint32_t)o->level;
	msg->name = (uint32_t)o->name;
	return inet_bytes(&msg->value, value, len);
}

/* @fresh: a new socket of the same kind. */
static int compare_options(int fd, int fresh, Icp__InetSocket *s)
{
	char value[VALUE_MAX], usual[VALUE_MAX];
	int err = 0;

	s->options = calloc(N_OPTIONS, sizeof(*s->options));
	if (!s->options)
		return fail(-ENOMEM, "note a socket");
	for (size_t i = 0; i < N_OPTIONS && !err; i++) {
		const struct option *o = &options[i];
		socklen_t len = is_for(o, s) ? read_option(fd, o, value) : 0;

		/* of a connection it is something else */
		if (o->level == IPPROTO_TCP && o->name == TCP_FASTOPEN &&
		    s->state != TCP_LISTEN && s->state != TCP_CLOSE)
			continue;
		if (len && (read_option(fresh, o, usual) != len || memcmp(value, usual, len)))
			err = add_option(s, o, value, len);
	}
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
	_cleanup_fd_ int fresh =
		socket((int)s->family, (int)s->type | SOCK_CLOEXEC, (int)s->protocol);

	if (fresh < 0)
		return fail(-errno, "make a socket to compare with");
	s->send_buffer = (uint32_t)get_int(fd, SOL_SOCKET, SO_SNDBUF);
	s->receive_buffer = (uint32_t)get_int(fd, SOL_SOCKET, SO_RCVBUF);
	s->buffer_lock = (uint32_t)get_int(fd, SOL_SOCKET, SO_BUF_LOCK);
	return compare_options(fd, fresh, s);
}

/* ---- restart ---- */

static const struct option *known(const Icp__InetSocket *s, const Icp__InetOption *msg)
{
	for (size_t i = 0; i < N_OPTIONS; i++)
		if ((uint32_t)options[i].level == msg->level &&
		    (uint32_t)options[i].name == msg->name && is_for(&options[i], s))
			return &options[i];
	return NULL;
}

static bool is_set(int fd, const struct option *o, const Icp__InetOption *msg)
{
	char value[VALUE_MAX];

	return read_option(fd, o, value) == msg->value.len &&
	       !memcmp(value, msg->value.data, msg->value.len);
}

static int set_when(int fd, const Icp__InetSocket *s, unsigned when)
{
	for (size_t i = 0; i < s->n_options; i++) {
		const Icp__InetOption *msg = s->options[i];
		const struct option *o = known(s, msg);

		if (!o || o->when != when || is_set(fd, o, msg))
			continue;
		if (setsockopt(fd, o->level, o->name, msg->value.data,
			       (socklen_t)msg->value.len))
			return fail(-errno, "set option %d of level %d of a socket", o->name,
				    o->level);
	}
	return 0;
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
