// SPDX-License-Identifier: GPL-2.0
#include "session/tracked.h"

#include <errno.h>
#include <math.h>
#include <time.h>

#include "base/page.h"

static void windows_in_ticks(double interval_s, uint32_t ticks[WINDOWS])
{
	for (size_t i = 0; i < WINDOWS; i++) {
		double n = ceil(window_seconds[i] / interval_s - 1e-9);

		ticks[i] = n < 1 ? 1 : n > WWS_WINDOW_MAX ? WWS_WINDOW_MAX : (uint32_t)n;
	}
}

/* The attachments that the maps show: one per VMA that begins at the segment's start. */
static int find_attachments(struct tracked *p)
{
	_cleanup_sysvshm_ struct sysvshm list = {0};
	int err = sysvshm_read(&list);

	if (err)
		return err;
	for (size_t i = 0; i < p->maps.n; i++) {
		const struct vma *v = &p->maps.data[i];
		const struct sysvshm_segment *seg;
		struct attachment *a;

		if (v->kind != VMA_SHM || v->offset)
			continue;
		seg = sysvshm_find(&list, (int)v->inode);
		a = vec_push(&p->attached);
		if (!a)
			return fail(-ENOMEM, "segments of pid %d", p->target->pid);
		*a = (struct attachment){
			.addr = v->start,
			.id = (int32_t)v->inode,
			.key = seg ? seg->key : 0,
			.size = seg ? seg->size : v->end - v->start,
		};
	}
	return 0;
}

static int attach(struct tracked *p, const char *tracker, struct warden *warden, bool fresh)
{
	int err = tracker_open(tracker, p->target, warden, fresh, &p->tracker);

	if (err)
		return err;
	p->since_ns = now_ns();
	p->total.stopped_s += (double)p->tracker->stopped_ns / 1e9;
	maps_free(&p->maps);
	err = maps_read(p->target, &p->maps);
	if (err == -ESRCH)
		return refuse(err, "pid %d ended while attaching", p->target->pid);
	return err ? err : find_attachments(p);
}

int tracked_open(pid_t pid, const char *tracker, struct warden *warden, double interval_s,
		 struct tracked **out)
{
	struct tracked *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return fail(-ENOMEM, "pid %d", pid);
	windows_in_ticks(interval_s, p->window_ticks);
	err = target_open(pid, &p->target);
	if (!err)
		err = wws_new(p->window_ticks, WINDOWS, &p->wws);
	if (!err) {
		p->total.pid = pid;
		memcpy(p->total.comm, p->target->comm, sizeof(p->total.comm));
		err = attach(p, tracker, warden, false);
	}
	if (err) {
		tracked_free(p);
		return err;
	}
	*out = p;
	return 0;
}

int tracked_reattach(struct tracked *p, const char *tracker, struct warden *warden)
{
	int err;

	tracker_close(take_ptr(p->tracker));
	p->attached.n = 0;
	p->since_version = 0;
	ctl_free(take_ptr(p->ctl));
	dirty_clear(&p->since);
	err = target_reopen_mm(p->target);
	if (err)
		return err;
	memcpy(p->total.comm, p->target->comm, sizeof(p->total.comm));
	return attach(p, tracker, warden, true);
}

void tracked_free(struct tracked *p)
{
	if (!p)
		return;
	tracker_close(p->tracker);
	maps_free(&p->maps);
	wws_free(p->wws);
	free(p->sites.slots);
	vec_free(&p->stacks);
	vec_free(&p->attached);
	dirty_free(&p->dirty);
	dirty_free(&p->ever);
	dirty_free(&p->since);
	dirty_free(&p->unsampled);
	ctl_free(p->ctl);
	target_free(p->target);
	free(p);
}

static int read_maps(struct tracked *p)
{
	struct maps maps = {0};
	int err = maps_read(p->target, &maps);

	if (err)
		return err;
	maps_free(&p->maps);
	p->maps = maps;
	p->maps_stale = false;
	return 0;
}

int tracked_follow(struct tracked *p)
{
	int err;

	if (!p->maps_stale || !p->tracker)
		return 0;
	err = read_maps(p);
	return err ? err : tracker_follow(p->tracker, &p->maps);
}

