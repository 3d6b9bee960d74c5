// SPDX-License-Identifier: GPL-2.0
/*
 * The uffd tracker: userfaultfd write-protect in its asynchronous mode (the kernel resolves the fault by itself and
 * clears the mark) read and re-armed with PAGEMAP_SCAN. Linux >= 6.7.
 *
 *   private memory   armed where it is populated. A page that appears later has no mark and so reads as written,
 *                    unless it is the zero page or the file's own page: those were only read.
 *   shared memory    armed everywhere (markers in empty entries), because a page that is merely read for the first time
 *                    can't be told from a written one otherwise. Costs 8 bytes a page: not above MARKERS_MAX.
 *
 * No state is kept about mappings: a scan says EPERM on a VMA that isn't registered, whatever happened to it.
 */
#include "track/tracker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/page.h"
#include "proc/pagemap.h"
#include "track/pins.h"
#include "track/ranges.h"

/* include/uapi/linux/userfaultfd.h of 6.7; Debian 12's headers are older */
#define FEATURE_WP_ASYNC (1ull << 15)
#define FEATURE_WP_HUGETLBFS_SHMEM (1ull << 12)
#define WANTED_FEATURES (FEATURE_WP_ASYNC | FEATURE_WP_HUGETLBFS_SHMEM)
#define USER_MODE_ONLY 1

#define REGIONS 1024
#define MARKERS_MAX (32ull << 30) /* bytes of one shared VMA: 64 MiB of page tables */

struct uffd_tracker {
	struct tracker base;
	int uffd;
	bool warned;
	VEC(struct vma)
	read_only; /* shared mappings that can't be registered, because nothing can be written through them */
	struct dirty pending;		     /* of mappings that were armed between two takes */
	struct pinned pinned;		     /* for DMA, when it was armed last */
	struct page_region regions[REGIONS]; /* all zero between scans */
};

static int enable(int uffd)
{
	struct uffdio_api api = {.api = UFFD_API, .features = WANTED_FEATURES};

	return ioctl(uffd, UFFDIO_API, &api) ? -errno : 0;
}

static int probe(char *why, size_t len)
{
	_cleanup_fd_ int uffd =
		(int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);
	int err;

	if (uffd < 0) {
		err = -errno;
		snprintf(why, len, "userfaultfd: %s (CONFIG_USERFAULTFD, or a seccomp filter)",
			 strerror(-err));
		return err == -EPERM ? -EPERM : -EOPNOTSUPP;
	}
	if (enable(uffd)) {
		snprintf(why, len,
			 "this kernel's userfaultfd has no asynchronous write-protect: Linux "
			 "6.7 or newer has");
		return -EOPNOTSUPP;
	}
	if (!pagemap_has_scan()) {
		snprintf(why, len, "this kernel has no PAGEMAP_SCAN: Linux 6.7 or newer has");
		return -EOPNOTSUPP;
	}
	return 0;
}

static bool has_markers(const struct vma *v)
{
	return v->shared && v->end - v->start <= MARKERS_MAX;
}

/* What counts as written in @v; see the top of this file. */
static struct page_scan scan_of(const struct vma *v)
{
	struct page_scan scan = {
		.flags = PG_SCAN_WP | PG_SCAN_CHECK_WP,
		.all_of = PG_WRITTEN,
		.return_mask = PG_WRITTEN | PG_PRESENT | PG_SWAPPED,
	};

	if (!v->shared) {
		scan.inverted = PG_PFNZERO;
		if (v->kind ==
		    VMA_FILE_PRIVATE) /* costs a look at each page's struct page: ten times the time */
			scan.inverted |= PG_FILE;
		scan.all_of |= scan.inverted;
	}
	if (!has_markers(v))
		scan.any_of = PG_PRESENT | PG_SWAPPED;
	return scan;
}

/*
 * A scan that fails half-way has write-protected pages already whose regions it doesn't count, but it has written them
 * out (fs/proc/task_mmu.c, do_pagemap_scan flushes its buffer on every path): an array of zeroes tells how many.
 */
static size_t count_filled(const struct page_region *regions)
{
	size_t n = 0;

	while (n < REGIONS && regions[n].end)
		n++;
	return n;
}

/*
 * An entry without a page: private memory has no content there any more. Shared memory has; the entry was only
 * dropped (MADV_DONTNEED, page-out), after it had been written, or else it would still have its mark.
 */
static enum dirty_what empty_entry(const struct vma *v)
{
	return v->shared ? DIRTY_UNKNOWN : DIRTY_ZAPPED;
}

/* Append the first @n regions to @out, unless it is NULL, and leave zeroes behind. */
static int use_regions(struct uffd_tracker *t, const struct vma *v, size_t n, bool is_new,
		       struct dirty *out)
{
	int err = 0;

