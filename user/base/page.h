/* SPDX-License-Identifier: GPL-2.0 */
/* The page size is the kernel's to choose: 4 KiB on x86-64, up to 64 KiB on arm64. */
#ifndef ICP_BASE_PAGE_H
#define ICP_BASE_PAGE_H

#include <stdint.h>
#include <unistd.h>

static inline uint64_t page_size(void)
{
	static uint64_t size;

	if (!size)
		size = (uint64_t)sysconf(_SC_PAGESIZE);
	return size;
}

static inline uint64_t page_down(uint64_t addr)
{
	return addr & ~(page_size() - 1);
}

#endif
