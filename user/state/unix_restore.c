// SPDX-License-Identifier: GPL-2.0
/*
 * Unix sockets: restart. All are made together when the first is asked for: pairs first, for
 * those take names that others hold later; then names, then who listens, then who waits to be
 * accepted. Queues are filled in link(), when whatever may be in flight is open; what stands in
 * the way of that comes in late(): options, shut directions, peers that are gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "state/fd_unix.h"

#define ROOM (64 << 20)

struct member {
	const Icp__OpenFile *f;
	Icp__Socket *sock;
	const Icp__UnixSocket *u;
	int fd;	  /* until it is given away */
	int dead; /* the other end of one whose peer is gone */
	bool filled;
};

struct world {
	VEC(struct member) list;
	struct unix_ends ends; /* the same */
	bool made;
};

void unix_free_restored(void *slot)
{
	struct world *w = slot;

	vec_each (m, &w->list) {
		cleanup_fd(&m->fd);
		cleanup_fd(&m->dead);
		protobuf_c_message_free_unpacked(&m->sock->base, NULL);
	}
	vec_free(&w->list);
	vec_free(&w->ends);
	free(w);
}

/* By inode; NULL for 0 and for those outside. */
static struct member *find(struct world *w, uint64_t inode)
{
	vec_each (m, &w->list)
		if (inode && m->f->inode == inode)
			return m;
	return NULL;
}

static bool wanted(const struct restore_job *job, const Icp__OpenFile *f)
{
	uint32_t pid;

	return f->kind == FILE_UNIX &&
	       (f->in_flight || files_number(job, f->id, &pid) != UINT32_MAX);
}

static int list_ends(const struct restore_job *job, struct world *w)
{
	vec_each (m, &w->list) {
		struct unix_end *e = vec_push(&w->ends);

		if (!e)
			return fail(-ENOMEM, "prepare sockets");
		*e = (struct unix_end){.inode = m->f->inode, .type = m->sock->type, .u = m->u};
		e->fd = files_number(job, m->f->id, &e->pid);
	}
	unix_ends_sort(&w->ends);
	return 0;
}

/* Unpack all of them. */
static int world_of(struct restore_job *job, struct world **out)
{
	void **slot = files_restore_slot(job, FILE_UNIX);
	const Icp__OpenFiles *all = files_restore_all(job);

	*out = *slot;
	if (*slot)
		return 0;
	*out = *slot = calloc(1, sizeof(struct world));
	if (!*slot)
		return fail(-ENOMEM, "prepare sockets");
	for (size_t i = 0; i < all->n_files; i++) {
		Icp__Socket *sock;
		struct member *m;
		int err;

		if (!wanted(job, all->files[i]))
			continue;
		err = sock_unpack(all->files[i], SOL_SOCKET, &sock);
		if (err)
			return err;
		m = vec_push(&(*out)->list);
		if (!m) {
			protobuf_c_message_free_unpacked(&sock->base, NULL);
			return fail(-ENOMEM, "prepare sockets");
		}
		*m = (struct member){.f = all->files[i], .sock = sock, .fd = -1, .dead = -1};
		m->u = sock->unix_socket;
	}
	return list_ends(job, *out);
}

static struct member *listener_of(struct world *w, const struct member *client)
{
	vec_each (m, &w->list)
		for (size_t i = 0; m->u && m->u->listening && i < m->u->n_waiting; i++)
			if (m->u->waiting[i] == client->f->inode)
				return m;
	return NULL;
}

static bool same_name(const ProtobufCBinaryData *a, const ProtobufCBinaryData *b)
{
	return a->len == b->len && !memcmp(a->data, b->data, a->len);
}

/* ---- before anything is made ---- */

static int verify_peer(struct world *w, const struct member *m)
{
	const struct member *peer = find(w, m->u->peer);

	if (!peer || (peer == m && m->sock->type == SOCK_DGRAM))
		return 0;
	if (peer == m || !peer->u || peer->sock->type != m->sock->type ||
	    (m->sock->type != SOCK_DGRAM && peer->u->peer != m->f->inode))
		return refuse(-EBADMSG, "the peer of a socket makes no sense");
	return 0;
}

