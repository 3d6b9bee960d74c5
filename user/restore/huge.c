// SPDX-License-Identifier: GPL-2.0
/*
 * Huge pages for the filling, where every small page of one was populated: 512 times fewer faults.
 * madvise() could not be undone, so they are made in a mapping of their own, which is advised, and
 * moved to their place when they are filled (UFFDIO_MOVE, Linux 6.8): neither the pages that are
 * populated nor the flags of a mapping differ from what they would be.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/io.h"
#include "base/page.h"
#include "restore/internal.h"

/* include/uapi/linux/userfaultfd.h of 6.8; Debian 12's headers are older */
#define FEATURE_MOVE (1ull << 16)
#define USER_MODE_ONLY 1
#define MOVE_ALLOW_HOLES 2
struct move_arg {
	uint64_t dst, src, len, mode;
	int64_t moved;
};
#define IOC_MOVE _IOWR(UFFDIO, 0x05, struct move_arg)

#define TRIES 1000
#define SYSFS "/sys/kernel/mm/transparent_hugepage/"

/* Bytes of a huge page; 0: there are none, or they can't be moved. */
static uint64_t huge_size(void)
{
	_cleanup_fd_ int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | USER_MODE_ONLY);
	struct uffdio_api api = {.api = UFFD_API, .features = FEATURE_MOVE};
	_cleanup_free_ char *enabled = NULL, *size = NULL;
	uint64_t bytes;

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) ||
	    io_read_file(AT_FDCWD, SYSFS "enabled", &enabled, NULL) ||
	    strstr(enabled, "[never]") ||
	    io_read_file(AT_FDCWD, SYSFS "hpage_pmd_size", &size, NULL))
		return 0;
	bytes = strtoull(size, NULL, 10);
	return bytes > page_size() && !(bytes & (bytes - 1)) ? bytes : 0;
}

/* Whether every page of [at, at + size) has an entry, and most of them data; else *next is the first
 * page behind a hole, if there is one. */
static bool is_full(const struct ctl *ctl, uint64_t at, uint64_t size, uint64_t *next)
{
	uint64_t page = page_size(), end = (at + size) / page, data = 0;

	for (uint64_t want = at / page; want < end; want++) {
		const struct ctl_entry *e;

		*next = want;
		e = ctl_next(ctl, next);
		if (!e || *next != want)
			return false;
		data += !(e->flags & CTL_ZERO);
	}
	return data >= size / page / 2;
}

static int add_ranges(struct huge *h, const struct ctl *ctl, uint64_t start, uint64_t end)
{
	uint64_t at = (start + h->size - 1) & ~(h->size - 1), next = 0;

	while (at >= start && at + h->size <= end) {
		struct huge_range *last = h->n ? &h->data[h->n - 1] : NULL;

		if (!is_full(ctl, at, h->size, &next)) {
			uint64_t found = next * page_size() & ~(h->size - 1);

			at = found > at ? found : at + h->size;
			continue;
		}
		if (!last || last->end != at) {
			last = vec_push(h);
			if (!last)
				return fail(-ENOMEM, "plan huge pages");
			last->start = at;
			last->staged = h->bytes;
		}
		at += h->size;
		last->end = at;
		h->bytes += h->size;
	}
	return 0;
}

int huge_plan(struct restore *r, struct restore_proc *p, struct huge *h)
{
	const Icp__Process *image = p->state.image;
	long at;
	int err = 0;

	h->size = huge_size();
	for (size_t i = 0; i < image->n_vmas && h->size && !err; i++)
		/* a move wants nothing there: memory that was inherited is filled where it is */
		if (restore_may_move(image->vmas[i]) && !shares_has(&r->job, image->vmas[i]) &&
		    !lazy_vma(r, image->vmas[i]))
			err = add_ranges(h, p->ctl, image->vmas[i]->start, image->vmas[i]->end);
	if (err || !h->n)
		return err;
	err = batch_now_try(r->batch, SYS_mmap,
			    BATCH_ARGS(0, h->bytes + h->size, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
				       (uint64_t)-1),
			    &at);
	if (err)
		return err;
	if (at < 0 && at >= -4095) { /* no room for it: small pages do as well */
		h->n = 0;
		return 0;
	}
	h->map = (uint64_t)at;
	h->stage = (h->map + h->size - 1) & ~(h->size - 1);
	return batch_call(r->batch, "advise", SYS_madvise,
			  BATCH_ARGS(h->stage, h->bytes, MADV_HUGEPAGE))
		       ?: batch_run(r->batch);
}

