// SPDX-License-Identifier: GPL-2.0
/*
 * Private memory that processes shared since a fork: pages with the same content at the same
 * address. icp-bpf reads them once, into memory of its own laid out like that of the job, before
 * the processes are cloned from it; each moves its mappings out of its copy.
 *
 *     the job's addresses      |  heap  |      |   data   |        union of the mappings there
 *     the arena                 |  heap  |  |   data   |           a region each
 *
 * A process keeps what is the same, gives back what it hasn't, and what differs is filled later
 * as ever. Pages whose content only some have and others don't are taken from those who came
 * first and found a second one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/page.h"
#include "image/pages.h"
#include "state/kinds.h"
#include "state/restore.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 8
#endif
#define HUGE (2ull << 20) /* huge pages stay in one piece when they are moved */
#define LOWEST (1ull << 30)
#define GUARD (1ull << 20)
#define SWEEP_MAX 64 /* pages that sweep_next() gives */

struct region {
	uint64_t start, end; /* of the job */
	const Icp__Vma *like;
	uint64_t at; /* in the arena; 0: nothing is shared there */
};

struct restore_shares {
	VEC(struct region) regions; /* sorted, no two overlap */
	struct ctl *seen;	    /* what somebody has */
	struct ctl *ctl;	    /* what two have: the content of the arena */
	uint64_t start, size;	    /* of the arena */
	bool mapped;		    /* in us, too */
};

void shares_unmap(struct restore_shares *s)
{
	if (s && s->mapped)
		munmap((void *)s->start, s->size);
	if (s)
		s->mapped = false;
}

void shares_free(struct restore_shares *s)
{
	if (!s)
		return;
	shares_unmap(s);
	vec_free(&s->regions);
	ctl_free(s->seen);
	ctl_free(s->ctl);
	free(s);
}

/* ---- regions ---- */

static bool can_share(const Icp__Vma *v)
{
	return v->start < v->end && v->end <= state_arch.task_size &&
	       !((v->start | v->end) & (page_size() - 1)) && !v->shared &&
	       v->kind <= VMA_FILE_PRIVATE + 1 && !v->deleted &&
	       !(v->flags & (MAP_GROWSDOWN | MAP_DROPPABLE | MAP_HUGETLB));
}

/* Could be pieces of one mapping? */
static bool alike(const Icp__Vma *a, const Icp__Vma *b)
{
	if (a->kind != b->kind || (a->flags ^ b->flags) & MAP_NORESERVE)
		return false;
	return a->kind != VMA_FILE_PRIVATE + 1 ||
	       (a->inode == b->inode && a->dev_major == b->dev_major &&
		a->dev_minor == b->dev_minor && a->offset - a->start == b->offset - b->start &&
		!strcmp(a->path, b->path));
}

static int by_start(const void *x, const void *y)
{
	const struct region *a = x, *b = y;

	return (a->start > b->start) - (a->start < b->start);
}

static int find_regions(const Icp__Manifest *m, struct restore_shares *s)
{
	struct region *out;
	size_t n = 0;

	for (size_t p = 0; p < m->n_processes; p++) {
		for (size_t i = 0; i < m->processes[p]->n_vmas; i++) {
			const Icp__Vma *v = m->processes[p]->vmas[i];
			struct region *r = can_share(v) ? vec_push(&s->regions) : NULL;

			if (r)
				*r = (struct region){v->start, v->end, v, 0};
			else if (can_share(v))
				return fail(-ENOMEM, "look for shared memory");
		}
	}
	if (!s->regions.n)
		return 0;
	out = s->regions.data;
	qsort(out, s->regions.n, sizeof(*out), by_start);
	for (size_t i = 1; i < s->regions.n; i++) {
		const struct region *r = &s->regions.data[i];

		if (r->start >= out[n].end)
			out[++n] = *r;
		else if (alike(r->like, out[n].like) && r->end > out[n].end)
			out[n].end = r->end;
	}
	s->regions.n = n + 1;
	return 0;
}

static struct region *region_at(const struct restore_shares *s, uint64_t addr)
{
	size_t low = 0, high = s->regions.n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (s->regions.data[mid].end <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low < s->regions.n && addr >= s->regions.data[low].start ? &s->regions.data[low]
									: NULL;
}

/* Where @v can be a piece of. */
static struct region *region_of(const struct restore_shares *s, const Icp__Vma *v)
{
	struct region *r = s && can_share(v) ? region_at(s, v->start) : NULL;

