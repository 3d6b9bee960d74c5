// SPDX-License-Identifier: GPL-2.0
/* Which pages have content of their own: those are in the image, everything else reads as zero or as its file. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>

#include "base/io.h"
#include "base/page.h"
#include "dump/internal.h"
#include "proc/pagemap.h"

#define REGIONS 1024

static bool begins(const char *name, const char *with)
{
	return !strncmp(name, with, strlen(with));
}

static void map_file_path(const struct dump_proc *p, const struct vma *v, char path[96])
{
	snprintf(path, 96, "/proc/%d/map_files/%lx-%lx", p->src.target->pid, v->start, v->end);
}

/*
 * The content of a shared mapping of a file that stays is the file's. What nobody else keeps is ours: shared anonymous
 * memory, memfd, deleted files, and files that live in memory.
 */
static bool shared_saved(const struct dump_proc *p, const struct vma *v)
{
	struct statfs fs;
	char path[96];

	if (v->deleted || begins(v->name, "/dev/zero") || begins(v->name, "/memfd:") ||
	    begins(v->name, "/dev/shm/"))
		return true;
	map_file_path(p, v, path);
	return !statfs(path, &fs) && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

bool vma_saved(const struct dump_proc *p, const struct vma *v)
{
	switch (v->kind) {
	case VMA_ANON:
	case VMA_FILE_PRIVATE:
		return true;
	case VMA_FILE_SHARED:
		return shared_saved(p, v);
	default:
		return false;
	}
}

/* Its content is looked at through its file. */
bool vma_by_file(const struct dump_proc *p, const struct vma *v)
{
	return (v->kind == VMA_FILE_SHARED && vma_saved(p, v)) || vma_keeps_file(v);
}

static bool is_private(const struct vma *v)
{
	return v->kind == VMA_ANON || v->kind == VMA_FILE_PRIVATE;
}

/*
 * A page that was write-protected and then zapped can leave a marker, which looks like a page that is swapped out and unchanged
 * (mm/memory.c, zap_install_uffd_wp_if_needed). /proc/PID/pagemap shows the type of a swap entry to the privileged: markers have one
 * of the highest, and PTE_MARKER_UFFD_WP, 1, as offset.
 */
static bool may_be_marker(uint64_t bits)
{
	uint64_t type = bits & 31, offset = bits << 9 >> 14;

	/* what is no swap entry any more has changed since the scan */
	return bits >> 62 != 1 || (!type && !offset) || (type > 15 && offset == 1);
}

static int add_unsure(const struct dump_proc *p, const struct page_region *r,
		      struct dirty *unsure)
{
	uint64_t bits[64], page = page_size();
	int err = 0;

	if (!unsure || r->categories & PG_PRESENT)
		return 0;
	for (uint64_t at = r->start, n; !err && at < r->end; at += n * page) {
		n = (r->end - at) / page < 64 ? (r->end - at) / page : 64;
		err = io_pread_full(p->src.target->pagemap_fd, bits, n * sizeof(bits[0]),
				    (off_t)(at / page * sizeof(bits[0])));
		if (err)
			return fail(err, "read the pagemap of pid %d", p->src.target->pid);
		for (size_t i = 0; !err && i < n; i++)
			if (may_be_marker(bits[i]))
				err = dirty_append(unsure, at + i * page, at + (i + 1) * page,
						   DIRTY_UNKNOWN);
	}
	return err;
}

/* @file: a file's own pages don't count; asking for that costs a look at each page's struct page, ten times the time. */
static int scan_private(const struct dump_proc *p, bool file, uint64_t start, uint64_t end,
			struct page_region *regions, struct dirty *out, struct dirty *unsure)
{
	uint64_t without = PG_PFNZERO | (file ? PG_FILE : 0);
	struct page_scan scan = {
		.inverted = without,
		.all_of = without,
		.any_of = PG_PRESENT | PG_SWAPPED,
		.return_mask = PG_PRESENT,
	};

	while (start < end) {
		uint64_t next = start;
		long got = pagemap_scan(p->src.target->pagemap_fd, &scan, start, end, regions,
					REGIONS, &next);
		int err = 0;

		if (got < 0)
			return fail((int)got, "PAGEMAP_SCAN of %#lx-%#lx", start, end);
		for (long i = 0; !err && i < got; i++)
			err = dirty_append(out, regions[i].start, regions[i].end,
					   DIRTY_WRITTEN);
		for (long i = 0; !err && i < got; i++)
			err = add_unsure(p, &regions[i], unsure);
		if (err)
			return err;
		start = next > start ? next : end;
	}
	return 0;
}

int populated_private(const struct dump_proc *p, struct dirty *out, struct dirty *unsure)
{
	_cleanup_free_ struct page_region *regions = calloc(REGIONS, sizeof(*regions));
	int err = regions ? 0 : fail(-ENOMEM, "pages of pid %d", p->src.target->pid);

	out->n = 0;
	if (unsure)
		unsure->n = 0;
	for (size_t i = 0, last; !err && i < p->maps.n; i = last + 1) {
		const struct vma *v = p->maps.data;

		last = i;
		if (!is_private(&v[i]))
			continue;
		while (last + 1 < p->maps.n && v[last + 1].kind == v[i].kind &&
		       v[last + 1].start == v[last].end)
			last++;
		err = scan_private(p, v[i].kind == VMA_FILE_PRIVATE, v[i].start, v[last].end,
				   regions, out, unsure);
	}
	return err;
}

/* The data of the file from @offset on, as SEEK_DATA tells: also what is swapped out or mapped by nobody. */
static int file_data(int fd, uint64_t offset, uint64_t end, uint64_t shift, struct dirty *out)
{
	while (offset < end) {
		off_t data = lseek(fd, (off_t)offset, SEEK_DATA), hole;
		int err;

		if (data < 0 && errno == ENXIO)
			return 0;
		hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
		if (data < 0 || hole < 0)
			return fail(-errno, "find the data of a shared mapping");
		if ((uint64_t)data >= end)
			return 0;
		hole = (off_t)((uint64_t)hole > end ? end
						    : ((uint64_t)hole + page_size() - 1) &
							      ~(page_size() - 1));
		err = dirty_append(out, page_down((uint64_t)data) + shift,
				   (uint64_t)hole + shift, DIRTY_WRITTEN);
		if (err)
			return err;
		offset = (uint64_t)hole;
	}
	return 0;
}

int populated_file(int fd, uint64_t size, struct dirty *out)
{
	out->n = 0;
	return file_data(fd, 0, size, 0, out);
}

int populated_shared(const struct dump_proc *p, const struct vma *v, struct dirty *out)
{
	char path[96];
	_cleanup_fd_ int fd = -1;

	map_file_path(p, v, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) /* without the right to open it every page of it is read */
		return dirty_append(out, v->start, v->end, DIRTY_WRITTEN);
	return file_data(fd, v->offset, v->offset + (v->end - v->start), v->start - v->offset,
			 out);
}

int populated_of(const struct dump_proc *p, struct dirty *out, struct dirty *unsure)
{
	_cleanup_(dirty_free) struct dirty shared = {0};
	int err = populated_private(p, out, unsure);

	vec_each (v, &p->maps) {
		if (!err && vma_by_file(p, v))
			err = populated_shared(p, v, &shared);
	}
	return err || !shared.n ? err : dirty_join(out, &shared);
}

/*
 * Shared memory can be written, and its pages freed, through descriptors, or by mappings that are gone already: no tracker sees
 * that, so all of it is compared.
 */
int populated_again(struct dump_proc *p, bool all)
{
	_cleanup_(dirty_free) struct dirty shared = {0};
	struct stream *s = &p->stream;
	int err = all ? populated_private(p, &s->populated, &s->compare) : 0;

	vec_each (v, &p->maps) {
		struct dirty_run none = {v->start, v->end, DIRTY_ZAPPED};
		struct dirty whole = {.data = &none, .n = 1, .cap = 1};

		if (err || !vma_by_file(p, v))
			continue;
		if (!all && v->shared)
			err = dirty_join(&s->populated, &whole);
		if (!err)
			err = populated_shared(p, v, &shared);
	}
	if (!err && shared.n)
		err = dirty_join(&s->populated, &shared);
	return err || !shared.n ? err : dirty_join(&s->compare, &shared);
}

int populated_segment(const struct dump_segment *s, struct dirty *out)
{
	uint64_t size = (s->size + page_size() - 1) & ~(page_size() - 1);

	out->n = 0;
	/* the kernel counts its pages: a full one need not be searched for holes, page by page */
	if (s->source.file_fd < 0 || s->info.rss + s->info.swap >= size)
		return dirty_append(out, 0, size, DIRTY_WRITTEN);
	return file_data(s->source.file_fd, 0, s->size, 0, out);
}

/* How far from @page on, at most up to @end, pages are in @set (*@in), or are not. */
static uint64_t stretch(const struct dirty *set, uint64_t at, uint64_t end, bool *in)
{
	size_t low = 0, high = set->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (set->data[mid].end <= at)
			low = mid + 1;
		else
			high = mid;
	}
	*in = low < set->n && set->data[low].start <= at && set->data[low].what != DIRTY_ZAPPED;
	if (low == set->n)
		return end;
	if (set->data[low].start > at)
		return set->data[low].start < end ? set->data[low].start : end;
	return set->data[low].end < end ? set->data[low].end : end;
}

int stream_remove_others(struct stream *s, const struct dirty *keep, const struct dirty *also)
{
	_cleanup_(dirty_free) struct dirty gone = {0};
	struct ctl_run run;
	uint64_t page = page_size();
	int err = 0;

	for (uint64_t next = 0; !err && ctl_next_run(s->ctl, next, UINT64_MAX, &run);
	     next = run.page + run.n) {
		uint64_t at = run.page * page, end = (run.page + run.n) * page;

		while (!err && at < end) {
			bool kept, kept_too;
			uint64_t to = stretch(keep, at, end, &kept),
				 to_too = stretch(also, at, end, &kept_too);

			to = to < to_too ? to : to_too;
			if (!kept && !kept_too)
				err = dirty_append(&gone, at, to, DIRTY_ZAPPED);
			at = to;
		}
	}
	vec_each (r, &gone) {
		if (!err)
			err = ctl_remove(s->ctl, r->start / page, (r->end - r->start) / page);
	}
	return err;
}
