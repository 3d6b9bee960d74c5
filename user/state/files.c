// SPDX-License-Identifier: GPL-2.0
/*
 * Open files. Two descriptors of a job that share a description (dup, fork: one offset, one set
 * of flags) are found by kcmp(2). What the kinds need besides: fdkind.h.
 */
#include "state/fdkind.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "state/contents.h"
#include "state/locks.h"

#define BUCKETS 1024

struct file_jobs {
	VEC(struct description) list;
	uint32_t bucket[BUCKETS];
	void *slots[FILE_KINDS];
	VEC(int) in_flight; /* ours; they name descriptions that are in flight */
	struct target self;
};

struct descriptor {
	int fd;
	bool cloexec;
	uint32_t id;
};

struct note {
	VEC(struct descriptor) list;
	struct lock_list locks;
};

int file_jobs_new(struct file_jobs **out)
{
	*out = calloc(1, sizeof(**out));
	if (*out)
		(*out)->self = (struct target){.pidfd = -1, .proc_fd = -1};
	return *out ? 0 : -ENOMEM;
}

void file_jobs_free(struct file_jobs *f)
{
	if (!f)
		return;
	vec_each (d, &f->list) {
		const struct fd_kind *kind = fd_kind(d->info.kind);

		if (d->note && kind->free_note)
			kind->free_note(d->note);
		free(d->info.path);
		free(d->info.fdinfo);
	}
	for (uint32_t i = 0; i < FILE_KINDS; i++)
		if (f->slots[i] && fd_kind(i)->free_slot)
			fd_kind(i)->free_slot(f->slots[i]);
	vec_each (fd, &f->in_flight)
		close(*fd);
	vec_free(&f->in_flight);
	cleanup_fd(&f->self.pidfd);
	cleanup_fd(&f->self.proc_fd);
	vec_free(&f->list);
	free(f);
}

void **file_jobs_slot(struct file_jobs *jobs, enum file_kind kind)
{
	return &jobs->slots[kind];
}

struct description *file_jobs_get(struct file_jobs *jobs, uint32_t id)
{
	return id && id <= jobs->list.n ? &jobs->list.data[id - 1] : NULL;
}

static void free_note(void *arg)
{
	struct note *note = arg;

	vec_free(&note->list);
	vec_free(&note->locks);
	free(note);
}

/* The same for all descriptors of one description, seldom for others. */
static uint32_t bucket_of(const struct fd_info *f)
{
	uint64_t h = f->st.st_ino * 0x9e3779b97f4a7c15u;

	h ^= (f->st.st_dev + f->tag + (uint64_t)f->pos) * 0xc2b2ae3d27d4eb4fu;
	return (uint32_t)(h >> 32) % BUCKETS;
}

