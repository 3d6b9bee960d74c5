// SPDX-License-Identifier: GPL-2.0
/*
 * The restore half of "files". icp-bpf opens every description of the job once, above the
 * numbers that the processes use; they inherit all of them, so what was shared is shared again,
 * and each puts its own where they belong.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "state/files.h"
#include "state/files.pb-c.h"

#define FD_MAX (1u << 20)
#define LOWEST_FIRST_FD 64
/* What a description may be opened with; all others are of open(2) itself or unknown. */
#define KEPT_FLAGS                                                                             \
	(O_ACCMODE | O_APPEND | O_NONBLOCK | O_DIRECT | O_SYNC | O_DSYNC | O_NOATIME |         \
	 O_LARGEFILE | O_DIRECTORY | O_PATH)

struct pipe_ends {
	uint64_t inode;
	int ends[2];
	bool given[2];
};

struct restore_files {
	Icp__OpenFiles *msg;
	int *fds; /* by index in msg->files; -1: not opened */
	VEC(struct pipe_ends) pipes;
};

static int find_file(const struct restore_files *f, uint32_t id)
{
	for (size_t i = 0; i < f->msg->n_files; i++)
		if (f->msg->files[i]->id == id)
			return (int)i;
	return -1;
}

void files_restore_free(struct restore_files *f)
{
	if (!f)
		return;
	for (size_t i = 0; f->fds && i < f->msg->n_files; i++)
		cleanup_fd(&f->fds[i]);
	vec_each (p, &f->pipes) {
		cleanup_fd(&p->ends[0]);
		cleanup_fd(&p->ends[1]);
	}
	vec_free(&f->pipes);
	free(f->fds);
	if (f->msg)
		protobuf_c_message_free_unpacked(&f->msg->base, NULL);
	free(f);
}

int files_restore_new(struct restore_job *job)
{
	struct restore_files *f = job->files = calloc(1, sizeof(*f));
	int err;

	job->first_fd = LOWEST_FIRST_FD;
	if (!f)
		return fail(-ENOMEM, "prepare open files");
	err = restore_unpack(job->manifest->blobs, job->manifest->n_blobs, "files",
			     FILES_VERSION, &icp__open_files__descriptor, &f->msg);
	if (err)
		return err;
	f->fds = malloc((f->msg->n_files + 1) * sizeof(int));
	if (!f->fds)
		return fail(-ENOMEM, "prepare open files");
	for (size_t i = 0; i < f->msg->n_files; i++)
		f->fds[i] = -1;
	return 0;
}

/* ---- one process ---- */

static int check(struct state_restore *r, void **slot)
{
	Icp__FileTable *table;
	int err = restore_unpack(r->image->blobs, r->image->n_blobs, "files", FILES_VERSION,
				 &icp__file_table__descriptor, &table);

	if (err)
		return err;
	*slot = table;
	for (size_t i = 0; i < table->n_descriptors; i++) {
		const Icp__Descriptor *d = table->descriptors[i];
		int at = find_file(r->job->files, d->file);

		if (at < 0 || d->fd >= FD_MAX)
			return refuse(-EBADMSG, "descriptor %u makes no sense", d->fd);
		if (!file_restorable(r->job->files->msg->files[at]->kind))
			return refuse(-EOPNOTSUPP,
				      "descriptor %u is %s, which can't be restarted", d->fd,
				      file_kind_text(r->job->files->msg->files[at]->kind));
		if ((int)d->fd >= r->job->first_fd)
			r->job->first_fd = (int)d->fd + 1;
	}
	return 0;
}

static int stub(struct state_restore *r, void *note)
{
	const Icp__FileTable *table = note;

	if (syscall(SYS_close_range, 0, r->job->first_fd - 1, 0))
		return fail(-errno, "close what it inherited");
	for (size_t i = 0; i < table->n_descriptors; i++) {
		const Icp__Descriptor *d = table->descriptors[i];
		int from = r->job->files->fds[find_file(r->job->files, d->file)];

		if (dup3(from, (int)d->fd, d->close_on_exec ? O_CLOEXEC : 0) < 0)
			return fail(-errno, "descriptor %u", d->fd);
	}
	return 0;
}

