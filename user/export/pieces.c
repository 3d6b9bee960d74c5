// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings to PT_LOADs. One is cut where bytes in the core begin or end:
 *
 *     private file mapping  |h.......|cccc|ff|c|......|     c changed, f filled from the file, h its first page
 *     anonymous memory      |cccc00cccccc00|  (huge)  |cc|  0 a hole in the core; a huge gap has no bytes at all
 */
#include "export/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/*
 * Gaps that are larger are no part of the core, not even as holes (gdb reads zeros there all the same): the address spaces of
 * sanitizers and of some language runtimes are larger than files can be.
 */
#define HOLE_MAX (64u << 20)
#define FILL_MAX (1u << 20)

int core_ctl_of(struct core *c, const Icp__Vma *v, struct ctl **ctl, uint64_t *first)
{
	uint32_t page_size = c->manifest->page_size, stream = ICP_STREAM_SHM | v->shmid;
	int err;

	*ctl = c->ctl;
	*first = v->start / page_size;
	if (v->kind == VMA_SPECIAL + 1 || v->end / page_size > CTL_PAGES_MAX)
		*ctl = NULL;
	if (v->kind != VMA_SHM + 1)
		return 0;
	*ctl = NULL;
	*first = v->offset / page_size;
	if (v->offset % page_size || *first > CTL_PAGES_MAX - (v->end - v->start) / page_size)
		return refuse(-EBADMSG,
			      "mapping %#lx of segment %u has the impossible offset %#lx",
			      v->start, v->shmid, v->offset);
	if (!manifest_file(c->manifest, ICP_FILE_CTL, stream))
		return 0;
	if (!c->shm || c->shmid != v->shmid) {
		ctl_free(take_ptr(c->shm));
		err = repo_ctl(c->repo, c->config->version, stream, &c->shm);
		if (err)
			return err;
		c->shmid = v->shmid;
	}
	*ctl = c->shm;
	return 0;
}

static bool begins(const char *name, const char *with)
{
	return !strncmp(name, with, strlen(with));
}

/* The same decisions as when the version was cut, as far as they can be told from the image. */
enum background core_background(const struct core *c, const Icp__Vma *v, bool has_entries)
{
	switch (v->kind - 1) {
	case VMA_ANON:
		return BACK_ZERO;
	case VMA_FILE_PRIVATE:
		return v->keeps_file ? BACK_ZERO : BACK_FILE;
	case VMA_FILE_SHARED:
		return has_entries || v->deleted || begins(v->path, "/dev/zero") ||
				       begins(v->path, "/memfd:") ||
				       begins(v->path, "/dev/shm/")
			       ? BACK_ZERO
			       : BACK_FILE;
	case VMA_SHM:
		return manifest_file(c->manifest, ICP_FILE_CTL, ICP_STREAM_SHM | v->shmid)
			       ? BACK_ZERO
			       : BACK_UNKNOWN;
	default:
		return BACK_UNKNOWN;
	}
}

/* One mapping while it is cut. */
struct plan {
	struct core *c;
	const Icp__Vma *v;
	enum background back;
	bool same; /* its file is what it was */
	bool elf;
};

static int add(struct plan *p, uint64_t start, uint64_t end, bool stored)
{
	bool fill = stored && p->back == BACK_FILE && p->same;
	struct piece *last = p->c->pieces.n ? &p->c->pieces.data[p->c->pieces.n - 1] : NULL;

	if (start == end)
		return 0;
	if (last && last->vma == p->v && last->stored == stored) {
		last->size += end - start;
		return 0;
	}
	last = vec_push(&p->c->pieces);
	if (!last)
		return fail(-ENOMEM, "lay out the core");
	*last = (struct piece){.vma = p->v,
			       .start = start,
			       .size = end - start,
			       .stored = stored,
			       .fill = fill};
	return 0;
}

