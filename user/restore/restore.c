// SPDX-License-Identifier: GPL-2.0
/* The phases of a restart. */
#include "restore/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/page.h"
#include "restore/builder.h"
#include "state/ipc_remove.h"

const char *const restart_phase_names[PHASES] = {"check", "make", "memory", "state", "release"};

void restart_result_free(struct restart_result *r)
{
	free(r->pids);
	free(r->roots);
	free(r->inner_roots);
	if (r->status_fd >= 0)
		close(r->status_fd);
	if (r->pages_fd >= 0)
		close(r->pages_fd);
	*r = (struct restart_result){.status_fd = -1, .pages_fd = -1};
}

/* Made elsewhere: code and data would not fit the machine, or the vdso that is mapped here. */
static int check_machine(const Icp__Manifest *m)
{
	struct utsname uts;

	if (uname(&uts))
		return fail(-errno, "uname");
	if (strcmp(m->arch, uts.machine))
		return refuse(-ENOEXEC, "it was saved on %s, this is %s", m->arch, uts.machine);
	if (m->page_size != page_size())
		return refuse(-ENOEXEC, "it was saved with pages of %u bytes", m->page_size);
	if (strcmp(m->kernel_release, uts.release))
		return refuse(
			-ENOEXEC,
			"it was saved under Linux %s, this is %s: programs hold addresses "
			"in the kernel's vdso",
			m->kernel_release, uts.release);
	return 0;
}

static int open_version(struct restore *r)
{
	int err = repo_open(r->config->dir, REPO_READ, &r->repo);

	r->result->version = r->config->version;
	if (!err && !r->result->version)
		err = repo_latest(r->repo, &r->result->version);
	if (!err && !r->result->version)
		err = refuse(-ENOENT, "there is no version in %s", r->config->dir);
	if (!err)
		err = repo_manifest(r->repo, r->result->version, &r->manifest);
	if (!err)
		err = check_machine(r->manifest);
	if (!err)
		err = choose_processes(r);
	return err;
}

/* A zombie is as it was once it is made. */
static bool lives(const struct restore_proc *p)
{
	return !p->state.image->no_memory;
}

static int note_streams(struct restore *r)
{
	r->streams = calloc(r->manifest->n_processes + 1, sizeof(*r->streams));
	for (size_t i = 0; r->streams && i < r->manifest->n_processes; i++)
		r->streams[i] = r->manifest->processes[i]->pid;
	return r->streams ? 0 : fail(-ENOMEM, "prepare the processes");
}

/* Without the right to make the directory there is no note: processes restarted later find segments by key only. */
static void name_note(struct restore *r)
{
	if (!mkdir("/run/icp-bpf", 0700) || errno == EEXIST)
		ipc_note_path(r->repo->record.id, r->result->version, r->ipc_note);
}

/* What comes and goes meanwhile, our threads too, has pids that nobody wants. */
static int leave_room(const struct restore *r)
{
	char text[16];
	_cleanup_fd_ int fd = -1;

	if (!r->config->new_pid_namespace)
		return 0;
	fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
	snprintf(text, sizeof(text), "%u", pids_highest(r->manifest));
	if (fd < 0 || io_write_full(fd, text, strlen(text)))
		return fail(-errno, "set the last pid of the new namespace");
	return 0;
}

static int check(struct restore *r)
{
	int err = open_version(r);

	if (!err)
		err = note_streams(r);
	if (!err)
		err = pids_translate(r->manifest, r->config->new_pid_namespace);
	if (!err)
		err = leave_room(r);
	if (!err)
		name_note(r);
	r->job.ipc = (struct ipc_how){.existing = r->config->shm_existing,
				      .new_namespace = r->config->new_ipc_namespace,
				      .note = r->ipc_note};
	if (!err)
		err = restore_job_init(&r->job, r->manifest);
	if (!err)
		err = tree_plan(r);
	for (size_t i = 0; i < r->n && !err; i++)
		err = restore_check(&r->procs[i].state);
	if (!err)
		err = files_restore_check(&r->job);
	if (!err)
		err = taken_check(r);
	if (!err)
		err = contents_restore_new(&r->job);
	for (size_t i = 0; i < r->n && !err; i++)
		if (lives(&r->procs[i]))
			err = restore_open(&r->procs[i].state);
	if (!err)
		err = files_restore_open(&r->job);
	for (size_t i = 0; i < r->n && !err; i++)
		if (lives(&r->procs[i]))
			err = restore_opened(&r->procs[i].state);
	return err;
}

#define LOWEST (1ull << 30)
#define GUARD (1ull << 20) /* from stacks that grow, and from the heap */
#define HIGHEST (1ull << 46)

/* Where neither we nor any process of the job has anything. */
static int place_batch(struct restore *r)
{
	uint64_t at = LOWEST, next;
	int err = -EEXIST;

	while (err == -EEXIST && at < HIGHEST) {
		if (!restore_is_free(r->manifest, at - GUARD, at + batch_size() + GUARD,
				     &next)) {
			at = next + GUARD;
			continue;
		}
		err = batch_new(at, &r->batch);
		at += 16 * batch_size();
	}
	return err;
}

