// SPDX-License-Identifier: GPL-2.0
/*
 * What is queued in a Unix socket. All of it is seen by MSG_PEEK with SO_PEEK_OFF, which is put
 * back; a process of its own does that, so that it is done to its end whatever happens to us.
 */
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/page.h"
#include "state/fd_unix.h"

#define RIGHTS_MAX 253 /* SCM_MAX_FD */
#define MESSAGES_MAX 100000
#define STACK 65536
#define DATAGRAM_MAX (16u << 20)
#define CONTROL (CMSG_SPACE(RIGHTS_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred)) + 256)

struct peek {
	int fd, type;
	bool ended; /* nothing more comes: 0 bytes are the end */
	bool error; /* to be told after what is queued, and once only */
	size_t room, at, received;
	char *buf; /* of room bytes */
	Icp__UnixSocket *out;
	fd_vec *in_flight;
	int err;
};

/* What one recvmsg() brought. */
struct got {
	ssize_t len;
	int fds[RIGHTS_MAX];
	size_t n_fds;
	bool has_creds, truncated;
	struct ucred creds;
	struct sockaddr_un from;
	socklen_t from_len;
};

static void take_control(struct msghdr *msg, struct got *g)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_CREDENTIALS) {
			memcpy(&g->creds, CMSG_DATA(c), sizeof(g->creds));
			g->has_creds = true;
		} else if (c->cmsg_type == SCM_RIGHTS) {
			g->n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(g->fds, CMSG_DATA(c), g->n_fds * sizeof(int));
		} else if (c->cmsg_type == 4 /* SCM_PIDFD */) {
			close(*(int *)CMSG_DATA(c));
		}
	}
}

static void close_fds(struct got *g)
{
	for (size_t i = 0; i < g->n_fds; i++)
		close(g->fds[i]);
	g->n_fds = 0;
}

