// SPDX-License-Identifier: GPL-2.0
/* The records of a block that was found whole. Whole does not mean well-meant. */
#include <errno.h>
#include <string.h>

#include "obs/rec_read.h"

#define ADDR_END (1ull << 63)

static int get(struct rec_reader *r, uint64_t *v)
{
	size_t used = varint_get(r->raw.data + r->at, r->raw.n - r->at, v);

	r->at += used;
	return used ? 0 : -EINVAL;
}

static int get_all(struct rec_reader *r, uint64_t *values, size_t n)
{
	int err = 0;

	for (size_t i = 0; !err && i < n; i++)
		err = get(r, &values[i]);
	return err;
}

/* A number below @limit. */
static int get_below(struct rec_reader *r, uint64_t limit, uint32_t *out)
{
	uint64_t v;
	int err = get(r, &v);

	if (err || v >= limit)
		return -EINVAL;
	*out = (uint32_t)v;
	return 0;
}

static int get_time(struct rec_reader *r, uint64_t *time_us)
{
	uint64_t delta;
	int err = get(r, &delta);

	if (err)
		return err;
	r->last_time += (uint64_t)unzigzag(delta);
	*time_us = r->last_time;
	return r->last_time < ADDR_END ? 0 : -EINVAL;
}

static int get_string(struct rec_reader *r, const char **out)
{
	uint32_t i;
	int err = get_below(r, r->strings.n, &i);

	if (!err)
		*out = r->strings.data[i];
	return err;
}

static int get_text(struct rec_reader *r, char **out)
{
	uint32_t len;

	if (get_below(r, REC_STRING_MAX + 1, &len) || len > r->raw.n - r->at)
		return -EINVAL;
	*out = strndup((char *)r->raw.data + r->at, len);
	r->at += len;
	return *out ? 0 : -ENOMEM;
}

/* ---- tables ---- */

static int parse_string(struct rec_reader *r)
{
	int err;

	if (r->strings.n >= REC_TABLE_MAX)
		return -EINVAL;
	if (vec_reserve(&r->strings, r->strings.n + 1))
		return -ENOMEM;
	err = get_text(r, &r->strings.data[r->strings.n]);
	if (!err)
		r->strings.n++;
	return err;
}

static int parse_process(struct rec_reader *r)
{
	struct rec_process p = {0};
	uint32_t pid;
	int err = get_below(r, INT32_MAX, &pid);

	if (!err)
		err = get_string(r, &p.comm);
	if (err || r->processes.n >= REC_TABLE_MAX)
		return -EINVAL;
	p.pid = (pid_t)pid;
	if (vec_reserve(&r->processes, r->processes.n + 1) ||
	    vec_reserve(&r->last_addr, r->last_addr.n + 1))
		return -ENOMEM;
	r->processes.data[r->processes.n++] = p;
	r->last_addr.data[r->last_addr.n++] = 0;
	return 0;
}

static int parse_thread(struct rec_reader *r)
{
	struct rec_thread t, *slot;
	uint32_t tid;
	int err = get_below(r, r->processes.n, &t.process);

	if (!err)
		err = get_below(r, INT32_MAX, &tid);
	if (!err)
		err = get_string(r, &t.comm);
	if (err || r->threads.n >= REC_TABLE_MAX)
		return -EINVAL;
	t.tid = (pid_t)tid;
	slot = vec_push(&r->threads);
	if (!slot)
		return -ENOMEM;
	*slot = t;
	return 0;
}

static int parse_site(struct rec_reader *r)
{
	struct rec_site s, *slot;
	int err = get_below(r, r->processes.n, &s.process);

	if (!err)
		err = get(r, &s.ip);
	if (!err)
		err = get_string(r, &s.function);
	if (err || r->sites.n >= REC_TABLE_MAX)
		return -EINVAL;
	slot = vec_push(&r->sites);
	if (!slot)
		return -ENOMEM;
	*slot = s;
	return 0;
}