	return r && v->end <= r->end && alike(v, r->like) ? r : NULL;
}

/* ---- what is shared ---- */

static int vote(struct restore_shares *s, uint64_t page, const struct ctl_entry *e)
{
	const struct ctl_entry *seen = ctl_find(s->seen, page, CTL_DIRECT);
	struct ctl_entry plain = *e;

	if (ctl_find(s->ctl, page, CTL_DIRECT))
		return 0;
	plain.flags = 0;
	return ctl_set(seen && hash_equal(&seen->hash, &e->hash) ? s->ctl : s->seen, page,
		       &plain);
}

static int vote_process(struct restore_shares *s, const Icp__Process *image,
			const struct ctl *ctl)
{
	uint64_t size = page_size();
	int err = 0;

	for (size_t i = 0; i < image->n_vmas; i++) {
		const Icp__Vma *v = image->vmas[i];
		const struct ctl_entry *e;

		if (!region_of(s, v))
			continue;
		for (uint64_t page = v->start / size;
		     !err && (e = ctl_next(ctl, &page)) && page < v->end / size; page++)
			if (!(e->flags & CTL_ZERO))
				err = vote(s, page, e);
		if (err)
			return err;
	}
	return 0;
}

/* Parents come first in @order. */
static int vote_all(struct restore_shares *s, const struct shares_source *from)
{
	int err = ctl_new(0, (uint32_t)page_size(), &s->seen);

	if (!err)
		err = ctl_new(0, (uint32_t)page_size(), &s->ctl);
	for (size_t i = 0; i < from->n && !err; i++) {
		_cleanup_ctl_ struct ctl *ctl = NULL;

		if (from->order[i]->no_memory)
			continue;
		err = repo_ctl(from->repo, from->version, from->streams[i], &ctl);
		if (!err)
			err = vote_process(s, from->order[i], ctl);
	}
	ctl_free(take_ptr(s->seen));
	return err;
}

/* ---- the arena ---- */

static uint64_t align_up(uint64_t at, uint64_t to)
{
	return (at + to - 1) & ~(to - 1);
}

/* Where each region is, from the start of the arena on. */
static uint64_t lay_out(struct restore_shares *s)
{
	uint64_t at = HUGE, size = page_size();

	vec_each (r, &s->regions) {
		uint64_t page = r->start / size;

		if (!ctl_next(s->ctl, &page) || page >= r->end / size)
			continue;
		at += (r->start - at) % HUGE;
		r->at = at;
		at += r->end - r->start;
	}
	return align_up(at, HUGE);
}

/* One place that is free in all processes and in us. */
static int place(struct restore_job *job, struct restore_shares *s)
{
	uint64_t at = LOWEST, next;

	while (at + s->size < state_arch.task_size - GUARD) {
		if (!restore_is_free(job->manifest, at - GUARD, at + s->size + GUARD, &next)) {
			at = align_up(next + GUARD, HUGE);
			continue;
		}
		if (mmap((void *)at, s->size, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
			 0) == (void *)at) {
			s->start = at;
			s->mapped = true;
			return 0;
		}
		if (errno != EEXIST)
			break;
		at += HUGE * 64;
	}
	return fail(-ENOMEM, "make room for %llu MiB of memory that processes share",
		    (unsigned long long)(s->size >> 20));
}

static int map_region(struct restore_job *job, struct restore_shares *s, struct region *r)
{
	const Icp__Vma *v = r->like;
	bool file = v->kind == VMA_FILE_PRIVATE + 1;
	int flags = MAP_PRIVATE | MAP_FIXED | (int)(v->flags & MAP_NORESERVE) |
		    (file ? 0 : MAP_ANONYMOUS);
	int fd = file ? objects_file(job, v, false) : -1;

	if (file && fd < 0)
		return fd;
	r->at += s->start;
	if (mmap((void *)r->at, r->end - r->start, PROT_READ | PROT_WRITE, flags, fd,
		 file ? (off_t)(v->offset - (v->start - r->start)) : 0) == MAP_FAILED)
		return fail(-errno, "map memory that processes share");
	return 0;
}

/* Through the kernel: what an image says may not be there, and a signal would end us. */
static int put(const struct restore_shares *s, const uint64_t *pages, const uint8_t *data,
	       size_t n)
{
	struct iovec to[SWEEP_MAX], from = {(void *)data, n * page_size()};
	uint64_t size = page_size();

	for (size_t i = 0; i < n; i++) {
		const struct region *r = region_at(s, pages[i] * size);

		to[i] = (struct iovec){(void *)(r->at + (pages[i] * size - r->start)), size};
	}
	if (process_vm_writev(getpid(), &from, 1, to, n, 0) != (ssize_t)from.iov_len)
		return fail(-EFAULT, "fill memory that processes share");
	return 0;
}

static int fill(const struct restore_shares *s, const struct shares_source *from,
		uint64_t *pages)
{
	_cleanup_reader_ struct reader *rd = NULL;
	_cleanup_sweep_ struct sweep *sweep = NULL;
	int got = reader_open(from->repo, &rd), err = 0;

	if (!got)
		got = sweep_open(rd, s->ctl, &sweep);
	if (got)
		return got;
	do {
		const uint64_t *list;
		const uint8_t *data;

		got = sweep_next(sweep, &list, &data);
		if (got > 0) {
			err = put(s, list, data, (size_t)got);
			*pages += (uint64_t)got;
		}
	} while (got > 0 && !err);
	return err ? err : got;
}

static int make_arena(struct restore_job *job, const struct shares_source *from,
		      uint64_t *pages)
{
	struct restore_shares *s = job->shares;
	int err;

	s->size = lay_out(s);
	err = place(job, s);
	vec_each (r, &s->regions)
		if (!err && r->at)
			err = map_region(job, s, r);
	return err ? err : fill(s, from, pages);
}

int shares_new(struct restore_job *job, const struct shares_source *from, uint64_t *pages)
{
	struct restore_shares *s;
	int err;

	if (from->n < 2)
		return 0;
	s = job->shares = calloc(1, sizeof(*s));
	if (!s)
		return fail(-ENOMEM, "look for shared memory");
	err = find_regions(job->manifest, s);
	if (!err)
		err = vote_all(s, from);
	return err || !ctl_pages(s->ctl) ? err : make_arena(job, from, pages);
}

/* ---- in the processes ---- */

uint64_t shares_arena(const struct restore_job *job, uint64_t *size)
{
	*size = job->shares ? job->shares->size : 0;
	return job->shares ? job->shares->start : 0;
}

bool shares_has(const struct restore_job *job, const Icp__Vma *v)
{
	const struct region *r = region_of(job->shares, v);
	uint64_t page = v->start / page_size();

	return r && r->at && ctl_next(job->shares->ctl, &page) && page < v->end / page_size();
}

/* Does the process have a page there, or at least not what the arena has? */
static bool gives_back(const Icp__Vma *v, const struct ctl_entry *own)
{
	return !own || (own->flags & CTL_ZERO && !restore_zeros_count(v));
}

int shares_move(const struct restore_job *job, const Icp__Vma *v, const struct ctl *ctl,
		struct batch *b)
{
	const struct region *r = region_of(job->shares, v);
	uint64_t len = v->end - v->start, size = page_size(), gone = 0, n = 0;
	int err = batch_call(b, "move memory", SYS_mremap,
			     BATCH_ARGS(r->at + (v->start - r->start), len, len,
					MREMAP_MAYMOVE | MREMAP_FIXED, v->start));

