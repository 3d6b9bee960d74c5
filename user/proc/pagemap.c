// SPDX-License-Identifier: GPL-2.0
#include "proc/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/page.h"

/* struct pm_scan_arg of include/uapi/linux/fs.h, 6.7 */
struct pm_scan_arg {
	uint64_t size, flags;
	uint64_t start, end, walk_end;
	uint64_t vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

_Static_assert(sizeof(struct pm_scan_arg) == 96, "pm_scan_arg");
_Static_assert(sizeof(struct page_region) == 24, "page_region");

#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#define HUGE_FRAMES 512ull /* in 2 MiB */
/* include/uapi/linux/kernel-page-flags.h */
#define KPF_THP (1ull << 22)
#define KPF_ZERO_PAGE (1ull << 24)
#define ENTRIES 2048 /* of the classic interface, read at a time */

/* The page that all untouched private pages share; 0 where frame numbers are hidden (no CAP_SYS_ADMIN). */
static uint64_t zero_frame(void)
{
	static uint64_t frame = UINT64_MAX;
	_cleanup_fd_ int fd = -1;
	volatile char *page;
	uint64_t bits = 0;

	if (frame != UINT64_MAX)
		return frame;
	page = mmap(NULL, page_size(), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (page != MAP_FAILED) {
		(void)*page;
		if (pread(fd, &bits, 8, (off_t)((uintptr_t)page / page_size() * 8)) != 8)
			bits = 0;
		munmap((void *)page, page_size());
	}
	frame = bits & PM_PRESENT ? bits & PM_FRAME : 0;
	return frame;
}

/*
 * A huge page of zeros is mapped where memory was only read, and its entries look like those of any huge page. Its frame is not always the same;
 * /proc/kpageflags tells (CAP_SYS_ADMIN). Only pages that lie in their 2 MiB as their frame does can be of a huge page.
 */
static bool is_huge_zero(uint64_t frame, uint64_t at, struct pagemap_memo *memo)
{
	static int fd = -2;
	uint64_t flags = 0, head = frame & ~(HUGE_FRAMES - 1);

	if (((at / page_size()) ^ frame) & (HUGE_FRAMES - 1))
		return false;
	if (head && head == memo->head)
		return memo->zero;
	if (fd == -2)
		fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || pread(fd, &flags, 8, (off_t)(frame * 8)) != 8)
		flags = 0;
	memo->head = head;
	memo->zero = flags & KPF_ZERO_PAGE && flags & KPF_THP;
	return memo->zero;
}

/* What an entry tells. */
#define KNOWN (PG_PRESENT | PG_SWAPPED | PG_FILE | PG_SOFT_DIRTY | PG_PFNZERO)

uint64_t pagemap_categories(uint64_t bits, uint64_t at, struct pagemap_memo *memo)
{
	uint64_t is = 0;

	if (bits & PM_PRESENT)
		is |= PG_PRESENT;
	else if (bits & PM_SWAPPED)
		is |= PG_SWAPPED;
	if (bits & PM_FILE)
		is |= PG_FILE;
	if (bits & PM_SOFT_DIRTY)
		is |= PG_SOFT_DIRTY;
	if (bits & PM_PRESENT && bits & PM_FRAME &&
	    ((bits & PM_FRAME) == zero_frame() || is_huge_zero(bits & PM_FRAME, at, memo)))
		is |= PG_PFNZERO;
	return is;
}

/* The same answers from the classic interface, 8 bytes a page, where there is no ioctl: Linux before 6.7. */
static long scan_classic(int fd, const struct page_scan *what, uint64_t start, uint64_t end,
			 struct page_region *regions, size_t n, uint64_t *next)
{
	uint64_t bits[ENTRIES], page = page_size();
	struct pagemap_memo memo = {0};
	long used = 0;

	if (what->flags)
		return -EOPNOTSUPP;
	if ((what->all_of | what->any_of | what->return_mask) & ~KNOWN)
		return -EINVAL; /* as a kernel does with categories that it hasn't heard of */
	for (uint64_t at = start; at < end;) {
		uint64_t want = (end - at) / page < ENTRIES ? (end - at) / page : ENTRIES;
		ssize_t got = pread(fd, bits, want * 8, (off_t)(at / page * 8));

		if (got < 8) { /* the end of user addresses, or the memory is gone */
			*next = end;
			return got < 0 ? -errno : used;
		}
		for (ssize_t i = 0; i < got / 8; i++, at += page) {
			uint64_t is = pagemap_categories(bits[i], at, &memo),
				 match = is ^ what->inverted, shown = is & what->return_mask;
			struct page_region *last = used ? &regions[used - 1] : NULL;

			if ((match & what->all_of) != what->all_of ||
			    (what->any_of && !(match & what->any_of)))
				continue;
			if (last && last->end == at && last->categories == shown) {
				last->end += page;
				continue;
			}
			if ((size_t)used == n) {
				*next = at;
				return used;
			}
			regions[used++] = (struct page_region){at, at + page, shown};
		}
	}
	*next = end;
	return used;
}

static long scan_ioctl(int fd, const struct page_scan *what, uint64_t start, uint64_t end,
		       struct page_region *regions, size_t n, uint64_t *next)
{
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = what->flags,
		.start = start,
		.end = end,
		.vec = (uintptr_t)regions,
		.vec_len = n,
		.category_inverted = what->inverted,
		.category_mask = what->all_of,
		.category_anyof_mask = what->any_of,
		.return_mask = what->return_mask,
	};
	long got = ioctl(fd, PAGEMAP_SCAN, &arg);

	if (got < 0)
		return -errno;
	*next = arg.walk_end;
	return got;
}

bool pagemap_has_scan(void)
{
	static int known = -1;
	uint64_t next, here = page_down((uintptr_t)&next);
	struct page_scan scan = {.return_mask = PG_PRESENT};
	struct page_region region;
	_cleanup_fd_ int fd = -1;

	if (known < 0) {
		fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
		known = scan_ioctl(fd, &scan, here, here + page_size(), &region, 1, &next) >= 0;
	}
	return known;
}

long pagemap_scan(int pagemap_fd, const struct page_scan *what, uint64_t start, uint64_t end,
		  struct page_region *regions, size_t n, uint64_t *next)
{
	return pagemap_has_scan()
		       ? scan_ioctl(pagemap_fd, what, start, end, regions, n, next)
		       : scan_classic(pagemap_fd, what, start, end, regions, n, next);
}
