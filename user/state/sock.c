// SPDX-License-Identifier: GPL-2.0
#include "state/sock.h"

#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif
#define VALUE_MAX 64
#define FILTER_MAX 4096

#define OPTION(name, who, when)                                                                \
	{                                                                                      \
		SOL_SOCKET, name, who, when, #name                                             \
	}

/* In the order in which they are set. Of inet sockets buffers are a matter of their own. */
const struct sock_option sock_options[] = {
	OPTION(SO_SNDBUF, SOCK_UNIX, 0),
	OPTION(SO_RCVBUF, SOCK_UNIX, 0),
	OPTION(SO_BUF_LOCK, SOCK_UNIX, 0),
	OPTION(SO_DEBUG, SOCK_ALL & ~SOCK_UNIX, 0),
	OPTION(SO_REUSEADDR, SOCK_INET | SOCK_UNIX, SOCK_LAST),
	OPTION(SO_REUSEPORT, SOCK_ALL, SOCK_EARLY),
	OPTION(SO_DONTROUTE, SOCK_INET | SOCK_UNIX, 0),
	OPTION(SO_BROADCAST, SOCK_ALL, 0),
	OPTION(SO_KEEPALIVE, SOCK_TCP | SOCK_UNIX, 0),
	OPTION(SO_OOBINLINE, SOCK_TCP | SOCK_UNIX, 0),
	OPTION(SO_NO_CHECK, SOCK_UDP | SOCK_UNIX, 0),
	OPTION(SO_PRIORITY, SOCK_ALL, SOCK_LAST), /* IP_TOS changes it */
	OPTION(SO_MARK, SOCK_ALL, SOCK_EARLY),
	OPTION(SO_LINGER, SOCK_TCP | SOCK_UNIX, 0),
	OPTION(SO_RCVLOWAT, SOCK_ALL, 0),
	OPTION(SO_RCVTIMEO, SOCK_ALL, 0),
	OPTION(SO_SNDTIMEO, SOCK_ALL, 0),
	OPTION(SO_PASSCRED, SOCK_NETLINK | SOCK_UNIX, 0),
	OPTION(SO_PASSSEC, SOCK_NETLINK | SOCK_UNIX, 0),
	OPTION(SO_PASSPIDFD, SOCK_UNIX, 0),
	OPTION(SO_PASSRIGHTS, SOCK_UNIX, 0),
	OPTION(SO_BINDTODEVICE, SOCK_INET | SOCK_UNIX, SOCK_EARLY),
	OPTION(SO_TIMESTAMP_OLD, SOCK_ALL, 0),
	OPTION(SO_TIMESTAMPNS_OLD, SOCK_ALL, 0),
	OPTION(SO_TIMESTAMP_NEW, SOCK_ALL, 0),
	OPTION(SO_TIMESTAMPNS_NEW, SOCK_ALL, 0),
	OPTION(SO_TIMESTAMPING_OLD, SOCK_INET | SOCK_UNIX, 0),
	OPTION(SO_RXQ_OVFL, SOCK_ALL, 0),
	OPTION(SO_SELECT_ERR_QUEUE, SOCK_ALL, 0),
	OPTION(SO_BUSY_POLL, SOCK_INET | SOCK_UNIX, 0),
	OPTION(SO_MAX_PACING_RATE, SOCK_INET | SOCK_UNIX, 0),
	OPTION(SO_ZEROCOPY, SOCK_INET | SOCK_UNIX, 0),
	OPTION(SO_TXTIME, SOCK_UDP | SOCK_UNIX, 0),
	OPTION(SO_RCVMARK, SOCK_ALL, 0),
	OPTION(SO_ATTACH_FILTER, SOCK_ALL, 0),
	OPTION(SO_LOCK_FILTER, SOCK_ALL, 0),
	OPTION(SO_PEEK_OFF, SOCK_UDP | SOCK_UNIX, 0),
};
const size_t sock_n_options = sizeof(sock_options) / sizeof(*sock_options);
_Static_assert(sizeof(sock_options) / sizeof(*sock_options) <= SOCK_OPTIONS_MAX, "");

static const struct sock_option *of_unix(uint32_t name)
{
	for (size_t i = 0; i < sock_n_options; i++)
		if ((uint32_t)sock_options[i].name == name && sock_options[i].who & SOCK_UNIX)
			return &sock_options[i];
	return NULL;
}

/* This family or kernel has no such thing, or this state of a socket. */
static bool is_absent(int err)
{
	return err == ENOPROTOOPT || err == EOPNOTSUPP || err == EINVAL || err == EPERM ||
	       err == ENOTCONN;
}

static bool is_filter(int level, int name)
{
	return level == SOL_SOCKET && name == SO_ATTACH_FILTER;
}

/* SO_GET_FILTER counts instructions. */
static socklen_t filter_size(int fd)
{
	socklen_t n = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &n))
		return 0;
	return n < FILTER_MAX ? n : FILTER_MAX;
}

int sock_get(int fd, int level, int name, ProtobufCBinaryData *out)
{
	bool filter = is_filter(level, name);
	socklen_t n = filter ? filter_size(fd) : VALUE_MAX;
	size_t unit = filter ? sizeof(struct sock_filter) : 1;

	out->len = 0;
	out->data = calloc(n + 1, unit);
	if (!out->data)
		return fail(-ENOMEM, "note a socket");
	if (!n || !getsockopt(fd, level, filter ? SO_GET_FILTER : name, out->data, &n)) {
		out->len = n * unit;
		return 0;
	}
	return is_absent(errno)
		       ? 0
		       : fail(-errno, "option %d of level %d of a socket", name, level);
}

