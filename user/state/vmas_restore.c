// SPDX-License-Identifier: GPL-2.0
/*
 * The restore half of "vmas". A mapping whose pages are to be filled is made writable first and
 * gets its own protection afterwards.
 */
#include <errno.h>
#include <linux/prctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "base/page.h"
#include "image/ctl.h"
#include "state/guards.h"
#include "state/kinds.h"
#include "state/restore.h"
#include "state/vmas.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 8
#endif
#define MSEAL 462	   /* Linux 6.10, all architectures */
#define SET_VMA 0x53564d41 /* PR_SET_VMA, Linux 5.17 */
#define VMA_NAME_MAX 80

struct mapping {
	int fd;
	bool loose; /* writable for now */
};

struct note {
	struct mapping *maps; /* one per VMA */
};

static void free_note(void *arg)
{
	struct note *note = arg;

	free(note->maps);
	free(note);
}

static bool has_flag(const Icp__Vma *v, const char *flag)
{
	return vmas_has_flag(v->vmflags, strlen(v->vmflags), flag);
}

static enum vma_kind kind(const Icp__Vma *v)
{
	return (enum vma_kind)(v->kind - 1);
}

static bool begins(const char *name, const char *with)
{
	return !strncmp(name, with, strlen(with));
}

bool restore_is_object(const Icp__Vma *v)
{
	return kind(v) == VMA_FILE_SHARED &&
	       (v->deleted || begins(v->path, "/dev/zero") || begins(v->path, "/memfd:"));
}

bool restore_filled(const Icp__Vma *v)
{
	switch (kind(v)) {
	case VMA_ANON:
	case VMA_FILE_PRIVATE:
		return true;
	case VMA_FILE_SHARED:
		return restore_is_object(v) || has_flag(v, "mw");
	default:
		return false;
	}
}

bool restore_zeros_count(const Icp__Vma *v)
{
	return (kind(v) == VMA_FILE_PRIVATE && !v->keeps_file) ||
	       (kind(v) == VMA_FILE_SHARED && !restore_is_object(v));
}

bool restore_private(const Icp__Vma *v)
{
	return kind(v) == VMA_ANON && !v->shared && !(v->flags & MAP_DROPPABLE);
}

bool restore_may_move(const Icp__Vma *v)
{
	return restore_private(v) && !(v->prot & PROT_EXEC) && !(v->flags & MAP_GROWSDOWN) &&
	       !(v->madvise & ((1ull << MADV_NOHUGEPAGE) | (1ull << MADV_HUGEPAGE)));
}

static const char *reason(const struct state_restore *r, const Icp__Vma *v)
{
	if (v->kind < 1 || v->kind > VMA_SPECIAL + 1)
		return "of an unknown kind";
	if (!guards_sound(v))
		return "with guard pages that make no sense";
	if (has_flag(v, "ss"))
		return "a shadow stack";
	if (v->flags & MAP_HUGETLB)
		return "of huge pages (hugetlbfs)";
	if (kind(v) == VMA_FILE_PRIVATE && v->deleted && !v->keeps_file)
		return "of a deleted file";
	if (kind(v) == VMA_SPECIAL && v->path[0])
		return "of a device";
	if (kind(v) != VMA_SPECIAL && v->end > state_arch.task_size)
		return "beyond what a process may have";
	return NULL;
}

/* ---- segments: the parts of one attachment have the same place of the segment's first byte ---- */

static uint64_t base_of(const Icp__Vma *v)
{
	return v->start - v->offset;
}

static bool same_attachment(const Icp__Vma *v, const Icp__Vma *w)
{
	return kind(w) == VMA_SHM && w->shmid == v->shmid && base_of(w) == base_of(v);
}

static const Icp__Segment *segment_of(const Icp__Manifest *m, const Icp__Vma *v)
{
	for (size_t i = 0; i < m->n_segments; i++)
		if (m->segments[i]->shmid == v->shmid)
			return m->segments[i];
	return NULL;
}

