// SPDX-License-Identifier: GPL-2.0
/* What a session of `icp-bpf serve` does beyond one of `trace`: it outlives its processes, and hands out more. */
#include "session/internal.h"

#include <errno.h>

#include "base/log.h"

#define CUTS_MAX 64
#define STACKS_MAX 2000 /* of a process between two samples */

int session_drop(struct session *s, struct tracked *p, int err)
{
	if (!s->config.daemon || err == -ENOMEM)
		return err;
	if (!p->ended)
		note("pid %d (%s) is not followed any more: %s", p->target->pid,
		     p->target->comm, err_text(err));
	err_clear();
	p->ended = true;
	return 0;
}

int session_take_stacks(struct session *s)
{
	vec_each (stack, &s->batch.stacks) {
		struct tracked *p = session_find(s, (pid_t)stack->pid);
		struct icp_stack *slot;

		if (!p || p->stacks.n >= STACKS_MAX)
			continue;
		slot = vec_push(&p->stacks);
		if (!slot)
			return fail(-ENOMEM, "stacks");
		*slot = *stack;
	}
	s->batch.stacks.n = 0;
	return 0;
}

void session_forget_stacks(struct session *s)
{
	vec_each (p, &s->processes)
		(*p)->stacks.n = 0;
}

bool session_detail(struct session *s, pid_t pid, struct session_detail *out)
{
	struct tracked *p = session_find(s, pid);

	if (!p)
		return false;
	*out = (struct session_detail){
		.maps = &p->maps,
		.dirty = &p->dirty,
		.wws = p->wws,
		.tick = p->tick,
		.since_ns = p->since_ns,
		.window_ticks = p->window_ticks,
		.stacks = p->stacks.data,
		.n_stacks = p->stacks.n,
		.since_version = p->since_version,
		.since = &p->since,
		.stopped_s = p->total.stopped_s,
	};
	return true;
}

void session_function(struct session *s, pid_t pid, uint64_t ip, char *out, size_t len)
{
	struct tracked *p = session_find(s, pid);

	if (p)
		tracked_function(p, s->symbols, ip, out, len);
	else
		snprintf(out, len, "?");
}

void session_note_cut(struct session *s, const struct checkpoint_request *r, int err,
		      const struct dump_result *out)
{
	const struct tracked *root = r->n_roots ? session_find(s, r->roots[0]) : NULL;
	struct session_cut *cut;
	struct timespec now;

	if (s->cuts.n == CUTS_MAX) /* nobody asks: the oldest goes */
		memmove(s->cuts.data, s->cuts.data + 1, --s->cuts.n * sizeof(*s->cuts.data));
	cut = vec_push(&s->cuts);
	if (!cut)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	cut->time = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
	cut->root = r->n_roots ? r->roots[0] : 0;
	if (root) /* it may have been killed after the commit */
		memcpy(cut->comm, root->target->comm, sizeof(cut->comm));
	else
		tasks_comm(cut->root, cut->comm);
	snprintf(cut->dir, sizeof(cut->dir), "%s", r->dir);
	snprintf(cut->label, sizeof(cut->label), "%s", r->label ? r->label : "");
	cut->err = err;
	if (err)
		snprintf(cut->error, sizeof(cut->error), "%s", err_text(err));
	else
		cut->result = *out;
}

bool session_next_cut(struct session *s, struct session_cut *out)
{
	if (!s->cuts.n)
		return false;
	*out = s->cuts.data[0];
	memmove(s->cuts.data, s->cuts.data + 1, --s->cuts.n * sizeof(*s->cuts.data));
	return true;
}

pid_t session_cutting(const struct session *s)
{
	return s->cutting;
}
