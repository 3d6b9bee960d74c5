/* SPDX-License-Identifier: GPL-2.0 */
/* CLOCK_MONOTONIC, the clock of the eBPF events (bpf_ktime_get_ns()) and of every measurement. */
#ifndef ICP_BASE_CLOCK_H
#define ICP_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

#endif
