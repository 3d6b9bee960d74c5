// SPDX-License-Identifier: GPL-2.0
/*
 * Pseudo-terminals within the job (script, tmux, sshd). All settings of the slave can be read and
 * made through the master. What is queued can't be seen without taking it, so there must not be
 * any: the checkpoint is tried again.
 */
#include "state/pty.h"

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/log.h"
#include "state/pty.pb-c.h"

#define SLAVE_MAJOR 136
#define TTYAUX_MAJOR 5
#define INDEX_MAX 512 /* how far to go for the same index */

struct note {
	Icp__Pty msg;
	struct termios2 termios;
	struct winsize winsize;
};

/* ---- dump ---- */

static int number(int fd, unsigned long request, const char *what, int *out)
{
	*out = 0;
	return ioctl(fd, request, out) ? fail(-errno, "%s of a terminal", what) : 0;
}

static int look(int fd, struct note *note)
{
	int locked, packet, exclusive, group, err;

	err = number(fd, TIOCGPTN, "index", (int *)&note->msg.index);
	if (!err)
		err = number(fd, TIOCGPTLCK, "lock", &locked);
	if (!err)
		err = number(fd, TIOCGPKT, "packet mode", &packet);
	if (!err)
		err = number(fd, TIOCGEXCL, "exclusive mode", &exclusive);
	if (err)
		return err;
	if (ioctl(fd, TCGETS2, &note->termios) || ioctl(fd, TIOCGWINSZ, &note->winsize))
		return fail(-errno, "settings of a terminal");
	note->msg.locked = locked;
	note->msg.packet = packet;
	note->msg.exclusive = exclusive;
	note->msg.foreground = ioctl(fd, TIOCGPGRP, &group) || group < 0 ? 0 : (uint32_t)group;
	note->msg.termios =
		(ProtobufCBinaryData){sizeof(note->termios), (uint8_t *)&note->termios};
	note->msg.winsize =
		(ProtobufCBinaryData){sizeof(note->winsize), (uint8_t *)&note->winsize};
	return 0;
}

/* How much can be read. poll() lets the kernel sort what has just been written. */
static int look_inside(int fd, Icp__Pty *out)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	int bytes = 0;

	if (poll(&poll_fd, 1, 0) < 0)
		return fail(-errno, "look at a terminal");
	out->hung_up = poll_fd.revents & POLLHUP;
	if (ioctl(fd, FIONREAD, &bytes))
		bytes = 0;
	out->waiting = bytes > 0 ? (uint32_t)bytes : 0;
	return 0;
}

static int refuse_waiting(const Icp__Pty *msg, const char *what)
{
	return refuse(-EAGAIN, "%u bytes of %s wait in a terminal: try again", msg->waiting,
		      what);
}

/* ---- running ---- */

static int check_waiting(struct look *l, const struct seen_fd *s, const char *what)
{
	_cleanup_fd_ int fd = look_borrow(s);
	Icp__Pty inside = ICP__PTY__INIT;
	int err = fd < 0 ? 0 : look_inside(fd, &inside);

	return err || !inside.waiting ? err
				      : look_blame(l, s, 0, refuse_waiting(&inside, what));
}

static int check_masters(struct look *l)
{
	int err = 0;

	look_each(s, l, FILE_PTY_MASTER) if (!err) err = check_waiting(l, s, "output");
	return err;
}

static bool has_master(const struct look *l, unsigned index)
{
	look_each(s, l, FILE_PTY_MASTER) if (procfs_number(s->f->fdinfo, "tty-index", 10) ==
					     index) return true;
	return false;
}

/* /dev/tty is left to the freeze: somebody has the terminal by its own name, too. */
int pty_slave_check_job(struct look *l)
{
	int err = 0;

	look_each(s, l, FILE_TERMINAL) if (!err && major(s->f->st.st_rdev) == SLAVE_MAJOR &&
					   has_master(l, minor(s->f->st.st_rdev))) err =
		check_waiting(l, s, "input");
	return err;
}

/* ---- frozen ---- */

