// SPDX-License-Identifier: GPL-2.0
/* Which stream a dirty page belongs to: its process's, a System V segment's, or none (a file keeps it). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <unistd.h>

#include "base/page.h"
#include "dump/internal.h"
#include "proc/sysvshm.h"

static struct dump_segment *segment_find(struct dump *d, int shmid)
{
	vec_each (s, &d->segments)
		if ((*s)->shmid == shmid)
			return *s;
	return NULL;
}

/* Mostly behind what is there; else what another process wrote, or the same one earlier. */
static int put(struct dirty *set, const struct dirty *more)
{
	int err = 0;

	if (more->n && set->n && more->data[0].start < set->data[set->n - 1].end)
		return dirty_join(set, more);
	vec_each (r, more)
		err = err ?: dirty_append(set, r->start, r->end, r->what);
	return err;
}

/* NULL: a file keeps it, or the segment was attached a moment ago: segments_find() comes before the next round. */
static struct stream *stream_of(struct dump *d, struct dump_proc *p, const struct vma *v)
{
	struct dump_segment *seg;

	if (v->kind != VMA_SHM)
		return vma_saved(p, v) ? &p->stream : NULL;
	seg = segment_find(d, (int)v->inode);
	return seg ? &seg->stream : NULL;
}

/* Runs of @set from @i on that lie in @v. */
static int route_vma(struct dump *d, struct dump_proc *p, const struct vma *v,
		     const struct dirty *set, size_t i, bool last)
{
	_cleanup_(dirty_free) struct dirty mine = {0};
	uint64_t shift = v->kind == VMA_SHM ? v->offset - v->start : 0;
	bool kept = v->shared || vma_keeps_file(v);
	struct stream *s;
	int err = 0;

	if (i == set->n || set->data[i].start >= v->end)
		return 0;
	s = stream_of(d, p, v);
	for (; s && !err && i < set->n && set->data[i].start < v->end; i++) {
		const struct dirty_run *r = &set->data[i];
		uint64_t start = r->start > v->start ? r->start : v->start,
			 end = r->end < v->end ? r->end : v->end;

		/* zapped from this process's page table only: the memory is still there, or the file's */
		err = dirty_append(&mine, start + shift, end + shift,
				   kept && r->what == DIRTY_ZAPPED ? DIRTY_UNKNOWN : r->what);
	}
	return err || !s ? err : put(last ? &s->last : &s->todo, &mine);
}

int route_dirty(struct dump *d, struct dump_proc *p, const struct dirty *set, bool last)
{
	size_t i = 0;
	int err = 0;

	for (size_t k = 0; !err && k < p->maps.n && i < set->n; k++) {
		const struct vma *v = &p->maps.data[k];

		while (i < set->n && set->data[i].end <= v->start)
			i++;
		err = route_vma(d, p, v, set, i, last);
	}
	return err;
}

/* -ENOENT (bare): detached since the maps were read, or the process has ended. */
static int segment_source(struct dump_segment *s, const struct dump_proc *p,
			  const struct vma *v)
{
	char path[96];

	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", p->src.target->pid, v->start,
		 v->end);
	s->source = (struct page_source){.pid = p->src.target->pid, .mem_fd = -1};
	s->source.file_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (s->source.file_fd < 0 && (errno == ENOENT || errno == ESRCH))
		return -ENOENT;
	return s->source.file_fd < 0 ? refuse(-errno,
					      "pid %d: the segment %d can't be read without "
					      "CAP_CHECKPOINT_RESTORE or "
					      "CAP_SYS_ADMIN: run as root",
					      p->src.target->pid, s->shmid)
				     : 0;
}

/*
 * We attach it for a moment, to find its file. That shows in its times, so such a segment is compared as a whole every time.
 * -ENOENT (bare): it is gone.
 */
static int segment_source_detached(struct dump_segment *s)
{
	void *at = shmat(s->shmid, NULL, SHM_RDONLY);
	uint64_t len = (s->size + page_size() - 1) & ~(page_size() - 1);
	char path[96];

	if (at == (void *)-1)
		return errno == EINVAL || errno == EIDRM
			       ? -ENOENT
			       : fail(-errno, "attach segment %d", s->shmid);
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)at,
		 (unsigned long)at + len);
	s->source = (struct page_source){.pid = getpid(), .mem_fd = -1};
	s->source.file_fd = open(path, O_RDONLY | O_CLOEXEC);
	shmdt(at);
	return s->source.file_fd < 0 ? fail(-errno, "open segment %d", s->shmid) : 0;
}

