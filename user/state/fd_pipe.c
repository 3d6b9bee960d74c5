// SPDX-License-Identifier: GPL-2.0
/*
 * Pipes, with a name or without. What is in one is copied by tee(2): it stays there. An end that
 * leads out of the job is the restarter's own standard input or output after a restart.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "state/contents.h"
#include "state/fdkind.h"

/* ---- dump ---- */

struct copy {
	uint64_t inode;
	int fd; /* read end of our copy */
	uint32_t capacity, bytes;
	bool packets;
};

struct copies {
	VEC(struct copy) list;
	VEC(Icp__PipeContent) contents;
	Icp__PipeContent **pointers;
};

static void free_copies(void *slot)
{
	struct copies *all = slot;

	vec_each (copy, &all->list)
		cleanup_fd(&copy->fd);
	vec_each (c, &all->contents) {
		free(c->data.data);
		free(c->packets);
	}
	vec_free(&all->list);
	vec_free(&all->contents);
	free(all->pointers);
	free(all);
}

static struct copies *copies_of(struct file_jobs *jobs)
{
	void **slot = file_jobs_slot(jobs, FILE_PIPE);

	if (!*slot)
		*slot = calloc(1, sizeof(struct copies));
	return *slot;
}

/* Does anybody have the other end? Without writers there is a hang-up, without readers an error. */
static bool is_alone(int fd)
{
	struct pollfd p = {.fd = fd};

	return poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR);
}

static void add_ends(bool has[2], uint32_t flags)
{
	has[0] |= (flags & O_ACCMODE) != O_WRONLY;
	has[1] |= (flags & O_ACCMODE) != O_RDONLY;
}

static int no_other_end(const char *path, uint32_t pid, uint32_t fd)
{
	return refuse(
		-EOPNOTSUPP,
		"pid %u: descriptor %u is a pipe (%s) whose other end is not part of the job, "
		"which can't be restarted (with --no-restart its data can be saved)",
		pid, fd, path);
}

/* Both ends are in the job, or it is somebody's standard input or output. */
static bool stays(const struct look *l, const struct seen_fd *s)
{
	struct seen_fd *const *same;
	size_t n = look_inode(l, s->f->st.st_ino, &same);
	bool has[2] = {false, false};

	for (size_t i = 0; i < n; i++) {
		const struct fd_info *f = same[i]->f;

		if (f->kind != FILE_PIPE)
			continue;
		add_ends(has, f->flags);
		if (f->fd <= STDERR_FILENO &&
		    (f->flags & O_ACCMODE) == (s->f->flags & O_ACCMODE))
			return true;
	}
	return has[0] && has[1];
}

static int check_job(struct look *l)
{
	look_each(s, l, FILE_PIPE)
	{
		_cleanup_fd_ int fd = -1;

		if (l->in_flight || stays(l, s))
			continue;
		fd = look_borrow(s);
		if (fd >= 0 && !is_alone(fd))
			return look_blame(
				l, s, 0,
				no_other_end(s->f->path, (uint32_t)s->pid, (uint32_t)s->f->fd));
	}
	return 0;
}

static int copy_pipe(struct copies *all, int fd, const struct fd_info *f)
{
	int bytes = 0, capacity = fcntl(fd, F_GETPIPE_SZ), ends[2];
	_cleanup_fd_ int in = -1, out = -1;
	struct copy *copy;
	ssize_t got = 0;

	if (ioctl(fd, FIONREAD, &bytes) || capacity < 0)
		return fail(-errno, "look into the pipe of descriptor %d", f->fd);
	if (bytes > 0) {
		if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
			return fail(-errno, "copy a pipe");
		in = ends[0];
		out = ends[1];
		/* Beyond pipe-user-pages-soft this is refused; most pipes aren't full. */
		if (capacity > fcntl(out, F_GETPIPE_SZ) &&
		    fcntl(out, F_SETPIPE_SZ, capacity) < 0)
			errno = 0;
		got = tee(fd, out, (size_t)bytes, SPLICE_F_NONBLOCK);
		if (got != bytes)
			return fail(got < 0 ? -errno : -ENOSPC,
				    "copy what is in the pipe of descriptor %d", f->fd);
	}
	copy = vec_push(&all->list);
	if (!copy)
		return fail(-ENOMEM, "note a pipe");
	*copy = (struct copy){.inode = f->st.st_ino,
			      .fd = take_fd(&in),
			      .capacity = (uint32_t)capacity,
			      .bytes = (uint32_t)bytes,
			      .packets = f->flags & O_DIRECT};
	return 0;
}