	for (uint64_t page = v->start / size;
	     !err && ctl_next(job->shares->ctl, &page) && page < v->end / size; page++) {
		if (!gives_back(v, ctl_find(ctl, page, CTL_DIRECT)))
			continue;
		if (n && gone + n != page) {
			err = batch_call(b, "give back memory", SYS_madvise,
					 BATCH_ARGS(gone * size, n * size, MADV_DONTNEED));
			n = 0;
		}
		gone = n++ ? gone : page;
	}
	return err || !n ? err
			 : batch_call(b, "give back memory", SYS_madvise,
				      BATCH_ARGS(gone * size, n * size, MADV_DONTNEED));
}

/* The pages that @v got from the arena as they are to be. */
static int leave_out(const struct restore_shares *s, const Icp__Vma *v, struct ctl *ctl)
{
	const struct ctl_entry *e, *own;
	uint64_t size = page_size();
	int err = 0;

	for (uint64_t page = v->start / size;
	     !err && (e = ctl_next(s->ctl, &page)) && page < v->end / size; page++) {
		own = ctl_find(ctl, page, CTL_DIRECT);
		if (own && !(own->flags & CTL_ZERO) && hash_equal(&own->hash, &e->hash))
			err = ctl_remove(ctl, page, 1);
	}
	return err;
}

int shares_leave_out(const struct restore_job *job, const Icp__Process *image, struct ctl *ctl)
{
	int err = 0;

	for (size_t i = 0; job->shares && i < image->n_vmas && !err; i++)
		if (shares_has(job, image->vmas[i]))
			err = leave_out(job->shares, image->vmas[i], ctl);
	return err;
}