	for (size_t i = 0; !err && out && i < n; i++) {
		const struct page_region *r = &t->regions[i];
		bool populated = r->categories & (PG_PRESENT | PG_SWAPPED);

		if (populated || !is_new)
			err = dirty_append(out, r->start, r->end,
					   is_new      ? DIRTY_NEW
					   : populated ? DIRTY_WRITTEN
						       : empty_entry(v));
	}
	memset(t->regions, 0, n * sizeof(t->regions[0]));
	return err;
}

/*
 * Read and re-arm [*from, end) into @out (NULL: only arm). -EPERM (bare) when a VMA in it is not registered: *from is then
 * where the rest begins.
 */
static int scan_range(struct uffd_tracker *t, const struct vma *v, uint64_t *from, uint64_t end,
		      bool is_new, struct dirty *out)
{
	struct page_scan scan = scan_of(v);

	while (*from < end) {
		uint64_t next = *from, covered;
		long got = pagemap_scan(t->base.target->pagemap_fd, &scan, *from, end,
					t->regions, REGIONS, &next);
		size_t filled = got >= 0 ? (size_t)got : count_filled(t->regions);
		int err;

		covered = filled ? t->regions[filled - 1].end : *from;
		err = use_regions(t, v, filled, is_new, out);
		if (err)
			return err;
		if (got == -EPERM) {
			*from = covered;
			return -EPERM;
		}
		if (got < 0)
			return fail((int)got, "PAGEMAP_SCAN of %#lx-%#lx", *from, end);
		*from = next > *from ? next : end;
	}
	return 0;
}

/*
 * 0 registered, UNTRACKED or READ_ONLY: can't be; -ESRCH the mm is gone; -EBUSY. EPERM is said of shared mappings of files
 * that are open for reading only: nothing can ever be written through those.
 */
enum { UNTRACKED = 1, READ_ONLY };

