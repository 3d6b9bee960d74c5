// SPDX-License-Identifier: GPL-2.0
/* What the events mean to a session: faults are counted by site, changes update the processes. */
#include "session/internal.h"

#include <errno.h>

void event_stamp(const struct session *s, struct trace_event *e, uint64_t time_ns, pid_t pid,
		 pid_t tid)
{
	e->order = time_ns;
	e->time = (double)((int64_t)time_ns + s->clock_offset_ns) / 1e9;
	e->pid = pid;
	e->tid = tid;
}

int event_put(struct trace_events *out, const struct trace_event *e)
{
	struct trace_event *slot;

	if (!out)
		return 0;
	slot = vec_push(out);
	if (!slot)
		return fail(-ENOMEM, "events");
	*slot = *e;
	return 0;
}

static int report_fault(struct session *s, struct tracked *p, const struct icp_fault *f,
			struct trace_events *out)
{
	struct trace_event e = {.kind = TRACE_WRITE,
				.addr = f->addr,
				.ip = f->ip,
				.kernel = f->flags & ICP_FAULT_KERNEL};
	const struct vma *v = maps_find(&p->maps, f->addr);

	event_stamp(s, &e, f->time, (pid_t)f->pid, (pid_t)f->tid);
	if (!v && !p->ended) {
		p->maps_stale = true;
		if (tracked_follow(p))
			err_clear();
		v = maps_find(&p->maps, f->addr);
	}
	snprintf(e.vma, sizeof(e.vma), "%s", !v ? "?" : v->name[0] ? v->name : "[anon]");
	tracked_function(p, s->symbols, f->ip, e.function, sizeof(e.function));
	return event_put(out, &e);
}

static int take_fault(struct session *s, const struct icp_fault *f, struct trace_events *out)
{
	struct tracked *p = session_find(s, (pid_t)f->pid);
	int err;

	if (s->config.checkpoints)
		return 0;
	if (!p)
		return 0; /* a child that ended before it was attached */
	err = sites_add(&p->sites, f->tid, f->ip, f->flags & ICP_FAULT_KERNEL, f->weight);
	return err || !out ? err : report_fault(s, p, f, out);
}

static int report_process(struct session *s, const struct icp_change *c, const char *op,
			  struct trace_events *out)
{
	struct trace_event e = {.kind = TRACE_PROCESS, .op = op, .id = (int32_t)c->arg[0]};

	event_stamp(s, &e, c->time, (pid_t)c->pid, (pid_t)c->tid);
	return event_put(out, &e);
}

static int take_fork(struct session *s, struct tracked *p, const struct icp_change *c,
		     struct trace_events *out)
{
	struct newcomer *child;
	int err = report_process(s, c, "fork", out);

	if (!err && p)
		err = segments_inherit(s, p, c, out);
	if (err || !s->config.tree)
		return err;
	child = vec_push(&s->newcomers);
	if (!child)
		return fail(-ENOMEM, "children");
	*child = (struct newcomer){.pid = (pid_t)c->arg[0], .since_ns = now_ns()};
	return 0;
}

static int take_change(struct session *s, const struct icp_change *c, struct trace_events *out)
{
	struct tracked *p = session_find(s, (pid_t)c->pid);
	int err;

	switch (c->type) {
	case ICP_EV_FORK:
		return take_fork(s, p, c, out);
	case ICP_EV_EXEC:
		err = report_process(s, c, "exec", out);
		if (err || !p)
			return err;
		p->reattach = true;
		return segments_drop_all(s, p, c, "exec", out);
	case ICP_EV_EXIT:
		err = report_process(s, c, "exit", out);
		if (err || !p)
			return err;
		p->ended = true;
		return segments_drop_all(s, p, c, "exit", out);
	case ICP_EV_MAP:
		if (p && c->op != ICP_MAP_MADVISE && c->op != ICP_MAP_MUNMAP)
			p->maps_stale = true;
		return 0;
	case ICP_EV_SHM:
		return p ? segments_change(s, p, c, out) : 0;
	default:
		return 0;
	}
}

static int by_time(const void *a, const void *b)
{
	const struct trace_event *x = a, *y = b;

	return (x->order > y->order) - (x->order < y->order);
}

int session_take_events(struct session *s, struct trace_events *out, bool every_fault)
{
	size_t first = out ? out->n : 0;
	int err;

	/* a checkpoint may have drained some already */
	err = events_drain(s->events, &s->batch);
	for (size_t i = 0; !err && i < s->batch.faults.n; i++)
		err = take_fault(s, &s->batch.faults.data[i], every_fault ? out : NULL);
	for (size_t i = 0; !err && i < s->batch.changes.n; i++)
		err = take_change(s, &s->batch.changes.data[i], out);
	if (!err)
		err = session_keep_raw(s);
	if (!err)
		err = session_take_stacks(s);
	s->batch.faults.n = s->batch.changes.n = 0;
	if (!err && out && out->n > first)
		qsort(out->data + first, out->n - first, sizeof(*out->data), by_time);
	return err;
}