static int parse_stack(struct rec_reader *r)
{
	struct rec_stack *stack, **slot;
	uint32_t n;
	int err = 0;

	if (get_below(r, REC_STACK_FRAMES + 1, &n) || r->stacks.n >= REC_TABLE_MAX)
		return -EINVAL;
	stack = malloc(sizeof(*stack) + n * sizeof(stack->functions[0]));
	if (!stack)
		return -ENOMEM;
	stack->n = n;
	for (uint32_t i = 0; !err && i < n; i++)
		err = get_string(r, &stack->functions[i]);
	slot = err ? NULL : vec_push(&r->stacks);
	if (!slot) {
		free(stack);
		return err ? err : -ENOMEM;
	}
	*slot = stack;
	return 0;
}

/* ---- VMAs ---- */

/* A count, then a size, of pages from *@at on; the end. */
static int get_span(struct rec_reader *r, uint64_t gap, uint64_t pages, uint64_t last,
		    uint64_t *start, uint64_t *end)
{
	uint64_t size = r->start.page_size;

	if (gap > (ADDR_END * 2 - 1 - last) / size)
		return -EINVAL;
	*start = last + gap * size;
	if (!pages || pages > (ADDR_END * 2 - 1 - *start) / size)
		return -EINVAL;
	*end = *start + pages * size;
	return 0;
}

static int parse_vmas(struct rec_reader *r, struct rec_vma *out, uint32_t n)
{
	uint64_t last = 0, v[2], flags;
	int err = 0;

	for (uint32_t i = 0; !err && i < n; i++) {
		err = get_all(r, v, 2);
		if (!err)
			err = get_string(r, &out[i].name);
		if (!err)
			err = get(r, &flags);
		if (!err)
			err = get_span(r, v[0], v[1], last, &out[i].start, &out[i].end);
		if (err)
			break;
		out[i].shared = flags & 1;
		out[i].writable = flags & 2;
		last = out[i].end;
	}
	return err;
}

static int parse_maps(struct rec_reader *r, struct rec_item *out)
{
	VEC(struct rec_vma) added = {0};
	uint32_t at, dropped, n;
	struct rec_table *t;
	int err = get_below(r, r->processes.n, &out->process);

	if (err)
		return err;
	t = &r->processes.data[out->process].maps;
	if (get_below(r, t->vmas.n + 1, &at) || get_below(r, t->vmas.n - at + 1, &dropped) ||
	    get_below(r, REC_PART + 1, &n) || t->vmas.n + n > REC_TABLE_MAX)
		return -EINVAL;
	if (vec_reserve(&added, n + 1u))
		return -ENOMEM;
	err = parse_vmas(r, added.data, n);
	if (!err && vec_reserve(&t->vmas, t->vmas.n + n + 1))
		err = -ENOMEM;
	if (!err) {
		memmove(t->vmas.data + at + n, t->vmas.data + at + dropped,
			(t->vmas.n - at - dropped) * sizeof(*t->vmas.data));
		memcpy(t->vmas.data + at, added.data, n * sizeof(*added.data));
		t->vmas.n = t->vmas.n - dropped + n;
		out->kind = REC_MAPS;
	}
	vec_free(&added);
	return err ? err : 1;
}

/* ---- what happened ---- */

static int parse_fault(struct rec_reader *r, uint8_t tag, struct rec_item *out)
{
	uint64_t delta, *last;
	int err = 0;

	if (tag & FAULT_THREAD)
		err = get_below(r, r->threads.n, &r->last_thread);
	if (!err && tag & FAULT_SITE)
		err = get_below(r, r->sites.n, &r->last_site);
	if (!err)
		err = get_time(r, &out->time_us);
	if (!err)
		err = get(r, &delta);
	if (err || r->last_thread >= r->threads.n || r->last_site >= r->sites.n)
		return -EINVAL;
	out->kind = REC_FAULT;
	out->kernel = tag & FAULT_KERNEL;
	out->thread = r->last_thread;
	out->site = r->last_site;
	out->process = r->threads.data[out->thread].process;
	last = &r->last_addr.data[out->process];
	*last += (uint64_t)unzigzag(delta);
	out->addr = *last;
	return 1;
}

