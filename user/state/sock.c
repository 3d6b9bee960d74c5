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

/* In the order in which they are set. */
static const struct {
	int name;
	const char *text;
} options[] = {
	{SO_SNDBUF, "SO_SNDBUF"},
	{SO_RCVBUF, "SO_RCVBUF"},
	{SO_BUF_LOCK, "SO_BUF_LOCK"},
	{SO_REUSEADDR, "SO_REUSEADDR"},
	{SO_REUSEPORT, "SO_REUSEPORT"},
	{SO_DONTROUTE, "SO_DONTROUTE"},
	{SO_BROADCAST, "SO_BROADCAST"},
	{SO_KEEPALIVE, "SO_KEEPALIVE"},
	{SO_OOBINLINE, "SO_OOBINLINE"},
	{SO_NO_CHECK, "SO_NO_CHECK"},
	{SO_PRIORITY, "SO_PRIORITY"},
	{SO_MARK, "SO_MARK"},
	{SO_LINGER, "SO_LINGER"},
	{SO_RCVLOWAT, "SO_RCVLOWAT"},
	{SO_RCVTIMEO, "SO_RCVTIMEO"},
	{SO_SNDTIMEO, "SO_SNDTIMEO"},
	{SO_PASSCRED, "SO_PASSCRED"},
	{SO_PASSSEC, "SO_PASSSEC"},
	{SO_PASSPIDFD, "SO_PASSPIDFD"},
	{SO_PASSRIGHTS, "SO_PASSRIGHTS"},
	{SO_BINDTODEVICE, "SO_BINDTODEVICE"},
	{SO_TIMESTAMP_OLD, "SO_TIMESTAMP"},
	{SO_TIMESTAMPNS_OLD, "SO_TIMESTAMPNS"},
	{SO_TIMESTAMP_NEW, "SO_TIMESTAMP"},
	{SO_TIMESTAMPNS_NEW, "SO_TIMESTAMPNS"},
	{SO_TIMESTAMPING_OLD, "SO_TIMESTAMPING"},
	{SO_RXQ_OVFL, "SO_RXQ_OVFL"},
	{SO_SELECT_ERR_QUEUE, "SO_SELECT_ERR_QUEUE"},
	{SO_BUSY_POLL, "SO_BUSY_POLL"},
	{SO_MAX_PACING_RATE, "SO_MAX_PACING_RATE"},
	{SO_ZEROCOPY, "SO_ZEROCOPY"},
	{SO_TXTIME, "SO_TXTIME"},
	{SO_RCVMARK, "SO_RCVMARK"},
	{SO_ATTACH_FILTER, "SO_ATTACH_FILTER"},
	{SO_LOCK_FILTER, "SO_LOCK_FILTER"},
	{SO_PEEK_OFF, "SO_PEEK_OFF"},
};
#define OPTIONS (sizeof(options) / sizeof(*options))

static const char *known(uint32_t name)
{
	for (size_t i = 0; i < OPTIONS; i++)
		if ((uint32_t)options[i].name == name)
			return options[i].text;
	return NULL;
}

/* This family or kernel has no such thing. */
static bool is_absent(int err)
{
	return err == ENOPROTOOPT || err == EOPNOTSUPP || err == EINVAL || err == EPERM;
}

/* ---- dump ---- */

static int add(Icp__Socket *out, int level, int name, const void *value, size_t len)
{
	Icp__SocketOption **grown =
		realloc(out->options, (out->n_options + 1) * sizeof(*grown));
	Icp__SocketOption *o = grown ? malloc(sizeof(*o)) : NULL;

	if (grown)
		out->options = grown;
	if (!o)
		return fail(-ENOMEM, "note a socket");
	icp__socket_option__init(o);
	grown[out->n_options++] = o;
	o->level = (uint32_t)level;
	o->name = (uint32_t)name;
	o->value.data = malloc(len + 1);
	if (!o->value.data)
		return fail(-ENOMEM, "note a socket");
	memcpy(o->value.data, value, len);
	o->value.len = len;
	return 0;
}

int sock_dump_option(int fd, int level, int name, Icp__Socket *out)
{
	char value[VALUE_MAX];
	socklen_t len = sizeof(value);

	if (getsockopt(fd, level, name, value, &len))
		return is_absent(errno) ? 0 : fail(-errno, "option %d of a socket", name);
	return add(out, level, name, value, len);
}

/* SO_GET_FILTER counts instructions. */
static int dump_filter(int fd, Icp__Socket *out)
{
	struct sock_filter code[FILTER_MAX];
	socklen_t n = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &n))
		return is_absent(errno) ? 0 : fail(-errno, "the filter of a socket");
	if (!n)
		return 0;
	if (n > FILTER_MAX || getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, code, &n))
		return fail(-errno, "the filter of a socket");
	return add(out, SOL_SOCKET, SO_ATTACH_FILTER, code, n * sizeof(*code));
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
	for (size_t i = 0; i < OPTIONS && !err; i++)
		err = options[i].name == SO_ATTACH_FILTER
			      ? dump_filter(fd, out)
			      : sock_dump_option(fd, SOL_SOCKET, options[i].name, out);
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
		bool filter = o->level == SOL_SOCKET && o->name == SO_ATTACH_FILTER;

		if ((o->level != (uint32_t)level &&
		     (o->level != SOL_SOCKET || !known(o->name))) ||
		    o->value.len >
			    (filter ? FILTER_MAX * sizeof(struct sock_filter) : VALUE_MAX))
			return refuse(-EBADMSG, "an option of a socket makes no sense");
	}
	*out = take_ptr(s);
	return 0;
}

static int attach_filter(int fd, const Icp__SocketOption *o)
{
	struct sock_fprog prog = {
		.len = (unsigned short)(o->value.len / sizeof(struct sock_filter)),
		.filter = (struct sock_filter *)o->value.data};

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

static bool is_set(int fd, const Icp__SocketOption *o)
{
	char value[VALUE_MAX];
	socklen_t len = sizeof(value);

	return !getsockopt(fd, (int)o->level, (int)o->name, value, &len) &&
	       len == o->value.len && !memcmp(value, o->value.data, len);
}

static int set_option(int fd, const Icp__SocketOption *o)
{
	int size;

	if (o->level == SOL_SOCKET && o->name == SO_ATTACH_FILTER)
		return attach_filter(fd, o);
	if (is_set(fd, o))
		return 0;
	if (o->level == SOL_SOCKET && (o->name == SO_SNDBUF || o->name == SO_RCVBUF) &&
	    o->value.len == sizeof(size)) {
		memcpy(&size, o->value.data, sizeof(size));
		size = set_size(fd, (int)o->name, size);
		return size ? fail(size, "set %s of a socket", known(o->name)) : 0;
	}
	if (setsockopt(fd, (int)o->level, (int)o->name, o->value.data, (socklen_t)o->value.len))
		return fail(-errno, "set option %u of a socket", o->name);
	return 0;
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
