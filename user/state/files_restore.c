// SPDX-License-Identifier: GPL-2.0
/*
 * The restore half of "files". icp-bpf opens every description of the job once, above the
 * numbers that the processes use; they inherit all of them, so what was shared is shared again,
 * and each puts its own where they belong.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "state/fdkind.h"
#include "state/pty.h"

#define LOWEST_FIRST_FD 64
struct restored {
	int fd;		 /* -1: not opened */
	uint32_t number; /* the lowest that a process has it under; UINT32_MAX: none has */
	uint32_t pid;
	bool inherited; /* the restarter's own: not ours to change */
};

struct restore_files {
	Icp__OpenFiles *msg;
	struct restored *restored; /* by index in msg->files */
	Icp__FileTable **tables;   /* by index of the process; NULL: it has none */
	size_t n_tables;
	void *slots[FILE_KINDS];
};

static int find_file(const struct restore_files *f, uint32_t id)
{
	if (id && id <= f->msg->n_files && f->msg->files[id - 1]->id == id)
		return (int)id - 1;
	for (size_t i = 0; i < f->msg->n_files; i++)
		if (f->msg->files[i]->id == id)
			return (int)i;
	return -1;
}

void **files_restore_slot(const struct restore_job *job, enum file_kind kind)
{
	return &job->files->slots[kind];
}

const Icp__OpenFiles *files_restore_all(const struct restore_job *job)
{
	return job->files->msg;
}

int files_restored_fd(const struct restore_job *job, uint32_t id)
{
	int at = find_file(job->files, id);

	return at < 0 ? -1 : job->files->restored[at].fd;
}

uint32_t files_number(const struct restore_job *job, uint32_t id, uint32_t *pid)
{
	int at = find_file(job->files, id);

	if (at < 0)
		return UINT32_MAX;
	*pid = job->files->restored[at].pid;
	return job->files->restored[at].number;
}

void files_restore_free(struct restore_files *f)
{
	if (!f)
		return;
	for (size_t i = 0; f->restored && i < f->msg->n_files; i++)
		cleanup_fd(&f->restored[i].fd);
	for (uint32_t i = 0; i < FILE_KINDS; i++)
		if (f->slots[i] && fd_kind(i)->free_restored)
			fd_kind(i)->free_restored(f->slots[i]);
	free(f->restored);
	for (size_t i = 0; i < f->n_tables; i++)
		if (f->tables[i])
			protobuf_c_message_free_unpacked(&f->tables[i]->base, NULL);
	free(f->tables);
	if (f->msg)
		protobuf_c_message_free_unpacked(&f->msg->base, NULL);
	free(f);
}

uint32_t files_at(const struct restore_job *job, size_t p, uint32_t fd)
{
	const Icp__FileTable *table = job->files->tables[p];

	for (size_t i = 0; table && i < table->n_descriptors; i++)
		if (table->descriptors[i]->fd == fd)
			return table->descriptors[i]->file;
	return 0;
}

bool files_has(const struct restore_job *job, size_t p, uint32_t id)
{
	const Icp__FileTable *table = job->files->tables[p];

	for (size_t i = 0; table && i < table->n_descriptors; i++)
		if (table->descriptors[i]->file == id)
			return true;
	return false;
}

static void note_numbers(struct restore_files *f, const Icp__Process *p, Icp__FileTable **out)
{
	Icp__FileTable *table;

	/* a zombie has none */
	if (restore_unpack(p->blobs, p->n_blobs, "files", FILES_VERSION,
			   &icp__file_table__descriptor, &table)) {
		err_clear();
		return;
	}
	for (size_t i = 0; i < table->n_descriptors; i++) {
		int at = find_file(f, table->descriptors[i]->file);

		if (at < 0 || table->descriptors[i]->fd >= f->restored[at].number)
			continue;
		f->restored[at].number = table->descriptors[i]->fd;
		f->restored[at].pid = p->pid;
	}
	*out = table;
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
	f->restored = malloc((f->msg->n_files + 1) * sizeof(*f->restored));
	f->n_tables = job->manifest->n_processes;
	f->tables = calloc(f->n_tables + 1, sizeof(*f->tables));
	if (!f->restored || !f->tables)
		return fail(-ENOMEM, "prepare open files");
	for (size_t i = 0; i < f->msg->n_files; i++)
		f->restored[i] = (struct restored){.fd = -1, .number = UINT32_MAX};
	for (size_t i = 0; i < job->manifest->n_processes; i++)
		note_numbers(f, job->manifest->processes[i], &f->tables[i]);
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
		const struct fd_kind *kind;

		if (at < 0 || d->fd >= FD_NUMBER_MAX)
			return refuse(-EBADMSG, "descriptor %u makes no sense", d->fd);
		kind = fd_kind(r->job->files->msg->files[at]->kind);
		if (!fd_restorable(r->job->files->msg->files[at]->kind))
			return refuse(-EOPNOTSUPP,
				      "descriptor %u is %s, which can't be restarted", d->fd,
				      kind->text);
		if ((int)d->fd >= r->job->first_fd)
			r->job->first_fd = (int)d->fd + 1;
	}
	return 0;
}