/* No page in [start, end) has an entry. @between: there are some on both sides. */
static int add_gap(struct plan *p, uint64_t start, uint64_t end, bool between)
{
	uint64_t head = start;
	int err = 0;

	if (p->back == BACK_ZERO)
		return add(p, start, end,
			   end - start <= HOLE_MAX && (between || p->v->prot != PROT_NONE));
	if (p->back == BACK_FILE && p->same && between && end - start <= FILL_MAX)
		return add(p, start, end, true);
	if (p->elf && start == p->v->start && start < end) {
		head = start + p->c->manifest->page_size;
		err = add(p, start, head, true);
	}
	return err ? err : add(p, head, end, false);
}

static bool is_elf(const Icp__Vma *v)
{
	_cleanup_fd_ int fd = mapped_file_open(v);
	char magic[SELFMAG];

	return fd >= 0 && pread(fd, magic, SELFMAG, 0) == SELFMAG &&
	       !memcmp(magic, ELFMAG, SELFMAG);
}

static int note_changed(struct core *c, const Icp__Vma *v)
{
	char **slot;

	for (size_t i = 0; i < c->result->changed.n; i++)
		if (!strcmp(c->result->changed.data[i], v->path))
			return 0;
	slot = vec_push(&c->result->changed);
	if (slot)
		*slot = strdup(v->path);
	return slot && *slot ? 0 : fail(-ENOMEM, "lay out the core");
}

/* The mappings of a file are mostly next to each other: look at it once for all of them. */
static int look_at_file(struct plan *p, size_t i)
{
	struct core *c = p->c;
	bool *same = c->file_same;

	same[i] = false;
	if (p->back != BACK_FILE)
		return 0;
	for (size_t k = i; k-- && i - k < 16;) {
		const Icp__Vma *other = c->process->vmas[k];

		if (other->inode == p->v->inode && other->dev_major == p->v->dev_major &&
		    other->dev_minor == p->v->dev_minor && !strcmp(other->path, p->v->path) &&
		    other->deleted == p->v->deleted &&
		    core_background(c, other, false) == BACK_FILE) {
			p->same = same[i] = same[k];
			return 0;
		}
	}
	p->same = same[i] = mapped_file_same(p->v);
	return p->same ? 0 : note_changed(c, p->v);
}

static int cut(struct core *c, size_t i)
{
	struct plan p = {.c = c, .v = c->process->vmas[i]};
	uint64_t page_size = c->manifest->page_size, first, page, end, at = p.v->start;
	bool has_entries;
	struct ctl_run run;
	struct ctl *ctl;
	int err = core_ctl_of(c, p.v, &ctl, &first);

	if (err)
		return err;
	page = first;
	end = first + (p.v->end - p.v->start) / page_size;
	has_entries = ctl && ctl_next_run(ctl, first, UINT64_MAX, &run) && run.page < end;
	p.back = core_background(c, p.v, has_entries);
	err = look_at_file(&p, i);
	p.elf = p.same && !p.v->offset && is_elf(p.v);
	while (!err && has_entries && page < end && ctl_next_run(ctl, page, end - page, &run) &&
	       run.page < end) {
		uint64_t start = p.v->start + (run.page - first) * page_size, stop;

		page = run.page + run.n < end ? run.page + run.n : end;
		stop = p.v->start + (page - first) * page_size;
		err = add_gap(&p, at, start, at != p.v->start);
		if (!err)
			err = add(&p, start, stop, true);
		at = stop;
	}
	if (!err && at < p.v->end)
		err = add_gap(&p, at, p.v->end, false);
	if (!err && core_vdso(c, p.v) && c->pieces.n &&
	    c->pieces.data[c->pieces.n - 1].vma == p.v && !has_entries)
		c->pieces.data[c->pieces.n - 1].vdso = c->pieces.data[c->pieces.n - 1].stored =
			true;
	return err;
}

int core_plan(struct core *c)
{
	int err = 0;

	c->file_same = calloc(c->process->n_vmas + 1, sizeof(*c->file_same));
	if (!c->file_same)
		return fail(-ENOMEM, "lay out the core");
	for (size_t i = 0; !err && i < c->process->n_vmas; i++)
		err = cut(c, i);
	vec_each (p, &c->pieces) {
		c->result->memory += p->size;
	}
	c->result->segments = c->pieces.n;
	return err;
}