struct dump_segment_ctl *segment_ctl(struct dump *d, int shmid)
{
	struct dump_segment_ctl *slot;

	if (!d->config.segment_ctls)
		return NULL;
	vec_each (c, d->config.segment_ctls)
		if (c->shmid == shmid)
			return c;
	slot = vec_push(d->config.segment_ctls);
	if (!slot)
		return NULL; /* it is read from the repository, then */
	*slot = (struct dump_segment_ctl){.shmid = shmid};
	return slot;
}

struct dump_segment_times segment_times(const struct sysvshm_segment *info)
{
	return (struct dump_segment_times){info->atime, info->dtime, info->lpid};
}

/*
 * Did anybody attach or detach it since @seen, or in the seconds before @since? The times are whole seconds; that they are the
 * same says it even where the clock was put back.
 */
static bool was_attached(const struct sysvshm_segment *info,
			 const struct dump_segment_times *seen, int64_t since)
{
	return info->atime >= since || info->dtime >= since || info->atime != seen->attached ||
	       info->dtime != seen->detached || info->lpid != seen->pid;
}

/* Without @v: one that nobody of the job attaches. */
static int segment_add(struct dump *d, const struct dump_proc *p, const struct vma *v,
		       const struct sysvshm_segment *info)
{
	struct dump_segment *s, **slot = vec_push(&d->segments);
	struct dump_segment_ctl *owned = NULL;
	int err;

	if (!slot)
		return fail(-ENOMEM, "segment %d", v ? (int)v->inode : info->shmid);
	s = *slot = calloc(1, sizeof(*s));
	if (!s) {
		d->segments.n--;
		return fail(-ENOMEM, "segment %d", v ? (int)v->inode : info->shmid);
	}
	s->shmid = v ? (int)v->inode : info->shmid;
	s->source.file_fd = s->source.mem_fd = -1;
	s->size = info ? info->size : v->end - v->start;
	if (info)
		s->info = *info;
	err = v ? segment_source(s, p, v) : segment_source_detached(s);
	if (err == -ENOENT) {
		d->segments.n--;
		free(s);
		return 0;
	}
	s->source.file_size = s->size;
	if (info)
		s->found = segment_times(info);
	owned = segment_ctl(d, s->shmid);
	if (!err)
		err = stream_open(
			d, &s->stream, ICP_STREAM_SHM | (uint32_t)s->shmid,
			parent_segment(d, s->shmid) ? ICP_STREAM_SHM | (uint32_t)s->shmid : 0,
			owned ? &owned->ctl : NULL);
	s->stream.compare_all = true; /* until segments_known() knows better */
	s->fresh = true;
	return err;
}

/* Segments that the processes attach and that are not known yet. */
int segments_find(struct dump *d)
{
	_cleanup_sysvshm_ struct sysvshm list = {0};
	bool read = false;
	int err = 0;

	for (size_t i = 0; i < d->procs.n; i++) {
		const struct dump_proc *p = d->procs.data[i];

		vec_each (v, &p->maps) {
			if (err || v->kind != VMA_SHM || segment_find(d, (int)v->inode))
				continue;
			if (!read)
				err = sysvshm_read(&list);
			read = true;
			if (!err)
				err = segment_add(d, p, v, sysvshm_find(&list, (int)v->inode));
		}
	}
	return err;
}

/* Did one of the job make it? Pids are used again: not before that process began. */
static bool made_by_job(const struct dump *d, const struct sysvshm_segment *info)
{
	for (size_t i = 0; i < d->procs.n; i++) {
		const struct target *t = d->procs.data[i]->src.target;

		if (t->pid == info->cpid)
			return info->ctime >= tasks_began(t->start_time) - 2;
	}
	return false;
}