static int dump_master(struct state_process *p, struct file_jobs *jobs, struct description *d)
{
	_cleanup_fd_ int fd = fd_borrow(p, d->info.fd);
	struct note *note = d->note = calloc(1, sizeof(*note));
	char path[32];
	struct stat st;
	int err;

	if (fd < 0 || !note)
		return fd < 0 ? fd : fail(-ENOMEM, "note a terminal");
	icp__pty__init(&note->msg);
	err = look(fd, note);
	if (!err)
		err = look_inside(fd, &note->msg);
	if (!err && note->msg.waiting && !p->job->how.no_restart)
		err = refuse_waiting(&note->msg, "output");
	if (err)
		return wrap(err, "descriptor %d", d->info.fd);
	snprintf(path, sizeof(path), "/dev/pts/%u", note->msg.index);
	if (!stat(path, &st)) {
		note->msg.uid = st.st_uid;
		note->msg.gid = st.st_gid;
		note->msg.mode = st.st_mode & 07777;
	}
	return 0;
}

int pty_slave_dump(struct state_process *p, struct file_jobs *jobs, struct description *d)
{
	_cleanup_fd_ int fd = fd_borrow(p, d->info.fd);
	struct note *note = d->note = calloc(1, sizeof(*note));

	if (fd < 0 || !note)
		return fd < 0 ? fd : fail(-ENOMEM, "note a terminal");
	icp__pty__init(&note->msg);
	return look_inside(fd, &note->msg);
}

int pty_finish(const struct description *d, Icp__OpenFile *out)
{
	return fd_pack_detail(out, &((struct note *)d->note)->msg.base);
}

/* ---- restart ---- */

struct pty {
	const Icp__OpenFile *f;
	Icp__Pty *msg;
	int fd; /* until it is given away */
	unsigned index;
};

struct ptys {
	VEC(struct pty) list;
};

static void free_restored(void *slot)
{
	struct ptys *ptys = slot;

	vec_each (pty, &ptys->list) {
		cleanup_fd(&pty->fd);
		protobuf_c_message_free_unpacked(&pty->msg->base, NULL);
	}
	vec_free(&ptys->list);
	free(ptys);
}

static bool wanted(const struct restore_job *job, const Icp__OpenFile *f)
{
	uint32_t pid;

	return f->kind == FILE_PTY_MASTER &&
	       (f->in_flight || files_number(job, f->id, &pid) != UINT32_MAX);
}

static int ptys_of(const struct restore_job *job, struct ptys **out)
{
	const Icp__OpenFiles *all = files_restore_all(job);
	void **slot = files_restore_slot(job, FILE_PTY_MASTER);

	*out = *slot;
	if (*slot)
		return 0;
	*out = *slot = calloc(1, sizeof(struct ptys));
	if (!*slot)
		return fail(-ENOMEM, "prepare terminals");
	for (size_t i = 0; i < all->n_files; i++) {
		struct pty *pty;
		Icp__Pty *msg;
		int err;

		if (!wanted(job, all->files[i]))
			continue;
		err = fd_unpack_detail(all->files[i], &icp__pty__descriptor, &msg);
		if (err)
			return err;
		pty = vec_push(&(*out)->list);
		if (!pty) {
			protobuf_c_message_free_unpacked(&msg->base, NULL);
			return fail(-ENOMEM, "prepare terminals");
		}
		*pty = (struct pty){all->files[i], msg, -1, 0};
	}
	return 0;
}

static struct pty *find_slave(struct ptys *ptys, uint32_t major, uint32_t minor)
{
	vec_each (pty, &ptys->list)
		if (major == SLAVE_MAJOR && pty->msg->index == minor)
			return pty;
	return NULL;
}

static int verify_master(struct restore_job *job, const Icp__OpenFile *f)
{
	struct ptys *ptys;
	int err = ptys_of(job, &ptys);

	if (err)
		return err;
	vec_each (pty, &ptys->list)
		if (pty->msg->termios.len != sizeof(struct termios2) ||
		    pty->msg->winsize.len != sizeof(struct winsize))
			return refuse(-EBADMSG, "the settings of a terminal make no sense");
	return 0;
}

