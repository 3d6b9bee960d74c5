// SPDX-License-Identifier: GPL-2.0
/*
 * inotify(7). /proc tells of a watch the file's handle, not its name: that is found by opening the
 * handle. What was queued can't be looked at without taking it away: it is lost, and the program
 * is told so as the kernel does, by IN_Q_OVERFLOW.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "state/fd_events.pb-c.h"
#include "state/fdkind.h"

#define SET_NEXT_WD _IOW('I', 0, int32_t) /* INOTIFY_IOC_SETNEXTWD */
#define KEPT_MASK (IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT)

struct watch {
	uint32_t wd, mask, dev; /* dev as the kernel has it */
	uint64_t inode;
	struct file_handle *handle; /* in room */
	_Alignas(struct file_handle) char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
};

/* inotify wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8
 * fhandle-type:1 f_handle:7e9e0000640d1b6d */
static bool parse(const char *line, struct watch *w)
{
	struct file_handle *h = (struct file_handle *)w->room;
	unsigned bytes, type;
	int at = 0;

	if (sscanf(line,
		   "inotify wd:%" SCNx32 " ino:%" SCNx64 " sdev:%" SCNx32 " mask:%" SCNx32
		   " ignored_mask:%*x fhandle-bytes:%x fhandle-type:%x f_handle:%n",
		   &w->wd, &w->inode, &w->dev, &w->mask, &bytes, &type, &at) < 4)
		return false;
	w->handle = NULL;
	if (!at || bytes > MAX_HANDLE_SZ)
		return true;
	h->handle_bytes = bytes;
	h->handle_type = (int)type;
	for (unsigned i = 0; i < bytes; i++)
		if (sscanf(line + at + 2 * (size_t)i, "%2hhx", &h->f_handle[i]) != 1)
			return true;
	w->handle = h;
	return true;
}

/* The next mount point of that device in the text of mountinfo. */
static bool next_mount(const char **text, uint32_t dev, char path[PATH_MAX])
{
	for (const char *line = *text; line && *line; line = *text) {
		unsigned maj, min;
		int got = sscanf(line, "%*d %*d %u:%u %*s %4095s", &maj, &min, path);

		*text = strchr(line, '\n');
		*text += *text != NULL;
		if (got == 3 && maj == dev >> 20 && min == (dev & 0xfffff))
			return true;
	}
	return false;
}

/* To be freed; NULL when nobody knows. */
static char *name_of(const char *mounts, const struct watch *w)
{
	char path[PATH_MAX];

	while (w->handle && mounts && next_mount(&mounts, w->dev, path)) {
		_cleanup_fd_ int root = open(path, O_RDONLY | O_CLOEXEC);
		_cleanup_fd_ int fd =
			root < 0 ? -1 : open_by_handle_at(root, w->handle, O_PATH | O_CLOEXEC);
		struct stat here, there;
		char link[32];
		ssize_t len;

		if (fd < 0)
			continue;
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		len = readlink(link, path, sizeof(path) - 1);
		path[len < 0 ? 0 : len] = 0;
		if (len > 0 && !fstat(fd, &here) && !stat(path, &there) &&
		    here.st_ino == there.st_ino && here.st_dev == there.st_dev)
			return strdup(path);
	}
	return NULL;
}

static const char *next_line(const char *line)
{
	line = strchr(line, '\n');
	return line ? line + 1 : "";
}

static int check(struct state_process *p, const struct fd_info *f)
{
	_cleanup_free_ char *mounts = NULL;

	if (io_read_file(AT_FDCWD, "/proc/self/mountinfo", &mounts, NULL))
		return fail(-errno, "read the mounts");
	for (const char *line = f->fdinfo; *line; line = next_line(line)) {
		_cleanup_free_ char *name = NULL;
		struct watch w = {0};

		if (!parse(line, &w))
			continue;
		name = name_of(mounts, &w);
		if (!name)
			return refuse(
				-EOPNOTSUPP,
				"an inotify instance that watches a file whose name can't "
				"be found (inode %" PRIu64 ")",
				w.inode);
	}
	return 0;
}

static int dump(struct state_process *p, struct file_jobs *jobs, struct description *d)
{
	_cleanup_fd_ int fd = fd_borrow(p, d->info.fd);
	int *queued = d->note = calloc(1, sizeof(*queued));

	if (fd < 0)
		return fd;
	if (!queued)
		return fail(-ENOMEM, "note an inotify instance");
	return ioctl(fd, FIONREAD, queued) ? fail(-errno, "look into descriptor %d", d->info.fd)
					   : 0;
}

static int add_watch(Icp__Inotify *out, const char *mounts, const struct watch *w)
{
	Icp__InotifyWatch **list = realloc(out->watches, (out->n_watches + 1) * sizeof(*list));
	Icp__InotifyWatch *msg = list ? malloc(sizeof(*msg)) : NULL;

	if (list)
		out->watches = list;
	if (!msg)
		return fail(-ENOMEM, "note an inotify instance");
	icp__inotify_watch__init(msg);
	list[out->n_watches++] = msg;
	msg->wd = w->wd;
	msg->mask = w->mask;
	msg->inode = w->inode;
	msg->path.data = (uint8_t *)name_of(mounts, w);
	msg->path.len = msg->path.data ? strlen((char *)msg->path.data) : 0;
	return 0;
}

