// SPDX-License-Identifier: GPL-2.0
/*
 * TCP sockets come back. A connection is made in repair mode: no packet goes out until `late`,
 * and if the restart fails before, none ever does.
 *
 * The ends of streams need no packets of the peer's: a socket that had received a FIN counts it
 * in rcv_nxt and is shut for reading; one that had sent a FIN begins before it and sends it again.
 *
 * What comes back closed was a connection over loopback, reset by its other end.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "state/tcp.h"

#define DATA_MAX (64u << 20)
#define CHUNK (64u << 10)
#define ROOM_FOR(len) ((int)(4 * (len) + (128u << 10)))
#define CLOSE_NS 10000000000ull
#define REPAIR_WINDOW 29 /* TCP_REPAIR_WINDOW */

enum { NO_QUEUE, RECV_QUEUE, SEND_QUEUE };
/* Numbers of TCP's options, for TCP_REPAIR_OPTIONS. */
enum { OPT_MSS = 2, OPT_WINDOW = 3, OPT_SACK = 4, OPT_TIMESTAMP = 8 };

static bool comes_back(const struct restore_job *job, const Icp__InetSocket *s)
{
	return s->stream && !job->tcp_close;
}

static int set(int fd, int name, const void *value, size_t len)
{
	return setsockopt(fd, IPPROTO_TCP, name, value, (socklen_t)len)
		       ? fail(-errno, "make a connection (option %d)", name)
		       : 0;
}

static int set_int(int fd, int name, int value)
{
	return set(fd, name, &value, sizeof(value));
}

/* ---- check ---- */

static int unpack(const Icp__OpenFile *f, Icp__InetSocket **out)
{
	int err = inet_unpack(f, out);
	const Icp__InetSocket *s = *out;

	if (err)
		return err;
	if (s->family == AF_NETLINK || s->type != SOCK_STREAM || s->protocol != IPPROTO_TCP ||
	    s->unread.len > DATA_MAX ||
	    (s->stream &&
	     (!tcp_is_connected(s->state) || !s->name.len || !s->peer.len ||
	      s->stream->received.len > DATA_MAX || s->stream->to_send.len > DATA_MAX)))
		return refuse(-EBADMSG, "a TCP socket of the image makes no sense");
	return 0;
}

int tcp_verify(struct restore_job *job, const Icp__OpenFile *f)
{
	Icp__InetSocket *s = NULL;
	int err = unpack(f, &s);

	if (!err && comes_back(job, s) && tcp_may_repair())
		err = refuse(-EPERM, "connections need CAP_NET_ADMIN; with --tcp-close they "
				     "come back closed");
	if (!err && (comes_back(job, s) || !tcp_is_connected(s->state)))
		err = inet_check_address(s);
	inet_free(s);
	return err;
}

/* ---- a connection ---- */

static int connect_to(int fd, const Icp__InetSocket *s)
{
	union address a;
	socklen_t len = inet_address(&s->peer, &a);
	char text[80];

	return connect(fd, &a.any, len) && errno != EINPROGRESS
		       ? fail(-errno, "connect a socket to %s", inet_text(&s->peer, text))
		       : 0;
}

static int set_sequence(int fd, int queue, uint32_t number)
{
	int err = set_int(fd, TCP_REPAIR_QUEUE, queue);

	return err ? err : set(fd, TCP_QUEUE_SEQ, &number, sizeof(number));
}

static int agree_options(int fd, const Icp__TcpStream *t)
{
	struct tcp_repair_opt list[4];
	size_t n = 0;
	int err;

	if (t->options & TCPI_OPT_WSCALE)
		list[n++] = (struct tcp_repair_opt){
			OPT_WINDOW, (t->snd_wscale & 15) | (t->rcv_wscale & 15) << 16};
	if (t->options & TCPI_OPT_SACK)
		list[n++] = (struct tcp_repair_opt){OPT_SACK, 0};
	if (t->options & TCPI_OPT_TIMESTAMPS)
		list[n++] = (struct tcp_repair_opt){OPT_TIMESTAMP, 0};
	list[n++] = (struct tcp_repair_opt){OPT_MSS, t->mss};
	err = set(fd, TCP_REPAIR_OPTIONS, list, n * sizeof(*list));
	if (!err && t->options & TCPI_OPT_TIMESTAMPS)
		err = set(fd, TCP_TIMESTAMP, &t->timestamp, sizeof(t->timestamp));
	return err;
}

static int make_room(int fd, int name, size_t len)
{
	int bytes = ROOM_FOR(len);

	return setsockopt(fd, SOL_SOCKET, name, &bytes, sizeof(bytes))
		       ? fail(-errno, "make room in a connection")
		       : 0;
}

