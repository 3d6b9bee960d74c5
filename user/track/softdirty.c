// SPDX-License-Identifier: GPL-2.0
/*
 * The softdirty tracker: bit 55 of /proc/PID/pagemap, cleared for the whole process by /proc/PID/clear_refs (CONFIG_MEM_SOFT_DIRTY).
 *
 * Reading and clearing are two steps, and a write between them would be lost: the process is frozen for both, unless it is
 * already. The kernel reports new mappings as dirty as a whole until the next clearing, so nothing has to be armed.
 *
 * The bits say nothing of content that went away: what was populated at the last look is remembered. An entry of shared memory that
 * is empty now, and was not, may have been written before it was dropped (page-out, MADV_DONTNEED): unknown. One that was
 * populated, written and dropped between two looks goes unnoticed: .blind_to_dropped. KSM replaces pages and loses their
 * bits: while it runs, private memory is unknown.
 */
#include "track/tracker.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"
#include "base/page.h"
#include "proc/pagemap.h"
#include "track/look.h"
#include "track/pins.h"
#include "track/ranges.h"

#define ENTRIES 2048
#define CLEAR_SOFT_DIRTY "4"
#define FREEZE_TRIES 5
#define DEADLINE_MS 5000

struct softdirty_tracker {
	struct tracker base;
	struct warden *warden;
	struct dirty populated; /* at the last look: all WRITTEN */
	struct pinned pinned;
	bool ksm;	    /* merging is going on */
	uint64_t paused_ns; /* by the last take */
};

static uint64_t own_bits(int fd, const volatile void *page)
{
	uint64_t bits = 0;

	return pread(fd, &bits, 8, (off_t)((uintptr_t)page / page_size() * 8)) == 8 ? bits : 0;
}

