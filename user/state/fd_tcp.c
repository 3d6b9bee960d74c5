// SPDX-License-Identifier: GPL-2.0
/*
 * TCP sockets. A connection is read while its owners are frozen and the network is not: what
 * arrives is still acknowledged. So
 *
 *  - of a connection whose job goes on, numbers and data are of one moment, which is all that is
 *    wanted: the version is of use as long as the peer hasn't gone on (or is in the job),
 *  - of one whose job is killed to be moved, its packets are held back before it is read,
 *  - both ends in the job: neither may have forgotten what the other one hasn't got. Whoever was
 *    read first is read again until that holds; frozen, they come to rest by themselves.
 *
 * Connections that wait to be accepted are lost.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "inject/repair.h"
#include "state/sock_diag.h"
#include "state/tcp.h"

#define SEND_MAX (8u << 20) /* what a connection may have in its queues */
#define RECEIVE_MAX (48u << 20)
#define TRIES 100

#ifndef TCP_ULP
#define TCP_ULP 31
#endif

struct end {
	pid_t pid;
	int fd;
	Icp__InetSocket *s;
};

struct ends {
	VEC(struct end) list;
	size_t read; /* how many of them are */
};

static void free_ends(void *slot)
{
	struct ends *ends = slot;

	vec_free(&ends->list);
	free(ends);
}

int tcp_may_repair(void)
{
	_cleanup_fd_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0)
		return -errno;
	return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) ? -EPERM : 0;
}

static uint32_t state_of(int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) ? 0 : info.tcpi_state;
}

/* All of it goes into the manifest. */
static int check_room(uint32_t bytes, const char *what, uint32_t most)
{
	return bytes > most ? refuse(-E2BIG,
				     "%u bytes wait to be %s a connection, which is too much: "
				     "--tcp-close saves it closed",
				     bytes, what)
			    : 0;
}

static int check_received(uint32_t bytes)
{
	return check_room(bytes, "read from", RECEIVE_MAX);
}

static int check_to_send(uint32_t bytes)
{
	return check_room(bytes, "sent by", SEND_MAX);
}

/* Does the kernel count all that was received? More may come meanwhile, which is counted then. */
static int counts_all(int fd, const Icp__InetSocket *s, bool *out)
{
	uint32_t received = 0;
	int counted = 0, err = tcp_diag_received(s, &received);

	*out = true;
	if (err == -ENOENT) /* it has ended meanwhile */
		return 0;
	if (err)
		return fail(err, "look at a connection");
	if (ioctl(fd, SIOCINQ, &counted))
		return fail(-errno, "look at a connection");
	*out = received <= (uint32_t)counted + tcp_read_ended(state_of(fd));
	return 0;
}

/*
 * It counts only what is in front of an urgent byte, and lets nobody look beyond. The program, if
 * it runs, may read meanwhile; not each time.
 */
static int check_urgent(int fd, const Icp__InetSocket *s)
{
	struct pollfd look = {.fd = fd, .events = POLLPRI};
	bool all = false;
	int err = 0;

	if (poll(&look, 1, 0) < 0)
		return fail(-errno, "look at a connection");
	for (int i = 0; i < TRIES && !err && !all; i++)
		err = counts_all(fd, s, &all);
	if (err)
		return err;
	return look.revents & POLLPRI || !all
		       ? refuse(-EOPNOTSUPP, "a TCP connection with urgent data (MSG_OOB)")
		       : 0;
}

static int check_connection(int fd)
{
	int received = 0, to_send = 0, err;
	Icp__InetSocket *s = NULL;

	if (ioctl(fd, SIOCINQ, &received) || ioctl(fd, SIOCOUTQ, &to_send))
		return 0;
	err = check_received((uint32_t)received);
	if (!err)
		err = check_to_send((uint32_t)to_send);
	if (!err)
		err = inet_check_zerocopy(fd);
	if (!err)
		err = inet_dump_names(fd, &s);
	if (!err)
		err = check_urgent(fd, s);
	inet_free(s);
	return err;
}