/* Before the processes are there: they inherit it. */
static int read_shares(struct restore *r)
{
	_cleanup_free_ const Icp__Process **order = calloc(r->n + 1, sizeof(*order));
	_cleanup_free_ uint32_t *streams = calloc(r->n + 1, sizeof(*streams));
	struct shares_source from = {r->repo, r->result->version, order, streams, 0};

	if (!order || !streams)
		return fail(-ENOMEM, "look for shared memory");
	for (size_t i = 0; i < r->n; i++) {
		if (!lives(&r->procs[i]))
			continue;
		order[from.n] = r->procs[i].state.image;
		streams[from.n++] = r->procs[i].stream;
	}
	return shares_new(&r->job, &from, &r->result->pages);
}

static int make(struct restore *r)
{
	int err = place_batch(r);

	if (!err)
		err = ipc_restore_new(&r->job);
	if (!err)
		err = read_shares(r);
	if (!err && r->config->time_namespace)
		err = clocks_continue(&r->job);
	if (err)
		return err;
	r->made = true;
	err = tree_make(r);
	shares_unmap(r->job.shares);
	if (!err && r->config->lazy)
		err = lazy_prepare(r);
	return err ? err : files_restore_link(&r->job);
}

static int memory(struct restore *r)
{
	int err = 0;

	for (size_t i = 0; i < r->n && !err; i++)
		if (lives(&r->procs[i]))
			err = tracee_seize(r, &r->procs[i]);
	for (size_t i = 0; i < r->n && !err; i++) {
		struct restore_proc *p = &r->procs[i];

		if (!lives(p))
			continue;
		err = lazy_ctl(r, p);
		p->state.ctl = p->ctl;
		if (!err)
			err = tracee_map(r, p);
		if (!err && r->lazy)
			err = lazy_register(r, p);
		if (!err)
			err = shares_leave_out(&r->job, p->state.image, p->ctl);
		if (!err)
			err = fill_process(r, p);
		if (err)
			return wrap(err, "process %d", p->pid);
		ctl_free(take_ptr(p->ctl));
		p->state.ctl = NULL;
	}
	if (!err)
		err = fill_segments(r);
	if (!err)
		err = fill_contents(r);
	/* from here on calls of the new processes may touch what is not there yet */
	return err || !r->lazy ? err : lazy_start(r);
}

static int state(struct restore *r)
{
	int err = 0;

	for (size_t i = 0; i < r->n && !err; i++)
		if (lives(&r->procs[i]))
			err = tracee_protect(r, &r->procs[i]);
	for (size_t i = 0; i < r->n && !err; i++)
		if (lives(&r->procs[i]))
			err = tracee_state(r, &r->procs[i]);
	return err;
}

static int release(struct restore *r)
{
	int err = 0;

	err = ipc_restore_values(&r->job);
	for (size_t i = 0; i < r->n && !err; i++)
		if (lives(&r->procs[i]))
			err = tracee_settle(r, &r->procs[i]);
	if (!err)
		err = ipc_restore_end(&r->job);
	if (!err)
		err = files_restore_late(&r->job);
	if (!err)
		err = files_restore_rewind(&r->job);
	if (!err)
		err = builder_commit(r);
	for (size_t i = 0; i < r->n && !err; i++)
		if (lives(&r->procs[i]))
			err = tracee_detach(r, &r->procs[i]);
	return err;
}

static int tell(struct restore *r)
{
	struct restart_result *out = r->result;

	out->pids = calloc(r->n + 1, sizeof(pid_t));
	out->roots = calloc(r->n + 1, sizeof(pid_t));
	if (!out->pids || !out->roots)
		return fail(-ENOMEM, "list its processes");
	for (size_t i = 0; i < r->n; i++) {
		out->pids[out->n_pids++] = r->procs[i].pid;
		out->threads += r->procs[i].state.image->n_threads;
		if (r->procs[i].parent == SIZE_MAX)
			out->roots[out->n_roots++] = r->procs[i].pid;
	}
	return 0;
}

static void fini(struct restore *r)
{
	for (size_t i = 0; r->procs && i < r->n; i++) {
		restore_free_notes(&r->procs[i].state);
		ctl_free(r->procs[i].ctl);
	}
	free(r->procs);
	free(r->streams);
	batch_free(r->batch);
	restore_job_fini(&r->job);
	manifest_free(r->manifest);
	repo_close(r->repo);
}

/* A page that could not be brought says more than what came of it. */
static int give_up(struct restore *r, int err)
{
	char text[400];
	int late;

	snprintf(text, sizeof(text), "%s", err_text(err));
	lazy_cancel(r->lazy);
	/* first dead, so that nobody sees the holes */
	if (r->made)
		tree_stop(r);
	late = lazy_end(take_ptr(r->lazy));
	if (r->made)
		tree_kill(r);
	return late ? late : refuse(err, "%s", text);
}

int restore_all(struct restore *r)
{
	static int (*const phases[PHASES])(struct restore * r) = {check, make, memory, state,
								  release};
	struct restart_result *out = r->result;
	int err = 0;

	for (int i = 0; i < PHASES && !err; i++) {
		uint64_t start = now_ns();

		err = phases[i](r);
		if (!err && i == PHASE_CHECK)
			err = tell(r);
		out->phase_ns[i] = now_ns() - start;
	}
	if (err)
		err = give_up(r, err);
	fini(r);
	return err;
}