/* By what it does: some kernels take the write and never set the bit. */
static bool bits_work(void)
{
	_cleanup_fd_ int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	_cleanup_fd_ int clear = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	volatile char *page = mmap(NULL, page_size(), PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool works = false;

	if (page == MAP_FAILED)
		return false;
	*page = 1;
	if (pagemap >= 0 && clear >= 0 && own_bits(pagemap, page) & PM_SOFT_DIRTY &&
	    write(clear, CLEAR_SOFT_DIRTY, 1) == 1 &&
	    !(own_bits(pagemap, page) & PM_SOFT_DIRTY)) {
		*page = 2;
		works = own_bits(pagemap, page) & PM_SOFT_DIRTY;
	}
	munmap((void *)page, page_size());
	return works;
}

static int probe(char *why, size_t len)
{
	if (bits_work())
		return 0;
	snprintf(why, len, "this kernel keeps no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)");
	return -EOPNOTSUPP;
}

/* KSM's own pages have lost their bits; asked of the machine, as which mappings it may merge is only in smaps. */
static bool ksm_runs(void)
{
	_cleanup_free_ char *text = NULL;

	return !io_read_file(AT_FDCWD, "/sys/kernel/mm/ksm/run", &text, NULL) && text[0] == '1';
}

/* Whether the page's content is the process's own, rather than zeros or a file's that was only read. */
static bool is_own(const struct vma *v, uint64_t is)
{
	if (!(is & (PG_PRESENT | PG_SWAPPED)))
		return false;
	if (v->shared)
		return true;
	return !(is & PG_PFNZERO) && !(v->kind == VMA_FILE_PRIVATE && is & PG_FILE);
}

static int look_at(const struct softdirty_tracker *t, struct look *l, struct pagemap_memo *memo,
		   uint64_t at, uint64_t bits)
{
	uint64_t is = pagemap_categories(bits, at, memo);
	unsigned what = is_own(l->v, is) ? LOOK_OWN : 0;

	if (is & PG_SOFT_DIRTY)
		what |= LOOK_WRITTEN;
	if (t->ksm && !l->v->shared)
		what |= LOOK_UNKNOWN;
	return look_run(l, at, at + page_size(), what);
}

/* [from, to) of one VMA. */
static int look_range(const struct softdirty_tracker *t, struct look *l, uint64_t from,
		      uint64_t to)
{
	uint64_t bits[ENTRIES], page = page_size();
	struct pagemap_memo memo = {0};
	int err = 0;

	while (!err && from < to) {
		uint64_t n = (to - from) / page < ENTRIES ? (to - from) / page : ENTRIES;
		ssize_t got = pread(t->base.target->pagemap_fd, bits, n * 8,
				    (off_t)(from / page * 8));

		if (got < 0)
			return fail(-errno, "read the pagemap of pid %d", t->base.target->pid);
		if (got < 8)
			return -ESRCH; /* the memory is gone */
		for (ssize_t i = 0; !err && i < got / 8; i++, from += page)
			err = look_at(t, l, &memo, from, bits[i]);
	}
	return err;
}

/* Everything into @found (NULL: only remember what is populated), as of one moment if the process is frozen. */
static int look_all(struct softdirty_tracker *t, const struct maps *maps, struct dirty *found)
{
	_cleanup_(dirty_free) struct dirty populated = {0};
	struct look look = {.before = &t->populated, .found = found, .populated = &populated};
	int err = target_reopen_pagemap(t->base.target);

	for (size_t i = 0; !err && i < maps->n; i++) {
		look.v = &maps->data[i];
		if (tracker_wants(look.v))
			err = look_range(t, &look, look.v->start, look.v->end);
	}
	if (err)
		return err;
	dirty_free(&t->populated);
	t->populated = populated;
	populated = (struct dirty){0};
	return 0;
}

static int clear_bits(const struct target *target)
{
	_cleanup_fd_ int fd = openat(target->proc_fd, "clear_refs", O_WRONLY | O_CLOEXEC);

	if (fd < 0 && (errno == ENOENT || errno == ESRCH))
		return -ESRCH;
	if (fd < 0 || write(fd, CLEAR_SOFT_DIRTY, 1) != 1)
		return errno == ESRCH ? -ESRCH
				      : fail(-errno, "clear the soft-dirty bits of pid %d",
					     target->pid);
	return 0;
}

/* The look and the clearing in one step, as far as the process can tell. */
static int look_and_clear(struct softdirty_tracker *t, const struct maps *maps,
			  struct dirty *found)
{
	bool frozen = warden_is_frozen(t->warden);
	_cleanup_maps_ struct maps now = {0};
	pid_t pid = t->base.target->pid;
	int err = frozen ? 0 : -EBUSY, thawed = 0;

	for (int tries = 0; err == -EBUSY && tries < FREEZE_TRIES; tries++) {
		err = warden_freeze(t->warden, &pid, 1, false, DEADLINE_MS, NULL);
		if (err == -EBUSY)
			usleep(2000u << tries); /* a thread that waits for a disk */
	}
	if (err)
		return err;
	if (!frozen) /* those given are of a moment ago */
		err = maps_read(t->base.target, &now);
	t->ksm = ksm_runs();
	if (!err)
		err = look_all(t, frozen ? maps : &now, found);
	if (!err)
		err = clear_bits(t->base.target);
	if (!frozen)
		thawed = warden_thaw(t->warden, &t->paused_ns);
	return err ? err : thawed;
}

static int take(struct tracker *base, const struct maps *maps, struct dirty *out)
{
	struct softdirty_tracker *t = (struct softdirty_tracker *)base;
	_cleanup_(pins_free) struct pinned pinned = {0};
	int err = pinned_read(base->target, &pinned);

	if (!err)
		err = look_and_clear(t, maps, out);
	return err ? err : pins_add(base->target, &t->pinned, maps, &pinned, out);
}

/* Without clearing: the next take finds these pages once more, and others are not lost. */
static int take_ranges(struct tracker *base, const struct maps *maps, const struct dirty *where,
		       struct dirty *out)
{
	struct softdirty_tracker *t = (struct softdirty_tracker *)base;
	_cleanup_(pins_free) struct pinned pinned = {0};
	_cleanup_(dirty_free) struct dirty populated = {0};
	struct look look = {.before = &t->populated, .found = out, .populated = &populated};
	struct ranges r = {.maps = maps, .where = where};
	int err = pinned_read(base->target, &pinned);

	while (!err && ranges_next(&r)) {
		look.v = r.v;
		err = look_range(t, &look, r.start, r.end);
	}
	if (!err && populated.n)
		err = dirty_join(&t->populated, &populated);
	return err ? err : pins_add(base->target, &t->pinned, maps, &pinned, out);
}

/* The kernel marks new mappings by itself. */
static int follow(struct tracker *base, const struct maps *maps)
{
	return 0;
}

static void close_tracker(struct tracker *base)
{
	struct softdirty_tracker *t = (struct softdirty_tracker *)base;

	dirty_free(&t->populated);
	vec_free(&t->pinned);
	free(t);
}

static int open_tracker(struct target *target, struct warden *warden, bool count_present,
			struct tracker **out)
{
	struct softdirty_tracker *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return fail(-ENOMEM, "tracker of pid %d", target->pid);
	t->base = (struct tracker){.ops = &tracker_softdirty, .target = target};
	t->warden = warden;
	/* with nothing remembered and nothing cleared, the first take finds all that is there */
	err = count_present ? 0 : look_and_clear(t, &(struct maps){0}, NULL);
	if (!err)
		err = pinned_read(target, &t->pinned);
	if (err) {
		close_tracker(&t->base);
		return err;
	}
	t->base.stopped_ns = t->paused_ns;
	*out = &t->base;
	return 0;
}

const struct tracker_ops tracker_softdirty = {
	.name = "softdirty",
	.purpose = "the kernel's soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)",
	.blind_to_dropped = true,
	.whole_huge_pages = true,
	.probe = probe,
	.open = open_tracker,
	.take = take,
	.take_ranges = take_ranges,
	.follow = follow,
	.close = close_tracker,
};