/* The lowest index that is free is given out: those below are held until it is the one. */
static int open_index(unsigned want, uint32_t flags, unsigned *index)
{
	int held[INDEX_MAX], fd = -1, best = -1;
	size_t n = 0;

	*index = UINT32_MAX;
	while (n < INDEX_MAX && *index != want) {
		fd = open("/dev/ptmx",
			  (int)(flags & (O_ACCMODE | O_NONBLOCK)) | O_NOCTTY | O_CLOEXEC);
		if (fd < 0 || ioctl(fd, TIOCGPTN, index))
			break;
		held[n++] = fd;
		if (*index > want)
			break;
	}
	if (n) {
		best = held[*index == want ? n - 1 : 0];
		ioctl(best, TIOCGPTN, index);
	}
	for (size_t i = 0; i < n; i++)
		if (held[i] != best)
			close(held[i]);
	return best < 0 ? fail(-errno, "make a terminal") : best;
}

static int settle(struct pty *pty)
{
	int locked = pty->msg->locked, packet = pty->msg->packet;
	char path[32];

	if (ioctl(pty->fd, TCSETS2, pty->msg->termios.data) ||
	    ioctl(pty->fd, TIOCSWINSZ, pty->msg->winsize.data) ||
	    ioctl(pty->fd, TIOCSPTLCK, &locked) || ioctl(pty->fd, TIOCPKT, &packet))
		return fail(-errno, "settings of a terminal");
	snprintf(path, sizeof(path), "/dev/pts/%u", pty->index);
	if (pty->msg->mode &&
	    (chown(path, pty->msg->uid, pty->msg->gid) || chmod(path, pty->msg->mode)))
		note("owner and mode of %s stay as they are: %s", path, strerror(errno));
	return 0;
}

static int make(struct pty *pty)
{
	if (pty->fd >= 0)
		return 0;
	pty->fd = open_index(pty->msg->index, pty->f->flags, &pty->index);
	if (pty->fd < 0)
		return pty->fd;
	if (pty->index != pty->msg->index)
		note("the terminal /dev/pts/%u is /dev/pts/%u now: the number is taken",
		     pty->msg->index, pty->index);
	return settle(pty);
}

static struct pty *pty_of(struct ptys *ptys, const Icp__OpenFile *f)
{
	vec_each (pty, &ptys->list)
		if (pty->f == f)
			return pty;
	return NULL;
}