static int finish(const struct description *d, Icp__OpenFile *out)
{
	_cleanup_free_ char *mounts = NULL;
	Icp__Inotify msg = ICP__INOTIFY__INIT;
	int err = 0;

	msg.queued = (uint32_t) * (const int *)d->note;
	if (io_read_file(AT_FDCWD, "/proc/self/mountinfo", &mounts, NULL))
		return fail(-errno, "read the mounts");
	for (const char *line = d->info.fdinfo; *line && !err; line = next_line(line)) {
		struct watch w = {0};

		if (parse(line, &w))
			err = add_watch(&msg, mounts, &w);
	}
	if (!err)
		err = fd_pack_detail(out, &msg.base);
	for (size_t i = 0; i < msg.n_watches; i++) {
		free(msg.watches[i]->path.data);
		free(msg.watches[i]);
	}
	free(msg.watches);
	return err;
}

/* ---- restart ---- */

static int verify(struct restore_job *job, const Icp__OpenFile *f)
{
	uint32_t pid = 0, fd = files_number(job, f->id, &pid);
	Icp__Inotify *msg;
	int err = fd_unpack_detail(f, &icp__inotify__descriptor, &msg);

	if (err)
		return err;
	for (size_t i = 0; i < msg->n_watches && !err; i++)
		if (!msg->watches[i]->path.len || msg->watches[i]->path.len >= PATH_MAX)
			err = refuse(
				-EOPNOTSUPP,
				"pid %u: descriptor %u is an inotify instance that watches "
				"a file whose name can't be found (inode %" PRIu64 ")",
				pid, fd, msg->watches[i]->inode);
	protobuf_c_message_free_unpacked(&msg->base, NULL);
	return err;
}

static int watch(int fd, const Icp__InotifyWatch *w)
{
	int32_t next = (int32_t)w->wd;
	char path[PATH_MAX];
	int wd;

	snprintf(path, sizeof(path), "%.*s", (int)w->path.len, (const char *)w->path.data);
	if (ioctl(fd, SET_NEXT_WD, next))
		return fail(-errno, "watch %s", path);
	wd = inotify_add_watch(fd, path, w->mask & KEPT_MASK);
	if (wd < 0)
		return fail(-errno, "watch %s", path);
	return wd == (int)w->wd
		       ? 0
		       : refuse(-ESTALE, "%s can't be watched as number %u", path, w->wd);
}

struct toy {
	int fd, wd;
};

static int make_toy(int fd, struct toy *out)
{
	char path[32];

	out->fd = memfd_create("icp-bpf", MFD_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", out->fd);
	out->wd = out->fd < 0 ? -1 : inotify_add_watch(fd, path, IN_ATTRIB);
	return out->wd < 0 ? -errno : 0;
}

static int queued(int fd)
{
	int bytes;

	return ioctl(fd, FIONREAD, &bytes) ? -errno : bytes;
}

/* Until nothing more fits: the last one says so. Equal ones that follow each other are one. */
static int fill_queue(int fd, const struct toy toys[2])
{
	int bytes = 0, before = -1;

	for (unsigned i = 0; bytes > before; i++) {
		if (fchmod(toys[i % 2].fd, 0600))
			return -errno;
		before = bytes;
		bytes = queued(fd);
	}
	return bytes < 0 ? bytes : 0;
}

/* All but the last. */
static int empty_queue(int fd)
{
	char buf[256 * sizeof(struct inotify_event)];
	int left = queued(fd);

	while (left > (int)sizeof(struct inotify_event)) {
		size_t want = (size_t)left - sizeof(struct inotify_event);
		ssize_t got = read(fd, buf, want < sizeof(buf) ? want : sizeof(buf));

		if (got <= 0)
			return got ? -errno : -ENODATA;
		left -= (int)got;
	}
	return left < 0 ? left : 0;
}

static int overflow(int fd)
{
	struct toy toys[2] = {{-1, -1}, {-1, -1}};
	int err = make_toy(fd, &toys[0]);

	if (!err)
		err = make_toy(fd, &toys[1]);
	if (!err)
		err = fill_queue(fd, toys);
	/* the queue is full: nothing tells of this */
	for (int i = 0; i < 2; i++) {
		if (toys[i].wd >= 0 && inotify_rm_watch(fd, toys[i].wd) && !err)
			err = -errno;
		cleanup_fd(&toys[i].fd);
	}
	if (!err)
		err = empty_queue(fd);
	return err ? fail(err, "tell of lost events") : 0;
}

static int open_inotify(struct restore_job *job, const Icp__OpenFile *f)
{
	_cleanup_fd_ int fd = inotify_init1(IN_CLOEXEC | (int)(f->flags & O_NONBLOCK));
	uint32_t next = 0;
	Icp__Inotify *msg;
	int err = fd_unpack_detail(f, &icp__inotify__descriptor, &msg);

	if (err)
		return err;
	if (fd < 0)
		err = fail(-errno, "make an inotify instance");
	if (!err && msg->queued)
		err = overflow(fd);
	/* /proc has the newest first */
	for (size_t i = msg->n_watches; i > 0 && !err; i--) {
		err = watch(fd, msg->watches[i - 1]);
		if (next <= msg->watches[i - 1]->wd)
			next = msg->watches[i - 1]->wd + 1;
	}
	if (!err && next && next <= INT_MAX && ioctl(fd, SET_NEXT_WD, (int32_t)next))
		err = fail(-errno, "number watches");
	protobuf_c_message_free_unpacked(&msg->base, NULL);
	return err ? err : take_fd(&fd);
}

const struct fd_kind fd_inotify = {.kind = FILE_INOTIFY,
				   .text = "an inotify instance",
				   .check = check,
				   .dump = dump,
				   .finish = finish,
				   .free_note = free,
				   .verify = verify,
				   .open = open_inotify};