/* @len bytes at offset @at into @buf. Bare negative errno. */
static int peek_at(const struct peek *p, size_t at, char *buf, size_t len, struct got *g)
{
	char control[CONTROL] __attribute__((aligned(8)));
	struct iovec iov = {buf, len};
	struct msghdr msg = {.msg_name = &g->from,
			     .msg_namelen = sizeof(g->from),
			     .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	int off = (int)at;

	*g = (struct got){0};
	if (setsockopt(p->fd, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof(off)))
		return -errno;
	g->len = recvmsg(p->fd, &msg, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (g->len < 0)
		return -errno;
	g->from_len = msg.msg_namelen;
	g->truncated = msg.msg_flags & (MSG_CTRUNC | MSG_TRUNC);
	take_control(&msg, g);
	return 0;
}

/*
 * A stream glues what came without descriptors to what came with them, however little is asked
 * for. Who reads less at a time must get them no earlier than with the first byte that they came
 * with. One buffer of the kernel is copied as a whole or not at all: so let memory end before
 * the last byte, and what came with them is missing.
 */
static int find_boundary(const struct peek *p, size_t len, size_t *out)
{
	struct got g;
	int err = len < 2 ? -EFAULT : peek_at(p, p->at, p->buf + p->room - (len - 1), len, &g);

	*out = err ? 0 : (size_t)g.len;
	if (!err)
		close_fds(&g);
	return err == -EFAULT ? 0 : err;
}

static Icp__UnixMessage *new_message(Icp__UnixSocket *u)
{
	Icp__UnixMessage **grown = realloc(u->queue, (u->n_queue + 1) * sizeof(*grown));
	Icp__UnixMessage *m = grown ? malloc(sizeof(*m)) : NULL;

	if (grown)
		u->queue = grown;
	if (!m)
		return NULL;
	icp__unix_message__init(m);
	grown[u->n_queue++] = m;
	return m;
}

static int copy(ProtobufCBinaryData *out, const void *data, size_t len)
{
	out->data = malloc(len + 1);
	if (!out->data)
		return -ENOMEM;
	memcpy(out->data, data, len);
	out->len = len;
	return 0;
}

static int note_creds(const struct ucred *c, Icp__UnixMessage *m)
{
	m->credentials = malloc(sizeof(*m->credentials));
	if (!m->credentials)
		return -ENOMEM;
	icp__socket_credentials__init(m->credentials);
	m->credentials->pid = (uint32_t)c->pid;
	m->credentials->uid = c->uid;
	m->credentials->gid = c->gid;
	return 0;
}

/* @g's descriptors are the vector's, whatever happens. */
static int note_fds(struct peek *p, struct got *g, Icp__UnixMessage *m)
{
	m->files = calloc(g->n_fds + 1, sizeof(*m->files));
	for (size_t i = 0; i < g->n_fds; i++) {
		int *slot = m->files ? vec_push(p->in_flight) : NULL;

		if (!slot) {
			close_fds(g);
			return -ENOMEM;
		}
		*slot = g->fds[i];
		g->fds[i] = -1;
		m->files[m->n_files++] = (uint32_t)p->in_flight->n;
	}
	return 0;
}

static int note_message(struct peek *p, struct got *g)
{
	size_t name = offsetof(struct sockaddr_un, sun_path);
	Icp__UnixMessage *m = p->out->n_queue < MESSAGES_MAX ? new_message(p->out) : NULL;
	int err = m ? copy(&m->data, p->buf, (size_t)g->len) : -ENOMEM;

	/* without a pid: nobody asked for them when it was sent */
	if (!err && g->has_creds && g->creds.pid)
		err = note_creds(&g->creds, m);
	if (!err && p->type == SOCK_DGRAM && g->from_len > name)
		err = copy(&m->from, g->from.sun_path,
			   g->from.sun_path[0] ? strnlen(g->from.sun_path, g->from_len - name)
					       : g->from_len - name);
	return err ? err : note_fds(p, g, m);
}

/* 1: there is no more. */
static int peek_one(struct peek *p)
{
	struct got g;
	size_t boundary = 0;
	int err;

	if ((p->error || p->type == SOCK_STREAM) && p->at >= p->received)
		return 1;
	err = peek_at(p, p->at, p->buf, p->room, &g);
	if (err == -EAGAIN)
		return 1;
	if (!err && g.truncated) {
		close_fds(&g);
		err = -EMSGSIZE;
	}
	if (err)
		return err;
	if (!g.len && (p->type == SOCK_STREAM || p->ended))
		return 1;
	if (p->type == SOCK_STREAM && g.n_fds) {
		close_fds(&g);
		err = find_boundary(p, (size_t)g.len, &boundary);
		/* what came before is a message of its own */
		if (!err)
			err = peek_at(p, p->at, p->buf, boundary ? boundary : (size_t)g.len,
				      &g);
		if (err)
			return err;
		if (boundary)
			close_fds(&g);
	}
	p->at += (size_t)g.len;
	err = note_message(p, &g);
	close_fds(&g);
	return err;
}

static int peek_all(void *arg)
{
	struct peek *p = arg;
	int before = -1, err = 0;
	socklen_t len = sizeof(before);

	setpgid(0, 0);
	if (getsockopt(p->fd, SOL_SOCKET, SO_PEEK_OFF, &before, &len))
		p->err = -errno;
	while (!p->err && !err)
		err = peek_one(p);
	if (err < 0)
		p->err = err;
	setsockopt(p->fd, SOL_SOCKET, SO_PEEK_OFF, &before, sizeof(before));
	return 0;
}

/* The error would be told to us, and be gone. */
int unix_queue_check(int type, bool reset, uint32_t received)
{
	return reset && type != SOCK_STREAM && received
		       ? refuse(-EAGAIN, "a Unix socket holds an error and packets")
		       : 0;
}

int unix_queue_dump(int fd, int type, const struct unix_diag *diag, Icp__UnixSocket *out,
		    fd_vec *in_flight)
{
	struct peek p = {
		.fd = fd,
		.type = type,
		.ended = diag->shutdown & 1,
		.error = out->reset,
		.received = diag->received,
		/* of datagrams only the first is counted there */
		.room = page_down((type == SOCK_DGRAM ? DATAGRAM_MAX : diag->received) + 65536),
		.out = out,
		.in_flight = in_flight};
	_cleanup_free_ char *stack = malloc(STACK);
	pid_t pid;
	int err = unix_queue_check(type, out->reset, diag->received);

	if (err)
		return err;
	p.buf = mmap(NULL, p.room + page_size(), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p.buf == MAP_FAILED || !stack)
		return fail(-ENOMEM, "note what is in a socket");
	mprotect(p.buf + p.room, page_size(), PROT_NONE);
	pid = clone(peek_all, stack + STACK, CLONE_VM | CLONE_FILES | CLONE_VFORK, &p);
	if (pid < 0)
		p.err = -errno;
	while (pid > 0 && waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	munmap(p.buf, p.room + page_size());
	return p.err ? fail(p.err, "look into a socket") : 0;
}

void unix_queue_free(Icp__UnixSocket *u)
{
	for (size_t i = 0; i < u->n_queue; i++) {
		free(u->queue[i]->data.data);
		free(u->queue[i]->from.data);
		free(u->queue[i]->files);
		free(u->queue[i]->credentials);
		free(u->queue[i]);
	}
	free(u->queue);
	u->queue = NULL;
	u->n_queue = 0;
}

/* ---- restart ---- */

static void *add_control(struct msghdr *msg, int type, const void *data, size_t len)
{
	struct cmsghdr *c = (struct cmsghdr *)((char *)msg->msg_control + msg->msg_controllen);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(len);
	msg->msg_controllen += CMSG_SPACE(len);
	return memcpy(CMSG_DATA(c), data, len);
}

struct sending {
	int fd;
	const struct msghdr *msg;
};

static int do_send(const void *arg)
{
	const struct sending *s = arg;

	return sendmsg(s->fd, s->msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
}

int unix_queue_send(const struct restore_job *job, int to, const struct sockaddr_un *address,
		    socklen_t len, const Icp__UnixMessage *m)
{
	char control[CONTROL] __attribute__((aligned(8))) = {0};
	struct iovec iov = {m->data.data, m->data.len};
	struct msghdr msg = {.msg_name = (void *)address,
			     .msg_namelen = len,
			     .msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control};
	struct sending sending = {to, &msg};
	int fds[RIGHTS_MAX], err;

	if (m->n_files > RIGHTS_MAX)
		return refuse(-EBADMSG, "what is in a socket makes no sense");
	for (size_t i = 0; i < m->n_files; i++)
		fds[i] = files_restored_fd(job, m->files[i]);
	if (m->n_files)
		add_control(&msg, SCM_RIGHTS, fds, m->n_files * sizeof(int));
	if (m->credentials) {
		struct ucred creds = {(pid_t)m->credentials->pid, m->credentials->uid,
				      m->credentials->gid};

		add_control(&msg, SCM_CREDENTIALS, &creds, sizeof(creds));
	}
	err = do_send(&sending);
	if (err == ESRCH && m->credentials) /* whoever sent it is gone */
		err = -unix_as(m->credentials, do_send, &sending);
	if (err == ESRCH && m->credentials)
		return refuse(-err, "pid %u, which sent what is in a socket, can't be had",
			      m->credentials->pid);
	return err ? fail(-err, "fill a socket") : 0;
}