void restore_span(const Icp__Manifest *m, const Icp__Vma *v, uint64_t *start, uint64_t *end)
{
	const Icp__Segment *s = kind(v) == VMA_SHM ? segment_of(m, v) : NULL;

	*start = v->start;
	*end = v->end;
	if (!s)
		return;
	*start = base_of(v);
	*end = *start + ((s->size + page_size() - 1) & ~(page_size() - 1));
}

/*
 * The segment is attached as a whole and what was unmapped of it goes, before anything else is mapped there: only another
 * segment may not lie in the gap.
 */
static int check_attachment(const struct state_restore *r, const Icp__Vma *v)
{
	const Icp__Segment *s = segment_of(r->job->manifest, v);
	uint64_t start, end;

	if (!s)
		return refuse(-EBADMSG, "segment %u is not in the image", v->shmid);
	restore_span(r->job->manifest, v, &start, &end);
	if (s->size > state_arch.task_size || start > v->start || end < v->end ||
	    end > state_arch.task_size)
		return refuse(-EBADMSG, "segment %u is not where it can be", v->shmid);
	for (size_t i = 0; i < r->image->n_vmas; i++) {
		const Icp__Vma *w = r->image->vmas[i];

		if (kind(w) == VMA_SHM && !same_attachment(v, w) && w->start < end &&
		    w->end > start)
			return refuse(-EOPNOTSUPP,
				      "the segments %u and %u are attached into each other at "
				      "%#llx, which can't be restarted",
				      v->shmid, w->shmid, (unsigned long long)w->start);
	}
	return 0;
}

static int check(struct state_restore *r, void **slot)
{
	struct note *note = *slot = calloc(1, sizeof(*note));
	int err;

	if (note)
		note->maps = calloc(r->image->n_vmas + 1, sizeof(*note->maps));
	if (!note || !note->maps)
		return fail(-ENOMEM, "prepare its mappings");
	for (size_t i = 0; i < r->image->n_vmas; i++) {
		const Icp__Vma *v = r->image->vmas[i];
		const char *why = reason(r, v);

		note->maps[i].fd = -1;
		if (why)
			return refuse(
				-EOPNOTSUPP,
				"the mapping at %#llx is %s (%s), which can't be restarted",
				(unsigned long long)v->start, why, v->path);
		err = kind(v) == VMA_SHM ? check_attachment(r, v) : 0;
		if (err)
			return err;
	}
	return 0;
}

/* How large the object of @v is; when nobody could look, as far as it was mapped. */
static uint64_t object_size(const struct restore_job *job, const Icp__Vma *v)
{
	uint64_t size = 0;

	if (v->file_size)
		return v->file_size;
	for (size_t p = 0; p < job->manifest->n_processes; p++) {
		const Icp__Process *image = job->manifest->processes[p];

		for (size_t i = 0; i < image->n_vmas; i++) {
			const Icp__Vma *w = image->vmas[i];
			uint64_t end = w->offset + (w->end - w->start);

			if (w->inode == v->inode && w->dev_major == v->dev_major &&
			    w->dev_minor == v->dev_minor && restore_is_object(w) && end > size)
				size = end;
		}
	}
	return size;
}

static int open_maps(struct state_restore *r, void *arg)
{
	struct note *note = arg;

	for (size_t i = 0; i < r->image->n_vmas; i++) {
		const Icp__Vma *v = r->image->vmas[i];
		uint64_t dev = restore_dev(v->dev_major, v->dev_minor);
		int *fd = &note->maps[i].fd;

		if (restore_is_object(v)) {
			*fd = objects_find(r->job->objects, dev, v->inode);
			if (*fd < 0)
				*fd = objects_add(r->job, dev, v->inode, v->path,
						  object_size(r->job, v));
		} else if (v->keeps_file) { /* anonymous from now on */
			continue;
		} else if (kind(v) == VMA_FILE_PRIVATE) {
			*fd = objects_file(r->job, v, false);
		} else if (kind(v) == VMA_FILE_SHARED) {
			*fd = objects_file(r->job, v, has_flag(v, "mw"));
		} else {
			continue;
		}
		if (*fd < 0)
			return *fd;
	}
	return 0;
}