static int parse_runs(struct rec_reader *r, uint32_t n)
{
	uint64_t last = 0, v[2];

	r->runs.n = 0;
	if (vec_reserve(&r->runs, n + 1u))
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		struct rec_run *run = &r->runs.data[i];

		if (get_all(r, v, 2) || !(v[1] & 3) ||
		    get_span(r, v[0], v[1] >> 2, last, &run->start, &run->end))
			return -EINVAL;
		run->kind = (enum rec_run_kind)(v[1] & 3);
		last = run->end;
	}
	r->runs.n = n;
	return 0;
}

static int parse_take(struct rec_reader *r, struct rec_item *out)
{
	uint64_t counts[4] = {0};
	uint32_t more, n;
	int err = get_time(r, &out->time_us);

	if (!err)
		err = get_below(r, r->processes.n, &out->process);
	if (!err)
		err = get_below(r, 2, &more);
	if (!err && !more)
		err = get_all(r, counts, 4);
	if (!err)
		err = get_below(r, REC_PART + 1, &n);
	if (!err)
		err = parse_runs(r, n);
	if (err)
		return err;
	out->kind = REC_TAKE;
	out->take = (struct rec_take){
		.time_us = out->time_us,
		.interval_us = counts[0],
		.process = out->process,
		.faults = counts[1],
		.kernel_faults = counts[2],
		.lost = counts[3],
		.runs = r->runs.data,
		.n = r->runs.n,
	};
	return counts[0] > out->time_us ? -EINVAL : 1;
}

static int parse_stacked(struct rec_reader *r, struct rec_item *out)
{
	int err = get_time(r, &out->time_us);

	if (!err)
		err = get_below(r, r->threads.n, &out->thread);
	if (!err)
		err = get_below(r, r->stacks.n, &out->stack);
	if (!err)
		err = get_below(r, UINT32_MAX, &out->faults);
	if (err)
		return err;
	out->kind = REC_STACKED;
	out->process = r->threads.data[out->thread].process;
	return 1;
}

static int parse_event(struct rec_reader *r, struct rec_item *out)
{
	uint32_t event = 0;
	int err = get_time(r, &out->time_us);

	if (!err)
		err = get_below(r, r->processes.n, &out->process);
	if (!err)
		err = get_below(r, REC_EXIT + 1, &event);
	if (!err)
		err = get(r, &out->arg);
	if (err || !event)
		return -EINVAL;
	out->kind = REC_EVENT;
	out->event = (enum rec_event)event;
	return 1;
}

static int parse_end(struct rec_reader *r, struct rec_item *out)
{
	int err = get_time(r, &out->time_us);

	if (err)
		return err;
	err = parse_string(r); /* kept with the others, and freed with them */
	if (err)
		return err;
	out->kind = REC_END;
	out->reason = r->strings.data[r->strings.n - 1];
	r->ended = true;
	return 1;
}

int rec_parse(struct rec_reader *r, struct rec_item *out)
{
	uint8_t tag = r->raw.data[r->at++];

	*out = (struct rec_item){0};
	if (tag & TAG_FAULT)
		return tag & ~FAULT_KNOWN ? -EINVAL : parse_fault(r, tag, out);
	switch (tag) {
	case TAG_STRING:
		return parse_string(r);
	case TAG_PROCESS:
		return parse_process(r);
	case TAG_THREAD:
		return parse_thread(r);
	case TAG_SITE:
		return parse_site(r);
	case TAG_STACK:
		return parse_stack(r);
	case TAG_MAPS:
		return parse_maps(r, out);
	case TAG_TAKE:
		return parse_take(r, out);
	case TAG_STACKED:
		return parse_stacked(r, out);
	case TAG_EVENT:
		return parse_event(r, out);
	case TAG_END:
		return parse_end(r, out);
	default:
		return -EINVAL;
	}
}