/* The packet mode is the writer's flag, and the writer may come after the reader. */
static bool is_known(struct copies *all, const struct fd_info *f)
{
	vec_each (copy, &all->list) {
		if (copy->inode != f->st.st_ino)
			continue;
		copy->packets |= !!(f->flags & O_DIRECT);
		return true;
	}
	return false;
}

static int dump(struct state_process *p, struct file_jobs *jobs, struct description *d)
{
	struct copies *all = copies_of(jobs);
	_cleanup_fd_ int fd = fd_borrow(p, d->info.fd);
	char path[32];

	if (fd < 0)
		return fd;
	if (!all)
		return fail(-ENOMEM, "note a pipe");
	d->note = is_alone(fd) ? all : NULL;
	if (is_known(all, &d->info))
		return 0;
	close(take_fd(&fd));
	/* a read end, whichever end it is */
	snprintf(path, sizeof(path), "fd/%d", d->info.fd);
	fd = openat(p->target->proc_fd, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return fail(-errno, "look into descriptor %d (%s)", d->info.fd, d->info.path);
	return copy_pipe(all, fd, &d->info);
}

static int finish(const struct description *d, Icp__OpenFile *out)
{
	out->alone = d->note != NULL;
	return 0;
}

/* Empty our copy of a pipe into @out, whose buffers are allocated. */
static int take_content(struct copy *copy, Icp__PipeContent *out)
{
	size_t max_packets = copy->packets ? copy->bytes : 0;

	icp__pipe_content__init(out);
	out->inode = copy->inode;
	out->capacity = copy->capacity;
	out->data.data = malloc(copy->bytes + 1u);
	out->packets = calloc(max_packets + 1, sizeof(uint32_t));
	if (!out->data.data || !out->packets)
		return fail(-ENOMEM, "note a pipe");
	while (out->data.len < copy->bytes) {
		ssize_t got = read(copy->fd, out->data.data + out->data.len,
				   copy->bytes - out->data.len);

		if (got <= 0)
			return fail(got < 0 ? -errno : -ENODATA, "read the copy of a pipe");
		out->data.len += (size_t)got;
		if (copy->packets)
			out->packets[out->n_packets++] = (uint32_t)got;
	}
	return 0;
}

static int finish_job(void *slot, Icp__OpenFiles *out)
{
	struct copies *all = slot;
	int err = vec_reserve(&all->contents, all->list.n);

	all->pointers = calloc(all->list.n + 1, sizeof(*all->pointers));
	if (err || !all->pointers)
		return fail(-ENOMEM, "note pipes");
	out->pipes = all->pointers;
	vec_each (copy, &all->list) {
		Icp__PipeContent *content = vec_push(&all->contents);

		if (!content)
			return fail(-ENOMEM, "note pipes");
		out->pipes[out->n_pipes++] = content;
		err = take_content(copy, content);
		if (err)
			return err;
	}
	return 0;
}

/* ---- restart ---- */

struct ends {
	uint64_t inode;
	int ends[2];
	bool given[2];
};

struct made {
	VEC(struct ends) list;
};

static void free_made(void *slot)
{
	struct made *made = slot;

	vec_each (p, &made->list) {
		cleanup_fd(&p->ends[0]);
		cleanup_fd(&p->ends[1]);
	}
	vec_free(&made->list);
	free(made);
}

static const Icp__PipeContent *content_of(const struct restore_job *job, uint64_t inode)
{
	const Icp__OpenFiles *all = files_restore_all(job);

	for (size_t i = 0; i < all->n_pipes; i++)
		if (all->pipes[i]->inode == inode)
			return all->pipes[i];
	return NULL;
}

/* Put back what was in the pipe. In packet mode each write is a packet. */
static int fill_pipe(int in, const Icp__PipeContent *c)
{
	const uint8_t *data = c->data.data;
	size_t left = c->data.len;

	/* Refused beyond pipe-user-pages-soft; what was in it need not be more. */
	if (c->capacity > (uint32_t)fcntl(in, F_GETPIPE_SZ) && c->capacity <= INT_MAX &&
	    fcntl(in, F_SETPIPE_SZ, (int)c->capacity) < 0)
		errno = 0;
	if (fcntl(in, F_SETFL, O_NONBLOCK | (c->n_packets ? O_DIRECT : 0)))
		return fail(-errno, "fill a pipe");
	for (size_t i = 0; left; i++) {
		size_t len = c->n_packets ? (i < c->n_packets ? c->packets[i] : 0) : left;

		if (!len || len > left)
			return refuse(-EBADMSG, "the content of a pipe makes no sense");
		if (write(in, data, len) != (ssize_t)len)
			return fail(errno ? -errno : -ENOSPC, "fill a pipe with %zu bytes",
				    left);
		data += len;
		left -= len;
	}
	return 0;
}

/* It has a name for a moment. */
static int make_deleted(const Icp__OpenFile *f)
{
	char path[PATH_MAX], name[48];
	_cleanup_fd_ int dir = contents_directory(fd_path_of(f, path)), fd = -1;
	int err;

	if (dir < 0)
		return dir;
	snprintf(name, sizeof(name), ".icp-bpf-restart-%d", getpid());
	if (mkfifoat(dir, name, f->mode & 0777))
		return fail(-errno, "make the deleted pipe %s again", path);
	fd = openat(dir, name, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	err = fd < 0 ? -errno : 0;
	unlinkat(dir, name, 0);
	return err ? fail(err, "open the deleted pipe %s", path) : take_fd(&fd);
}

static int make_ends(struct restore_job *job, const Icp__OpenFile *f, struct ends *p)
{
	int ends[2];

	if (f->kind == FILE_FIFO) { /* one descriptor for both, which never blocks */
		ends[0] = f->deleted ? make_deleted(f) : fd_open_path(f, O_RDWR | O_NONBLOCK);
		if (ends[0] < 0)
			return ends[0];
		ends[1] = fcntl(ends[0], F_DUPFD_CLOEXEC, 0);
	} else if (pipe2(ends, O_CLOEXEC)) {
		return fail(-errno, "make a pipe");
	}
	p->ends[0] = restore_high_fd(job, ends[0]);
	p->ends[1] = restore_high_fd(job, ends[1]);
	return p->ends[0] < 0 || p->ends[1] < 0 ? -EMFILE : 0;
}

/* What is in a named pipe stays there as long as anybody has it open. */
static int check_empty(const Icp__OpenFile *f, int fd)
{
	char path[PATH_MAX];
	int bytes = 0;

	if (ioctl(fd, FIONREAD, &bytes))
		return fail(-errno, "look into %s", fd_path_of(f, path));
	return bytes ? refuse(-EBUSY,
			      "the named pipe %s has %d bytes in it: somebody else has it "
			      "open, end that first",
			      fd_path_of(f, path), bytes)
		     : 0;
}

/* The ends of the pipe with this inode, made when it is first met. */
static int pipe_of(struct restore_job *job, const Icp__OpenFile *f, struct ends **out)
{
	void **slot = files_restore_slot(job, FILE_PIPE);
	const Icp__PipeContent *content = content_of(job, f->inode);
	struct made *made;
	int err;

	if (!*slot)
		*slot = calloc(1, sizeof(*made));
	made = *slot;
	if (!made)
		return fail(-ENOMEM, "make a pipe");
	vec_each (known, &made->list) {
		*out = known;
		if (known->inode == f->inode)
			return 0;
	}
	*out = vec_push(&made->list);
	if (!*out)
		return fail(-ENOMEM, "make a pipe");
	**out = (struct ends){f->inode, {-1, -1}, {false, false}};
	err = make_ends(job, f, *out);
	if (!err && f->kind == FILE_FIFO)
		err = check_empty(f, (*out)->ends[0]);
	return !err && content && content->data.len ? fill_pipe((*out)->ends[1], content) : err;
}

/* Does somebody of the job hold the other end? */
static bool both_ends(const struct restore_job *job, uint64_t inode)
{
	const Icp__OpenFiles *all = files_restore_all(job);
	bool has[2] = {false, false};

	for (size_t i = 0; i < all->n_files; i++) {
		const Icp__OpenFile *o = all->files[i];

		if (o->kind != FILE_PIPE || o->inode != inode)
			continue;
		has[0] |= (o->flags & O_ACCMODE) != O_WRONLY;
		has[1] |= (o->flags & O_ACCMODE) != O_RDONLY;
	}
	return has[0] && has[1];
}

static int verify(struct restore_job *job, const Icp__OpenFile *f)
{
	uint32_t pid = 0, fd = files_number(job, f->id, &pid);
	char path[PATH_MAX];

	if (fd <= STDERR_FILENO || f->alone || both_ends(job, f->inode))
		return 0;
	return no_other_end(fd_path_of(f, path), pid, fd);
}

/* What led out of the job is the restarter's own standard input or output now. */
static int inherit(struct restore_job *job, const Icp__OpenFile *f)
{
	uint32_t pid = 0, fd = files_number(job, f->id, &pid), want = f->flags & O_ACCMODE;
	int flags = fd <= 2 ? fcntl((int)fd, F_GETFL) : -1, copy;
	char path[PATH_MAX];

	if (flags < 0)
		return no_other_end(fd_path_of(f, path), pid, fd);
	if ((uint32_t)(flags & O_ACCMODE) != want && (flags & O_ACCMODE) != O_RDWR)
		return refuse(-EBADF,
			      "descriptor %u led out of the job, and that of icp-bpf "
			      "doesn't fit",
			      fd);
	copy = fcntl((int)fd, F_DUPFD_CLOEXEC, job->first_fd);
	return copy < 0 ? fail(-errno, "keep descriptor %u", fd) : copy;
}

/* pipe(2) made most of them; others were opened through /proc, which adds O_LARGEFILE. */
static int open_end(struct restore_job *job, const Icp__OpenFile *f)
{
	bool write = (f->flags & O_ACCMODE) == O_WRONLY;
	struct ends *p = NULL;
	int err = pipe_of(job, f, &p), fd;

	if (err || !p)
		return err ? err : fail(-ENOMEM, "make a pipe");
	/* ours of a named one is for both */
	if (f->kind == FILE_FIFO || f->flags & O_LARGEFILE || p->given[write]) {
		/* packet mode can't be had by open(2) */
		fd = fd_reopen(p->ends[write], f->flags & ~(uint32_t)O_DIRECT);
	} else {
		fd = fcntl(p->ends[write], F_DUPFD_CLOEXEC, 0);
		p->given[write] = true;
	}
	if (fd >= 0 && fcntl(fd, F_SETFL, (int)(f->flags & FD_KEPT_FLAGS))) {
		close(fd);
		fd = -1;
	}
	return fd < 0 ? fail(-errno, "open a pipe") : fd;
}

static int open_pipe(struct restore_job *job, const Icp__OpenFile *f)
{
	return f->alone || both_ends(job, f->inode) ? open_end(job, f) : inherit(job, f);
}

const struct fd_kind fd_pipe = {.kind = FILE_PIPE,
				.text = "a pipe",
				.check_job = check_job,
				.dump = dump,
				.finish = finish,
				.finish_job = finish_job,
				.free_slot = free_copies,
				.verify = verify,
				.open = open_pipe,
				.free_restored = free_made};
const struct fd_kind fd_fifo = {
	.kind = FILE_FIFO, .text = "a named pipe", .dump = dump, .open = open_end};
