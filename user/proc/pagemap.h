/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is in a process's page tables. PAGEMAP_SCAN (Linux >= 6.7). Declared here because Debian 12's headers are 6.1's; source: include/uapi/linux/fs.h
 * and Documentation/admin-guide/mm/pagemap.rst of 6.7.
 */
#ifndef ICP_PROC_PAGEMAP_H
#define ICP_PROC_PAGEMAP_H

#include <stdbool.h>
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
#define PG_GUARD (1ull << 8) /* Linux >= 6.15; before it -EINVAL */

#define PG_SCAN_WP (1ull << 0)	     /* write-protect what matches, in the same step */
#define PG_SCAN_CHECK_WP (1ull << 1) /* -EPERM on a VMA that is not registered for WP_ASYNC */

/* An entry of /proc/PID/pagemap: Documentation/admin-guide/mm/pagemap.rst */
#define PM_FRAME ((1ull << 55) - 1) /* of a present page; zero without CAP_SYS_ADMIN */
#define PM_SOFT_DIRTY (1ull << 55)
#define PM_FILE (1ull << 61) /* a file's page, or shared anonymous */
#define PM_SWAPPED (1ull << 62)
#define PM_PRESENT (1ull << 63)
/* The 2 MiB that pagemap_categories() asked about last: all zero at first, and for one walk. */
struct pagemap_memo {
	uint64_t head; /* frame */
	bool zero;
};

/* The PG_ categories of the entry of the page at @at, as far as it tells: no WPALLOWED, WRITTEN, HUGE. */
uint64_t pagemap_categories(uint64_t entry, uint64_t at, struct pagemap_memo *memo);

/* Does this kernel have PAGEMAP_SCAN? Asked by using it. */
bool pagemap_has_scan(void);

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
 * *@next is where the scan stopped (== end when it is complete). Where there is no PAGEMAP_SCAN the entries are read one by
 * one: then without flags only (-EOPNOTSUPP), and only with the categories that pagemap_categories() knows (-EINVAL).
 */
long pagemap_scan(int pagemap_fd, const struct page_scan *what, uint64_t start, uint64_t end,
		  struct page_region *regions, size_t n, uint64_t *next) _must_use_;

#endif
