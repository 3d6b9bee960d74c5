// SPDX-License-Identifier: GPL-2.0
/*
 * Segment events without tracing system calls, which would cost every call of the machine: the maps (read again when the
 * guard says that the layout changed) show attaching and detaching, /proc/sysvipc/shm creation and removal. To STEP_MS exactly,
 * and a shmget() of a segment that exists already is not seen; --events is exact.
 */
#include "session/internal.h"

#include <errno.h>

#define LOOK_NS 90000000u

static struct trace_event event_now(struct session *s, pid_t pid, const char *op)
{
	struct trace_event e = {.kind = TRACE_SEGMENT, .op = op};

	event_stamp(s, &e, now_ns(), pid, pid);
	return e;
}

static int put(struct trace_events *out, struct trace_event *e, const struct attachment *a,
	       const struct sysvshm_segment *now)
{
	e->id = a->id;
	e->key = a->key;
	e->size = a->size;
	e->addr = a->addr;
	e->attach_count = now ? now->nattch : 0;
	return event_put(out, e);
}

static bool has_vma(const struct tracked *p, const struct attachment *a)
{
	vec_each (v, &p->maps) {
		if (v->kind == VMA_SHM && (int32_t)v->inode == a->id &&
		    v->start - v->offset == a->addr)
			return true;
	}
	return false;
}

static bool is_known(const struct tracked *p, const struct vma *v)
{
	vec_each (a, &p->attached) {
		if (a->id == (int32_t)v->inode && a->addr == v->start - v->offset)
			return true;
	}
	return false;
}

static int watch_detached(struct session *s, struct tracked *p, const struct sysvshm *list,
			  struct trace_events *out)
{
	size_t kept = 0;
	int err = 0;

	for (size_t i = 0; i < p->attached.n; i++) {
		struct attachment *a = &p->attached.data[i];
		struct trace_event e;

		if (err || has_vma(p, a)) {
			p->attached.data[kept++] = *a;
			continue;
		}
		e = event_now(s, p->target->pid, "detach");
		err = put(out, &e, a, sysvshm_find(list, a->id));
	}
	p->attached.n = kept;
	return err;
}

static int watch_attached(struct session *s, struct tracked *p, const struct sysvshm *list,
			  struct trace_events *out)
{
	int err = 0;

	vec_each (v, &p->maps) {
		const struct sysvshm_segment *seg;
		struct attachment *a;
		struct trace_event e;

		if (err || v->kind != VMA_SHM || is_known(p, v))
			continue;
		seg = sysvshm_find(list, (int32_t)v->inode);
		a = vec_push(&p->attached);
		if (!a)
			return fail(-ENOMEM, "segments of pid %d", p->target->pid);
		*a = (struct attachment){
			.addr = v->start - v->offset,
			.id = (int32_t)v->inode,
			.key = seg ? seg->key : 0,
			.size = seg ? seg->size : v->end - v->start,
		};
		e = event_now(s, p->target->pid, "attach");
		err = put(out, &e, a, seg);
	}
	return err;
}

static bool is_ours(struct session *s, const struct sysvshm_segment *seg)
{
	if (session_find(s, seg->cpid))
		return true;
	vec_each (p, &s->processes)
		vec_each (a, &(*p)->attached)
			if (a->id == seg->shmid)
				return true;
	return false;
}

static int report(struct session *s, const struct sysvshm_segment *seg, const char *op,
		  const struct sysvshm_segment *now, struct trace_events *out)
{
	struct attachment a = {.id = seg->shmid, .key = seg->key, .size = seg->size};
	struct trace_event e =
		event_now(s, session_find(s, seg->lpid) ? seg->lpid : seg->cpid, op);

	return put(out, &e, &a, now);
}

/* Segments that were made or removed since the last look. */
static int watch_list(struct session *s, const struct sysvshm *list, struct trace_events *out)
{
	int err = 0;

	for (size_t i = 0; !err && i < list->n; i++) {
		const struct sysvshm_segment *seg = &list->data[i];

		if (!sysvshm_find(&s->segments_seen, seg->shmid) && session_find(s, seg->cpid))
			err = report(s, seg, "get", seg, out);
	}
	for (size_t i = 0; !err && i < s->segments_seen.n; i++) {
		const struct sysvshm_segment *was = &s->segments_seen.data[i],
					     *now = sysvshm_find(list, was->shmid);

		if (!was->removed && (!now || now->removed) && is_ours(s, was))
			err = report(s, was, "remove", now, out);
	}
	return err;
}

int segments_watch(struct session *s, struct trace_events *out)
{
	struct sysvshm list = {0};
	uint64_t now = now_ns();
	int err;

	if (!out || s->config.segment_events || now - s->segments_ns < LOOK_NS)
		return 0;
	err = sysvshm_read(&list);
	if (!err && s->segments_ns) /* the first look only learns what is there */
		err = watch_list(s, &list, out);
	for (size_t i = 0; !err && i < s->processes.n; i++) {
		struct tracked *p = s->processes.data[i];

		if (p->ended || p->reattach)
			continue;
		err = watch_attached(s, p, &list, out);
		if (!err)
			err = watch_detached(s, p, &list, out);
	}
	sysvshm_free(&s->segments_seen);
	s->segments_seen = list;
	s->segments_ns = now;
	return err;
}
