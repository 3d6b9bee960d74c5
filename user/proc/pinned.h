/* SPDX-License-Identifier: GPL-2.0 */
/* Memory that io_uring has pinned (registered buffers): devices and the kernel write it past the page tables. */
#ifndef ICP_PROC_PINNED_H
#define ICP_PROC_PINNED_H

#include <stdint.h>

#include "base/vec.h"
#include "proc/target.h"

struct pinned_range {
	uint64_t start, end; /* bytes, widened to whole pages */
};

struct pinned {
	struct pinned_range *data; /* in no order, may overlap */
	size_t n, cap;
};

/*
 * Append the pinned ranges of @t. Costs one read of /proc/PID/status while nothing is pinned. A ring that is shared with
 * another process may add that one's addresses. A target that is gone has none.
 */
int pinned_read(const struct target *t, struct pinned *out) _must_use_;

#endif
