// SPDX-License-Identifier: GPL-2.0
#include "obs/report.h"

#include <errno.h>
#include <string.h>

static const char *name_of(const struct rec_vma *v)
{
	return !v ? "?" : v->name[0] ? v->name : "[anon]";
}

uint64_t report_piece(const struct rec_process *p, uint64_t start, uint64_t end,
		      const struct rec_vma **vma)
{
	size_t low = 0, high = p->maps.vmas.n;
	const struct rec_vma *v;

	while (low < high) { /* the first one that ends above start */
		size_t mid = low + (high - low) / 2;

		if (p->maps.vmas.data[mid].end > start)
			high = mid;
		else
			low = mid + 1;
	}
	v = low < p->maps.vmas.n ? &p->maps.vmas.data[low] : NULL;
	*vma = NULL;
	if (!v || v->start >= end || v->end <= start)
		return end;
	if (v->start > start)
		return v->start;
	*vma = v;
	return v->end < end ? v->end : end;
}

static struct report_process *process_by_pid(struct report *r, pid_t pid)
{
	uint32_t number;
	bool fresh;

	if (intern_add(&r->pids, &pid, sizeof(pid), &number, &fresh))
		return NULL;
	if (fresh && !vec_push(&r->processes))
		return NULL;
	r->processes.data[number].pid = pid;
	return &r->processes.data[number];
}

/* ---- adding up ---- */

static int add_piece(struct report_process *p, uint64_t start, uint64_t end,
		     const struct rec_vma *v, uint64_t pages)
{
	struct {
		uint64_t start;
		const char *name;
	} key = {v ? v->start : 0, v ? v->name : NULL};
	struct report_vma *stat;
	uint32_t number;
	bool fresh;
	int err = intern_add(&p->vma_keys, &key, sizeof(key), &number, &fresh);

	if (!err && fresh && !vec_push(&p->vmas))
		err = fail(-ENOMEM, "report");
	if (err)
		return err;
	stat = &p->vmas.data[number];
	stat->start = v ? v->start : 0;
	stat->end = v ? v->end : 0;
	stat->name = name_of(v);
	stat->pages += pages;
	return touched_add(&p->touched, start, end, name_of(v));
}

static int add_take(struct report *r, struct report_process *p, const struct rec_item *item)
{
	const struct rec_take *t = &item->take;
	uint64_t page = rec_started(r->reader)->page_size;
	struct report_take *take = p->takes.n ? &p->takes.data[p->takes.n - 1] : NULL;
	int err = 0;

	/* one in several parts: those that follow have no interval */
	if (!take || t->interval_us || take->time_us != t->time_us)
		take = vec_push(&p->takes);
	if (!take)
		return fail(-ENOMEM, "report");
	take->time_us = t->time_us;
	take->interval_us += t->interval_us;
	take->faults += t->faults;
	take->kernel_faults += t->kernel_faults;
	take->lost += t->lost;
	p->faults += t->faults;
	p->kernel_faults += t->kernel_faults;
	p->lost += t->lost;
	for (size_t i = 0; i < t->n; i++) {
		uint64_t pages = (t->runs[i].end - t->runs[i].start) / page;

		take->pages += pages;
		p->pages += pages;
		for (uint64_t at = t->runs[i].start, next; !err && at < t->runs[i].end;
		     at = next) {
			const struct rec_vma *v;

			next = report_piece(rec_process_of(r->reader, item->process), at,
					    t->runs[i].end, &v);
			err = add_piece(p, at, next, v, (next - at) / page);
		}
	}
	return err;
}

static int add_fault(struct report *r, struct report_process *p, const struct rec_item *item)
{
	const struct rec_thread *thread = rec_thread_of(r->reader, item->thread);
	const struct rec_site *site = rec_site_of(r->reader, item->site);
	struct {
		uint64_t tid;
		const char *function;
	} key = {(uint64_t)thread->tid, site->function};
	struct report_writer *w;
	uint32_t number;
	bool fresh;
	int err = intern_add(&p->writer_keys, &key, sizeof(key), &number, &fresh);

	if (!err && fresh && !vec_push(&p->writers))
		err = fail(-ENOMEM, "report");
	if (err)
		return err;
	w = &p->writers.data[number];
	w->tid = thread->tid;
	w->comm = thread->comm;
	w->function = site->function;
	w->faults++;
	w->kernel_faults += item->kernel;
	return 0;
}

static int add_item(struct report *r, const struct rec_item *item)
{
	const struct rec_process *of;
	struct report_process *p;

	if (item->kind == REC_END) {
		r->reason = item->reason;
		r->end_us = item->time_us > r->end_us ? item->time_us : r->end_us;
		return 0;
	}
	of = rec_process_of(r->reader, item->process);
	p = process_by_pid(r, of->pid);
	if (!p)
		return fail(-ENOMEM, "report");
	p->comm = of->comm;
	if (item->kind != REC_MAPS && item->time_us > r->end_us)
		r->end_us = item->time_us;
	switch (item->kind) {
	case REC_TAKE:
		return add_take(r, p, item);
	case REC_FAULT:
		return add_fault(r, p, item);
	case REC_STACKED:
		return flamegraph_add(&p->stacks, rec_stack_of(r->reader, item->stack),
				      item->faults);
	case REC_EVENT:
		p->exited |= item->event == REC_EXIT;
		return 0;
	default:
		return 0;
	}
}

static int more_pages(const void *a, const void *b)
{
	const struct report_vma *x = a, *y = b;

	if (x->pages != y->pages)
		return x->pages < y->pages ? 1 : -1;
	return (x->start > y->start) - (x->start < y->start);
}

static int more_faults(const void *a, const void *b)
{
	const struct report_writer *x = a, *y = b;

	if (x->faults != y->faults)
		return x->faults < y->faults ? 1 : -1;
	return x->tid != y->tid ? (x->tid > y->tid) - (x->tid < y->tid)
				: strcmp(x->function, y->function);
}

static void sort(struct report_process *p)
{
	if (p->vmas.n)
		qsort(p->vmas.data, p->vmas.n, sizeof(*p->vmas.data), more_pages);
	if (p->writers.n)
		qsort(p->writers.data, p->writers.n, sizeof(*p->writers.data), more_faults);
	touched_compact(&p->touched);
}

int report_read(const char *path, struct report *r)
{
	struct rec_item item;
	int err = rec_open(path, &r->reader), got = 0;

	while (!err && (got = rec_next(r->reader, &item)) == 1)
		err = add_item(r, &item);
	if (!err)
		err = got;
	if (err)
		return err == -ENOMEM ? fail(err, "%s", path) : err;
	if (rec_damage(r->reader))
		snprintf(r->damage, sizeof(r->damage), "%s", rec_damage(r->reader));
	vec_each (p, &r->processes)
		sort(p);
	return 0;
}

void report_free(struct report *r)
{
	vec_each (p, &r->processes) {
		vec_free(&p->takes);
		vec_free(&p->vmas);
		vec_free(&p->writers);
		intern_free(&p->vma_keys);
		intern_free(&p->writer_keys);
		vec_free(&p->touched.ranges);
		flamegraph_free(&p->stacks);
	}
	vec_free(&r->processes);
	intern_free(&r->pids);
	rec_close(r->reader);
}

struct report_process *report_of(struct report *r, pid_t pid)
{
	struct report_process *best = NULL;

	vec_each (p, &r->processes)
		if (pid ? p->pid == pid : !best || p->pages > best->pages)
			best = p;
	return best;
}