static int push(int fd, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t put =
			send(fd, data, len < CHUNK ? len : CHUNK, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (put <= 0)
			return fail(put ? -errno : -EIO, "fill a connection");
		data += put;
		len -= (size_t)put;
	}
	return 0;
}

/* The last of @t->to_send; of these bytes the peer knows nothing. */
static size_t never_sent(const Icp__InetSocket *s)
{
	const Icp__TcpStream *t = s->stream;
	size_t n = t->unsent;

	if (n && tcp_write_ended(s->state))
		n--; /* the FIN */
	return n < t->to_send.len ? n : t->to_send.len;
}

static int fill_queues(int fd, const Icp__InetSocket *s)
{
	const Icp__TcpStream *t = s->stream;
	int err = make_room(fd, SO_RCVBUFFORCE, t->received.len);

	if (!err)
		err = make_room(fd, SO_SNDBUFFORCE, t->to_send.len);
	if (!err)
		err = set_int(fd, TCP_REPAIR_QUEUE, RECV_QUEUE);
	if (!err)
		err = push(fd, t->received.data, t->received.len);
	if (!err)
		err = set_int(fd, TCP_REPAIR_QUEUE, SEND_QUEUE);
	if (!err)
		err = push(fd, t->to_send.data, t->to_send.len - never_sent(s));
	return err ? err : set_int(fd, TCP_REPAIR_QUEUE, NO_QUEUE);
}

static int repair(int fd, const Icp__InetSocket *s)
{
	const Icp__TcpStream *t = s->stream;
	const uint32_t window[5] = {t->snd_wl1, t->snd_wnd, t->max_window, t->rcv_wnd,
				    t->rcv_wup};
	int err = set_int(fd, TCP_REPAIR, 1);

	if (!err)
		err = set_sequence(fd, SEND_QUEUE,
				   t->write_seq - (uint32_t)t->to_send.len -
					   tcp_write_ended(s->state));
	if (!err)
		err = set_sequence(fd, RECV_QUEUE, t->rcv_nxt - (uint32_t)t->received.len);
	if (!err)
		err = set_int(fd, TCP_REPAIR_QUEUE, NO_QUEUE);
	if (!err)
		err = inet_bind(fd, s);
	if (!err)
		err = connect_to(fd, s);
	if (!err)
		err = agree_options(fd, t);
	if (!err)
		err = fill_queues(fd, s);
	return err ? err : set(fd, REPAIR_WINDOW, window, sizeof(window));
}

/* ---- closed ---- */

static int listen_on_loopback(int family, union address *a)
{
	_cleanup_fd_ int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = family == AF_INET ? sizeof(a->v4) : sizeof(a->v6);

	memset(a, 0, sizeof(*a));
	a->any.sa_family = (sa_family_t)family;
	if (family == AF_INET)
		a->v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		a->v6.sin6_addr = in6addr_loopback;
	if (fd < 0 || bind(fd, &a->any, len) || listen(fd, 1) || getsockname(fd, &a->any, &len))
		return fail(-errno, "make a closed connection over loopback");
	return take_fd(&fd);
}

/* What had arrived, then the reset. */
static int send_and_reset(int peer, int fd, const ProtobufCBinaryData *unread)
{
	struct linger reset = {.l_onoff = 1};
	struct pollfd look = {.fd = fd};
	uint64_t until = now_ns() + CLOSE_NS;
	int bytes = 0, err = push(peer, unread->data, unread->len);

	while (!err && (size_t)bytes < unread->len && now_ns() < until)
		if (ioctl(fd, SIOCINQ, &bytes))
			err = -errno;
	if (!err && setsockopt(peer, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)))
		err = -errno;
	close(peer);
	if (!err && poll(&look, 1, (int)(CLOSE_NS / 1000000)) != 1)
		err = -ETIMEDOUT;
	return err;
}

static int connect_loopback(int fd, int family, const ProtobufCBinaryData *unread)
{
	union address a;
	_cleanup_fd_ int listener = listen_on_loopback(family, &a), peer = -1;
	int err = listener < 0 ? listener : make_room(fd, SO_RCVBUF, unread->len);

	if (!err && connect(fd, &a.any, family == AF_INET ? sizeof(a.v4) : sizeof(a.v6)))
		err = fail(-errno, "make a closed connection over loopback");
	if (err)
		return err;
	peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	err = peer < 0 ? -errno : make_room(peer, SO_SNDBUF, unread->len);
	if (!err)
		err = send_and_reset(take_fd(&peer), fd, unread);
	return err ? fail(err, "make a closed connection over loopback") : 0;
}

