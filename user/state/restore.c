// SPDX-License-Identifier: GPL-2.0
/* The walk over the restore halves of the kinds. */
#include "state/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "state/files.h"
#include "state/kinds.h"

static int done(const struct state_restore *r, int err)
{
	return err ? wrap(err, "process %u (%s)", r->image->pid, r->image->comm) : 0;
}

#define WALK(r, step, ...)                                                                     \
	({                                                                                     \
		int walk_err_ = 0;                                                             \
		for (size_t i_ = 0; state_kinds[i_] && !walk_err_; i_++)                       \
			if (state_kinds[i_]->restore && state_kinds[i_]->restore->step)        \
				walk_err_ = state_kinds[i_]->restore->step(                    \
					(r), (r)->notes[i_], ##__VA_ARGS__);                   \
		done((r), walk_err_);                                                          \
	})

static int check_threads(const Icp__Process *p)
{
	if (p->n_threads && p->threads[0]->tid == p->pid)
		return 0;
	return refuse(-EOPNOTSUPP, "it can't be restarted: its main thread has ended");
}

int restore_check(struct state_restore *r)
{
	int err;

	if (r->image->no_memory)
		return done(r, zombie_check(r->image));
	err = check_threads(r->image);

	for (size_t i = 0; state_kinds[i] && !err; i++)
		if (state_kinds[i]->restore && state_kinds[i]->restore->check)
			err = state_kinds[i]->restore->check(r, &r->notes[i]);
	return done(r, err);
}

int restore_open(struct state_restore *r)
{
	return WALK(r, open);
}

int restore_opened(struct state_restore *r)
{
	return WALK(r, opened);
}

int restore_session(struct state_restore *r)
{
	return WALK(r, session);
}

int restore_stub(struct state_restore *r)
{
	return WALK(r, stub);
}

int restore_memory(struct state_restore *r, struct batch *b)
{
	return WALK(r, memory, b);
}

int restore_protect(struct state_restore *r, struct batch *b)
{
	return WALK(r, protect, b);
}

int restore_process(struct state_restore *r, struct batch *b)
{
	return WALK(r, process, b);
}

int restore_thread(struct state_restore *r, size_t thread, struct batch *b)
{
	return WALK(r, thread, thread, b);
}

int restore_settle(struct state_restore *r, struct batch *b)
{
	return WALK(r, settle, b);
}

int restore_release(struct state_restore *r, size_t thread)
{
	return WALK(r, release, thread);
}

void restore_free_notes(struct state_restore *r)
{
	for (size_t i = 0; state_kinds[i]; i++) {
		if (r->notes[i] && state_kinds[i]->restore->free_note)
			state_kinds[i]->restore->free_note(r->notes[i]);
		r->notes[i] = NULL;
	}
}

int restore_unpack(Icp__StateBlob *const *blobs, size_t n, const char *kind, uint32_t version,
		   const ProtobufCMessageDescriptor *type, void *out)
{
	const Icp__StateBlob *blob = state_find_blob(blobs, n, kind);
	ProtobufCMessage *msg;

	if (!blob)
		return refuse(-EBADMSG, "the image says nothing of its %s", kind);
	if (blob->version != version)
		return refuse(-EPROTONOSUPPORT, "%s of format %u: this icp-bpf knows %u", kind,
			      blob->version, version);
	msg = protobuf_c_message_unpack(type, NULL, blob->data.len, blob->data.data);
	if (!msg)
		return refuse(-EBADMSG, "its %s make no sense", kind);
	*(ProtobufCMessage **)out = msg;
	return 0;
}

int restore_job_init(struct restore_job *job, const Icp__Manifest *m)
{
	int err;

	job->manifest = m;
	err = objects_new(&job->objects);
	return err ? err : files_restore_new(job);
}

void restore_job_fini(struct restore_job *job)
{
	ipc_restore_free(job);
	contents_restore_free(job);
	shares_free(job->shares);
	files_restore_free(job->files);
	objects_free(job->objects);
}

int restore_high_fd(const struct restore_job *job, int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, job->first_fd);
	int err = errno;

	close(fd);
	return high < 0 ? fail(-err, "keep an open file") : high;
}

bool restore_is_free(const Icp__Manifest *m, uint64_t start, uint64_t end, uint64_t *next)
{
	for (size_t p = 0; p < m->n_processes; p++) {
		for (size_t i = 0; i < m->processes[p]->n_vmas; i++) {
			uint64_t from, to;

			restore_span(m, m->processes[p]->vmas[i], &from, &to);
			if (from < end && to > start) {
				*next = to;
				return false;
			}
		}
	}
	return true;
}

int state_restorable(const Icp__Manifest *m)
{
	struct restore_job job = {0};
	int err = restore_job_init(&job, m);

	for (size_t i = 0; i < m->n_processes && !err; i++) {
		struct state_restore r = {.job = &job, .image = m->processes[i]};

		err = restore_check(&r);
		restore_free_notes(&r);
	}
	if (!err)
		err = files_restore_check(&job);
	restore_job_fini(&job);
	return err;
}
