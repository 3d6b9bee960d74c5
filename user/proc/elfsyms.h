/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The functions of one ELF file, sorted once for binary search. The file is untrusted input: it
 * is read through libelf only (never mapped: a file that is truncated meanwhile must not kill
 * us), and every size is checked.
 */
#ifndef ICP_PROC_ELFSYMS_H
#define ICP_PROC_ELFSYMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct elfsyms;

/*
 * Read .symtab and .dynsym: STT_FUNC and STT_GNU_IFUNC, whatever the binding. A file without
 * symbols gives an empty table. Bare errors: -ENOEXEC when it is no ELF file or a broken one,
 * -ENOMEM. @fd stays the caller's; @data is not kept.
 */
int elfsyms_read_fd(int fd, struct elfsyms **out) _must_use_;
int elfsyms_read_mem(const void *data, size_t len, struct elfsyms **out) _must_use_;
void elfsyms_free(struct elfsyms *e);

static inline void cleanup_elfsyms(struct elfsyms **e)
{
	elfsyms_free(*e);
}
#define _cleanup_elfsyms_ _cleanup_(cleanup_elfsyms)

/* Where the code at this offset of the file is linked to (an executable PT_LOAD holds it);
 * false when nowhere. */
bool elfsyms_vaddr(const struct elfsyms *e, uint64_t file_offset, uint64_t *vaddr);

/*
 * The function that holds @vaddr, or NULL; owned by @e, printable ASCII (other bytes are '?'),
 * without "@VERSION". Of functions inside each other the innermost. Of aliases: an exported one
 * (global or weak) before a local one, then the one with the fewest leading underscores, then
 * the shortest, then the first in byte order. A function without a size (assembler) reaches to
 * the next function, but not beyond its section.
 */
const char *elfsyms_find(const struct elfsyms *e, uint64_t vaddr, uint64_t *offset);

size_t elfsyms_count(const struct elfsyms *e);

#endif
