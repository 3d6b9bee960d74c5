// SPDX-License-Identifier: GPL-2.0
/* The walk over the kinds, and blobs. */
#include "state/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/page.h"
#include "state/contents.h"
#include "state/fdkind.h"
#include "state/guards.h"
#include "state/inet.h"
#include "state/kinds.h"

const struct state_ops *const state_kinds[] = {
	&state_vmas,  &state_regs,    &state_sysv /* before the ids: it needs our rights */,
	&state_ids,   &state_signals, &state_timers,
	&state_files, &state_locks,   NULL,
};

_Static_assert(sizeof(state_kinds) / sizeof(*state_kinds) <= STATE_KINDS_MAX,
	       "a note for each kind");

int state_job_new(struct state_job **out)
{
	_cleanup_state_job_ struct state_job *job = calloc(1, sizeof(*job));
	int err = job ? file_jobs_new(&job->files) : -ENOMEM;

	if (!err)
		err = look_new(job);
	if (!err)
		err = buildids_new(&job->ids);
	if (!err)
		err = sysv_dump_new(&job->sysv);
	if (err)
		return fail(err, "prepare for the state of a job");
	*out = take_ptr(job);
	return 0;
}

void state_job_set(struct state_job *job, const struct state_job_how *how)
{
	job->how = *how;
}

void state_job_killed(struct state_job *job)
{
	inet_hold_stays(job);
}

const char *state_held(const struct state_job *job)
{
	return inet_held(job);
}

void state_job_free(struct state_job *job)
{
	if (!job)
		return;
	inet_hold_end(job);
	look_free(job->look);
	file_jobs_free(job->files);
	buildids_free(job->ids);
	contents_fini(&job->contents);
	sysv_dump_free(job->sysv);
	free(job);
}

struct state_contents *state_contents(struct state_job *job)
{
	return &job->contents;
}

int state_job_finish(struct state_job *job, Icp__Manifest *m)
{
	int err = sysv_dump_finish(job->sysv, m);

	return err ? err : file_jobs_finish(job->files, m);
}

static int done(const struct state_process *p, int err)
{
	return err ? wrap(err, "process %d (%s)", p->target->pid, p->target->comm) : 0;
}

int state_check(struct state_process *p)
{
	int err = 0;

	p->checked = true;
	for (size_t i = 0; state_kinds[i] && !err; i++)
		if (state_kinds[i]->check)
			err = state_kinds[i]->check(p);
	return done(p, err);
}

int state_check_job(struct state_job *job, const pid_t *pids, size_t n)
{
	return look_check(job->look, pids, n);
}

int state_prepare(struct state_process *p)
{
	int err = 0;

	for (size_t i = 0; state_kinds[i] && !err; i++)
		if (state_kinds[i]->prepare)
			err = state_kinds[i]->prepare(p, &p->notes[i]);
	return done(p, err);
}

/* One look at each thread's status serves several kinds. */
static int read_status(struct state_process *p)
{
	p->status = calloc(p->n_threads + 1, sizeof(*p->status));
	if (!p->status)
		return fail(-ENOMEM, "note the state of %zu threads", p->n_threads);
	for (size_t i = 0; i < p->n_threads; i++) {
		char path[32];
		int err;

		snprintf(path, sizeof(path), "task/%d/status", p->threads[i].tid);
		err = io_read_file(p->target->proc_fd, path, &p->status[i], NULL);
		if (err)
			return fail(err, "read the status of thread %d", p->threads[i].tid);
	}
	return 0;
}

static int new_threads(struct state_process *p)
{
	Icp__Process *image = p->image;

	if (!p->n_threads || image->n_threads)
		return refuse(-EINVAL, "no threads, or dumped already");
	image->threads = calloc(p->n_threads, sizeof(*image->threads));
	for (size_t i = 0; image->threads && i < p->n_threads; i++) {
		Icp__Thread *t = malloc(sizeof(*t));

		if (!t)
			return fail(-ENOMEM, "note %zu threads", p->n_threads);
		icp__thread__init(t);
		t->tid = (uint32_t)p->threads[i].tid;
		t->stopped = p->threads[i].stopped;
		image->threads[image->n_threads++] = t;
	}
	return image->threads ? 0 : fail(-ENOMEM, "note %zu threads", p->n_threads);
}

int state_dump(struct state_process *p)
{
	int err = new_threads(p);

	if (!err)
		err = read_status(p);
	if (!err)
		err = gather_new(p);
	for (size_t i = 0; state_kinds[i] && !err; i++)
		if (state_kinds[i]->plan)
			err = state_kinds[i]->plan(p, &p->notes[i]);
	if (!err)
		err = gather_run(p);
	for (size_t i = 0; state_kinds[i] && !err; i++)
		if (state_kinds[i]->dump)
			err = state_kinds[i]->dump(p, &p->notes[i]);
	return done(p, err);
}

int state_finish(struct state_process *p)
{
	int err = 0;

	for (size_t i = 0; state_kinds[i] && !err; i++)
		if (state_kinds[i]->finish)
			err = state_kinds[i]->finish(p, &p->notes[i]);
	return done(p, err);
}

void state_free_notes(struct state_process *p)
{
	for (size_t i = 0; state_kinds[i]; i++) {
		if (p->notes[i] && state_kinds[i]->free_note)
			state_kinds[i]->free_note(p->notes[i]);
		p->notes[i] = NULL;
	}
	for (size_t i = 0; p->status && i < p->n_threads; i++)
		free(p->status[i]);
	free(p->status);
	p->status = NULL;
	guards_free(take_ptr(p->guards));
	gather_free(p);
}

int state_fill_machine(Icp__Manifest *m)
{
	struct utsname uts;
	char boot[37];
	int err = boot_id(boot);

	if (err)
		return err;
	if (uname(&uts))
		return fail(-errno, "uname");
	m->page_size = (uint32_t)page_size();
	m->arch = strdup(state_arch.name);
	m->kernel_release = strdup(uts.release);
	m->boot_id = strdup(boot);
	return m->arch && m->kernel_release && m->boot_id ? 0 : fail(-ENOMEM, "manifest");
}

int state_add_blob(Icp__StateBlob ***blobs, size_t *n, const char *kind, uint32_t version,
		   const void *data, size_t len)
{
	Icp__StateBlob *blob, **list = realloc(*blobs, (*n + 1) * sizeof(*list));

	if (list)
		*blobs = list;
	blob = list ? malloc(sizeof(*blob)) : NULL;
	if (!blob)
		return fail(-ENOMEM, "note %s", kind);
	icp__state_blob__init(blob);
	list[(*n)++] = blob; /* from here on it is freed with the manifest */
	blob->version = version;
	blob->kind = strdup(kind);
	blob->data.data = malloc(len + 1);
	if (!blob->kind || !blob->data.data)
		return fail(-ENOMEM, "note %s", kind);
	if (len)
		memcpy(blob->data.data, data, len);
	blob->data.len = len;
	return 0;
}

int state_pack_blob(Icp__StateBlob ***blobs, size_t *n, const char *kind, uint32_t version,
		    const ProtobufCMessage *msg)
{
	size_t len = protobuf_c_message_get_packed_size(msg);
	_cleanup_free_ uint8_t *data = malloc(len + 1);

	if (!data)
		return fail(-ENOMEM, "note %s", kind);
	protobuf_c_message_pack(msg, data);
	return state_add_blob(blobs, n, kind, version, data, len);
}

const Icp__StateBlob *state_find_blob(Icp__StateBlob *const *blobs, size_t n, const char *kind)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(blobs[i]->kind, kind))
			return blobs[i];
	return NULL;
}