static int more_pages_first(const void *a, const void *b)
{
	const struct vma_stat *x = a, *y = b;

	if (x->dirty_pages != y->dirty_pages)
		return x->dirty_pages < y->dirty_pages ? 1 : -1;
	return (x->start > y->start) - (x->start < y->start);
}

static int add_vmas(const struct tracked *p, size_t top, struct process_sample *out)
{
	for (size_t i = 0; i < p->maps.n; i++) {
		const struct vma *v = &p->maps.data[i];
		uint64_t pages = dirty_pages_in(&p->dirty, v->start, v->end);
		struct vma_stat *stat;

		if (!pages)
			continue;
		stat = vec_push(&out->vmas);
		if (!stat)
			return fail(-ENOMEM, "sample of pid %d", out->pid);
		stat->start = v->start;
		stat->end = v->end;
		stat->dirty_pages = pages;
		snprintf(stat->name, sizeof(stat->name), "%s%s",
			 v->name[0] ? v->name : "[anon]",
			 v->deleted && v->kind != VMA_SHM ? " (deleted)" : "");
	}
	if (out->vmas.n)
		qsort(out->vmas.data, out->vmas.n, sizeof(*out->vmas.data), more_pages_first);
	out->vmas_written = out->vmas.n;
	if (out->vmas.n > top)
		out->vmas.n = top;
	return 0;
}

/* Zapped pages were not written by anybody: they are not there any more. */
static void drop_zapped(struct dirty *d, uint64_t *unknown)
{
	size_t kept = 0;

	*unknown = 0;
	for (size_t i = 0; i < d->n; i++) {
		if (d->data[i].what == DIRTY_UNKNOWN)
			*unknown += (d->data[i].end - d->data[i].start) / page_size();
		if (d->data[i].what != DIRTY_ZAPPED)
			d->data[kept++] = d->data[i];
	}
	d->n = kept;
}

static void add_totals(struct tracked *p, const struct process_sample *s)
{
	struct process_total *t = &p->total;

	t->samples++;
	t->seconds += s->interval_s;
	t->dirty_pages += s->dirty_pages;
	if (s->dirty_pages > t->peak_pages)
		t->peak_pages = s->dirty_pages;
	if (s->dirty_bytes_per_s > t->peak_bytes_per_s)
		t->peak_bytes_per_s = s->dirty_bytes_per_s;
	t->unique_pages = dirty_pages(&p->ever);
}

int tracked_sample(struct tracked *p, size_t top, struct process_sample *out)
{
	uint64_t now;
	int err;

	out->pid = p->target->pid;
	memcpy(out->comm, p->target->comm, sizeof(out->comm));
	out->ended = p->ended;
	err = p->ended || !p->tracker ? 0 : read_maps(p);
	now = now_ns();
	dirty_clear(&p->dirty);
	if (!err && !p->ended && p->tracker)
		err = tracker_take(p->tracker, &p->maps, &p->dirty);
	if (err)
		return err;
	if (p->since_version)
		err = dirty_join(&p->since, &p->dirty);
	if (!err && p->unsampled.n)
		err = dirty_join(&p->dirty, &p->unsampled);
	dirty_clear(&p->unsampled);
	if (err)
		return err;
	drop_zapped(&p->dirty, &out->unknown_pages);
	p->tick++;
	for (size_t i = 0; !err && i < p->dirty.n; i++)
		err = wws_add(p->wws, p->dirty.data[i].start, p->dirty.data[i].end, p->tick);
	if (!err && p->dirty.n && !p->forgets)
		err = dirty_join(&p->ever, &p->dirty);
	if (err)
		return err;
	for (size_t i = 0; i < WINDOWS; i++)
		out->wws_pages[i] = wws_count(p->wws, p->tick, p->window_ticks[i]);
	out->interval_s = (double)(now - p->since_ns) / 1e9;
	p->since_ns = now;
	out->dirty_pages = dirty_pages(&p->dirty);
	out->dirty_bytes_per_s =
		out->interval_s > 0 ? (double)(out->dirty_pages * page_size()) / out->interval_s
				    : 0;
	add_totals(p, out);
	return add_vmas(p, top, out);
}
