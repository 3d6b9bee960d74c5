// SPDX-License-Identifier: GPL-2.0
/*
 * Open files. Two descriptors of a job that share a description (dup, fork: one offset, one set
 * of flags) are found by kcmp(2). What is in a pipe is copied by tee(2): it stays there.
 */
#include "state/files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "state/files.pb-c.h"

#define BUCKETS 1024

/* An open file description, known by one descriptor that has it. */
struct description {
	pid_t pid;
	struct fd_info info;
	uint32_t seals;
	uint32_t next; /* index + 1 of the next one in its bucket */
};

struct pipe_copy {
	uint64_t inode;
	int fd; /* read end of our copy */
	uint32_t capacity, bytes;
	bool packets;
};

struct file_jobs {
	VEC(struct description) list;
	uint32_t bucket[BUCKETS];
	VEC(struct pipe_copy) pipes;
};

struct descriptor {
	int fd;
	bool cloexec;
	uint32_t id;
};

struct note {
	VEC(struct descriptor) list;
};

int file_jobs_new(struct file_jobs **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : -ENOMEM;
}

void file_jobs_free(struct file_jobs *f)
{
	if (!f)
		return;
	vec_each (d, &f->list) {
		free(d->info.path);
		free(d->info.fdinfo);
	}
	vec_each (p, &f->pipes)
		cleanup_fd(&p->fd);
	vec_free(&f->list);
	vec_free(&f->pipes);
	free(f);
}

static void free_note(void *arg)
{
	struct note *note = arg;

	vec_free(&note->list);
	free(note);
}

/* The same for all descriptors of one description, seldom for others. */
static uint32_t bucket_of(const struct fd_info *f)
{
	uint64_t h = f->st.st_ino * 0x9e3779b97f4a7c15u;

	h ^= (f->st.st_dev + (uint64_t)f->pos) * 0xc2b2ae3d27d4eb4fu;
	return (uint32_t)(h >> 32) % BUCKETS;
}

static bool alike(const struct fd_info *a, const struct fd_info *b)
{
	return a->st.st_ino == b->st.st_ino && a->st.st_dev == b->st.st_dev &&
	       a->pos == b->pos && (a->flags | O_CLOEXEC) == (b->flags | O_CLOEXEC) &&
	       a->mnt_id == b->mnt_id;
}

/* Its id, from 1; 0 when it isn't known yet; or a negative errno. */
static int find(struct file_jobs *jobs, pid_t pid, const struct fd_info *f)
{
	for (uint32_t at = jobs->bucket[bucket_of(f)]; at; at = jobs->list.data[at - 1].next) {
		const struct description *d = &jobs->list.data[at - 1];
		long diff;

		if (!alike(&d->info, f))
			continue;
		diff = syscall(SYS_kcmp, d->pid, pid, KCMP_FILE, d->info.fd, f->fd);
		if (diff < 0)
			return fail(-errno, "compare descriptor %d with %d of process %d",
				    f->fd, d->info.fd, d->pid);
		if (!diff)
			return (int)at;
	}
	return 0;
}

static int pipe_copy(struct file_jobs *jobs, int fd, const struct fd_info *f)
{
	int bytes = 0, capacity = fcntl(fd, F_GETPIPE_SZ), ends[2];
	_cleanup_fd_ int in = -1, out = -1;
	struct pipe_copy *copy;
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
	copy = vec_push(&jobs->pipes);
	if (!copy)
		return fail(-ENOMEM, "note a pipe");
	*copy = (struct pipe_copy){.inode = f->st.st_ino,
				   .fd = take_fd(&in),
				   .capacity = (uint32_t)capacity,
				   .bytes = (uint32_t)bytes,
				   .packets = f->flags & O_DIRECT};
	return 0;
}

/* The packet mode is the writer's flag, and the writer may come after the reader. */
static bool pipe_known(struct file_jobs *jobs, const struct fd_info *f)
{
	vec_each (copy, &jobs->pipes) {
		if (copy->inode != f->st.st_ino)
			continue;
		copy->packets |= !!(f->flags & O_DIRECT);
		return true;
	}
	return false;
}

