// SPDX-License-Identifier: GPL-2.0
/* System V segments of a session: who attached what where, the events about it, and the dirty pages of each. */
#include "session/internal.h"

#include <errno.h>

#include "base/page.h"

static struct attachment *attachment_at(struct tracked *p, uint64_t addr)
{
	vec_each (a, &p->attached)
		if (a->addr == addr)
			return a;
	return NULL;
}

static void forget(struct tracked *p, struct attachment *a)
{
	*a = p->attached.data[--p->attached.n];
}

/* The facts about segment @id now; key and size stay 0 when it is gone. */
static void look_up(int id, struct trace_event *e)
{
	_cleanup_sysvshm_ struct sysvshm list = {0};
	const struct sysvshm_segment *seg;

	e->id = id;
	if (sysvshm_read(&list)) {
		err_clear();
		return;
	}
	seg = sysvshm_find(&list, id);
	if (!seg)
		return;
	e->key = seg->key;
	e->size = seg->size;
	e->attach_count = seg->nattch;
}

static void describe(const struct attachment *a, struct trace_event *e)
{
	look_up(a->id, e);
	e->addr = a->addr;
	e->key = a->key;
	e->size = a->size;
}

static int on_attach(struct tracked *p, const struct icp_change *c, struct trace_event *e)
{
	struct attachment *a;

	look_up((int)c->arg[0], e);
	e->addr = (uint64_t)c->ret;
	e->op = "attach";
	p->maps_stale = true;
	a = attachment_at(p, e->addr);
	if (!a)
		a = vec_push(&p->attached);
	if (!a)
		return fail(-ENOMEM, "segments of pid %d", p->target->pid);
	*a = (struct attachment){.addr = e->addr, .key = e->key, .id = e->id, .size = e->size};
	return 0;
}

static void on_detach(struct tracked *p, const struct icp_change *c, struct trace_event *e)
{
	struct attachment *a = attachment_at(p, c->arg[0]);

	e->op = "detach";
	e->addr = c->arg[0];
	p->maps_stale = true;
	if (!a)
		return;
	describe(a, e);
	forget(p, a);
}

int segments_change(struct session *s, struct tracked *p, const struct icp_change *c,
		    struct trace_events *out)
{
	struct trace_event e = {.kind = TRACE_SEGMENT};
	int err = 0;

	event_stamp(s, &e, c->time, (pid_t)c->pid, (pid_t)c->tid);
	switch (c->op) {
	case ICP_SHM_GET:
		e.op = "get";
		look_up((int)c->ret, &e);
		if (!e.key)
			e.key = (int32_t)c->arg[0];
		if (!e.size)
			e.size = c->arg[1];
		break;
	case ICP_SHM_AT:
		err = on_attach(p, c, &e);
		break;
	case ICP_SHM_DT:
		on_detach(p, c, &e);
		break;
	case ICP_SHM_RMID:
		e.op = "remove";
		look_up((int)c->arg[0], &e);
		break;
	default:
		return 0;
	}
	return err ? err : event_put(out, &e);
}

int segments_drop_all(struct session *s, struct tracked *p, const struct icp_change *c,
		      const char *why, struct trace_events *out)
{
	int err = 0;

	for (size_t i = 0; !err && i < p->attached.n; i++) {
		struct trace_event e = {.kind = TRACE_SEGMENT, .op = "detach", .implied = why};

		event_stamp(s, &e, c->time, (pid_t)c->pid, (pid_t)c->tid);
		describe(&p->attached.data[i], &e);
		err = event_put(out, &e);
	}
	p->attached.n = 0;
	return err;
}

/* The dirty runs of one VMA of a segment, in the segment's own offsets. */
static int add_runs(const struct tracked *p, const struct vma *v, struct dirty *out)
{
	_cleanup_(dirty_free) struct dirty mine = {0};
	int err = 0;

	for (size_t i = 0; !err && i < p->dirty.n; i++) {
		const struct dirty_run *r = &p->dirty.data[i];
		uint64_t start = r->start > v->start ? r->start : v->start,
			 end = r->end < v->end ? r->end : v->end;

		if (start < end)
			err = dirty_append(&mine, start - v->start + v->offset,
					   end - v->start + v->offset, r->what);
	}
	return err ? err : dirty_join(out, &mine);
}

