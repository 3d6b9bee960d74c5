// SPDX-License-Identifier: GPL-2.0
/* The phases of a restart. */
#include "restore/restore.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "base/clock.h"
#include "base/page.h"
#include "restore/internal.h"
#include "state/ipc_remove.h"

const char *const restart_phase_names[PHASES] = {"check", "make", "memory", "state", "release"};

void restart_result_free(struct restart_result *r)
{
	free(r->pids);
	free(r->roots);
	*r = (struct restart_result){0};
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

/* Without the right to make the directory there is no note: processes restarted later find segments by key only. */
static void name_note(struct restore *r)
{
	if (!mkdir("/run/icp-bpf", 0700) || errno == EEXIST)
		ipc_note_path(r->repo->record.id, r->result->version, r->ipc_note);
}

static int check(struct restore *r)
{
	int err = open_version(r);

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
		err = tree_check_pids(r);
	for (size_t i = 0; i < r->n && !err; i++)
		err = restore_open(&r->procs[i].state);
	return err ? err : files_restore_open(&r->job);
}

static bool is_free(const struct restore *r, uint64_t start, uint64_t end, uint64_t *next)
{
	for (size_t p = 0; p < r->n; p++) {
		const Icp__Process *image = r->procs[p].state.image;

		for (size_t i = 0; i < image->n_vmas; i++) {
			uint64_t from, to;

			restore_span(r->manifest, image->vmas[i], &from, &to);
			if (from < end && to > start) {
				*next = to;
				return false;
			}
		}
	}
	return true;
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
		if (!is_free(r, at - GUARD, at + batch_size() + GUARD, &next)) {
			at = next + GUARD;
			continue;
		}
		err = batch_new(at, &r->batch);
		at += 16 * batch_size();
	}
	return err;
}

static int make(struct restore *r)
{
	int err = place_batch(r);

	if (!err)
		err = ipc_restore_new(&r->job);
	if (err)
		return err;
	r->made = true;
	return tree_make(r);
}

static int memory(struct restore *r)
{
	int err = 0;

	for (size_t i = 0; i < r->n && !err; i++)
		err = tracee_seize(r, &r->procs[i]);
	for (size_t i = 0; i < r->n && !err; i++) {
		struct restore_proc *p = &r->procs[i];

		err = repo_ctl(r->repo, r->result->version, (uint32_t)p->pid, &p->ctl);
		p->state.ctl = p->ctl;
		if (!err)
			err = tracee_map(r, p);
		if (!err)
			err = fill_process(r, p);
		if (err)
			return wrap(err, "process %d", p->pid);
		ctl_free(take_ptr(p->ctl));
		p->state.ctl = NULL;
	}
	return err ? err : fill_segments(r);
}

static int state(struct restore *r)
{
	int err = 0;

	for (size_t i = 0; i < r->n && !err; i++)
		err = tracee_protect(r, &r->procs[i]);
	if (!err)
		err = files_restore_seal(&r->job);
	for (size_t i = 0; i < r->n && !err; i++)
		err = tracee_state(r, &r->procs[i]);
	return err;
}

static int release(struct restore *r)
{
	int err = 0;

	err = ipc_restore_values(&r->job);
	for (size_t i = 0; i < r->n && !err; i++)
		err = tracee_settle(r, &r->procs[i]);
	if (!err)
		err = ipc_restore_end(&r->job);
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	for (size_t i = 0; i < r->n && !err; i++)
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
	batch_free(r->batch);
	restore_job_fini(&r->job);
	manifest_free(r->manifest);
	repo_close(r->repo);
}

int restart(const struct restart_config *config, struct restart_result *out)
{
	static int (*const phases[PHASES])(struct restore * r) = {check, make, memory, state,
								  release};
	struct restore r = {.config = config, .result = out, .job.detach = config->detach};
	int err = 0;

	*out = (struct restart_result){0};
	for (int i = 0; i < PHASES && !err; i++) {
		uint64_t start = now_ns();

		err = phases[i](&r);
		if (!err && i == PHASE_CHECK)
			err = tell(&r);
		out->phase_ns[i] = now_ns() - start;
	}
	if (err && r.made)
		tree_kill(&r);
	fini(&r);
	if (err)
		restart_result_free(out);
	return err ? wrap(err, "restart") : 0;
}