static int verify_queue(struct restore_job *job, const struct member *m)
{
	for (size_t i = 0; i < m->u->n_queue; i++) {
		const Icp__UnixMessage *q = m->u->queue[i];

		if (q->from.len > sizeof(((struct sockaddr_un *)0)->sun_path))
			return refuse(-EBADMSG, "what is in a socket makes no sense");
		for (size_t k = 0; k < q->n_files; k++)
			if (!q->files[k] || q->files[k] > files_restore_all(job)->n_files)
				return refuse(-EBADMSG, "what is in a socket makes no sense");
	}
	if (m->u->n_queue && !m->u->connected && !m->u->name.len)
		return refuse(-EOPNOTSUPP, "a Unix socket without name or peer has datagrams");
	return 0;
}

int unix_verify(struct restore_job *job, const Icp__OpenFile *f)
{
	struct member *m;
	struct world *w;
	int err = world_of(job, &w);

	if (err)
		return err;
	m = find(w, f->inode);
	if (!m || m->f != f || !m->u || m->sock->family != AF_UNIX ||
	    (m->sock->type != SOCK_STREAM && m->sock->type != SOCK_DGRAM &&
	     m->sock->type != SOCK_SEQPACKET) ||
	    m->u->name.len > sizeof(((struct sockaddr_un *)0)->sun_path))
		return refuse(-EOPNOTSUPP, "a Unix socket of which the image knows too little");
	err = unix_ends_check(&w->ends, unix_ends_find(&w->ends, f->inode));
	if (err || m->u->listening)
		return err;
	err = verify_peer(w, m);
	return err ? err : verify_queue(job, m);
}

/* ---- make them ---- */

static int new_socket(int type)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0), err;

	if (fd < 0)
		return fail(-errno, "make a socket");
	err = sock_set_room(fd, ROOM);
	if (err)
		close(fd);
	return err ? err : fd;
}

static bool listens_as(struct world *w, const ProtobufCBinaryData *name)
{
	vec_each (m, &w->list)
		if (m->u->listening && same_name(&m->u->name, name))
			return true;
	return false;
}

struct end {
	int *fd;
	const Icp__UnixSocket *u; /* NULL: it is gone */
	ProtobufCBinaryData name;
};

/* @a connected, @b was accepted: it has the name of who listened, which it only borrows. */
static int connect_ends(int type, struct end *a, struct end *b)
{
	const Icp__SocketCredentials *listener = a->u ? a->u->peer_credentials : NULL,
				     *client = b->u ? b->u->peer_credentials : NULL;
	_cleanup_fd_ int fd = new_socket(type), at = new_socket(type);
	int err = fd < 0 ? fd : at < 0 ? at : unix_bind_hidden(at, &b->name);

	if (!err)
		err = unix_listen_as(listener, at, 1);
	if (!err && a->name.len)
		err = a->u ? unix_bind(fd, a->u) : unix_bind_hidden(fd, &a->name);
	if (!err)
		err = unix_connect_as(client, fd, at);
	if (err)
		return err;
	*b->fd = accept4(at, NULL, NULL, SOCK_CLOEXEC);
	if (*b->fd < 0)
		return fail(-errno, "connect a pair of sockets");
	*a->fd = take_fd(&fd);
	return sock_set_room(*b->fd, ROOM);
}

static int pair_ends(int type, struct end *a, struct end *b)
{
	const Icp__SocketCredentials *maker = a->u->peer_credentials;
	int fds[2], err = unix_pair_as(maker, type, fds);

	if (err)
		return err;
	*a->fd = fds[0];
	*b->fd = fds[1];
	for (int i = 0; i < 2 && !err; i++)
		err = sock_set_room(fds[i], ROOM);
	/* of datagram sockets each may have one of its own */
	if (!err && a->name.len)
		err = unix_bind(*a->fd, a->u);
	if (!err && b->name.len)
		err = b->u ? unix_bind(*b->fd, b->u) : unix_bind_hidden(*b->fd, &b->name);
	return err;
}

/*
 * The name of one that is gone may be another's by now: what it sent is put in at once, so that
 * it need not be kept.
 */
