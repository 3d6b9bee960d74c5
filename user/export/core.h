/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A process of a version as an ELF core file, for gdb. Needs the repository only, not the process.
 *
 * What is in it: all threads with all register sets, and every page that the image holds; memory
 * that was never touched reads as zeros. Of file mappings the pages that the process changed are in
 * the image; the others are taken from the file where it still is what it was (a build id of the
 * same size, or the same size and time of change) and where gdb wants them in the core: between
 * changed pages, and the first page, which leads to the build id. The rest is left to gdb, which
 * finds it by NT_FILE.
 */
#ifndef ICP_EXPORT_CORE_H
#define ICP_EXPORT_CORE_H

#include "image/repo.h"

struct core_config {
	uint32_t version;
	uint32_t pid;	  /* 0: the only process of the version that has memory */
	const char *path; /* of the core, made with mode 0600 */
	bool force;	  /* replace a file of that name */
};

struct core_result {
	uint32_t pid;
	size_t threads, segments;
	uint64_t memory;     /* bytes of address space described */
	uint64_t image_data; /* bytes from page files */
	uint64_t file_data;  /* bytes from mapped files */
	uint64_t size;	     /* of the core; sparse */
	bool no_auxv; /* not in the image: gdb can't place a position-independent program */
	struct {
		char **data;
		size_t n, cap;
	} changed; /* mapped files that are not any more what they were, or gone */
};

/*
 * Write the core. FILE appears whole and durable, or not at all; another file of that name is
 * refused (-EEXIST) without @force. Bounded memory: the control structure and 1 MiB.
 * @out is freed by core_result_free(), also after a failure.
 */
int core_export(struct repo *r, const struct core_config *config,
		struct core_result *out) _must_use_;
void core_result_free(struct core_result *r);
#define _cleanup_core_result_ _cleanup_(core_result_free)

#endif