int segments_find_detached(struct dump *d)
{
	_cleanup_sysvshm_ struct sysvshm list = {0};
	int err = d->config.shm_detached ? sysvshm_read(&list) : 0;

	vec_each (info, &list) {
		if (!err && !segment_find(d, info->shmid) &&
		    (made_by_job(d, info) || parent_segment(d, info->shmid)))
			err = segment_add(d, NULL, NULL, info);
	}
	return err;
}

static uint64_t attachments(const struct dump *d, int shmid)
{
	uint64_t n = 0;

	for (size_t i = 0; i < d->procs.n; i++)
		vec_each (v, &d->procs.data[i]->maps)
			n += v->kind == VMA_SHM && (int)v->inode == shmid;
	return n;
}

/*
 * Our trackers saw every write to a segment since the parent version if everybody who attaches it is ours, and nobody attached
 * or detached meanwhile (a detach takes the tracker's marks with it). The times are whole seconds.
 */
int segments_known(struct dump *d)
{
	_cleanup_sysvshm_ struct sysvshm list = {0};
	int64_t since = d->parent ? (int64_t)((d->parent->time_ns - d->parent->job->total_ns) /
					      1000000000u) -
					    2
				  : 0;
	bool sources = d->parent && !d->config.full;
	int err;

	if (!d->segments.n)
		return 0;
	err = sysvshm_read(&list);
	if (err)
		return err;
	for (size_t i = 0; i < d->procs.n; i++)
		sources &= d->procs.data[i]->src.since_version == d->config.parent &&
			   !d->procs.data[i]->src.tracker->ops->blind_to_dropped;
	for (size_t i = 0; i < d->segments.n; i++) {
		struct dump_segment *s = d->segments.data[i];
		const struct sysvshm_segment *info = sysvshm_find(&list, s->shmid);
		const struct dump_segment_ctl *owned = segment_ctl(d, s->shmid);

		if (info)
			s->info = *info;
		s->stream.compare_all = !sources || !info || !owned ||
					was_attached(info, &owned->times, since) ||
					info->nattch != attachments(d, s->shmid) ||
					!parent_segment(d, s->shmid);
	}
	return 0;
}

int segments_populated(struct dump *d)
{
	_cleanup_sysvshm_ struct sysvshm list = {0};
	int err = d->segments.n ? sysvshm_read(&list) : 0;

	for (size_t i = 0; !err && i < d->segments.n; i++) {
		struct dump_segment *s = d->segments.data[i];
		const struct sysvshm_segment *info = sysvshm_find(&list, s->shmid);

		if (info)
			s->info = *info;
		err = populated_segment(s, &s->stream.populated);
		s->populated_known = !err;
	}
	return err;
}

int segments_new(struct dump *d)
{
	int err = 0;

	for (size_t i = 0; !err && i < d->segments.n; i++) {
		struct dump_segment *s = d->segments.data[i];

		if (s->fresh)
			err = populated_segment(s, &s->stream.todo);
		s->fresh = false;
	}
	return err;
}

/*
 * While the job ran a segment can have been written through an attachment that is gone again, or by a process that isn't ours; and
 * one that was attached only now was never looked at. What is in `todo` by now may have been written after it was copied (compare_taken()).
 */
int segments_settle(struct dump *d, bool all_exact)
{
	_cleanup_sysvshm_ struct sysvshm list = {0};
	int err = d->segments.n ? sysvshm_read(&list) : 0;
	bool blind = false;

	for (size_t i = 0; !all_exact && i < d->procs.n; i++)
		blind |= d->procs.data[i]->src.tracker->ops->blind_to_dropped;

	for (size_t i = 0; !err && i < d->segments.n; i++) {
		struct dump_segment *s = d->segments.data[i];
		const struct sysvshm_segment *info = sysvshm_find(&list, s->shmid);
		bool unseen = blind || s->fresh || !info ||
			      was_attached(info, &s->found, d->start_time - 1) ||
			      info->nattch != attachments(d, s->shmid);

		if (info) /* frozen: what the manifest says of it */
			s->info = *info;
		if (unseen || !all_exact || !s->populated_known)
			err = populated_segment(s, &s->stream.populated);
		if (!err)
			err = dirty_join(&s->stream.compare,
					 unseen ? &s->stream.populated : &s->stream.todo);
		if (!err)
			err = dirty_join(&s->stream.compare, &s->stream.put_off);
	}
	return err;
}