/* Huge pages make filling faster when the program asked for them. */
static int advise(const Icp__Vma *v, struct batch *b, uint64_t which)
{
	int err = 0;

	for (uint64_t advice = 0; advice < 64 && !err; advice++) {
		const uint64_t args[6] = {v->start, v->end - v->start, advice};

		if (!((v->madvise & which) >> advice & 1))
			continue;
		err = advice == MADV_MERGEABLE ? batch_try(b, SYS_madvise, args)
					       : batch_call(b, "advise", SYS_madvise, args);
	}
	return err;
}

#define EARLY_ADVICE ((1ull << MADV_HUGEPAGE) | (1ull << MADV_NOHUGEPAGE))
#define LATE_ADVICE                                                                            \
	((1ull << MADV_RANDOM) | (1ull << MADV_SEQUENTIAL) | (1ull << MADV_DONTFORK) |         \
	 (1ull << MADV_MERGEABLE) | (1ull << MADV_DONTDUMP) | (1ull << MADV_WIPEONFORK))

static bool has_pages(const struct state_restore *r, const Icp__Vma *v)
{
	uint64_t page = v->start / page_size();

	return restore_filled(v) && ctl_next(r->ctl, &page) && page < v->end / page_size();
}

static int map_one(struct state_restore *r, const Icp__Vma *v, struct mapping *m,
		   struct batch *b)
{
	const uint32_t keep = MAP_GROWSDOWN | MAP_NORESERVE;
	uint64_t flags = (v->flags & keep) | MAP_FIXED, prot = v->prot;
	int err;

	if (shares_has(r->job, v)) {
		m->loose = v->prot != (PROT_READ | PROT_WRITE);
		err = shares_move(r->job, v, r->ctl, b);
		return err ? err : advise(v, b, EARLY_ADVICE);
	}
	if (v->flags & MAP_DROPPABLE && kind(v) == VMA_ANON)
		flags |= MAP_DROPPABLE;
	else
		flags |= v->shared ? MAP_SHARED : MAP_PRIVATE;
	if (m->fd < 0)
		flags |= MAP_ANONYMOUS;
	if (has_pages(r, v) &&
	    (v->prot & (PROT_READ | PROT_WRITE)) != (PROT_READ | PROT_WRITE)) {
		m->loose = true;
		prot = PROT_READ | PROT_WRITE;
	}
	err = batch_call(b, "map", SYS_mmap,
			 BATCH_ARGS(v->start, v->end - v->start, prot, flags, (uint64_t)m->fd,
				    m->fd < 0 ? 0 : v->offset));
	return err ? err : advise(v, b, EARLY_ADVICE);
}

static int unmap(uint64_t start, uint64_t end, struct batch *b)
{
	return start < end ? batch_call(b, "detach a part of a segment", SYS_munmap,
					BATCH_ARGS(start, end - start))
			   : 0;
}

/* The attachment whose first part is VMA @first. */
static int attach(struct state_restore *r, size_t first, struct batch *b)
{
	const Icp__Vma *v = r->image->vmas[first];
	int id = ipc_restored(r->job, v->shmid), err;
	uint64_t flags = SHM_REMAP | (has_flag(v, "mw") ? 0 : SHM_RDONLY), start, end;

	if (id < 0)
		return refuse(-EBADMSG, "segment %u is not in the image", v->shmid);
	restore_span(r->job->manifest, v, &start, &end);
	for (size_t i = first; i < r->image->n_vmas; i++)
		if (same_attachment(v, r->image->vmas[i]) &&
		    r->image->vmas[i]->prot & PROT_EXEC)
			flags |= SHM_EXEC;
	err = batch_call(b, "attach a segment", SYS_shmat,
			 BATCH_ARGS((uint64_t)id, start, flags));
	for (size_t i = first; i < r->image->n_vmas && !err; i++) {
		const Icp__Vma *w = r->image->vmas[i];

		if (!same_attachment(v, w))
			continue;
		err = unmap(start, w->start, b);
		start = w->end;
		if (!err)
			err = batch_call(b, "protect", SYS_mprotect,
					 BATCH_ARGS(w->start, w->end - w->start, w->prot));
	}
	return err ? err : unmap(start, end, b);
}