/* ---- dump ---- */

static int add(int fd, const struct sock_option *option, Icp__Socket *out)
{
	Icp__SocketOption **grown =
		realloc(out->options, (out->n_options + 1) * sizeof(*grown));
	Icp__SocketOption *o = grown ? malloc(sizeof(*o)) : NULL;
	int err;

	if (grown)
		out->options = grown;
	if (!o)
		return fail(-ENOMEM, "note a socket");
	icp__socket_option__init(o);
	grown[out->n_options++] = o;
	o->level = (uint32_t)option->level;
	o->name = (uint32_t)option->name;
	err = sock_get(fd, option->level, option->name, &o->value);
	if (err || o->value.len)
		return err;
	free(o->value.data);
	free(o);
	out->n_options--;
	return 0;
}

static int number(int fd, int name, uint32_t *out)
{
	int value = 0;
	socklen_t len = sizeof(value);

	if (getsockopt(fd, SOL_SOCKET, name, &value, &len))
		return fail(-errno, "look at a socket");
	*out = (uint32_t)value;
	return 0;
}

int sock_dump(int fd, Icp__Socket *out)
{
	int err;

	icp__socket__init(out);
	err = number(fd, SO_DOMAIN, &out->family);
	if (!err)
		err = number(fd, SO_TYPE, &out->type);
	if (!err)
		err = number(fd, SO_PROTOCOL, &out->protocol);
	for (size_t i = 0; i < sock_n_options && !err; i++)
		if (sock_options[i].who & SOCK_UNIX)
			err = add(fd, &sock_options[i], out);
	return err;
}

void sock_free(Icp__Socket *s)
{
	for (size_t i = 0; i < s->n_options; i++) {
		free(s->options[i]->value.data);
		free(s->options[i]);
	}
	free(s->options);
	s->options = NULL;
	s->n_options = 0;
}

int sock_check(int fd)
{
	socklen_t n = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &n) && errno == EACCES)
		return refuse(-EOPNOTSUPP, "a socket with an eBPF filter");
	return 0;
}

/* ---- restart ---- */

int sock_unpack(const Icp__OpenFile *f, int level, Icp__Socket **out)
{
	_cleanup_sock_ Icp__Socket *s = NULL;
	int err = fd_unpack_detail(f, &icp__socket__descriptor, &s);

	if (err)
		return err;
	for (size_t i = 0; i < s->n_options; i++) {
		const Icp__SocketOption *o = s->options[i];
		bool filter = is_filter((int)o->level, (int)o->name);

		if ((o->level != (uint32_t)level &&
		     (o->level != SOL_SOCKET || !of_unix(o->name))) ||
		    o->value.len >
			    (filter ? FILTER_MAX * sizeof(struct sock_filter) : VALUE_MAX))
			return refuse(-EBADMSG, "an option of a socket makes no sense");
	}
	*out = take_ptr(s);
	return 0;
}

static int attach_filter(int fd, const ProtobufCBinaryData *code)
{
	struct sock_fprog prog = {
		.len = (unsigned short)(code->len / sizeof(struct sock_filter)),
		.filter = (struct sock_filter *)code->data};

	if (code->len > FILTER_MAX * sizeof(struct sock_filter))
		return refuse(-EBADMSG, "the filter of a socket makes no sense");
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)))
		return fail(-errno, "attach the filter of a socket");
	return 0;
}

/* What is told is twice what was asked for: socket(7). */
static int set_size(int fd, int name, int bytes)
{
	int force = name == SO_SNDBUF ? SO_SNDBUFFORCE : SO_RCVBUFFORCE, half = bytes / 2;

	if (!setsockopt(fd, SOL_SOCKET, force, &half, sizeof(half)))
		return 0;
	return setsockopt(fd, SOL_SOCKET, name, &half, sizeof(half)) ? -errno : 0;
}

int sock_set_room(int fd, int bytes)
{
	int err = set_size(fd, SO_SNDBUF, bytes);

	return err ? fail(err, "make room in a socket") : 0;
}

int sock_set(int fd, int level, int name, const ProtobufCBinaryData *value)
{
	ProtobufCBinaryData now;
	int err = sock_get(fd, level, name, &now);
	bool same = !err && now.len == value->len && now.len &&
		    !memcmp(now.data, value->data, now.len);

	free(now.data);
	if (same)
		return 0;
	err_clear();
	if (is_filter(level, name))
		return attach_filter(fd, value);
	if (setsockopt(fd, level, name, value->data, (socklen_t)value->len))
		return fail(-errno, "set option %d of level %d of a socket", name, level);
	return 0;
}

static int set_option(int fd, const Icp__SocketOption *o)
{
	int size, now = 0;
	socklen_t len = sizeof(now);

	if (o->level != SOL_SOCKET || (o->name != SO_SNDBUF && o->name != SO_RCVBUF) ||
	    o->value.len != sizeof(size))
		return sock_set(fd, (int)o->level, (int)o->name, &o->value);
	memcpy(&size, o->value.data, sizeof(size));
	if (!getsockopt(fd, SOL_SOCKET, (int)o->name, &now, &len) && now == size)
		return 0;
	size = set_size(fd, (int)o->name, size);
	return size ? fail(size, "set %s of a socket", of_unix(o->name)->text) : 0;
}

int sock_set_options(int fd, const Icp__Socket *s, int level)
{
	int err = 0;

	for (size_t i = 0; i < s->n_options && !err; i++)
		if (s->options[i]->level == SOL_SOCKET ||
		    s->options[i]->level == (uint32_t)level)
			err = set_option(fd, s->options[i]);
	return err;
}