static int end_datagrams(const struct restore_job *job, struct member *m)
{
	int err = 0;

	for (size_t i = 0; i < m->u->n_queue; i++)
		if (m->u->queue[i]->n_files)
			return 0; /* they aren't open yet */
	for (size_t i = 0; i < m->u->n_queue && !err; i++)
		err = unix_queue_send(job, m->dead, NULL, 0, m->u->queue[i]);
	cleanup_fd(&m->dead);
	m->dead = -1;
	m->filled = true;
	return err;
}

static int make_ends(struct world *w, struct member *m, struct member *peer)
{
	struct end a = {&m->fd, m->u, m->u->name}, b = {&m->dead, NULL, m->u->peer_name};
	int type = (int)m->sock->type;

	if (peer)
		b = (struct end){&peer->fd, peer->u, peer->u->name};
	if (type == SOCK_DGRAM || (!a.name.len && !b.name.len))
		return pair_ends(type, &a, &b);
	if (!b.name.len || (a.name.len && listens_as(w, &a.name)))
		return connect_ends(type, &b, &a);
	return connect_ends(type, &a, &b);
}

static int make_pair(struct restore_job *job, struct world *w, struct member *m)
{
	struct member *peer = find(w, m->u->peer);
	bool dgram = m->sock->type == SOCK_DGRAM;
	int err;

	if (m->fd >= 0 || m->u->listening || !m->u->connected)
		return 0;
	if (dgram && m->u->peer && (!peer || peer == m || peer->u->peer != m->f->inode))
		return 0; /* one way only: late() */
	if (!dgram && !m->u->peer && listener_of(w, m) && !(m->u->shutdown & 1))
		return 0; /* it waits */
	err = make_ends(w, m, peer);
	return !err && dgram && !peer ? end_datagrams(job, m) : err;
}

static int make_single(struct world *w, struct member *m)
{
	int err;

	if (m->fd >= 0)
		return 0;
	m->fd = new_socket((int)m->sock->type);
	if (m->fd < 0)
		return m->fd;
	err = unix_bind(m->fd, m->u);
	if (!err && m->u->listening)
		err = unix_listen_as(m->u->peer_credentials, m->fd, (int)m->u->backlog);
	return err;
}

static Icp__SocketCredentials owner_of(const struct restore_job *job, const Icp__OpenFile *f)
{
	Icp__SocketCredentials c = ICP__SOCKET_CREDENTIALS__INIT;
	uint32_t pid = 0;

	files_number(job, f->id, &pid);
	for (size_t i = 0; i < job->manifest->n_processes; i++) {
		const Icp__Process *p = job->manifest->processes[i];

		if (p->pid != pid || p->n_uids != 4 || p->n_gids != 4)
			continue;
		c.pid = pid;
		c.uid = p->uids[1];
		c.gid = p->gids[1];
		c.groups = p->groups;
		c.n_groups = p->n_groups;
	}
	return c;
}

static int make_waiting(struct restore_job *job, struct world *w, struct member *m)
{
	int err = 0;

	for (size_t i = 0; i < m->u->n_waiting && !err; i++) {
		struct member *client = find(w, m->u->waiting[i]);
		Icp__SocketCredentials c;

		if (!client)
			continue;
		c = owner_of(job, client->f);
		err = unix_connect_as(c.pid ? &c : NULL, client->fd, m->fd);
	}
	return err;
}

static int make_world(struct restore_job *job, struct world *w)
{
	int err = 0;

	w->made = true;
	for (size_t i = 0; i < w->list.n && !err; i++)
		err = make_pair(job, w, &w->list.data[i]);
	for (size_t i = 0; i < w->list.n && !err; i++)
		err = make_single(w, &w->list.data[i]);
	for (size_t i = 0; i < w->list.n && !err; i++)
		if (w->list.data[i].u->listening)
			err = make_waiting(job, w, &w->list.data[i]);
	return err;
}

int unix_open(struct restore_job *job, const Icp__OpenFile *f)
{
	struct world *w;
	int err = world_of(job, &w);

	if (!err && !w->made)
		err = make_world(job, w);
	return err ? err : take_fd(&find(w, f->inode)->fd);
}

/* ---- what is in them ---- */