/* What is needed besides /proc, of kinds that can be opened without an effect. */
static int look_inside(struct state_process *p, struct description *d)
{
	bool is_pipe = d->info.kind == FILE_PIPE || d->info.kind == FILE_FIFO;
	_cleanup_fd_ int fd = -1;
	char path[32];

	if ((!is_pipe && d->info.kind != FILE_MEMFD) ||
	    (is_pipe && pipe_known(p->job->files, &d->info)))
		return 0;
	snprintf(path, sizeof(path), "fd/%d", d->info.fd);
	fd = openat(p->target->proc_fd, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return fail(-errno, "look into descriptor %d (%s)", d->info.fd, d->info.path);
	if (is_pipe)
		return pipe_copy(p->job->files, fd, &d->info);
	d->seals = (uint32_t)fcntl(fd, F_GET_SEALS);
	return 0;
}

/* Takes over what @f owns. */
static int add(struct state_process *p, struct fd_info *f)
{
	struct file_jobs *jobs = p->job->files;
	struct description *d = vec_push(&jobs->list);
	uint32_t bucket = bucket_of(f);
	int err;

	if (!d)
		return fail(-ENOMEM, "note an open file");
	d->pid = p->target->pid;
	d->info = *f;
	f->path = f->fdinfo = NULL;
	d->next = jobs->bucket[bucket];
	jobs->bucket[bucket] = (uint32_t)jobs->list.n;
	err = look_inside(p, d);
	return err ? err : (int)jobs->list.n;
}

static int dump(struct state_process *p, void **slot)
{
	struct note *note = *slot = calloc(1, sizeof(*note));
	_cleanup_fd_list_ struct fd_list fds = {0};
	int err = note ? fd_list_read(p->target, &fds) : fail(-ENOMEM, "note open files");

	if (err)
		return err;
	vec_each (f, &fds) {
		int fd = f->fd;
		bool cloexec = f->flags & O_CLOEXEC;
		struct descriptor *slot_fd;
		int id = find(p->job->files, p->target->pid, f);

		if (!id)
			id = add(p, f);
		if (id < 0)
			return id;
		slot_fd = vec_push(&note->list);
		if (!slot_fd)
			return fail(-ENOMEM, "note open files");
		*slot_fd = (struct descriptor){fd, cloexec, (uint32_t)id};
	}
	return 0;
}

static int finish(struct state_process *p, void **slot)
{
	struct note *note = *slot;
	size_t n = note->list.n;
	_cleanup_free_ Icp__Descriptor *msgs = calloc(n + 1, sizeof(*msgs));
	_cleanup_free_ Icp__Descriptor **list = calloc(n + 1, sizeof(*list));
	Icp__FileTable table = ICP__FILE_TABLE__INIT;

	if (!msgs || !list)
		return fail(-ENOMEM, "note open files");
	for (size_t i = 0; i < n; i++) {
		icp__descriptor__init(&msgs[i]);
		msgs[i].fd = (uint32_t)note->list.data[i].fd;
		msgs[i].file = note->list.data[i].id;
		msgs[i].close_on_exec = note->list.data[i].cloexec;
		list[i] = &msgs[i];
	}
	table.descriptors = list;
	table.n_descriptors = n;
	return state_pack_blob(&p->image->blobs, &p->image->n_blobs, "files", FILES_VERSION,
			       &table.base);
}

static void fill_file(const struct description *d, uint32_t id, Icp__OpenFile *out)
{
	const struct fd_info *f = &d->info;

	icp__open_file__init(out);
	out->id = id;
	out->kind = f->kind;
	out->path = (ProtobufCBinaryData){strlen(f->path), (uint8_t *)f->path};
	out->deleted = f->deleted;
	out->flags = f->flags & ~(uint32_t)O_CLOEXEC;
	out->offset = f->pos;
	out->mnt_id = f->mnt_id;
	out->inode = f->st.st_ino;
	out->dev = (uint64_t)major(f->st.st_dev) << 32 | minor(f->st.st_dev);
	out->rdev = (uint64_t)major(f->st.st_rdev) << 32 | minor(f->st.st_rdev);
	out->mode = f->st.st_mode;
	out->size = (uint64_t)f->st.st_size;
	out->mtime_ns = f->st.st_mtim.tv_sec * 1000000000ll + f->st.st_mtim.tv_nsec;
	out->memfd_seals = d->seals;
	if (!file_restorable(f->kind))
		out->fdinfo = (ProtobufCBinaryData){strlen(f->fdinfo), (uint8_t *)f->fdinfo};
}

/* Empty our copy of a pipe into @out, whose buffers are allocated. */
static int fill_pipe(struct pipe_copy *copy, Icp__PipeContent *out)
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

static int fill_pipes(struct file_jobs *f, Icp__PipeContent *msgs, Icp__OpenFiles *out)
{
	for (size_t i = 0; i < f->pipes.n; i++) {
		int err;

		out->pipes[out->n_pipes++] = &msgs[i];
		err = fill_pipe(&f->pipes.data[i], &msgs[i]);
		if (err)
			return err;
	}
	return 0;
}

int file_jobs_finish(struct file_jobs *f, Icp__Manifest *m)
{
	_cleanup_free_ Icp__OpenFile *files = calloc(f->list.n + 1, sizeof(*files));
	_cleanup_free_ Icp__OpenFile **list = calloc(f->list.n + 1, sizeof(*list));
	_cleanup_free_ Icp__PipeContent *pipes = calloc(f->pipes.n + 1, sizeof(*pipes));
	_cleanup_free_ Icp__PipeContent **pipe_list =
		calloc(f->pipes.n + 1, sizeof(*pipe_list));
	Icp__OpenFiles msg = ICP__OPEN_FILES__INIT;
	int err;

	if (!files || !list || !pipes || !pipe_list)
		return fail(-ENOMEM, "note open files");
	for (size_t i = 0; i < f->list.n; i++) {
		fill_file(&f->list.data[i], (uint32_t)i + 1, &files[i]);
		list[i] = &files[i];
	}
	msg.files = list;
	msg.n_files = f->list.n;
	msg.pipes = pipe_list;
	err = fill_pipes(f, pipes, &msg);
	if (!err)
		err = state_pack_blob(&m->blobs, &m->n_blobs, "files", FILES_VERSION,
				      &msg.base);
	for (size_t i = 0; i < msg.n_pipes; i++) {
		free(pipes[i].data.data);
		free(pipes[i].packets);
	}
	return err;
}

const struct state_ops state_files = {.name = "files",
				      .check = files_check,
				      .dump = dump,
				      .finish = finish,
				      .free_note = free_note,
				      .restore = &files_restore};