static int process(struct state_restore *r, void *note, struct batch *b)
{
	return batch_call(b, "close what it inherited", SYS_close_range,
			  BATCH_ARGS((uint64_t)r->job->first_fd, UINT_MAX, 0));
}

static void free_note(void *note)
{
	protobuf_c_message_free_unpacked(note, NULL);
}

const struct restore_ops files_restore = {
	.check = check, .stub = stub, .process = process, .free_note = free_note};

/* ---- the job ---- */

static const char *path_of(const Icp__OpenFile *f, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%.*s", (int)f->path.len, (const char *)f->path.data);
	return path;
}

static int reopen(int fd, uint32_t flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, (int)(flags & KEPT_FLAGS) | O_CLOEXEC | O_NOCTTY);
}

/* By name. What it is gets looked at before it is really opened, which may have effects. */
static int open_path(const Icp__OpenFile *f, uint32_t flags)
{
	char buf[PATH_MAX];
	const char *path = path_of(f, buf);
	_cleanup_fd_ int at = -1, fd = -1;
	struct stat st;

	if (path[0] != '/' || strlen(path) != f->path.len)
		return refuse(-EBADMSG, "the open file '%s' is no path", path);
	if (f->deleted)
		return refuse(-EOPNOTSUPP, "%s was deleted", path);
	at = open(path, O_PATH | O_CLOEXEC);
	if (at < 0 || fstat(at, &st))
		return fail(-errno, "open %s", path);
	if ((st.st_mode & S_IFMT) != (f->mode & S_IFMT) ||
	    (S_ISCHR(st.st_mode) && st.st_rdev != makedev(f->rdev >> 32, (uint32_t)f->rdev)))
		return refuse(-ESTALE, "%s is something else now", path);
	if (S_ISREG(st.st_mode) && !(flags & O_PATH) && (uint64_t)st.st_size < f->size)
		return refuse(-ESTALE, "%s is shorter than it was: %lld bytes instead of %llu",
			      path, (long long)st.st_size, (unsigned long long)f->size);
	fd = flags & O_PATH ? open(path, O_CLOEXEC | (int)(flags & KEPT_FLAGS))
			    : reopen(at, flags);
	if (fd < 0)
		return fail(-errno, "open %s", path);
	if ((S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) && !(flags & O_PATH) && f->offset &&
	    lseek(fd, f->offset, SEEK_SET) != f->offset)
		return fail(-errno, "seek in %s", path);
	return take_fd(&fd);
}