static int open_master(struct restore_job *job, const Icp__OpenFile *f)
{
	struct ptys *ptys;
	int err = ptys_of(job, &ptys), fd;

	if (!err)
		err = make(pty_of(ptys, f));
	if (err)
		return err;
	fd = fcntl(pty_of(ptys, f)->fd, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? fail(-errno, "keep a terminal") : fd;
}

/* Locked or not. */
static int open_peer(const struct pty *pty, uint32_t flags)
{
	int locked = 0, fd;

	if (pty->msg->locked)
		ioctl(pty->fd, TIOCSPTLCK, &locked);
	fd = ioctl(pty->fd, TIOCGPTPEER,
		   (int)(flags & (O_ACCMODE | O_NONBLOCK)) | O_NOCTTY | O_CLOEXEC);
	locked = pty->msg->locked;
	ioctl(pty->fd, TIOCSPTLCK, &locked);
	return fd < 0 ? fail(-errno, "open a terminal") : fd;
}

/* As /proc/PID/stat has it. */
static struct pty *controlling(struct ptys *ptys, uint32_t tty)
{
	return find_slave(ptys, tty >> 8 & 0xfff, (tty & 0xff) | (tty >> 12 & 0xfff00));
}

/* /dev/tty is the controlling terminal of whoever opened it. */
static struct pty *find_opened(const struct restore_job *job, struct ptys *ptys,
			       const Icp__OpenFile *f)
{
	uint32_t major = (uint32_t)(f->rdev >> 32), minor = (uint32_t)f->rdev, pid = 0;

	if (major != TTYAUX_MAJOR || minor)
		return find_slave(ptys, major, minor);
	files_number(job, f->id, &pid);
	for (size_t i = 0; i < job->manifest->n_processes; i++)
		if (job->manifest->processes[i]->pid == pid)
			return controlling(ptys, job->manifest->processes[i]->tty);
	return NULL;
}

/* What was typed into a terminal outside is not the job's yet. */
int pty_slave_verify(struct restore_job *job, const Icp__OpenFile *f)
{
	struct ptys *ptys;
	Icp__Pty *msg;
	int err = ptys_of(job, &ptys);

	if (err || !f->detail.len || !find_opened(job, ptys, f))
		return err;
	err = fd_unpack_detail(f, &icp__pty__descriptor, &msg);
	if (err)
		return err;
	if (msg->waiting)
		err = refuse_waiting(msg, "input");
	protobuf_c_message_free_unpacked(&msg->base, NULL);
	return err;
}

int pty_slave_open(struct restore_job *job, const Icp__OpenFile *f)
{
	struct ptys *ptys;
	struct pty *pty;
	int err = ptys_of(job, &ptys);

	if (err)
		return err;
	pty = find_opened(job, ptys, f);
	if (!pty)
		return -ENOENT;
	err = make(pty);
	return err ? err : open_peer(pty, f->flags);
}

static int late_master(struct restore_job *job, const Icp__OpenFile *f, int fd)
{
	struct ptys *ptys;
	struct pty *pty;
	int err = ptys_of(job, &ptys), peer;

	if (err)
		return err;
	pty = pty_of(ptys, f);
	if (pty->msg->hung_up) { /* by its being opened and closed */
		peer = open_peer(pty, O_RDWR);
		if (peer < 0)
			return peer;
		close(peer);
	}
	if (pty->msg->exclusive && ioctl(fd, TIOCEXCL))
		return fail(-errno, "exclusive mode of a terminal");
	cleanup_fd(&pty->fd);
	pty->fd = -1;
	return 0;
}

int pty_restore_session(struct state_restore *r)
{
	_cleanup_fd_ int slave = -1;
	struct ptys *ptys;
	struct pty *pty;
	int err = ptys_of(r->job, &ptys);

	pty = err || !r->image->tty ? NULL : controlling(ptys, r->image->tty);
	if (!pty || pty->fd < 0)
		return err;
	slave = open_peer(pty, O_RDWR);
	if (slave < 0)
		return slave;
	return ioctl(slave, TIOCSCTTY, 0) ? fail(-errno, "its controlling terminal") : 0;
}

int pty_restore_foreground(struct state_restore *r, struct batch *b)
{
	struct ptys *ptys;
	struct pty *pty;
	uint64_t name, group;
	int32_t pgrp;
	long fd;
	int err = ptys_of(r->job, &ptys);

	pty = err || !r->image->tty ? NULL : controlling(ptys, r->image->tty);
	if (!pty || r->image->sid != r->image->pid || !pty->msg->foreground ||
	    pty->msg->foreground == r->image->pgid)
		return err;
	pgrp = (int32_t)pty->msg->foreground;
	err = batch_data(b, "/dev/tty", sizeof("/dev/tty"), &name);
	if (!err)
		err = batch_data(b, &pgrp, sizeof(pgrp), &group);
	if (!err)
		err = batch_now(b, "open its terminal", SYS_openat,
				BATCH_ARGS((uint64_t)AT_FDCWD, name, O_RDWR | O_NOCTTY), &fd);
	if (!err) /* all of the group may have ended */
		err = batch_try(b, SYS_ioctl, BATCH_ARGS((uint64_t)fd, TIOCSPGRP, group));
	return err ? err
		   : batch_call(b, "close its terminal", SYS_close, BATCH_ARGS((uint64_t)fd));
}

const struct fd_kind fd_pty_master = {.kind = FILE_PTY_MASTER,
				      .text = "a terminal's master",
				      .check_job = check_masters,
				      .dump = dump_master,
				      .finish = pty_finish,
				      .free_note = free,
				      .verify = verify_master,
				      .open = open_master,
				      .late = late_master,
				      .free_restored = free_restored};