static bool is_first_part(const Icp__Process *image, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (same_attachment(image->vmas[i], image->vmas[k]))
			return false;
	return true;
}

static int map_vdso(const struct state_restore *r, struct batch *b)
{
	for (size_t i = 0; i < r->image->n_vmas; i++) {
		const Icp__Vma *v = r->image->vmas[i];

		if (kind(v) == VMA_SPECIAL &&
		    (begins(v->name, "[vvar") || begins(v->name, "[vdso")))
			return batch_call(b, "map the vdso", state_arch.vdso_nr,
					  BATCH_ARGS(state_arch.vdso_op, v->start));
	}
	return 0;
}

static int memory(struct state_restore *r, void *arg, struct batch *b)
{
	struct note *note = arg;
	int err = 0;

	for (size_t i = 0; i < r->image->n_vmas && !err; i++)
		if (kind(r->image->vmas[i]) == VMA_SHM && is_first_part(r->image, i))
			err = attach(r, i, b);
	for (size_t i = 0; i < r->image->n_vmas && !err; i++)
		if (kind(r->image->vmas[i]) <= VMA_FILE_SHARED)
			err = map_one(r, r->image->vmas[i], &note->maps[i], b);
	return err ? err : map_vdso(r, b);
}

static int name_it(const Icp__Vma *v, struct batch *b)
{
	static const char prefix[] = "[anon:";
	size_t len = strlen(v->name);
	char name[VMA_NAME_MAX];
	uint64_t at;
	int err;

	if (!begins(v->name, prefix) || len - sizeof(prefix) >= sizeof(name))
		return 0;
	memcpy(name, v->name + sizeof(prefix) - 1, len - sizeof(prefix));
	name[len - sizeof(prefix)] = 0;
	err = batch_data(b, name, len, &at);
	return err ? err
		   : batch_try(b, SYS_prctl,
			       BATCH_ARGS(SET_VMA, 0, v->start, v->end - v->start, at));
}

static int protect(struct state_restore *r, void *arg, struct batch *b)
{
	struct note *note = arg;
	int err = 0;

	for (size_t i = 0; i < r->image->n_vmas && !err; i++) {
		const Icp__Vma *v = r->image->vmas[i];
		uint64_t len = v->end - v->start;

		if (kind(v) == VMA_SPECIAL)
			continue;
		if (note->maps[i].loose)
			err = batch_call(b, "protect", SYS_mprotect,
					 BATCH_ARGS(v->start, len, v->prot));
		if (!err)
			err = advise(v, b, LATE_ADVICE);
		if (!err) /* refused in what is locked */
			err = guards_restore(v, b);
		if (!err && v->flags & MAP_LOCKED)
			err = batch_call(b, "lock in memory", SYS_mlock2,
					 BATCH_ARGS(v->start, len,
						    has_flag(v, "lf") ? MLOCK_ONFAULT : 0));
		if (!err)
			err = name_it(v, b);
	}
	return err;
}

/* After everything else that changes mappings. */
static int seal(struct state_restore *r, void *arg, struct batch *b)
{
	int err = 0;

	for (size_t i = 0; i < r->image->n_vmas && !err; i++) {
		const Icp__Vma *v = r->image->vmas[i];

		if (kind(v) != VMA_SPECIAL && has_flag(v, "sl"))
			err = batch_call(b, "seal", MSEAL,
					 BATCH_ARGS(v->start, v->end - v->start));
	}
	return err;
}

const struct restore_ops vmas_restore = {.check = check,
					 .open = open_maps,
					 .memory = memory,
					 .protect = protect,
					 .settle = seal,
					 .free_note = free_note};
