/* SPDX-License-Identifier: GPL-2.0 */
/* Private to user/export/. */
#ifndef ICP_EXPORT_INTERNAL_H
#define ICP_EXPORT_INTERNAL_H

#include <elf.h>

#include "export/core.h"
#include "proc/maps.h"

/* What the pages of a mapping hold that have no entry in the control structure. */
enum background {
	BACK_ZERO,
	BACK_FILE,
	BACK_UNKNOWN,
};

/* A PT_LOAD. */
struct piece {
	const Icp__Vma *vma;
	uint64_t start, size; /* bytes */
	uint64_t offset;      /* in the core */
	bool stored;	      /* has bytes in the core */
	bool fill;	      /* pages without an entry come from the mapped file */
	bool vdso;	      /* the kernel's own, the same in all processes of this boot */
};

struct core {
	struct repo *repo;
	const struct core_config *config;
	struct core_result *result;
	Icp__Manifest *manifest;
	const Icp__Process *process;
	struct ctl *ctl, *shm; /* of the process; of the segment used last */
	struct reader *reader;
	uint32_t shmid;
	bool *file_same; /* per VMA: its file is still what it was */
	VEC(struct piece) pieces;
	VEC(uint8_t) notes;
	uint64_t notes_offset;
	int fd; /* of the core */
};

/* pieces.c */
/* The control structure that holds the pages of @v (NULL: none) and the number of its first page. */
int core_ctl_of(struct core *c, const Icp__Vma *v, struct ctl **ctl,
		uint64_t *first) _must_use_;
int core_plan(struct core *c) _must_use_;

/* files.c */
/* Is the file of that mapping what it was? */
bool mapped_file_same(const Icp__Vma *v);
/* Open it for reading, or -1. Never a device or the like. */
int mapped_file_open(const Icp__Vma *v);
/* The vdso of this machine, if the image is of this boot and @v has its size; or NULL. */
const void *core_vdso(const struct core *c, const Icp__Vma *v);

/* notes.c */
/* ELF machine of the image, or -EOPNOTSUPP. */
int core_machine(const struct core *c, uint16_t *machine) _must_use_;
int core_notes(struct core *c) _must_use_;

/* xstate_x86_64.c */
#define XSTATE_X86_64_MAX 2696
/* NT_X86_XSTATE in the layout that every gdb understands: its size, or 0 when it is in that already. */
size_t xstate_x86_64(const void *data, size_t len, uint8_t out[XSTATE_X86_64_MAX]);

/* memory.c */
int core_write_memory(struct core *c) _must_use_;

/* output.c: a file that has no name, or a temporary one, until it is complete. */
struct output {
	const char *path;
	char *temporary; /* NULL: none */
	int fd;
	bool force;
};
int output_open(const char *path, bool force, struct output *out) _must_use_;
int output_publish(struct output *o) _must_use_;
void output_close(struct output *o); /* without publishing it nothing is left */

enum background core_background(const struct core *c, const Icp__Vma *v, bool has_entries);

#endif
