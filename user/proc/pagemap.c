// SPDX-License-Identifier: GPL-2.0
#include "proc/pagemap.h"

#include <errno.h>
#include <sys/ioctl.h>

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

long pagemap_scan(int pagemap_fd, const struct page_scan *what, uint64_t start, uint64_t end,
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
	long got = ioctl(pagemap_fd, PAGEMAP_SCAN, &arg);

	if (got < 0)
		return -errno;
	*next = arg.walk_end;
	return got;
}