uint64_t huge_place(const struct huge *h, uint64_t addr)
{
	size_t low = 0, high = h->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (addr >= h->data[mid].end)
			low = mid + 1;
		else
			high = mid;
	}
	if (low == h->n || addr < h->data[low].start)
		return addr;
	return h->stage + h->data[low].staged + (addr - h->data[low].start);
}

static int move_one(struct restore *r, long uffd, const struct huge *h,
		    const struct huge_range *range)
{
	struct move_arg arg = {.dst = range->start,
			       .src = h->stage + range->staged,
			       .len = range->end - range->start,
			       .mode = MOVE_ALLOW_HOLES};

	/* what is being looked at by the kernel (migration, reclaim) is busy for a moment */
	for (int tries = 0; arg.len && tries < TRIES; tries++) {
		uint64_t at;
		long ret;
		int err = batch_data(r->batch, &arg, sizeof(arg), &at);

		if (!err)
			err = batch_now_try(r->batch, SYS_ioctl,
					    BATCH_ARGS((uint64_t)uffd, IOC_MOVE, at), &ret);
		if (err)
			return err;
		if (!ret)
			return 0;
		memcpy(&arg, (const void *)(uintptr_t)at, sizeof(arg));
		if (ret != -EAGAIN && ret != -EBUSY)
			return fail((int)ret, "move huge pages to %#lx", arg.dst);
		if (arg.moved > 0 && (uint64_t)arg.moved <= arg.len) {
			arg.dst += (uint64_t)arg.moved;
			arg.src += (uint64_t)arg.moved;
			arg.len -= (uint64_t)arg.moved;
		}
		arg.moved = 0;
		if (ret == -EBUSY)
			usleep(1000);
	}
	return arg.len ? fail(-EBUSY, "move huge pages to %#lx", arg.dst) : 0;
}

static int register_range(struct restore *r, long uffd, const struct huge_range *range)
{
	struct uffdio_register reg = {
		.range = {.start = range->start, .len = range->end - range->start},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	uint64_t at;
	int err = batch_data(r->batch, &reg, sizeof(reg), &at);

	return err ? err
		   : batch_call(r->batch, "register huge pages", SYS_ioctl,
				BATCH_ARGS((uint64_t)uffd, UFFDIO_REGISTER, at));
}

int huge_move(struct restore *r, struct huge *h)
{
	struct uffdio_api api = {.api = UFFD_API};
	uint64_t at;
	long uffd;
	int err;

	if (!h->n)
		return 0;
	err = batch_now(r->batch, "make a userfaultfd", SYS_userfaultfd,
			BATCH_ARGS(O_CLOEXEC | USER_MODE_ONLY), &uffd);
	if (!err)
		err = batch_data(r->batch, &api, sizeof(api), &at);
	if (!err)
		err = batch_call(r->batch, "use a userfaultfd", SYS_ioctl,
				 BATCH_ARGS((uint64_t)uffd, UFFDIO_API, at));
	for (size_t i = 0; i < h->n && !err; i++)
		err = register_range(r, uffd, &h->data[i]);
	for (size_t i = 0; i < h->n && !err; i++)
		err = move_one(r, uffd, h, &h->data[i]);
	/* its end takes the registrations back */
	if (!err)
		err = batch_call(r->batch, "close a userfaultfd", SYS_close,
				 BATCH_ARGS((uint64_t)uffd));
	if (!err)
		err = batch_call(r->batch, "unmap", SYS_munmap,
				 BATCH_ARGS(h->map, h->bytes + h->size));
	return err ? err : batch_run(r->batch);
}