int files_restore_here(const struct state_restore *r, uint32_t id)
{
	int at = find_file(r->job->files, id);
	struct restored *restored = at < 0 ? NULL : &r->job->files->restored[at];
	const Icp__OpenFile *f = at < 0 ? NULL : r->job->files->msg->files[at];

	if (!restored || (restored->fd < 0 && !fd_kind(f->kind)->open_in_stub))
		return refuse(-EBADMSG, "open file %u is not there", id);
	if (restored->fd < 0) {
		restored->fd = fd_kind(f->kind)->open_in_stub(r->job, f);
		if (restored->fd >= 0)
			restored->fd = restore_high_fd(r->job, restored->fd);
	}
	return restored->fd;
}

/* The kernel notes the number by which this was asked for: signals tell it. Nobody gets any
 * before the owner is set. */
static int set_async(const Icp__OpenFile *f, uint32_t number)
{
	int flags = fcntl((int)number, F_GETFL);

	if (!(f->flags & O_ASYNC))
		return 0;
	return fcntl((int)number, F_SETFL, flags | O_ASYNC)
		       ? fail(-errno, "signals of descriptor %u", number)
		       : 0;
}

/* All descriptors of this stub are in place. */
static int in_stub(const struct state_restore *r)
{
	const struct restore_files *files = r->job->files;
	size_t me = 0;
	int err = 0;

	while (r->job->manifest->processes[me] != r->image)
		me++;
	for (size_t i = 0; i < files->msg->n_files && !err; i++) {
		const Icp__OpenFile *f = files->msg->files[i];
		const struct restored *restored = &files->restored[i];

		if (!files_has(r->job, me, f->id))
			continue;
		if (fd_kind(f->kind)->stub)
			err = fd_kind(f->kind)->stub(r, f, restored->fd);
		if (!err && restored->pid == r->image->pid && !restored->inherited)
			err = set_async(f, restored->number);
	}
	return err;
}

static int stub(struct state_restore *r, void *note)
{
	const Icp__FileTable *table = note;

	if (syscall(SYS_close_range, 0, r->job->first_fd - 1, 0))
		return fail(-errno, "close what it inherited");
	for (size_t i = 0; i < table->n_descriptors; i++) {
		const Icp__Descriptor *d = table->descriptors[i];
		int from = files_restore_here(r, d->file);

		if (from < 0)
			return wrap(from, "descriptor %u", d->fd);
		if (dup3(from, (int)d->fd, d->close_on_exec ? O_CLOEXEC : 0) < 0)
			return fail(-errno, "descriptor %u", d->fd);
	}
	return in_stub(r);
}

static int process(struct state_restore *r, void *note, struct batch *b)
{
	return batch_call(b, "close what it inherited", SYS_close_range,
			  BATCH_ARGS((uint64_t)r->job->first_fd, UINT_MAX, 0));
}

/* It may have got too short for that: a failure doesn't matter. */
static int seek_again(struct state_restore *r, const Icp__FileTable *table, struct batch *b)
{
	const struct restore_files *files = r->job->files;
	int err = 0;

	for (size_t i = 0; i < files->msg->n_files && !err; i++) {
		const Icp__OpenFile *f = files->msg->files[i];
		bool shared = files->restored[i].fd >= 0;

		if (!f->offset || !fd_kind(f->kind)->seek)
			continue;
		for (size_t k = 0; k < table->n_descriptors && !err; k++) {
			if (table->descriptors[k]->file != f->id ||
			    (shared && files->restored[i].pid != r->image->pid))
				continue;
			err = batch_try(b, SYS_lseek,
					BATCH_ARGS(table->descriptors[k]->fd,
						   (uint64_t)f->offset, SEEK_SET));
			break;
		}
	}
	return err;
}

static int session(struct state_restore *r, void *note)
{
	return pty_restore_session(r);
}

