/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The variables of one ELF file: STT_OBJECT symbols in its writable segments (.data, .bss). The
 * file is untrusted input, read through libelf only.
 */
#ifndef ICP_PROC_DATASYMS_H
#define ICP_PROC_DATASYMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct datasym {
	uint64_t vaddr, size; /* as linked; size > 0, vaddr + size does not overflow */
	const char *name;     /* printable ASCII, without "@VERSION" */
};

struct datasyms {
	struct datasym *data; /* by vaddr, each vaddr once; they may overlap */
	size_t n;
	uint8_t build_id[64];
	size_t build_id_len; /* 0: none */
	struct datasyms_priv *priv;
};

/* Bare errors: -ENOEXEC when it is no ELF file or a broken one, -ENOMEM. @fd stays the caller's.
 */
int datasyms_read_fd(int fd, struct datasyms **out) _must_use_;
void datasyms_free(struct datasyms *d);

/* The page of the file where its first segment begins, where that is linked to, and how far the
 * segments reach from there; false when there are none. Pages further on may belong to two. */
bool datasyms_span(const struct datasyms *d, uint64_t page_size, uint64_t *offset,
		   uint64_t *vaddr, uint64_t *size);

static inline void cleanup_datasyms(struct datasyms **d)
{
	datasyms_free(*d);
}
#define _cleanup_datasyms_ _cleanup_(cleanup_datasyms)

#endif