static int sender_of(const struct restore_job *job, struct world *w, const Icp__UnixMessage *q,
		     int *made)
{
	int err;

	vec_each (m, &w->list)
		if (q->from.len && m->sock->type == SOCK_DGRAM &&
		    same_name(&m->u->name, &q->from))
			return files_restored_fd(job, m->f->id);
	*made = new_socket(SOCK_DGRAM);
	if (*made < 0 || !q->from.len)
		return *made;
	err = unix_bind_hidden(*made, &q->from);
	return err ? err : *made;
}

static int send_datagram(const struct restore_job *job, struct world *w, int fd,
			 const Icp__UnixMessage *q)
{
	_cleanup_fd_ int keep = -1, made = -1;
	struct sockaddr_un address;
	int from = sender_of(job, w, q, &made),
	    len = from < 0 ? from : unix_address(fd, &address, &keep);

	return len < 0 ? len : unix_queue_send(job, from, &address, (socklen_t)len, q);
}

int unix_link(struct restore_job *job, const Icp__OpenFile *f, int fd)
{
	struct member *m, *peer;
	struct world *w;
	int err = world_of(job, &w), through;

	if (err)
		return err;
	m = find(w, f->inode);
	peer = find(w, m->u->peer);
	through = peer ? files_restored_fd(job, peer->f->id) : m->dead;
	/* one that isn't ours alone to send to */
	if (m->sock->type == SOCK_DGRAM && peer && (peer == m || peer->u->peer != f->inode))
		through = -1;
	for (size_t i = 0; i < m->u->n_queue && !m->filled && !err; i++)
		err = through >= 0 ? unix_queue_send(job, through, NULL, 0, m->u->queue[i])
				   : send_datagram(job, w, fd, m->u->queue[i]);
	return err;
}

/* ---- the rest ---- */

/* It knew somebody who didn't know it. */
static int connect_one_way(const struct restore_job *job, struct world *w, struct member *m,
			   int fd)
{
	struct member *peer = find(w, m->u->peer);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_fd_ int keep = -1;
	int len;

	if (peer && (peer != m && peer->u->peer == m->f->inode))
		return 0;
	if (peer) {
		len = unix_address(files_restored_fd(job, peer->f->id), &address, &keep);
		if (len < 0)
			return len;
	} else {
		size_t name = m->u->peer_name.len;

		if (name > sizeof(address.sun_path))
			return refuse(-EBADMSG, "the name of a socket makes no sense");
		memcpy(address.sun_path, m->u->peer_name.data, name);
		len = (int)(offsetof(struct sockaddr_un, sun_path) + name);
	}
	if (!connect(fd, (struct sockaddr *)&address, (socklen_t)len))
		return 0;
	if (peer)
		return fail(-errno, "connect a socket");
	note("a socket was connected to %s outside of the job, and isn't any more: %s",
	     address.sun_path, strerror(errno));
	return 0;
}

/* Who closed while something of ours was unread there left an error here. */
static int end_peer(struct member *m, int fd)
{
	if (m->dead < 0)
		return 0;
	if (m->u->reset && send(fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1)
		return fail(-errno, "restore the error of a socket");
	cleanup_fd(&m->dead);
	m->dead = -1;
	return 0;
}

int unix_late(struct restore_job *job, const Icp__OpenFile *f, int fd)
{
	struct member *m;
	struct world *w;
	int err = world_of(job, &w);

	if (err)
		return err;
	m = find(w, f->inode);
	if (m->sock->type == SOCK_DGRAM && m->u->connected && m->u->peer)
		err = connect_one_way(job, w, m, fd);
	if (!err)
		err = end_peer(m, fd);
	if (!err && m->u->shutdown & 3 &&
	    shutdown(fd,
		     (m->u->shutdown & 3) == 3 ? SHUT_RDWR : (int)(m->u->shutdown & 3) - 1) &&
	    errno != ENOTCONN)
		err = fail(-errno, "shut a socket");
	if (!err)
		err = sock_set_options(fd, m->sock, SOL_SOCKET);
	if (!err && fcntl(fd, F_SETFL, (int)(f->flags & FD_KEPT_FLAGS)))
		err = fail(-errno, "the flags of a socket");
	return err;
}