static const Icp__PipeContent *content_of(const struct restore_files *f, uint64_t inode)
{
	for (size_t i = 0; i < f->msg->n_pipes; i++)
		if (f->msg->pipes[i]->inode == inode)
			return f->msg->pipes[i];
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

/* The ends of the pipe with this inode, made when it is first met. */
static int pipe_of(struct restore_job *job, const Icp__OpenFile *f, struct pipe_ends **out)
{
	struct restore_files *files = job->files;
	const Icp__PipeContent *content = content_of(files, f->inode);
	struct pipe_ends *p;
	int ends[2];

	vec_each (known, &files->pipes) {
		*out = known;
		if (known->inode == f->inode)
			return 0;
	}
	p = *out = vec_push(&files->pipes);
	if (!p)
		return fail(-ENOMEM, "make a pipe");
	*p = (struct pipe_ends){f->inode, {-1, -1}, {false, false}};
	if (f->kind == FILE_FIFO) { /* one descriptor for both, which never blocks */
		ends[0] = open_path(f, O_RDWR | O_NONBLOCK);
		if (ends[0] < 0)
			return ends[0];
		ends[1] = fcntl(ends[0], F_DUPFD_CLOEXEC, 0);
	} else if (pipe2(ends, O_CLOEXEC)) {
		return fail(-errno, "make a pipe");
	}
	p->ends[0] = restore_high_fd(job, ends[0]);
	p->ends[1] = restore_high_fd(job, ends[1]);
	if (p->ends[0] < 0 || p->ends[1] < 0)
		return -EMFILE;
	return content && content->data.len ? fill_pipe(p->ends[1], content) : 0;
}

/* Does somebody of the job hold the other end? */
static bool both_ends(const struct restore_files *f, uint64_t inode)
{
	bool has[2] = {false, false};

	for (size_t i = 0; i < f->msg->n_files; i++) {
		const Icp__OpenFile *o = f->msg->files[i];

		if (o->kind != FILE_PIPE || o->inode != inode)
			continue;
		has[0] |= (o->flags & O_ACCMODE) != O_WRONLY;
		has[1] |= (o->flags & O_ACCMODE) != O_RDONLY;
	}
	return has[0] && has[1];
}

/* The lowest number that the job has the file @id under, and in which process. */
static uint32_t number_of(const Icp__Manifest *m, uint32_t id, uint32_t *pid)
{
	uint32_t lowest = UINT32_MAX;

	for (size_t i = 0; i < m->n_processes; i++) {
		Icp__FileTable *table;

		if (restore_unpack(m->processes[i]->blobs, m->processes[i]->n_blobs, "files",
				   FILES_VERSION, &icp__file_table__descriptor, &table)) {
			err_clear();
			continue;
		}
		for (size_t k = 0; k < table->n_descriptors; k++)
			if (table->descriptors[k]->file == id &&
			    table->descriptors[k]->fd < lowest) {
				lowest = table->descriptors[k]->fd;
				*pid = m->processes[i]->pid;
			}
		protobuf_c_message_free_unpacked(&table->base, NULL);
	}
	return lowest;
}

static int no_other_end(const Icp__OpenFile *f, uint32_t pid, uint32_t fd)
{
	char path[PATH_MAX];

	return refuse(
		-EOPNOTSUPP,
		"pid %u: descriptor %u is a pipe (%s) whose other end is not part of the job, "
		"which can't be restarted (with --no-restart its data can be saved)",
		pid, fd, path_of(f, path));
}

int files_restore_check(const struct restore_job *job)
{
	for (size_t i = 0; i < job->files->msg->n_files; i++) {
		const Icp__OpenFile *f = job->files->msg->files[i];
		uint32_t fd, pid = 0;

		if (f->kind != FILE_PIPE || both_ends(job->files, f->inode))
			continue;
		fd = number_of(job->manifest, f->id, &pid);
		if (fd > STDERR_FILENO && fd != UINT32_MAX)
			return no_other_end(f, pid, fd);
	}
	return 0;
}

/* What led out of the job is the restarter's own standard input or output now. */
static int inherit(struct restore_job *job, const Icp__OpenFile *f)
{
	uint32_t pid = 0, fd = number_of(job->manifest, f->id, &pid),
		 want = f->flags & O_ACCMODE;
	int flags = fd <= 2 ? fcntl((int)fd, F_GETFL) : -1, copy;

	if (flags < 0)
		return no_other_end(f, pid, fd);
	if ((uint32_t)(flags & O_ACCMODE) != want && (flags & O_ACCMODE) != O_RDWR)
		return refuse(-EBADF,
			      "descriptor %u led out of the job, and that of icp-bpf "
			      "doesn't fit",
			      fd);
	copy = fcntl((int)fd, F_DUPFD_CLOEXEC, job->first_fd);
	return copy < 0 ? fail(-errno, "keep descriptor %u", fd) : copy;
}

static int open_terminal(const Icp__OpenFile *f)
{
	char path[PATH_MAX];
	int fd;

	for (int ours = 0; ours <= 2; ours++) {
		if (!isatty(ours))
			continue;
		fd = reopen(ours, f->flags);
		return fd < 0 ? fail(-errno, "open the terminal") : fd;
	}
	return refuse(-ENOTTY, "the job has the terminal %s open, and icp-bpf has none",
		      path_of(f, path));
}

static int open_memfd(struct restore_job *job, const Icp__OpenFile *f)
{
	int object = objects_find(job->objects, f->dev, f->inode), fd;
	char path[PATH_MAX];

	if (object < 0 && !f->size)
		object = objects_add(job, f->dev, f->inode, path_of(f, path), 0);
	if (object < 0)
		return refuse(-EOPNOTSUPP, "the content of %s is not in the image",
			      path_of(f, path));
	if (ftruncate(object, (off_t)f->size))
		return fail(-errno, "size of %s", path_of(f, path));
	fd = reopen(object, f->flags);
	if (fd < 0 || (f->offset && lseek(fd, f->offset, SEEK_SET) != f->offset)) {
		cleanup_fd(&fd);
		return fail(-errno, "open %s", path_of(f, path));
	}
	return fd;
}

/* pipe(2) made most of them; others were opened through /proc, which adds O_LARGEFILE. */
static int open_pipe(struct restore_job *job, const Icp__OpenFile *f)
{
	bool write = (f->flags & O_ACCMODE) == O_WRONLY;
	struct pipe_ends *p;
	int err = pipe_of(job, f, &p), fd;

	if (err)
		return err;
	if (f->flags & O_LARGEFILE || p->given[write]) {
		/* packet mode can't be had by open(2) */
		fd = reopen(p->ends[write], f->flags & ~(uint32_t)O_DIRECT);
	} else {
		fd = fcntl(p->ends[write], F_DUPFD_CLOEXEC, 0);
		p->given[write] = true;
	}
	if (fd >= 0 && fcntl(fd, F_SETFL, (int)(f->flags & KEPT_FLAGS))) {
		close(fd);
		fd = -1;
	}
	return fd < 0 ? fail(-errno, "open a pipe") : fd;
}

static int open_one(struct restore_job *job, const Icp__OpenFile *f)
{
	switch ((enum file_kind)f->kind) {
	case FILE_PIPE:
		return both_ends(job->files, f->inode) ? open_pipe(job, f) : inherit(job, f);
	case FILE_FIFO:
		return open_pipe(job, f);
	case FILE_TERMINAL:
		return open_terminal(f);
	case FILE_MEMFD:
		return open_memfd(job, f);
	case FILE_REGULAR:
	case FILE_DIRECTORY:
	case FILE_MEMORY_DEVICE:
		return open_path(f, f->flags & ~(uint32_t)O_PATH);
	case FILE_PATH:
		return open_path(f, f->flags | O_PATH);
	default:
		return refuse(-EOPNOTSUPP, "%s can't be restarted", file_kind_text(f->kind));
	}
}

int files_restore_open(struct restore_job *job)
{
	struct restore_files *files = job->files;
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit)) { /* a process gets its own again */
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	for (size_t i = 0; i < files->msg->n_files; i++) {
		const Icp__OpenFile *f = files->msg->files[i];
		int fd;

		if (number_of(job->manifest, f->id, &(uint32_t){0}) == UINT32_MAX)
			continue; /* its process ended in the meantime */
		fd = open_one(job, f);
		if (fd >= 0)
			fd = restore_high_fd(job, fd);
		if (fd < 0)
			return fd;
		files->fds[i] = fd;
	}
	vec_each (p, &files->pipes) {
		cleanup_fd(&p->ends[0]);
		cleanup_fd(&p->ends[1]);
	}
	files->pipes.n = 0;
	return 0;
}

int files_restore_seal(struct restore_job *job)
{
	for (size_t i = 0; i < job->files->msg->n_files; i++) {
		const Icp__OpenFile *f = job->files->msg->files[i];

		if (f->kind == FILE_MEMFD && f->memfd_seals && job->files->fds[i] >= 0 &&
		    fcntl(job->files->fds[i], F_ADD_SEALS, f->memfd_seals) && errno != EPERM)
			return fail(-errno, "seal a memfd");
	}
	return 0;
}