/* Reset by its peer, as the program will be told if @tell. */
static int make_closed(const Icp__InetSocket *s, bool tell)
{
	const ProtobufCBinaryData *unread = s->stream ? &s->stream->received : &s->unread;
	_cleanup_fd_ int fd = socket((int)s->family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(int);
	int error, err;

	if (fd < 0)
		return fail(-errno, "make a socket");
	err = connect_loopback(fd, (int)s->family, unread);
	if (!err && !tell && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len))
		err = fail(-errno, "make a closed connection over loopback");
	return err ? err : take_fd(&fd);
}

/* ---- any TCP socket ---- */

static int open_unconnected(const Icp__InetSocket *s)
{
	_cleanup_fd_ int fd = inet_open(s, true);
	int err = fd < 0 ? fd : inet_bind(fd, s);

	if (!err && s->state == TCP_LISTEN && listen(fd, (int)s->backlog))
		err = fail(-errno, "listen");
	return err ? err : take_fd(&fd);
}

static int open_connected(const Icp__InetSocket *s)
{
	_cleanup_fd_ int fd = inet_open(s, false);
	int err = fd < 0 ? fd : repair(fd, s);

	return err ? err : take_fd(&fd);
}

int tcp_open(struct restore_job *job, const Icp__OpenFile *f)
{
	_cleanup_fd_ int fd = -1;
	Icp__InetSocket *s = NULL;
	bool was_closed, lost;
	int err = unpack(f, &s);

	if (err) {
		inet_free(s);
		return err;
	}
	was_closed = s->state == TCP_CLOSE && s->read_shut;
	lost = (tcp_is_connected(s->state) && !comes_back(job, s)) || s->state == TCP_SYN_RECV;
	if (was_closed || lost)
		fd = make_closed(s, lost || s->error);
	else if (s->stream)
		fd = open_connected(s);
	else
		fd = open_unconnected(s);
	if (fd == -EADDRNOTAVAIL && s->stream) { /* the peer was told that it has ended */
		err_clear();
		fd = make_closed(s, true);
	}
	err = fd < 0 ? fd : inet_set_options(fd, s);
	inet_free(s);
	return err ? err : take_fd(&fd);
}

/* ---- late ---- */

static int set_flags(int fd, uint32_t flags)
{
	return fcntl(fd, F_SETFL, (int)flags & O_NONBLOCK)
		       ? fail(-errno, "set a socket's flags")
		       : 0;
}

/* From here on it talks to its peer. */
static int wake(int fd, const Icp__InetSocket *s)
{
	const Icp__TcpStream *t = s->stream;
	size_t unsent = never_sent(s);
	bool read_ends = s->read_shut || tcp_read_ended(s->state);
	socklen_t len = sizeof(int);
	int on = 0, err;

	if (getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, &len) || !on)
		return 0; /* it came back closed */
	err = set_int(fd, TCP_REPAIR, 0);

	if (!err)
		err = push(fd, t->to_send.data + t->to_send.len - unsent, unsent);
	if (!err && ((read_ends && shutdown(fd, SHUT_RD)) ||
		     (tcp_write_ended(s->state) && shutdown(fd, SHUT_WR))))
		err = errno == ENOTCONN ? 0 : fail(-errno, "shut a connection");
	/* the peer may have reset it by now: the program is told */
	return err == -EPIPE || err == -ECONNRESET ? (err_clear(), 0) : err;
}

/* It was about to, and begins again. */
static int connect_again(int fd, const Icp__InetSocket *s)
{
	int err = fcntl(fd, F_SETFL, O_NONBLOCK) ? -errno : 0;
	union address a;
	socklen_t len = inet_address(&s->peer, &a);

	if (!err && len && connect(fd, &a.any, len))
		errno = 0; /* as the program will see */
	return err;
}

/* A version that was not killed has the connections of one that was. */
static int let_go(struct restore_job *job, const Icp__InetSocket *s)
{
	void **done = files_restore_slot(job, FILE_TCP);
	int err;

	if ((!s->stream && !*s->held) || *done)
		return 0;
	*done = job;
	err = inet_let_go(job->manifest);
	return err && !*s->held ? (err_clear(), 0) : err;
}

int tcp_late(struct restore_job *job, const Icp__OpenFile *f, int fd)
{
	Icp__InetSocket *s = NULL;
	int err = unpack(f, &s);

	if (!err)
		err = let_go(job, s);
	if (!err && comes_back(job, s))
		err = wake(fd, s);
	if (!err && s->state == TCP_SYN_SENT)
		err = connect_again(fd, s);
	if (!err)
		err = inet_set_last(fd, s);
	if (!err)
		err = set_flags(fd, f->flags);
	inet_free(s);
	return err;
}
