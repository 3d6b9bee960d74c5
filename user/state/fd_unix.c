// SPDX-License-Identifier: GPL-2.0
/*
 * Unix sockets: dump. /proc gives an inode only; sock_diag tells the peer's, and a copy of the
 * descriptor the rest. Descriptors in flight are copied too: they are the job's open files like
 * those that a process has.
 */
#include "state/fd_unix.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef SIOCUNIXFILE
#define SIOCUNIXFILE 0x89e0
#endif
#ifndef SIOCOUTQ
#define SIOCOUTQ 0x5411
#endif
#define GROUPS_MAX 65536

struct note {
	struct state_job *job;
	Icp__Socket sock;
	Icp__UnixSocket u;
	struct unix_diag diag;
};

static void free_note(void *arg)
{
	struct note *note = arg;
	Icp__UnixSocket *u = &note->u;

	unix_queue_free(u);
	free(u->name.data);
	free(u->peer_name.data);
	free(u->file.data);
	free(u->waiting);
	if (u->peer_credentials)
		free(u->peer_credentials->groups);
	free(u->peer_credentials);
	free(note->diag.waiting);
	sock_free(&note->sock);
	free(note);
}

/* ---- running ---- */

static int ask_diag(const struct fd_info *f, struct unix_diag *out)
{
	int err = unix_diag((uint32_t)f->st.st_ino, out);

	if (err == -ENOENT)
		return refuse(-EOPNOTSUPP, "a Unix socket of another network namespace");
	return err;
}

/* What poll(2) says of it. */
static int look_urgent(int fd, short *revents)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLPRI};

	*revents = poll(&poll_fd, 1, 0) > 0 ? poll_fd.revents : 0;
	return *revents & POLLPRI
		       ? refuse(-EOPNOTSUPP, "a Unix socket with an urgent byte (MSG_OOB)")
		       : 0;
}

static int check(struct state_process *p, const struct fd_info *f)
{
	_cleanup_fd_ int fd = fd_borrow(p, f->fd);
	struct unix_diag diag;
	short revents;
	int err = fd < 0 ? fd : sock_check(fd);

	if (err)
		return err;
	err = ask_diag(f, &diag);
	free(diag.waiting);
	return err ? err : look_urgent(fd, &revents);
}

/* ---- frozen ---- */

static int copy(ProtobufCBinaryData *out, const void *data, size_t len)
{
	out->data = malloc(len + 1);
	if (!out->data)
		return fail(-ENOMEM, "note a socket");
	memcpy(out->data, data, len);
	out->len = len;
	return 0;
}

static int note_name(int fd, int (*ask)(int, struct sockaddr *, socklen_t *),
		     ProtobufCBinaryData *out)
{
	struct sockaddr_un address = {0};
	socklen_t len = sizeof(address), name = offsetof(struct sockaddr_un, sun_path);

	if (ask(fd, (struct sockaddr *)&address, &len))
		return errno == ENOTCONN ? 0 : fail(-errno, "ask for the name of a socket");
	if (len <= name)
		return 0;
	len = address.sun_path[0] ? (socklen_t)strnlen(address.sun_path, len - name)
				  : len - name;
	return copy(out, address.sun_path, len);
}

static int ask_name(int fd, struct sockaddr *out, socklen_t *len)
{
	return getsockname(fd, out, len);
}

static int ask_peer(int fd, struct sockaddr *out, socklen_t *len)
{
	return getpeername(fd, out, len);
}

/* Where its file is: of an absolute name too, which may lead elsewhere by now. */
static int note_file(int fd, Icp__UnixSocket *u)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_fd_ int own = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC),
			 file = -1;
	char name[16];
	struct stat st;
	bool deleted;
	int err;

	if (!u->name.len || !u->name.data[0])
		return 0;
	file = ioctl(fd, SIOCUNIXFILE, 0);
	if (file < 0)
		return fail(-errno, "look at the file of a socket (needs CAP_NET_ADMIN)");
	snprintf(name, sizeof(name), "%d", file);
	err = procfs_link(own, name, &path, &deleted);
	if (err || fstat(file, &st))
		return fail(err ? err : -errno, "look at the file of a socket");
	u->file_dev = restore_dev(major(st.st_dev), minor(st.st_dev));
	u->file_inode = st.st_ino;
	u->file_mode = st.st_mode;
	u->file_uid = st.st_uid;
	u->file_gid = st.st_gid;
	return deleted ? 0 : copy(&u->file, path, strlen(path));
}