static int check(struct state_process *p, const struct fd_info *f)
{
	_cleanup_fd_ int fd = fd_borrow(p, f->fd);
	char ulp[16] = "";
	socklen_t len = sizeof(ulp);
	int err;

	if (fd < 0)
		return fd;
	err = inet_check(p, f);
	if (err)
		return err;
	if (!getsockopt(fd, IPPROTO_TCP, TCP_ULP, ulp, &len) && len && ulp[0])
		return refuse(-EOPNOTSUPP, "a TCP socket whose data the kernel changes");
	if (p->job->how.tcp_close || !tcp_is_connected(state_of(fd)))
		return 0;
	if (tcp_may_repair())
		return refuse(-EOPNOTSUPP, "a TCP connection, and CAP_NET_ADMIN is missing");
	if (p->job->how.kill && !inet_can_hold())
		return refuse(-EOPNOTSUPP,
			      "a TCP connection, and nft (package nftables) is missing, which "
			      "holds its packets back");
	return check_connection(fd);
}

/* ---- one connection ---- */

static int read_data(int fd, uint32_t len, ProtobufCBinaryData *out)
{
	ssize_t got;
	int err = check_received(len);

	if (err)
		return err;
	free(out->data);
	out->len = 0;
	out->data = malloc(len + 1u);
	if (!out->data)
		return fail(-ENOMEM, "note a connection");
	out->len = len;
	got = len ? recv(fd, out->data, len, MSG_PEEK | MSG_DONTWAIT) : 0;
	return got == (ssize_t)len ? 0 : fail(got < 0 ? -errno : -EIO, "read a connection");
}

static int look_at_end(int fd, Icp__InetSocket *s)
{
	struct pollfd look = {.fd = fd, .events = POLLRDHUP};

	if (poll(&look, 1, 0) < 0)
		return fail(-errno, "look at a socket");
	/* a socket that was never connected isn't shut */
	s->read_shut = look.revents & POLLRDHUP;
	s->error = look.revents & POLLERR;
	return 0;
}

/* What a connection that is over has left. */
static int read_unread(int fd, Icp__InetSocket *s)
{
	int unread = 0;

	if (ioctl(fd, SIOCINQ, &unread))
		return fail(-errno, "look at a socket");
	return read_data(fd, (uint32_t)unread, &s->unread);
}

static void note_state(const struct repair_state *r, Icp__TcpStream *t)
{
	t->rcv_nxt = r->rcv_nxt;
	t->write_seq = r->write_seq;
	t->unsent = r->unsent;
	t->mss = r->mss;
	t->snd_wl1 = r->window.snd_wl1;
	t->snd_wnd = r->window.snd_wnd;
	t->max_window = r->window.max_window;
	t->rcv_wnd = r->window.rcv_wnd;
	t->rcv_wup = r->window.rcv_wup;
}

static int note_options(int fd, Icp__TcpStream *t)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info), clock_len = sizeof(t->timestamp);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) ||
	    getsockopt(fd, IPPROTO_TCP, TCP_TIMESTAMP, &t->timestamp, &clock_len))
		return fail(-errno, "look at a connection");
	t->options = info.tcpi_options;
	t->snd_wscale = info.tcpi_snd_wscale;
	t->rcv_wscale = info.tcpi_rcv_wscale;
	return 0;
}

/* A connection that is being read. */
struct reading {
	struct end *end;
	int fd, reuse;
	struct repair_state state;
};

static int open_end(const struct end *e)
{
	_cleanup_fd_ int pidfd = (int)syscall(SYS_pidfd_open, e->pid, 0);
	int fd = -1;

	if (pidfd >= 0)
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, e->fd, 0);
	return fd < 0 ? fail(-errno, "look into descriptor %d", e->fd) : fd;
}

