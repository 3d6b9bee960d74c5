// SPDX-License-Identifier: GPL-2.0
/* Which stream a dirty page belongs to: its process's, a System V segment's, or none (a file keeps it). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <time.h>
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

static int put(struct stream *s, bool last, uint64_t start, uint64_t end, enum dirty_what what)
{
	struct dirty_run run = {.start = start, .end = end, .what = what};
	struct dirty one = {.data = &run, .n = 1, .cap = 1};
	struct dirty *set = last ? &s->last : &s->todo;

	/* mostly in order; the joins are for segments that several processes wrote */
	if (!set->n || set->data[set->n - 1].end <= start)
		return dirty_append(set, start, end, what);
	return dirty_join(set, &one);
}

static int route_run(struct dump *d, struct dump_proc *p, const struct vma *v,
		     const struct dirty_run *r, bool last)
{
	uint64_t start = r->start > v->start ? r->start : v->start,
		 end = r->end < v->end ? r->end : v->end;
	enum dirty_what what = r->what;
	struct dump_segment *seg;

	/* from this process's page table only: the memory is still there, or the file's */
	if ((v->shared || vma_keeps_file(v)) && what == DIRTY_ZAPPED)
		what = DIRTY_UNKNOWN;
	if (v->kind == VMA_SHM) {
		seg = segment_find(d, (int)v->inode);
		if (!seg) /* attached a moment ago: segments_find() comes before the next round */
			return 0;
		return put(&seg->stream, last, start - v->start + v->offset,
			   end - v->start + v->offset, what);
	}
	return vma_saved(p, v) ? put(&p->stream, last, start, end, what) : 0;
}

int route_dirty(struct dump *d, struct dump_proc *p, const struct dirty *set, bool last)
{
	size_t i = 0;
	int err = 0;

	vec_each (r, set) {
		while (i < p->maps.n && p->maps.data[i].end <= r->start)
			i++;
		for (size_t k = i; !err && k < p->maps.n && p->maps.data[k].start < r->end; k++)
			err = route_run(d, p, &p->maps.data[k], r, last);
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

struct ctl **segment_ctl(struct dump *d, int shmid)
{
	struct dump_segment_ctl *slot;

	if (!d->config.segment_ctls)
		return NULL;
	vec_each (c, d->config.segment_ctls)
		if (c->shmid == shmid)
			return &c->ctl;
	slot = vec_push(d->config.segment_ctls);
	if (!slot)
		return NULL; /* it is read from the repository, then */
	slot->shmid = shmid;
	return &slot->ctl;
}

/* Without @v: one that nobody of the job attaches. */
static int segment_add(struct dump *d, const struct dump_proc *p, const struct vma *v,
		       const struct sysvshm_segment *info)
{
	struct dump_segment *s, **slot = vec_push(&d->segments);
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
	if (!err)
		err = stream_open(
			d, &s->stream, ICP_STREAM_SHM | (uint32_t)s->shmid,
			parent_segment(d, s->shmid) ? ICP_STREAM_SHM | (uint32_t)s->shmid : 0,
			segment_ctl(d, s->shmid));
	s->stream.compare_all = true; /* until segments_known() knows better */
	return err ? err : populated_segment(s, &s->stream.todo);
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
		struct timespec up, now;
		int64_t began;

		if (t->pid != info->cpid)
			continue;
		clock_gettime(CLOCK_BOOTTIME, &up);
		clock_gettime(CLOCK_REALTIME, &now);
		began = now.tv_sec - up.tv_sec +
			(int64_t)(t->start_time / (uint64_t)sysconf(_SC_CLK_TCK));
		return info->ctime >= began - 2;
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

		s->stream.compare_all = !sources || !info || info->atime >= since ||
					info->dtime >= since ||
					info->nattch != attachments(d, s->shmid) ||
					!parent_segment(d, s->shmid);
	}
	return 0;
}

/*
 * While the job ran a segment can have been written through an attachment that is gone again, or by a process that isn't ours; and
 * one that was attached only now was never looked at (its todo).
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
		bool unseen = blind || s->stream.todo.n || !info ||
			      info->atime >= d->start_time - 1 ||
			      info->dtime >= d->start_time - 1 ||
			      info->nattch != attachments(d, s->shmid);

		if (info) /* frozen: what the manifest says of it */
			s->info = *info;
		if (unseen || !all_exact || !s->populated_known)
			err = populated_segment(s, &s->stream.populated);
		if (!err && unseen)
			err = dirty_join(&s->stream.compare, &s->stream.populated);
	}
	return err;
}