static int dirty_of(const struct tracked *p, int id, struct dirty *out)
{
	int err = 0;

	for (size_t i = 0; !err && i < p->maps.n; i++)
		if (p->maps.data[i].kind == VMA_SHM && (int)p->maps.data[i].inode == id)
			err = add_runs(p, &p->maps.data[i], out);
	return err;
}

static bool listed(const struct process_sample *out, int id)
{
	vec_each (seg, &out->segments)
		if (seg->id == id)
			return true;
	return false;
}

/* Every process once, however often it attaches the segment. */
static int add_pids(const struct sysvshm_attachments *attached, int id,
		    struct segment_stat *out)
{
	size_t n;
	const struct sysvshm_attachment *a = sysvshm_attachments_of(attached, id, &n);

	for (size_t i = 0; i < n; i++) {
		pid_t *pid;

		if (i && a[i].pid == a[i - 1].pid)
			continue;
		pid = vec_push(&out->pids);
		if (!pid)
			return fail(-ENOMEM, "processes of segment %d", id);
		*pid = a[i].pid;
	}
	return 0;
}

static int fill(struct session *s, struct tracked *p, const struct sysvshm_segment *seg,
		const struct sysvshm_attachments *attached, struct segment_stat *out)
{
	_cleanup_(dirty_free) struct dirty mine = {0}, all = {0};
	int err = dirty_of(p, seg->shmid, &mine);

	for (size_t i = 0; !err && i < s->processes.n; i++)
		if (!s->processes.data[i]->ended)
			err = dirty_of(s->processes.data[i], seg->shmid, &all);
	if (err)
		return err;
	out->key = seg->key;
	out->id = seg->shmid;
	out->size = seg->size;
	out->attach_count = seg->nattch;
	out->dirty_pages = dirty_pages(&mine);
	out->dirty_pages_all = dirty_pages(&all);
	return add_pids(attached, seg->shmid, out);
}

int segments_sample(struct session *s, struct tracked *p, const struct sysvshm *list,
		    const struct sysvshm_attachments *attached, struct process_sample *out)
{
	for (size_t i = 0; i < p->maps.n; i++) {
		const struct vma *v = &p->maps.data[i];
		const struct sysvshm_segment *seg =
			v->kind == VMA_SHM ? sysvshm_find(list, (int)v->inode) : NULL;
		struct segment_stat *stat;
		int err;

		if (!seg || listed(out, seg->shmid))
			continue;
		stat = vec_push(&out->segments);
		if (!stat)
			return fail(-ENOMEM, "segments of pid %d", out->pid);
		err = fill(s, p, seg, attached, stat);
		if (err)
			return err;
	}
	return 0;
}

int segments_inherit(struct session *s, const struct tracked *parent,
		     const struct icp_change *c, struct trace_events *out)
{
	int err = 0;

	for (size_t i = 0; !err && i < parent->attached.n; i++) {
		struct trace_event e = {
			.kind = TRACE_SEGMENT, .op = "attach", .implied = "fork"};

		event_stamp(s, &e, c->time, (pid_t)c->arg[0], (pid_t)c->arg[0]);
		describe(&parent->attached.data[i], &e);
		err = event_put(out, &e);
	}
	return err;
}

static struct segment_rate *rate_of(struct session *s, int id)
{
	vec_each (r, &s->rates)
		if (r->shmid == id)
			return r;
	return NULL;
}

int segments_note_rates(struct session *s, const struct sample *sample)
{
	s->rates.n = 0;
	vec_each (p, &sample->processes) {
		vec_each (seg, &p->segments) {
			struct segment_rate *r = rate_of(s, seg->id);

			if (r || p->interval_s <= 0)
				continue;
			r = vec_push(&s->rates);
			if (!r)
				return fail(-ENOMEM, "rates of segments");
			r->shmid = seg->id;
			r->session = getpid();
			r->bytes_per_s =
				(double)(seg->dirty_pages_all * page_size()) / p->interval_s;
		}
	}
	return 0;
}