static int begin_reading(struct reading *r, struct warden_repair *ask)
{
	ProtobufCBinaryData *to_send = &r->end->s->stream->to_send;
	socklen_t len = sizeof(r->reuse);
	int bytes = 0, err;

	r->fd = open_end(r->end);
	if (r->fd < 0)
		return r->fd;
	if (ioctl(r->fd, SIOCOUTQ, &bytes) ||
	    getsockopt(r->fd, SOL_SOCKET, SO_REUSEADDR, &r->reuse, &len))
		return fail(-errno, "look at a connection");
	err = check_to_send((uint32_t)bytes);
	if (err)
		return err;
	free(to_send->data);
	to_send->len = 0;
	to_send->data = malloc((size_t)bytes + 1);
	if (!to_send->data)
		return fail(-ENOMEM, "note a connection");
	*ask = (struct warden_repair){r->end->pid, r->end->fd, &r->state, to_send->data,
				      (size_t)bytes};
	return 0;
}

static int finish_reading(struct reading *r)
{
	Icp__InetSocket *s = r->end->s;
	Icp__TcpStream *t = s->stream;
	int err;

	t->to_send.len = r->state.to_send;
	/* the end of the other side may have come meanwhile */
	s->state = state_of(r->fd);
	if (!tcp_is_connected(s->state)) { /* reset in this moment */
		icp__tcp_stream__free_unpacked(t, NULL);
		s->stream = NULL;
		err = look_at_end(r->fd, s);
		return err || !s->read_shut ? err : read_unread(r->fd, s);
	}
	note_state(&r->state, t);
	err = check_urgent(r->fd, s);
	if (!err)
		err = read_data(r->fd, r->state.to_read, &t->received);
	return err ? err : note_options(r->fd, t);
}

/* Of at most WARDEN_REPAIRS. The warden does what must not be left half done; if it has died, its
 * second should have ended it. */
static int read_streams(struct state_process *p, struct end *ends, size_t n)
{
	struct warden_repair asks[WARDEN_REPAIRS];
	struct reading list[WARDEN_REPAIRS];
	size_t begun = 0;
	int err = 0, failed;

	while (begun < n && !err) {
		list[begun] = (struct reading){.end = &ends[begun], .fd = -1};
		err = begin_reading(&list[begun], &asks[begun]);
		begun++;
	}
	if (!err) {
		err = failed = warden_repair(p->warden, asks, n);
		for (size_t i = 0; i < n && failed; i++)
			repair_end(list[i].fd, list[i].reuse);
	}
	for (size_t i = 0; i < n && !err; i++)
		err = finish_reading(&list[i]);
	for (size_t i = 0; i < begun; i++)
		cleanup_fd(&list[i].fd);
	return err;
}

/* ---- both ends in the job ---- */

static bool is_same(const ProtobufCBinaryData *a, const ProtobufCBinaryData *b)
{
	return a->len && a->len == b->len && !memcmp(a->data, b->data, a->len);
}

/* Among those before @of. */
static struct end *find_peer(struct ends *ends, const struct end *of)
{
	for (struct end *e = ends->list.data; e < of; e++)
		if (e->s->stream && is_same(&e->s->name, &of->s->peer) &&
		    is_same(&e->s->peer, &of->s->name))
			return e;
	return NULL;
}

static uint32_t unacknowledged(const struct end *e)
{
	const Icp__TcpStream *t = e->s->stream;

	return t->write_seq - (uint32_t)t->to_send.len -
	       (e->s->state == TCP_FIN_WAIT1 || e->s->state == TCP_CLOSING ||
		e->s->state == TCP_LAST_ACK);
}

/* @from has forgotten nothing that @to hasn't got. */
static bool is_covered(const struct end *from, const struct end *to)
{
	return (int32_t)(to->s->stream->rcv_nxt - unacknowledged(from)) >= 0;
}

/* What the other end has was sent, maybe after we looked. */
static void note_arrived(struct end *from, const struct end *to)
{
	Icp__TcpStream *t = from->s->stream;
	uint32_t arrived = to->s->stream->rcv_nxt;

	if ((int32_t)(arrived - (t->write_seq - t->unsent)) > 0)
		t->unsent = t->write_seq - arrived;
}

