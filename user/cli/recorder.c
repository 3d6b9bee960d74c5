// SPDX-License-Identifier: GPL-2.0
#include "cli/recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/io.h"
#include "proc/tasks.h"

#define NAME_MAX_LEN 256

static uint64_t us_since(const struct recorder *r, uint64_t time_ns)
{
	return time_ns > r->base_ns ? (time_ns - r->base_ns) / 1000 : 0;
}

uint64_t recorder_time_us(const struct recorder *r)
{
	return us_since(r, now_ns());
}

/* ---- processes and threads ---- */

static int new_process(struct recorder *r, pid_t pid, uint32_t *process)
{
	char comm[16] = "?";

	tasks_comm(pid, comm);
	return rec_add_process(r->writer, pid, comm, process);
}

static int process_of(struct recorder *r, pid_t pid, struct recorded **out)
{
	uint32_t number;
	bool fresh;
	int err = intern_add(&r->pids, &pid, sizeof(pid), &number, &fresh);

	if (!err && fresh && !vec_push(&r->processes))
		err = fail(-ENOMEM, "recording");
	if (err)
		return err;
	*out = &r->processes.data[number];
	return fresh ? new_process(r, pid, &(*out)->process) : 0;
}

static int thread_of(struct recorder *r, uint32_t process, pid_t pid, pid_t tid,
		     uint32_t *thread)
{
	_cleanup_free_ char *text = NULL;
	char path[64];

	if (rec_find_thread(r->writer, process, tid, thread))
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", pid, tid);
	if (!io_read_file(AT_FDCWD, path, &text, NULL))
		text[strcspn(text, "\n")] = 0;
	return rec_add_thread(r->writer, process, tid, text ? text : "?", thread);
}

static void function_at(const struct recorder *r, const struct recorded *p, pid_t pid,
			uint64_t ip, char name[NAME_MAX_LEN])
{
	if (p->exec_ahead) /* its mappings are gone, and others are there */
		snprintf(name, NAME_MAX_LEN, "%#lx", ip);
	else
		session_function(r->session, pid, ip, name, NAME_MAX_LEN);
}

/* ---- events ---- */

static int put_fault(struct recorder *r, const struct icp_fault *f)
{
	struct rec_fault out = {.time_us = us_since(r, f->time),
				.addr = f->addr,
				.kernel = f->flags & ICP_FAULT_KERNEL};
	char name[NAME_MAX_LEN];
	struct recorded *p;
	int err = process_of(r, (pid_t)f->pid, &p);

	if (!err)
		err = thread_of(r, p->process, (pid_t)f->pid, (pid_t)f->tid, &out.thread);
	if (!err && !rec_find_site(r->writer, p->process, f->ip, &out.site)) {
		function_at(r, p, (pid_t)f->pid, f->ip, name);
		err = rec_add_site(r->writer, p->process, f->ip, name, &out.site);
	}
	r->faults++;
	return err ? err : rec_put_fault(r->writer, &out);
}

static int put_change(struct recorder *r, const struct icp_change *c)
{
	enum rec_event event = c->type == ICP_EV_FORK	? REC_FORK
			       : c->type == ICP_EV_EXEC ? REC_EXEC
							: REC_EXIT;
	struct recorded *p;
	int err;

	if (c->type != ICP_EV_FORK && c->type != ICP_EV_EXEC && c->type != ICP_EV_EXIT)
		return 0;
	err = process_of(r, (pid_t)c->pid, &p);
	if (!err)
		err = rec_put_event(r->writer, us_since(r, c->time), p->process, event,
				    event == REC_FORK ? c->arg[0] : 0);
	if (err || event != REC_EXEC)
		return err;
	p->exec_ahead = false;
	return new_process(r, (pid_t)c->pid, &p->process);
}

/* Where a function keeps something else in the frame pointer the walk goes astray: what is not in code is no caller. */
static size_t real_frames(const struct recorder *r, const struct icp_stack *s, size_t n)
{
	struct session_detail detail;

	if (!session_detail(r->session, (pid_t)s->pid, &detail))
		return n < 1 ? n : 1;
	for (size_t i = 1; i < n; i++) {
		const struct vma *v = maps_find(detail.maps, s->ip[i] - 1);

		if (!v || !(v->prot & PROT_EXEC))
			return i;
	}
	return n;
}

static int put_stack(struct recorder *r, const struct icp_stack *s)
{
	char names[ICP_STACK_DEPTH][NAME_MAX_LEN];
	const char *functions[ICP_STACK_DEPTH];
	struct recorded *p;
	uint32_t thread;
	size_t n = s->n < ICP_STACK_DEPTH ? s->n : ICP_STACK_DEPTH;
	int err = process_of(r, (pid_t)s->pid, &p);

	if (!err)
		err = thread_of(r, p->process, (pid_t)s->pid, (pid_t)s->tid, &thread);
	n = real_frames(r, s, n);
	for (size_t i = 0; !err && i < n; i++) {
		/* a return address is behind the call, perhaps in the next function */
		function_at(r, p, (pid_t)s->pid, i ? s->ip[i] - 1 : s->ip[i], names[i]);
		functions[i] = names[i];
	}
	if (err)
		return err;
	return rec_put_stack(r->writer, recorder_time_us(r), thread, functions, n, s->weight);
}