static int note_peer_credentials(int fd, Icp__UnixSocket *u)
{
	Icp__SocketCredentials *c;
	struct ucred creds;
	socklen_t len = sizeof(creds);
	uint32_t *groups;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &creds, &len))
		return fail(-errno, "the credentials of a socket's peer");
	if (creds.uid == (uid_t)-1) /* nobody's */
		return 0;
	c = u->peer_credentials = malloc(sizeof(*c));
	groups = malloc(GROUPS_MAX * sizeof(*groups));
	if (!c || !groups) {
		free(groups);
		return fail(-ENOMEM, "note a socket");
	}
	icp__socket_credentials__init(c);
	c->pid = (uint32_t)creds.pid;
	c->uid = creds.uid;
	c->gid = creds.gid;
	len = GROUPS_MAX * sizeof(*groups);
	c->groups = groups;
	if (!getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len))
		c->n_groups = len / sizeof(*groups);
	return 0;
}

/* The state that sock_diag tells is also that of a datagram socket that others connected to. */
static bool has_peer(int fd)
{
	struct sockaddr_un address;
	socklen_t len = sizeof(address);

	return !getpeername(fd, (struct sockaddr *)&address, &len);
}

static int note_state(int fd, struct note *note)
{
	const struct unix_diag *diag = &note->diag;
	Icp__UnixSocket *u = &note->u;
	int unread = 0, err;
	short revents;

	u->shutdown = diag->shutdown;
	u->listening = diag->state == TCP_LISTEN;
	u->backlog = u->listening ? diag->room : 0;
	u->peer = diag->peer;
	u->connected = has_peer(fd);
	err = look_urgent(fd, &revents);
	if (err)
		return err;
	/* SO_ERROR would take it away; there is one error only that it can be */
	u->reset = revents & POLLERR;
	if (u->connected && !u->peer && !(diag->shutdown & 1) && !ioctl(fd, SIOCOUTQ, &unread))
		u->unread = unread > 0 ? (uint32_t)unread : 0;
	u->waiting = calloc(diag->n_waiting + 1, sizeof(*u->waiting));
	if (!u->waiting)
		return fail(-ENOMEM, "note a socket");
	for (size_t i = 0; i < diag->n_waiting; i++)
		u->waiting[u->n_waiting++] = diag->waiting[i];
	return 0;
}

/* Numbers into @fds become ids of open files. */
static int name_files(struct state_process *p, Icp__UnixSocket *u, const fd_vec *fds)
{
	for (size_t i = 0; i < u->n_queue; i++)
		for (size_t k = 0; k < u->queue[i]->n_files; k++) {
			int id = file_jobs_in_flight(p, fds->data[u->queue[i]->files[k] - 1]);

			if (id < 0)
				return id;
			u->queue[i]->files[k] = (uint32_t)id;
		}
	return 0;
}

static int note_queue(struct state_process *p, int fd, struct note *note)
{
	fd_vec in_flight = {0};
	int err;

	if (note->u.listening)
		return 0;
	err = unix_queue_dump(fd, (int)note->sock.type, &note->diag, &note->u, &in_flight);
	if (!err) {
		err = name_files(p, &note->u, &in_flight);
	} else {
		vec_each (each, &in_flight)
			close(*each);
	}
	vec_free(&in_flight);
	return err;
}

static int look(struct state_process *p, int fd, const struct fd_info *f, struct note *note)
{
	int err = ask_diag(f, &note->diag);

	if (!err)
		err = sock_dump(fd, &note->sock);
	if (!err)
		err = note_name(fd, ask_name, &note->u.name);
	if (!err)
		err = note_name(fd, ask_peer, &note->u.peer_name);
	if (!err)
		err = note_file(fd, &note->u);
	if (!err)
		err = note_peer_credentials(fd, &note->u);
	if (!err)
		err = note_state(fd, note);
	/* the last: it may add to the list that the description is in */
	return err ? err : note_queue(p, fd, note);
}

static int dump(struct state_process *p, struct file_jobs *jobs, struct description *d)
{
	_cleanup_fd_ int fd = fd_borrow(p, d->info.fd);
	struct note *note = d->note = calloc(1, sizeof(*note));
	struct fd_info info = d->info;
	int err;

	if (fd < 0 || !note)
		return fd < 0 ? fd : fail(-ENOMEM, "note a socket");
	icp__socket__init(&note->sock);
	icp__unix_socket__init(&note->u);
	note->job = p->job;
	err = look(p, fd, &info, note);
	if (err && p->job->how.no_restart) {
		err_clear();
		note->sock.family = AF_UNSPEC; /* never to be restarted */
		err = 0;
	}
	return err ? wrap(err, "descriptor %d", info.fd) : 0;
}

/* ---- the connections of all, running ---- */

/* Bare -ENOENT: it was closed meanwhile. */
static int look_running(const struct seen_fd *s, struct note *note)
{
	_cleanup_fd_ int fd = look_borrow(s);
	struct stat st;
	int type = 0, err;
	socklen_t len = sizeof(type);

	if (fd < 0 || fstat(fd, &st) || st.st_ino != s->f->st.st_ino ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len))
		return -ENOENT;
	note->sock.type = (uint32_t)type;
	err = unix_diag((uint32_t)st.st_ino, &note->diag);
	if (!err)
		err = note_name(fd, ask_peer, &note->u.peer_name);
	if (!err)
		err = note_state(fd, note);
	return err ? err : unix_queue_check(type, note->u.reset, note->diag.received);
}