static int settle_pair(struct state_process *p, struct end *a, struct end *b)
{
	for (int i = 0; i < TRIES && a->s->stream && b->s->stream; i++) {
		int err = 0;

		if (!is_covered(b, a))
			err = read_streams(p, a, 1);
		else if (!is_covered(a, b))
			err = read_streams(p, b, 1);
		else
			break;
		if (err)
			return err;
	}
	if (!a->s->stream || !b->s->stream)
		return 0;
	if (!is_covered(a, b) || !is_covered(b, a))
		return refuse(-EAGAIN, "a connection within the job doesn't come to rest");
	note_arrived(a, b);
	note_arrived(b, a);
	return 0;
}

/* It is read with the others of its process, in dumped(). */
static int note_stream(struct state_process *p, struct file_jobs *jobs,
		       const struct description *d, int fd, Icp__InetSocket *s)
{
	void **slot = file_jobs_slot(jobs, FILE_TCP);
	struct end *e = NULL;
	struct ends *ends;
	const char *table;
	int err = 0;

	if (p->job->how.kill) {
		table = inet_hold(p, &err);
		if (!err)
			err = inet_hold_keep(p, fd);
		if (err)
			return err;
		s->held = strdup(table);
	}
	s->stream = malloc(sizeof(*s->stream));
	if (s->stream)
		icp__tcp_stream__init(s->stream);
	if (!*slot)
		*slot = calloc(1, sizeof(*ends));
	ends = *slot;
	if (ends)
		e = vec_push(&ends->list);
	if (!s->stream || !e || (p->job->how.kill && !s->held))
		return fail(-ENOMEM, "note a connection");
	*e = (struct end){p->target->pid, d->info.fd, s};
	return 0;
}

/* With an end of it that was read before. */
static int settle(struct state_process *p, struct ends *ends, struct end *e)
{
	struct end *peer = e->s->stream ? find_peer(ends, e) : NULL;

	return peer ? settle_pair(p, peer, e) : 0;
}

static int dumped(struct state_process *p, struct file_jobs *jobs)
{
	struct ends *ends = *file_jobs_slot(jobs, FILE_TCP);
	int err = 0;

	while (ends && ends->read < ends->list.n && !err) {
		struct end *from = &ends->list.data[ends->read];
		size_t n = ends->list.n - ends->read;

		if (n > WARDEN_REPAIRS)
			n = WARDEN_REPAIRS;
		err = read_streams(p, from, n);
		for (size_t i = 0; i < n && !err; i++)
			err = settle(p, ends, from + i);
		ends->read += n;
	}
	return err;
}

/* ---- any TCP socket ---- */

/* Whom it is about to connect to. */
static int note_wanted(const struct fd_info *f, Icp__InetSocket *s)
{
	union address a;
	int err = tcp_diag_peer(f->st.st_ino, s->family, &a);

	if (err == -ENOENT) /* in this moment it was answered */
		return refuse(-EAGAIN, "a connection comes up just now: try again");
	if (err)
		return fail(err, "look at a connection that comes up");
	return inet_bytes(&s->peer, &a,
			  a.any.sa_family == AF_INET ? sizeof(a.v4) : sizeof(a.v6));
}

static int dump(struct state_process *p, struct file_jobs *jobs, struct description *d)
{
	_cleanup_fd_ int fd = fd_borrow(p, d->info.fd);
	Icp__InetSocket *s = NULL;
	int err = fd < 0 ? fd : inet_dump(fd, &s);

	d->note = s;
	if (err)
		return err;
	err = look_at_end(fd, s);
	if (!err && s->state == TCP_SYN_SENT)
		err = note_wanted(&d->info, s);
	if (err)
		return err;
	if (p->job->how.no_restart || (!tcp_is_connected(s->state) && !s->read_shut))
		return 0;
	if (tcp_is_connected(s->state) && !p->job->how.tcp_close)
		return note_stream(p, jobs, d, fd, s);
	return read_unread(fd, s);
}

const struct fd_kind fd_tcp = {
	.kind = FILE_TCP,
	.text = "a TCP socket",
	.check = check,
	.dump = dump,
	.dumped = dumped,
	.finish = inet_finish,
	.free_note = inet_free,
	.free_slot = free_ends,
	.verify = tcp_verify,
	.open = tcp_open,
	.late = tcp_late,
};