static int look_ahead(struct recorder *r, const struct event_batch *batch)
{
	struct recorded *p;
	int err = 0;

	for (size_t i = 0; !err && i < batch->changes.n; i++) {
		if (batch->changes.data[i].type != ICP_EV_EXEC)
			continue;
		err = process_of(r, (pid_t)batch->changes.data[i].pid, &p);
		if (!err)
			p->exec_ahead = true;
	}
	return err;
}

int recorder_events(struct recorder *r)
{
	struct event_batch *batch = session_raw(r->session);
	size_t change = 0;
	int err = look_ahead(r, batch);

	for (size_t i = 0; !err && i < batch->faults.n; i++) {
		const struct icp_fault *f = &batch->faults.data[i];

		while (!err && change < batch->changes.n &&
		       batch->changes.data[change].time <= f->time)
			err = put_change(r, &batch->changes.data[change++]);
		if (!err)
			err = put_fault(r, f);
	}
	while (!err && change < batch->changes.n)
		err = put_change(r, &batch->changes.data[change++]);
	for (size_t i = 0; !err && i < batch->stacks.n; i++)
		err = put_stack(r, &batch->stacks.data[i]);
	batch->faults.n = batch->changes.n = batch->stacks.n = 0;
	return err;
}

/* ---- takes ---- */

static int put_maps(struct recorder *r, uint32_t process, const struct maps *maps)
{
	VEC(struct rec_vma) vmas = {0};
	int err = 0;

	for (size_t i = 0; !err && i < maps->n; i++) {
		const struct vma *v = &maps->data[i];
		struct rec_vma *out = vec_push(&vmas);

		if (!out)
			err = fail(-ENOMEM, "recording");
		else
			*out = (struct rec_vma){.start = v->start,
						.end = v->end,
						.name = v->name,
						.shared = v->shared,
						.writable = v->prot & PROT_WRITE};
	}
	if (!err)
		err = rec_put_maps(r->writer, process, vmas.data, vmas.n);
	vec_free(&vmas);
	return err;
}

static enum rec_run_kind kind_of(enum dirty_what what)
{
	return what == DIRTY_NEW ? REC_NEW : what == DIRTY_UNKNOWN ? REC_UNKNOWN : REC_WRITTEN;
}

static int put_take(struct recorder *r, struct rec_take *take, const struct dirty *dirty)
{
	VEC(struct rec_run) runs = {0};
	int err = 0;

	for (size_t i = 0; !err && i < dirty->n; i++) {
		struct rec_run *run = vec_push(&runs);

		if (!run)
			err = fail(-ENOMEM, "recording");
		else
			*run = (struct rec_run){.start = dirty->data[i].start,
						.end = dirty->data[i].end,
						.kind = kind_of(dirty->data[i].what)};
	}
	take->runs = runs.data;
	take->n = runs.n;
	if (!err)
		err = rec_put_take(r->writer, take);
	vec_free(&runs);
	return err;
}

static int put_process_sample(struct recorder *r, const struct process_sample *s)
{
	static const struct dirty nothing;
	struct rec_take take = {.time_us = recorder_time_us(r),
				.faults = s->faults,
				.kernel_faults = s->kernel_faults,
				.lost = s->lost_events};
	struct session_detail detail;
	struct recorded *p;
	bool there = session_detail(r->session, s->pid, &detail);
	int err = process_of(r, s->pid, &p);

	if (err)
		return err;
	take.process = p->process;
	take.interval_us = (uint64_t)(s->interval_s * 1e6);
	if (take.interval_us > take.time_us)
		take.interval_us = take.time_us;
	r->takes++;
	r->lost += s->lost_events;
	if (there)
		err = put_maps(r, p->process, detail.maps);
	return err ? err : put_take(r, &take, there ? detail.dirty : &nothing);
}

int recorder_sample(struct recorder *r, const struct sample *sample)
{
	int err = 0;

	for (size_t i = 0; !err && i < sample->processes.n; i++)
		err = put_process_sample(r, &sample->processes.data[i]);
	session_forget_stacks(r->session);
	/* so that a recording that is killed lacks little */
	return err ? err : rec_flush(r->writer);
}

/* ---- begin and end ---- */

int recorder_open(struct recorder *r, struct session *s, const char *path, const pid_list *pids)
{
	const struct trace_info *info = session_info(s);
	struct rec_start start = {.interval_us = (uint64_t)(info->interval_s * 1e6),
				  .page_size = info->page_size};
	struct timespec real;
	int err;

	*r = (struct recorder){.session = s, .base_ns = now_ns()};
	clock_gettime(CLOCK_REALTIME, &real);
	start.start_ns = (uint64_t)real.tv_sec * 1000000000u + (uint64_t)real.tv_nsec;
	snprintf(start.tracker, sizeof(start.tracker), "%s", info->tracker);
	err = rec_create(path, &start, &r->writer);
	for (size_t i = 0; !err && i < pids->n; i++) {
		struct session_detail detail;
		struct recorded *p;

		err = process_of(r, pids->data[i], &p);
		if (!err && session_detail(s, pids->data[i], &detail))
			err = put_maps(r, p->process, detail.maps);
	}
	return err;
}

int recorder_close(struct recorder *r, const char *reason)
{
	int err = 0;

	if (r->writer)
		err = rec_finish(take_ptr(r->writer), recorder_time_us(r), reason);
	intern_free(&r->pids);
	vec_free(&r->processes);
	return err;
}
