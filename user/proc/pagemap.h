/* SPDX-License-Identifier: GPL-2.0 */
/*
 * PAGEMAP_SCAN (Linux >= 6.7). Declared here because Debian 12's headers are 6.1's; source: include/uapi/linux/fs.h
 * and Documentation/admin-guide/mm/pagemap.rst of 6.7.
 */
#ifndef ICP_PROC_PAGEMAP_H
#define ICP_PROC_PAGEMAP_H

#include <stdint.h>

#include "base/cleanup.h"

#define PG_WPALLOWED (1ull << 0)
#define PG_WRITTEN (1ull << 1)
#define PG_FILE (1ull << 2)
#define PG_PRESENT (1ull << 3)
#define PG_SWAPPED (1ull << 4)
#define PG_PFNZERO (1ull << 5)
#define PG_HUGE (1ull << 6)
#define PG_SOFT_DIRTY (1ull << 7)

#define PG_SCAN_WP (1ull << 0)	     /* write-protect what matches, in the same step */
#define PG_SCAN_CHECK_WP (1ull << 1) /* -EPERM on a VMA that is not registered for WP_ASYNC */

struct page_region {
	uint64_t start, end; /* bytes */
	uint64_t categories; /* of those asked for in return_mask */
};

struct page_scan {
	uint64_t flags;	   /* PG_SCAN_* */
	uint64_t inverted; /* categories whose sense is turned before matching */
	uint64_t all_of,
		any_of; /* a page matches when it has all of these and one of those (0: no condition) */
	uint64_t return_mask;
};

/*
 * Scan [start, end) and fill at most @n regions. Returns how many were filled, or a bare negative errno;
 * *@next is where the scan stopped (== end when it is complete).
 */
long pagemap_scan(int pagemap_fd, const struct page_scan *what, uint64_t start, uint64_t end,
		  struct page_region *regions, size_t n, uint64_t *next) _must_use_;

#endif
