// SPDX-License-Identifier: GPL-2.0
/* From the session's parts to what is shown of a process: VMAs, heatmap, stacks, and what the forecast needs. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/io.h"
#include "base/page.h"
#include "serve/model.h"
#include "track/dirty.h"

#define RESIDENT_EVERY 10 /* samples */

static const char *name_of(const struct vma *v)
{
	return v->name[0] ? v->name : "[anon]";
}

static int by_pages(const void *a, const void *b)
{
	const struct area *x = a, *y = b;

	if (x->dirty != y->dirty)
		return x->dirty < y->dirty ? 1 : -1;
	if (x->wws[WINDOWS - 1] != y->wws[WINDOWS - 1])
		return x->wws[WINDOWS - 1] < y->wws[WINDOWS - 1] ? 1 : -1;
	return (x->start > y->start) - (x->start < y->start);
}

static int add_area(struct proc *p, const struct vma *v, uint64_t dirty, const uint64_t *wws)
{
	struct area *a = vec_push(&p->areas);

	if (!a)
		return fail(-ENOMEM, "areas of pid %d", p->pid);
	*a = (struct area){.start = v->start,
			   .end = v->end,
			   .kind = v->kind,
			   .prot = v->prot,
			   .shared = v->shared,
			   .dirty = dirty};
	memcpy(a->wws, wws, sizeof(a->wws));
	snprintf(a->name, sizeof(a->name), "%s%s", name_of(v),
		 v->deleted && v->kind != VMA_SHM ? " (deleted)" : "");
	return 0;
}

static int take_areas(struct proc *p, const struct session_detail *d)
{
	_cleanup_free_ struct wws_range *ranges = calloc(d->maps->n + 1, sizeof(*ranges));
	_cleanup_free_ uint64_t *pages = calloc((d->maps->n + 1) * WINDOWS, sizeof(*pages));
	int err = 0;

	if (!ranges || !pages)
		return fail(-ENOMEM, "areas of pid %d", p->pid);
	for (size_t i = 0; i < d->maps->n; i++)
		ranges[i] = (struct wws_range){d->maps->data[i].start, d->maps->data[i].end};
	wws_count_in(d->wws, d->window_ticks, WINDOWS, ranges, d->maps->n, pages);
	p->areas.n = 0;
	for (size_t i = 0; !err && i < d->maps->n; i++) {
		const struct vma *v = &d->maps->data[i];

		if (pages[i * WINDOWS + WINDOWS - 1])
			err = add_area(p, v, dirty_pages_in(d->dirty, v->start, v->end),
				       &pages[i * WINDOWS]);
	}
	if (p->areas.n)
		qsort(p->areas.data, p->areas.n, sizeof(*p->areas.data), by_pages);
	if (p->areas.n > AREAS_MAX)
		p->areas.n = AREAS_MAX;
	return err;
}

/* Both are sorted by address. */
static int take_heat(struct proc *p, const struct session_detail *d)
{
	size_t at = 0;
	int err = 0;

	for (size_t i = 0; !err && i < d->maps->n; i++) {
		const struct vma *v = &d->maps->data[i];

		while (at < d->dirty->n && d->dirty->data[at].end <= v->start)
			at++;
		for (size_t k = at; !err && k < d->dirty->n && d->dirty->data[k].start < v->end;
		     k++) {
			const struct dirty_run *r = &d->dirty->data[k];

			err = heat_add(&p->heat, r->start > v->start ? r->start : v->start,
				       r->end < v->end ? r->end : v->end, v->start, v->end,
				       name_of(v));
		}
	}
	return err;
}

/*
 * A return address is behind its call, which may be the last instruction of a function. Without frame pointers a stack leads
 * astray: it ends where no code is.
 */
static int take_stack(struct session *s, struct proc *p, const struct session_detail *d,
		      const struct icp_stack *stack)
{
	char texts[ICP_STACK_DEPTH][128];
	const char *names[ICP_STACK_DEPTH];
	size_t n = 0;

	while (n < stack->n && n < ICP_STACK_DEPTH) {
		uint64_t ip = stack->ip[n] - (n > 0);
		const struct vma *v = maps_find(d->maps, ip);

		if (!v || !(v->prot & PROT_EXEC))
			break;
		session_function(s, p->pid, ip, texts[n], sizeof(texts[n]));
		n++;
	}
	for (size_t i = 0; i < n; i++)
		names[i] = texts[n - 1 - i];
	return flame_add(&p->flames[0], names, n, stack->weight);
}

/* Pages that only this process has, as far as /proc tells cheaply. */
static uint64_t resident_of(pid_t pid)
{
	_cleanup_free_ char *text = NULL;
	unsigned long resident = 0, shared = 0;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	if (io_read_file(AT_FDCWD, path, &text, NULL) ||
	    sscanf(text, "%*u %lu %lu", &resident, &shared) != 2 || resident < shared)
		return 0;
	return (resident - shared) * page_size();
}

static void take_written(struct proc *p, const struct session_detail *d)
{
	uint64_t pages = d->since_version ? dirty_pages(d->since) : 0;

	p->written_before =
		p->version == d->since_version && pages >= p->written ? p->written : pages;
	p->written = pages;
	p->version = d->since_version;
	if (p->points % RESIDENT_EVERY == 1)
		p->resident = resident_of(p->pid);
}

int model_detail(struct model *m, struct session *s, struct proc *p)
{
	struct session_detail d;
	int err;

	if (!session_detail(s, p->pid, &d))
		return 0;
	p->total.stopped_s = d.stopped_s;
	take_written(p, &d);
	err = take_areas(p, &d);
	if (!err)
		err = take_heat(p, &d);
	for (size_t i = 0; !err && i < d.n_stacks; i++)
		err = take_stack(s, p, &d, &d.stacks[i]);
	return err;
}
