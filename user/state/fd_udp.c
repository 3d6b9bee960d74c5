// SPDX-License-Identifier: GPL-2.0
/*
 * UDP sockets: what they are bound and connected to, options, multicast groups. Datagrams that
 * wait to be read are lost, as they may be at any time.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "state/inet.h"

static int check(struct state_process *p, const struct fd_info *f)
{
	_cleanup_fd_ int fd = fd_borrow(p, f->fd);
	int err = fd < 0 ? fd : inet_check(p, f);

	return err ? err : inet_check_zerocopy(fd);
}

static int dump(struct state_process *p, struct file_jobs *jobs, struct description *d)
{
	_cleanup_fd_ int fd = fd_borrow(p, d->info.fd);
	Icp__InetSocket *s = NULL;
	int err = fd < 0 ? fd : inet_dump(fd, &s);

	d->note = s;
	return err ? err : inet_dump_groups(fd, s);
}

static int unpack(const Icp__OpenFile *f, Icp__InetSocket **out)
{
	int err = inet_unpack(f, out);

	if (!err && ((*out)->family == AF_NETLINK || (*out)->type != SOCK_DGRAM))
		err = refuse(-EBADMSG, "a UDP socket of the image makes no sense");
	return err;
}

static int verify(struct restore_job *job, const Icp__OpenFile *f)
{
	Icp__InetSocket *s = NULL;
	int err = unpack(f, &s);

	if (!err)
		err = inet_check_address(s);
	inet_free(s);
	return err;
}

static int connect_to(int fd, const Icp__InetSocket *s)
{
	union address a;
	socklen_t len = inet_address(&s->peer, &a);
	char text[80];

	return len && connect(fd, &a.any, len)
		       ? fail(-errno, "connect a socket to %s", inet_text(&s->peer, text))
		       : 0;
}

static int make(const Icp__InetSocket *s, uint32_t flags)
{
	_cleanup_fd_ int fd = inet_open(s, inet_reuses(s));
	int err = fd < 0 ? fd : inet_bind(fd, s);

	if (!err)
		err = inet_set_options(fd, s);
	if (!err)
		err = inet_set_groups(fd, s);
	if (!err)
		err = connect_to(fd, s);
	if (!err && fcntl(fd, F_SETFL, (int)flags & O_NONBLOCK))
		err = fail(-errno, "set a socket's flags");
	return err ? err : take_fd(&fd);
}

static int open_udp(struct restore_job *job, const Icp__OpenFile *f)
{
	Icp__InetSocket *s = NULL;
	int err = unpack(f, &s), fd = err ? err : make(s, f->flags);

	inet_free(s);
	return fd;
}

/* SO_REUSEADDR too: sockets of the job may share an address with its help. */
static int late(struct restore_job *job, const Icp__OpenFile *f, int fd)
{
	Icp__InetSocket *s = NULL;
	int err = unpack(f, &s);

	if (!err)
		err = inet_set_last(fd, s);
	inet_free(s);
	return err;
}

const struct fd_kind fd_udp = {
	.kind = FILE_UDP,
	.text = "a UDP socket",
	.check = check,
	.dump = dump,
	.finish = inet_finish,
	.free_note = inet_free,
	.verify = verify,
	.open = open_udp,
	.late = late,
};