typedef VEC(struct note *) note_list;

/* One note for each that is still there, and what it is. */
static int look_at_ends(struct look *l, note_list *notes, struct unix_ends *out)
{
	look_each(s, l, FILE_UNIX)
	{
		struct seen_fd *const *same;
		struct note *note, **slot;
		struct unix_end *e;
		int err;

		if (look_inode(l, s->f->st.st_ino, &same) && same[0] != s)
			continue; /* the same */
		note = calloc(1, sizeof(*note));
		slot = vec_push(notes);
		e = vec_push(out);
		if (slot)
			*slot = note;
		if (!note || !slot || !e) {
			if (!slot)
				free(note);
			return fail(-ENOMEM, "look at sockets");
		}
		icp__socket__init(&note->sock);
		icp__unix_socket__init(&note->u);
		err = look_running(s, note);
		if (err == -ENOENT)
			out->n--;
		else if (err)
			return look_blame(l, s, 0, err);
		else
			*e = (struct unix_end){s->f->st.st_ino, note->sock.type, &note->u,
					       (uint32_t)s->pid, (uint32_t)s->f->fd};
	}
	unix_ends_sort(out);
	return 0;
}

/* Other connections that wait are another matter. */
static uint64_t what_of(const Icp__UnixSocket *u)
{
	uint64_t what = u->peer;

	for (size_t i = 0; i < u->n_waiting; i++)
		what = what * 31 + u->waiting[i];
	return what;
}

static int check_ends(struct look *l, const struct unix_ends *ends)
{
	look_each(s, l, FILE_UNIX)
	{
		const struct unix_end *e = unix_ends_find(ends, s->f->st.st_ino);
		int err = e ? unix_ends_check(ends, e) : 0;

		/* what is in flight isn't seen, and what leads out comes back closed */
		if (err == -EOPNOTSUPP && (l->in_flight || l->job->how.tcp_close)) {
			err_clear();
			continue;
		}
		if (err)
			return look_blame(l, s, what_of(e->u), err);
	}
	return 0;
}

static int check_job(struct look *l)
{
	struct unix_ends ends = {0};
	note_list notes = {0};
	int err = look_at_ends(l, &notes, &ends);

	if (!err)
		err = check_ends(l, &ends);
	vec_each (note, &notes)
		free_note(*note);
	vec_free(&notes);
	vec_free(&ends);
	return err;
}

/* ---- running again ---- */

static bool in_job(struct state_job *job, uint64_t inode)
{
	for (uint32_t id = 1; file_jobs_get(job->files, id); id++) {
		const struct fd_info *f = &file_jobs_get(job->files, id)->info;

		if (f->kind == FILE_UNIX && f->st.st_ino == inode)
			return true;
	}
	return false;
}

static bool waits_in_job(struct state_job *job, uint64_t inode)
{
	for (uint32_t id = 1; file_jobs_get(job->files, id); id++) {
		const struct description *d = file_jobs_get(job->files, id);
		const struct note *note = d->info.kind == FILE_UNIX ? d->note : NULL;

		for (size_t i = 0; note && i < note->diag.n_waiting; i++)
			if (note->diag.waiting[i] == inode)
				return true;
	}
	return false;
}

/* A datagram socket that knows somebody outside by name can find him again. */
static void cut_off(struct note *note, uint64_t inode)
{
	Icp__UnixSocket *u = &note->u;
	size_t kept = 0;

	if (!note->job->how.tcp_close)
		return;
	if (u->peer && !in_job(note->job, u->peer) &&
	    (note->sock.type != SOCK_DGRAM || !u->peer_name.len)) {
		u->peer = 0;
		if (note->sock.type != SOCK_DGRAM)
			u->shutdown = 3;
	}
	if (note->sock.type != SOCK_DGRAM && u->connected && !u->peer &&
	    !waits_in_job(note->job, inode)) {
		u->shutdown = 3;
		u->unread = 0;
	}
	for (size_t i = 0; i < u->n_waiting; i++)
		if (!u->waiting[i] || in_job(note->job, u->waiting[i]))
			u->waiting[kept++] = u->waiting[i];
	u->n_waiting = kept;
}

static int finish(const struct description *d, Icp__OpenFile *out)
{
	struct note *note = d->note;

	cut_off(note, d->info.st.st_ino);
	note->sock.unix_socket = &note->u;
	return fd_pack_detail(out, &note->sock.base);
}

const struct fd_kind fd_unix = {.kind = FILE_UNIX,
				.text = "a Unix socket",
				.check = check,
				.check_job = check_job,
				.dump = dump,
				.finish = finish,
				.free_note = free_note,
				.verify = unix_verify,
				.open = unix_open,
				.link = unix_link,
				.late = unix_late,
				.free_restored = unix_free_restored};
