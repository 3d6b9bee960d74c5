// SPDX-License-Identifier: GPL-2.0
/*
 * Netlink sockets of protocols that keep nothing about a socket but its groups. Answers and
 * announcements that wait to be read are lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "state/inet.h"

#define GROUP_WORDS 32

static int check(struct state_process *p, const struct fd_info *f)
{
	_cleanup_fd_ int fd = fd_borrow(p, f->fd);
	int protocol = -1, err = fd < 0 ? fd : inet_check(p, f);
	socklen_t len = sizeof(protocol);

	if (err)
		return err;
	if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len))
		return fail(-errno, "look at a socket");
	switch (protocol) {
	case NETLINK_ROUTE:
	case NETLINK_SOCK_DIAG:
	case NETLINK_KOBJECT_UEVENT:
	case NETLINK_GENERIC:
		return 0;
	default:
		return refuse(-EOPNOTSUPP, "a netlink socket of protocol %d", protocol);
	}
}

static int dump(struct state_process *p, struct file_jobs *jobs, struct description *d)
{
	_cleanup_fd_ int fd = fd_borrow(p, d->info.fd);
	uint32_t words[GROUP_WORDS] = {0};
	socklen_t len = sizeof(words);
	Icp__InetSocket *s = NULL;
	int err = fd < 0 ? fd : inet_dump(fd, &s);

	d->note = s;
	if (err)
		return err;
	if (getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, words, &len) ||
	    len > sizeof(words))
		return fail(-errno, "list the groups of a netlink socket");
	s->memberships = calloc(GROUP_WORDS * 32, sizeof(*s->memberships));
	if (!s->memberships)
		return fail(-ENOMEM, "note a socket");
	for (uint32_t i = 0; i < len * 8; i++)
		if (words[i / 32] & 1u << i % 32)
			s->memberships[s->n_memberships++] = i + 1;
	return 0;
}

static int make(const Icp__InetSocket *s, uint32_t flags)
{
	_cleanup_fd_ int fd = -1;
	struct sockaddr_nl a = {.nl_family = AF_NETLINK};
	int err;

	if (s->family != AF_NETLINK || s->name.len != sizeof(a))
		return refuse(-EBADMSG, "a netlink socket of the image makes no sense");
	fd = inet_open(s, false);
	if (fd < 0)
		return fd;
	memcpy(&a, s->name.data, sizeof(a));
	a.nl_groups = 0;
	if (a.nl_pid && bind(fd, (struct sockaddr *)&a, sizeof(a)))
		return fail(-errno, "bind a netlink socket to %u", a.nl_pid);
	for (size_t i = 0; i < s->n_memberships; i++) {
		int group = (int)s->memberships[i];

		if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)))
			return fail(-errno, "join group %d of a netlink socket", group);
	}
	err = inet_set_options(fd, s);
	if (!err)
		err = inet_set_last(fd, s);
	if (!err && fcntl(fd, F_SETFL, (int)flags & O_NONBLOCK))
		err = fail(-errno, "set a socket's flags");
	return err ? err : take_fd(&fd);
}

static int open_netlink(struct restore_job *job, const Icp__OpenFile *f)
{
	Icp__InetSocket *s = NULL;
	int err = inet_unpack(f, &s), fd = err ? err : make(s, f->flags);

	inet_free(s);
	return fd;
}

const struct fd_kind fd_netlink = {
	.kind = FILE_NETLINK,
	.text = "a netlink socket",
	.check = check,
	.dump = dump,
	.finish = inet_finish,
	.free_note = inet_free,
	.open = open_netlink,
};