static bool alike(const struct fd_info *a, const struct fd_info *b)
{
	return a->st.st_ino == b->st.st_ino && a->st.st_dev == b->st.st_dev &&
	       a->pos == b->pos && (a->flags | O_CLOEXEC) == (b->flags | O_CLOEXEC) &&
	       a->mnt_id == b->mnt_id && a->tag == b->tag;
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

/* Who gets signals when something can be read. Of a file nobody, and what is on a network might
 * be asked when its copy is closed. */
static int look_at_owner(struct state_process *p, struct description *d)
{
	enum file_kind kind = d->info.kind;
	_cleanup_fd_ int fd = -1;

	if (kind == FILE_REGULAR || kind == FILE_DIRECTORY || kind == FILE_PATH ||
	    kind == FILE_MEMFD || kind == FILE_PROC)
		return 0;
	fd = fd_borrow(p, d->info.fd);
	if (fd < 0)
		return fd;
	d->owner_signal = (uint32_t)fcntl(fd, F_GETSIG);
	if (fcntl(fd, F_GETOWN_EX, &d->owner))
		return fail(-errno, "owner of descriptor %d", d->info.fd);
	return 0;
}

/* Takes over what @f owns. */
static int add(struct state_process *p, struct fd_info *f)
{
	struct file_jobs *jobs = p->job->files;
	struct description *d = vec_push(&jobs->list);
	const struct fd_kind *kind = fd_kind(f->kind);
	uint32_t bucket = bucket_of(f), id;
	int err;

	if (!d)
		return fail(-ENOMEM, "note an open file");
	d->id = id = (uint32_t)jobs->list.n;
	d->pid = p->target->pid;
	d->info = *f;
	f->path = f->fdinfo = NULL;
	d->next = jobs->bucket[bucket];
	jobs->bucket[bucket] = (uint32_t)jobs->list.n;
	err = look_at_owner(p, d);
	/* which may add more */
	if (!err && kind->dump)
		err = kind->dump(p, jobs, d);
	return err ? err : (int)id;
}

static int open_self(struct target *t)
{
	if (t->proc_fd >= 0)
		return 0;
	t->pid = getpid();
	t->pidfd = (int)syscall(SYS_pidfd_open, t->pid, 0);
	t->proc_fd = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return t->pidfd < 0 || t->proc_fd < 0 ? fail(-errno, "look at ourselves") : 0;
}

int file_jobs_in_flight(struct state_process *p, int fd)
{
	struct file_jobs *jobs = p->job->files;
	struct state_process self = {.warden = p->warden, .job = p->job};
	struct fd_info f = {0};
	int *slot = vec_push(&jobs->in_flight);
	int id;

	if (!slot) {
		close(fd);
		return fail(-ENOMEM, "note an open file");
	}
	*slot = fd;
	id = open_self(&jobs->self);
	self.target = &jobs->self;
	if (!id)
		id = fd_info_read(self.target, fd, &f);
	if (!id)
		id = find(jobs, getpid(), &f);
	if (!id)
		id = add(&self, &f);
	free(f.path);
	free(f.fdinfo);
	if (id > 0)
		file_jobs_get(jobs, (uint32_t)id)->in_flight = true;
	return id;
}

static int dump_one(struct state_process *p, struct note *note, struct fd_info *f)
{
	struct descriptor d = {f->fd, f->flags & O_CLOEXEC, 0}, *slot;
	int id = find(p->job->files, p->target->pid, f);
	bool fresh = !id;
	int err;

	if (id < 0)
		return id;
	if (fresh)
		id = (int)p->job->files->list.n + 1;
	err = locks_note(&note->locks, p->target->pid, f, (uint32_t)id, fresh);
	if (!err && fresh)
		err = add(p, f);
	if (err < 0)
		return err;
	slot = vec_push(&note->list);
	if (!slot)
		return fail(-ENOMEM, "note open files");
	d.id = (uint32_t)id;
	*slot = d;
	return 0;
}

static int dump(struct state_process *p, void **slot)
{
	struct note *note = *slot = calloc(1, sizeof(*note));
	_cleanup_fd_list_ struct fd_list fds = {0};
	int err = note ? fd_list_read(p->target, &fds) : fail(-ENOMEM, "note open files");

	if (err)
		return err;
	for (size_t i = 0; i < fds.n && !err; i++)
		err = dump_one(p, note, &fds.data[i]);
	for (uint32_t i = 0; i < FILE_KINDS && !err; i++)
		if (fd_kind(i)->dumped)
			err = fd_kind(i)->dumped(p, p->job->files);
	return err;
}

static int finish(struct state_process *p, void **slot)
{
	struct note *note = *slot;
	size_t n = note->list.n;
	_cleanup_free_ Icp__Descriptor *msgs = calloc(n + 1, sizeof(*msgs));
	_cleanup_free_ Icp__Descriptor **list = calloc(n + 1, sizeof(*list));
	Icp__FileTable table = ICP__FILE_TABLE__INIT;
	int err;

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
	err = state_pack_blob(&p->image->blobs, &p->image->n_blobs, "files", FILES_VERSION,
			      &table.base);
	return err ? err : locks_pack(&note->locks, p->image);
}

static int fill_file(const struct description *d, Icp__OpenFile *out)
{
	const struct fd_info *f = &d->info;
	const struct fd_kind *kind = fd_kind(f->kind);

	icp__open_file__init(out);
	out->id = d->id;
	out->in_flight = d->in_flight;
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
	if (d->owner.pid) {
		out->owner_type = (uint32_t)d->owner.type;
		out->owner = (uint32_t)d->owner.pid;
	}
	out->owner_signal = d->owner_signal;
	if (!fd_restorable(f->kind))
		out->fdinfo = (ProtobufCBinaryData){strlen(f->fdinfo), (uint8_t *)f->fdinfo};
	return kind->finish ? kind->finish(d, out) : 0;
}

static int fill_job(struct file_jobs *f, Icp__OpenFiles *out)
{
	int err = 0;

	for (uint32_t i = 0; i < FILE_KINDS && !err; i++)
		if (f->slots[i] && fd_kind(i)->finish_job)
			err = fd_kind(i)->finish_job(f->slots[i], out);
	return err;
}

int file_jobs_finish(struct file_jobs *f, Icp__Manifest *m)
{
	_cleanup_free_ Icp__OpenFile *files = calloc(f->list.n + 1, sizeof(*files));
	_cleanup_free_ Icp__OpenFile **list = calloc(f->list.n + 1, sizeof(*list));
	Icp__OpenFiles msg = ICP__OPEN_FILES__INIT;
	int err = 0;

	if (!files || !list)
		return fail(-ENOMEM, "note open files");
	msg.files = list;
	for (size_t i = 0; i < f->list.n && !err; i++) {
		err = fill_file(&f->list.data[i], &files[i]);
		list[msg.n_files++] = &files[i];
	}
	if (!err)
		err = fill_job(f, &msg);
	if (!err)
		err = state_pack_blob(&m->blobs, &m->n_blobs, "files", FILES_VERSION,
				      &msg.base);
	for (size_t i = 0; i < msg.n_files; i++)
		free(files[i].detail.data);
	return err;
}

const struct state_ops state_files = {.name = "files",
				      .check = files_check,
				      .prepare = contents_prepare,
				      .dump = dump,
				      .finish = finish,
				      .free_note = free_note,
				      .restore = &files_restore};
