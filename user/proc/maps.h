/* SPDX-License-Identifier: GPL-2.0 */
/* The VMAs of a process, as /proc/PID/maps tells them. Reading it takes no mmap_lock of the target. */
#ifndef ICP_PROC_MAPS_H
#define ICP_PROC_MAPS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/vec.h"
#include "proc/target.h"

enum vma_kind {
	VMA_ANON,	  /* private anonymous, heap and stack included */
	VMA_FILE_PRIVATE, /* private file mapping: written pages are the process's own */
	VMA_FILE_SHARED,  /* shared file mapping, memfd, shared anonymous memory (/dev/zero) */
	VMA_SHM,	  /* System V segment: inode is the shmid */
	VMA_SPECIAL,	  /* vdso, vvar, vsyscall, devices, kernel buffers: can't be tracked */
};

struct vma {
	uint64_t start, end; /* bytes, page aligned, [start, end) */
	uint64_t offset;     /* bytes into the file or segment */
	uint64_t inode;
	uint32_t dev_major, dev_minor;
	uint32_t prot; /* PROT_READ | PROT_WRITE | PROT_EXEC */
	enum vma_kind kind;
	bool shared;	  /* MAP_SHARED */
	bool deleted;	  /* the name ended in " (deleted)", which is cut off */
	const char *name; /* path, "[heap]", "[anon:..]"; "" for none; owned by the maps */
};

struct maps {
	struct vma *data; /* sorted by address */
	size_t n, cap;
	char *text; /* storage of the names */
};

/* Read the maps of @t; -ESRCH (bare) when it has no memory any more. Freed by maps_free(). */
int maps_read(const struct target *t, struct maps *out) _must_use_;
void maps_free(struct maps *maps);
#define _cleanup_maps_ _cleanup_(maps_free)

/*
 * Private mappings of a deleted file: nobody else keeps its bytes for long, so they count as
 * the process's own, also where it never wrote.
 */
bool vma_keeps_file(const struct vma *v);

/* The VMA that holds @addr, or NULL. */
const struct vma *maps_find(const struct maps *maps, uint64_t addr);

#endif