static int settle(struct state_restore *r, void *note, struct batch *b)
{
	int err = seek_again(r, note, b);

	return err ? err : pty_restore_foreground(r, b);
}

static void free_note(void *note)
{
	protobuf_c_message_free_unpacked(note, NULL);
}

const struct restore_ops files_restore = {.check = check,
					  .session = session,
					  .stub = stub,
					  .process = process,
					  .settle = settle,
					  .free_note = free_note};

/* ---- the job ---- */

/* Ended meanwhile: the process that had it. */
static bool is_wanted(const struct restore_files *f, size_t i)
{
	return f->restored[i].number != UINT32_MAX || f->msg->files[i]->in_flight;
}

int files_restore_check(struct restore_job *job)
{
	const struct restore_files *files = job->files;
	int err = 0;

	for (size_t i = 0; i < files->msg->n_files && !err; i++) {
		const struct fd_kind *kind = fd_kind(files->msg->files[i]->kind);

		if (files->msg->files[i]->in_flight && !kind->open)
			return refuse(-EOPNOTSUPP,
				      "a descriptor that is in flight through a Unix socket is "
				      "%s, which can't be restarted",
				      kind->text);
		if (is_wanted(files, i) && kind->verify)
			err = kind->verify(job, files->msg->files[i]);
	}
	return err;
}

static bool has_signals(const Icp__OpenFile *f)
{
	return f->owner || f->owner_signal || f->flags & O_ASYNC;
}

static bool is_inherited(int fd)
{
	pid_t me = getpid();

	for (int own = 0; own <= 2; own++)
		if (!syscall(SYS_kcmp, me, me, KCMP_FILE, fd, own))
			return true;
	return false;
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

		if (!is_wanted(files, i))
			continue;
		fd = fd_kind(f->kind)->open ? fd_kind(f->kind)->open(job, f) : FD_IN_STUB;
		if (fd == FD_IN_STUB)
			continue;
		if (fd >= 0)
			fd = restore_high_fd(job, fd);
		if (fd < 0)
			return fd;
		files->restored[i].fd = fd;
		files->restored[i].inherited = has_signals(f) && is_inherited(fd);
	}
	return 0;
}

#define EACH_OPEN(job, step)                                                                   \
	({                                                                                     \
		const struct restore_files *files_ = (job)->files;                             \
		int err_ = 0;                                                                  \
		for (size_t i_ = 0; i_ < files_->msg->n_files && !err_; i_++) {                \
			const Icp__OpenFile *f_ = files_->msg->files[i_];                      \
			int fd_ = files_->restored[i_].fd;                                     \
			if (fd_ >= 0 && fd_kind(f_->kind)->step)                               \
				err_ = fd_kind(f_->kind)->step((job), f_, fd_);                \
		}                                                                              \
		err_;                                                                          \
	})

int files_restore_link(struct restore_job *job)
{
	return EACH_OPEN(job, link);
}

/* Not somebody who isn't part of the job. */
static bool is_ours(const Icp__Manifest *m, const Icp__OpenFile *f)
{
	for (size_t i = 0; i < m->n_processes; i++) {
		const Icp__Process *p = m->processes[i];

		if (f->owner_type == F_OWNER_PGRP ? p->pgid == f->owner : p->pid == f->owner)
			return true;
		for (size_t t = 0; f->owner_type == F_OWNER_TID && t < p->n_threads; t++)
			if (p->threads[t]->tid == f->owner)
				return true;
	}
	return false;
}

static int set_owner(const struct restore_job *job, const Icp__OpenFile *f, int fd)
{
	struct f_owner_ex owner = {.type = (int)f->owner_type, .pid = (pid_t)f->owner};

	if (f->owner_signal && fcntl(fd, F_SETSIG, f->owner_signal))
		return fail(-errno, "the signal of a descriptor");
	if (f->owner && is_ours(job->manifest, f) && fcntl(fd, F_SETOWN_EX, &owner))
		return fail(-errno, "the owner of a descriptor");
	return 0;
}

int files_restore_late(struct restore_job *job)
{
	const struct restore_files *files = job->files;
	int err = EACH_OPEN(job, late);

	for (size_t i = 0; i < files->msg->n_files && !err; i++) {
		const Icp__OpenFile *f = files->msg->files[i];
		int fd = files->restored[i].fd;

		if (fd >= 0 && !files->restored[i].inherited)
			err = set_owner(job, f, fd);
	}
	return err;
}