static int register_vma(struct uffd_tracker *t, const struct vma *v)
{
	struct uffdio_register reg = {
		.range = {.start = v->start, .len = v->end - v->start},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	if (!ioctl(t->uffd, UFFDIO_REGISTER, &reg))
		return 0;
	if (errno == ENOMEM)
		return -ESRCH; /* mmget_not_zero() failed: execve or exit */
	if (errno == EPERM)
		return READ_ONLY;
	return errno == EBUSY ? -EBUSY : UNTRACKED;
}

/* Rather than unmapped since the maps were read: threads that end do that all the time. */
static bool still_there(struct uffd_tracker *t, const struct vma *v)
{
	_cleanup_maps_ struct maps maps = {0};
	const struct vma *now;

	if (maps_read(t->base.target, &maps)) {
		err_clear();
		return false;
	}
	now = maps_find(&maps, v->start);
	return now && now->start == v->start && now->end == v->end;
}

/* A VMA that can't be registered: whatever is populated may have been written. */
static int add_untracked(struct uffd_tracker *t, const struct vma *v, struct dirty *out)
{
	struct page_scan scan = {.any_of = PG_PRESENT | PG_SWAPPED, .return_mask = PG_PRESENT};
	uint64_t from = v->start, next = 0;
	int err = 0;

	while (!err && out && from < v->end) {
		long got = pagemap_scan(t->base.target->pagemap_fd, &scan, from, v->end,
					t->regions, REGIONS, &next);

		if (got < 0)
			return fail((int)got, "PAGEMAP_SCAN of %#lx-%#lx", from, v->end);
		for (long i = 0; !err && i < got; i++)
			err = dirty_append(out, t->regions[i].start, t->regions[i].end,
					   DIRTY_UNKNOWN);
		memset(t->regions, 0, (size_t)got * sizeof(t->regions[0]));
		from = next > from ? next : v->end;
	}
	return err;
}

static bool known_read_only(const struct uffd_tracker *t, const struct vma *v)
{
	if (!v->shared || v->prot & PROT_WRITE)
		return false;
	vec_each (r, &t->read_only) {
		if (r->start == v->start && r->end == v->end && r->inode == v->inode &&
		    r->offset == v->offset && r->dev_major == v->dev_major &&
		    r->dev_minor == v->dev_minor)
			return true;
	}
	return false;
}

/* Trying again at every take would take the target's mmap_lock for writing each time. */
static int remember_read_only(struct uffd_tracker *t, const struct vma *v)
{
	struct vma *slot = vec_push(&t->read_only);

	if (!slot)
		return fail(-ENOMEM, "tracker of pid %d", t->base.target->pid);
	*slot = *v;
	slot->name = NULL;
	return 0;
}

/*
 * Registering @v failed: is it a kind that can't be, or was it unmapped, and perhaps another one mapped in its place, since
 * the maps were read? What is there and refuses again and again is of that kind, and worth a note.
 */
static int register_again(struct uffd_tracker *t, const struct vma *v)
{
	int err = UNTRACKED;

	for (int tries = 0; err == UNTRACKED && tries < 3; tries++) {
		if (t->warned || !still_there(t, v))
			return UNTRACKED;
		err = register_vma(t, v);
	}
	if (err == UNTRACKED) {
		note("pid %d: %s at %#lx can't be write-protected: its pages count as written "
		     "all the time",
		     t->base.target->pid, v->name[0] ? v->name : "memory", v->start);
		t->warned = true;
	}
	return err;
}

/*
 * A mapping that mremap() moved, merged with its neighbour, takes the neighbour's registration away but leaves the marks in its page
 * table (mm/mremap.c, userfaultfd_reset_ctx). Such pages are writable without a fault and would look unwritten for ever.
 */
static int clear_stale_marks(struct uffd_tracker *t, const struct vma *v, uint64_t from)
{
	struct page_scan scan = {.inverted = PG_WRITTEN,
				 .all_of = PG_WRITTEN,
				 .any_of = PG_PRESENT | PG_SWAPPED};
	struct uffdio_writeprotect clear = {.range = {.start = from, .len = v->end - from}};
	uint64_t next;
	long got;

	scan.return_mask = PG_PRESENT;
	got = pagemap_scan(t->base.target->pagemap_fd, &scan, from, v->end, t->regions, 1,
			   &next);
	memset(t->regions, 0, sizeof(t->regions[0]));
	if (got < 0)
		return fail((int)got, "PAGEMAP_SCAN of %#lx-%#lx", from, v->end);
	while (got && ioctl(t->uffd, UFFDIO_WRITEPROTECT, &clear)) {
		if (errno == ESRCH)
			return -ESRCH;
		if (errno ==
		    ENOENT) /* changed in this moment: it is new again at the next take */
			break;
		if (errno != EAGAIN && errno != EINTR)
			return fail(-errno, "clear the marks of %#lx-%#lx", from, v->end);
	}
	return 0;
}

/* One VMA from @from on; registers it when it is new. */
static int scan_vma(struct uffd_tracker *t, const struct vma *v, uint64_t from,
		    struct dirty *out)
{
	int err;

	if (known_read_only(t, v))
		return 0;
	err = scan_range(t, v, &from, v->end, false, out);
	if (err != -EPERM)
		return err;
	err = register_vma(t, v);
	if (err == UNTRACKED)
		err = register_again(t, v);
	if (err == READ_ONLY)
		return remember_read_only(t, v);
	if (err == UNTRACKED || err == -EBUSY)
		return add_untracked(t, v, out);
	if (!err)
		err = clear_stale_marks(t, v, from);
	if (err)
		return err;
	err = scan_range(t, v, &from, v->end, true, out);
	/* Gone, or another one, in this very moment: the next take finds what is there then. */
	return err == -EPERM ? 0 : err;
}

static bool same_scan(const struct vma *a, const struct vma *b)
{
	return tracker_wants(b) && a->end == b->start && a->shared == b->shared &&
	       has_markers(a) == has_markers(b) && (a->shared || a->kind == b->kind);
}

/* VMAs first..last touch and are scanned alike: one scan, and one by one where something new is among them. */
static int scan_group(struct uffd_tracker *t, const struct vma *first, const struct vma *last,
		      struct dirty *out)
{
	uint64_t from = first->start;
	int err = scan_range(t, first, &from, last->end, false, out);

	if (err != -EPERM)
		return err;
	err = 0;
	for (const struct vma *v = first; !err && v <= last; v++)
		if (from < v->end)
			err = scan_vma(t, v, from > v->start ? from : v->start, out);
	return err;
}

static int scan_all(struct uffd_tracker *t, const struct maps *maps, struct dirty *out)
{
	int err = target_reopen_pagemap(t->base.target);

	for (size_t i = 0, last; !err && i < maps->n; i = last + 1) {
		last = i;
		if (!tracker_wants(&maps->data[i]))
			continue;
		while (last + 1 < maps->n &&
		       same_scan(&maps->data[last], &maps->data[last + 1]))
			last++;
		err = scan_group(t, &maps->data[i], &maps->data[last], out);
	}
	return err;
}

static int scan_ranges(struct uffd_tracker *t, const struct maps *maps,
		       const struct dirty *where, struct dirty *out)
{
	struct ranges r = {.maps = maps, .where = where};
	int err = 0;

	while (!err && ranges_next(&r)) {
		err = scan_range(t, r.v, &r.start, r.end, false, out);
		if (err == -EPERM) /* not armed at all: a new mapping */
			err = scan_vma(t, r.v, r.v->start, out);
	}
	return err;
}

/* What was found when new mappings were armed belongs to this take. */
static int add_pending(struct uffd_tracker *t, struct dirty *out)
{
	struct dirty joined;
	int err;

	if (!t->pending.n)
		return 0;
	err = dirty_join(&t->pending, out);
	if (err)
		return err;
	joined = t->pending;
	joined.epoch = out->epoch;
	t->pending = *out;
	dirty_clear(&t->pending);
	*out = joined;
	return 0;
}

static int take(struct tracker *base, const struct maps *maps, struct dirty *out)
{
	struct uffd_tracker *t = (struct uffd_tracker *)base;
	_cleanup_(pins_free) struct pinned pinned = {0};
	int err = pinned_read(base->target, &pinned);

	if (!err)
		err = scan_all(t, maps, out);
	if (!err)
		err = add_pending(t, out);
	return err ? err : pins_add(base->target, &t->pinned, maps, &pinned, out);
}

static int take_ranges(struct tracker *base, const struct maps *maps, const struct dirty *where,
		       struct dirty *out)
{
	struct uffd_tracker *t = (struct uffd_tracker *)base;
	_cleanup_(pins_free) struct pinned pinned = {0};
	int err = pinned_read(base->target, &pinned);

	if (!err)
		err = scan_ranges(t, maps, where, out);
	if (!err)
		err = add_pending(t, out);
	return err ? err : pins_add(base->target, &t->pinned, maps, &pinned, out);
}

static bool is_armed(struct uffd_tracker *t, const struct vma *v)
{
	struct page_scan probe_scan = {
		.flags = PG_SCAN_CHECK_WP, .all_of = PG_HUGE, .return_mask = PG_HUGE};
	uint64_t next;
	long got = pagemap_scan(t->base.target->pagemap_fd, &probe_scan, v->start,
				v->start + page_size(), t->regions, 1, &next);

	memset(t->regions, 0, sizeof(t->regions[0]));
	return got != -EPERM;
}

static int follow(struct tracker *base, const struct maps *maps)
{
	struct uffd_tracker *t = (struct uffd_tracker *)base;
	_cleanup_(dirty_free) struct dirty found = {0};
	int err = target_reopen_pagemap(base->target), joined;

	for (size_t i = 0; !err && i < maps->n; i++)
		if (tracker_wants(&maps->data[i]) && !is_armed(t, &maps->data[i]))
			err = scan_vma(t, &maps->data[i], maps->data[i].start, &found);
	joined = found.n ? dirty_join(&t->pending, &found) : 0;
	return err ? err : joined;
}

static int arm_all(struct uffd_tracker *t, bool count_present)
{
	_cleanup_maps_ struct maps maps = {0};
	int err = maps_read(t->base.target, &maps);

	for (size_t i = 0; !err && i < maps.n; i++) {
		if (!tracker_wants(&maps.data[i]))
			continue;
		if (register_vma(t, &maps.data[i]) == -EBUSY)
			return refuse(-EBUSY,
				      "pid %d uses userfaultfd itself (on %#lx-%#lx): two "
				      "can't watch one memory",
				      t->base.target->pid, maps.data[i].start,
				      maps.data[i].end);
	}
	if (!err)
		err = scan_all(t, &maps, count_present ? &t->pending : NULL);
	return err ? err : pinned_read(t->base.target, &t->pinned);
}

static void close_tracker(struct tracker *base)
{
	struct uffd_tracker *t = (struct uffd_tracker *)base;

	cleanup_fd(&t->uffd); /* unregisters everything and clears the marks */
	dirty_free(&t->pending);
	vec_free(&t->read_only);
	vec_free(&t->pinned);
	free(t);
}

static int open_tracker(struct target *target, struct warden *warden, bool count_present,
			struct tracker **out)
{
	struct uffd_tracker *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return fail(-ENOMEM, "tracker of pid %d", target->pid);
	t->base = (struct tracker){.ops = &tracker_uffd, .target = target};
	t->uffd = -1;
	err = warden_uffd(warden, target->pid, &t->uffd, &t->base.stopped_ns);
	if (!err) {
		err = enable(t->uffd);
		if (err)
			err = fail(err, "pid %d: UFFDIO_API", target->pid);
	}
	if (!err)
		err = arm_all(t, count_present);
	if (err) {
		close_tracker(&t->base);
		return err;
	}
	*out = &t->base;
	return 0;
}

const struct tracker_ops tracker_uffd = {
	.name = "uffd",
	.purpose = "userfaultfd write-protect and PAGEMAP_SCAN (Linux >= 6.7)",
	.probe = probe,
	.open = open_tracker,
	.take = take,
	.take_ranges = take_ranges,
	.follow = follow,
	.close = close_tracker,
};
