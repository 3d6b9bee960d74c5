// SPDX-License-Identifier: GPL-2.0
/*
 * The kmod tracker: the module icp_helper (kmod-helper/) resets the WRITE and the soft-dirty bits of page-table entries, and reports
 * them, in one step per page, while the process runs. Linux >= 6.1; kmod-helper/icp_uapi.h describes what it promises.
 *
 * Like soft-dirty bits it knows nothing of content that went away: see track/look.h.
 */
#include "track/tracker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "../../kmod-helper/icp_uapi.h"
#include "base/io.h"
#include "base/page.h"
#include "proc/pagemap.h"
#include "track/look.h"
#include "track/pins.h"
#include "track/ranges.h"

#define RUNS 1024
#define REGIONS 256
#define REPORT (ICP_PAGE_WRITTEN | ICP_PAGE_POPULATED | ICP_PAGE_UNKNOWN)

struct kmod_tracker {
	struct tracker base;
	int fd;
	bool swap;		/* there is swap, or was */
	struct dirty populated; /* at the last look: all WRITTEN */
	struct dirty fresh;	/* mappings that the kernel marked as new; for one take */
	struct pinned pinned;
	struct icp_run runs[RUNS];
};

static int open_device(void)
{
	int fd = open(ICP_DEVICE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int probe(char *why, size_t len)
{
	struct icp_version v = {0};
	_cleanup_fd_ int fd = open_device();

	if (fd == -EACCES || fd == -EPERM) {
		snprintf(why, len, "no right to open " ICP_DEVICE ": run as root");
		return -EPERM;
	}
	if (fd < 0) {
		snprintf(why, len,
			 "the module icp_helper is not loaded: build it in kmod-helper/ (make, "
			 "or DKMS; see docs/building.md), then modprobe icp_helper");
		return -EOPNOTSUPP;
	}
	if (ioctl(fd, ICP_IOC_VERSION, &v) || v.version != ICP_HELPER_VERSION ||
	    v.page_size != page_size()) {
		snprintf(why, len,
			 "the module icp_helper that is loaded has version %u, not %d: build "
			 "it again",
			 v.version, ICP_HELPER_VERSION);
		return -EOPNOTSUPP;
	}
	return 0;
}

/* One call; -ESRCH (bare): the memory is gone. */
static int call(struct kmod_tracker *t, unsigned long op, struct icp_take *take)
{
	pid_t pid = t->base.target->pid;

	while (ioctl(t->fd, op, take)) {
		if (errno == EINTR)
			continue;
		if (errno == ESRCH)
			return -ESRCH;
		if (errno == EOPNOTSUPP)
			return refuse(-EOPNOTSUPP,
				      "pid %d shares its memory with a device or a virtual "
				      "machine: the kmod tracker can't see what those write",
				      pid);
		return fail(-errno, "ask " ICP_DEVICE " about %#llx-%#llx of pid %d",
			    (unsigned long long)take->start, (unsigned long long)take->end,
			    pid);
	}
	return 0;
}

static void see_swap(struct kmod_tracker *t)
{
	_cleanup_free_ char *text = NULL;
	const char *line;

	if (t->swap)
		return;
	if (io_read_file(AT_FDCWD, "/proc/swaps", &text, NULL))
		return; /* a kernel without swap */
	line = strchr(text, '\n');
	t->swap = line && line[1];
}

/* Which private mappings the kernel marked as new; takes the marks off: see ICP_IOC_FRESH. */
static int take_fresh(struct kmod_tracker *t)
{
	struct icp_take take = {
		.end = page_down(UINT64_MAX), .runs = (uintptr_t)t->runs, .n_runs = RUNS};
	int err = 0;

	dirty_clear(&t->fresh);
	see_swap(t);
	for (; !err && take.start < take.end; take.start = take.next) {
		err = call(t, ICP_IOC_FRESH, &take);
		for (uint32_t i = 0; !err && t->swap && i < take.n_filled; i++)
			err = dirty_append(&t->fresh, t->runs[i].start, t->runs[i].end,
					   DIRTY_UNKNOWN);
	}
	return err;
}

/* Memory of a kind that the module does not look at: whatever is populated may have been written. */
static int look_elsewhere(struct kmod_tracker *t, struct look *l, uint64_t start, uint64_t end)
{
	struct page_scan scan = {.any_of = PG_PRESENT | PG_SWAPPED, .return_mask = PG_PRESENT};
	struct page_region regions[REGIONS];
	int err = 0;

	while (!err && start < end) {
		uint64_t next = end;
		long got = pagemap_scan(t->base.target->pagemap_fd, &scan, start, end, regions,
					REGIONS, &next);

		if (got < 0)
			return fail((int)got, "read the pagemap of pid %d",
				    t->base.target->pid);
		for (long i = 0; !err && i < got; i++)
			err = look_run(l, regions[i].start, regions[i].end,
				       LOOK_OWN | LOOK_UNKNOWN);
		start = next > start ? next : end;
	}
	return err;
}

/* [start, end) of @l->v, all alike. */
static int look_alike(struct kmod_tracker *t, struct look *l, uint64_t start, uint64_t end,
		      uint32_t is)
{
	unsigned what = 0;

	if (is & ICP_PAGE_UNKNOWN && !(is & ICP_PAGE_POPULATED))
		return look_elsewhere(t, l, start, end);
	if (is & ICP_PAGE_POPULATED)
		what |= LOOK_OWN;
	if (is & ICP_PAGE_WRITTEN)
		what |= LOOK_WRITTEN;
	if (is & ICP_PAGE_UNKNOWN || (t->fresh.n && dirty_pages_in(&t->fresh, start, end)))
		what |= LOOK_UNKNOWN;
	return look_run(l, start, end, what);
}

/* The same of mappings that touch: @l->v is the one that @start is in, and moves on. */
static int look_across(struct kmod_tracker *t, struct look *l, uint64_t start, uint64_t end,
		       uint32_t is)
{
	int err = 0;

	while (!err && start < end) {
		uint64_t to;

		while (start >= l->v->end)
			l->v++;
		to = l->v->end < end ? l->v->end : end;
		err = look_alike(t, l, start, to, is);
		start = to;
	}
	return err;
}

/* Look at [start, end), which mappings from @v on cover, and reset it. */
static int look_range(struct kmod_tracker *t, struct look *l, const struct vma *v,
		      uint64_t start, uint64_t end)
{
	struct icp_take take = {.start = start,
				.end = end,
				.runs = (uintptr_t)t->runs,
				.n_runs = RUNS,
				.report = REPORT,
				.flags = ICP_TAKE_RESET};
	uint64_t at = start;
	int err = 0;

	l->v = v;
	for (; !err && take.start < end; take.start = take.next) {
		err = call(t, ICP_IOC_TAKE, &take);
		for (uint32_t i = 0; !err && i < take.n_filled; i++) {
			const struct icp_run *r = &t->runs[i];

			err = look_across(t, l, at, r->start, 0);
			if (!err)
				err = look_across(t, l, r->start, r->end, r->what);
			at = r->end;
		}
	}
	return err ? err : look_across(t, l, at, end, 0);
}

/* Everything into @found (NULL: only reset it, and remember what is populated). */
static int look_all(struct kmod_tracker *t, const struct maps *maps, struct dirty *found)
{
	_cleanup_(dirty_free) struct dirty populated = {0};
	struct look look = {.before = &t->populated, .found = found, .populated = &populated};
	int err = target_reopen_pagemap(t->base.target);

	if (!err)
		err = take_fresh(t);
	for (size_t i = 0, last; !err && i < maps->n; i = last + 1) {
		const struct vma *v = maps->data;

		last = i;
		if (!tracker_wants(&v[i]))
			continue;
		while (last + 1 < maps->n && tracker_wants(&v[last + 1]) &&
		       v[last].end == v[last + 1].start)
			last++;
		err = look_range(t, &look, &v[i], v[i].start, v[last].end);
	}
	if (err)
		return err;
	dirty_free(&t->populated);
	t->populated = populated;
	populated = (struct dirty){0};
	return 0;
}

static int take(struct tracker *base, const struct maps *maps, struct dirty *out)
{
	struct kmod_tracker *t = (struct kmod_tracker *)base;
	_cleanup_(pins_free) struct pinned pinned = {0};
	int err = pinned_read(base->target, &pinned);

	if (!err)
		err = look_all(t, maps, out);
	return err ? err : pins_add(base->target, &t->pinned, maps, &pinned, out);
}

static int take_ranges(struct tracker *base, const struct maps *maps, const struct dirty *where,
		       struct dirty *out)
{
	struct kmod_tracker *t = (struct kmod_tracker *)base;
	_cleanup_(pins_free) struct pinned pinned = {0};
	_cleanup_(dirty_free) struct dirty populated = {0};
	struct look look = {.before = &t->populated, .found = out, .populated = &populated};
	struct ranges r = {.maps = maps, .where = where};
	int err = pinned_read(base->target, &pinned);

	dirty_clear(&t->fresh);
	while (!err && ranges_next(&r))
		err = look_range(t, &look, r.v, r.start, r.end);
	if (!err && populated.n)
		err = dirty_join(&t->populated, &populated);
	return err ? err : pins_add(base->target, &t->pinned, maps, &pinned, out);
}

/* What is new has its WRITE bits: it is dirty until it is looked at. */
static int follow(struct tracker *base, const struct maps *maps)
{
	return 0;
}

static void close_tracker(struct tracker *base)
{
	struct kmod_tracker *t = (struct kmod_tracker *)base;

	cleanup_fd(&t->fd);
	dirty_free(&t->populated);
	dirty_free(&t->fresh);
	vec_free(&t->pinned);
	free(t);
}

static int attach(struct kmod_tracker *t)
{
	pid_t pid = t->base.target->pid;
	struct icp_bind bind = {.pid = (uint32_t)pid};

	t->fd = open_device();
	if (t->fd < 0)
		return fail(t->fd, "open " ICP_DEVICE);
	if (ioctl(t->fd, ICP_IOC_BIND, &bind)) {
		if (errno == EBUSY)
			return refuse(-EBUSY,
				      "pid %d is followed through " ICP_DEVICE
				      " already: two can't watch one memory",
				      pid);
		if (errno == EPERM)
			return refuse(-EPERM,
				      "no right to follow pid %d: it takes what ptrace "
				      "takes (CAP_SYS_PTRACE)",
				      pid);
		return errno == ESRCH ? -ESRCH : fail(-errno, "follow pid %d", pid);
	}
	return target_alive(t->base.target)
		       ? 0
		       : -ESRCH; /* or it was bound to who has its pid now */
}

static int arm_all(struct kmod_tracker *t)
{
	_cleanup_maps_ struct maps maps = {0};
	int err = maps_read(t->base.target, &maps);

	return err ? err : look_all(t, &maps, NULL);
}

static int open_tracker(struct target *target, struct warden *warden, bool count_present,
			struct tracker **out)
{
	struct kmod_tracker *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return fail(-ENOMEM, "tracker of pid %d", target->pid);
	t->base = (struct tracker){.ops = &tracker_kmod, .target = target};
	t->fd = -1;
	err = attach(t);
	/* with nothing remembered and nothing reset, the first take finds all that is there */
	if (!err && !count_present)
		err = arm_all(t);
	if (!err)
		err = pinned_read(target, &t->pinned);
	if (err) {
		close_tracker(&t->base);
		return err;
	}
	*out = &t->base;
	return 0;
}

const struct tracker_ops tracker_kmod = {
	.name = "kmod",
	.purpose = "the module icp_helper resets the WRITE bits of page-table entries",
	.blind_to_dropped = true,
	.whole_huge_pages = true,
	.probe = probe,
	.open = open_tracker,
	.take = take,
	.take_ranges = take_ranges,
	.follow = follow,
	.close = close_tracker,
};
