/* SPDX-License-Identifier: GPL-2.0 */
/* Between the files of "vmas". */
#ifndef ICP_STATE_VMAS_H
#define ICP_STATE_VMAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* What smaps says of a mapping besides what maps does. */
struct vma_flags {
	uint64_t start;
	uint32_t prot;
	unsigned pkey;
	const char *text; /* two letters each, a blank between */
	size_t len;
};

bool vmas_has_flag(const char *flags, size_t len, const char *flag);
/* Refuse what can't be restarted. */
int vmas_check(const struct vma_flags *f) _must_use_;

#endif
