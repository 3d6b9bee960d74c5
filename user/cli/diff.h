/* SPDX-License-Identifier: GPL-2.0 */
/* Between cmd_diff.c and diff_symbols.c. */
#ifndef ICP_CLI_DIFF_H
#define ICP_CLI_DIFF_H

#include "cli/cli_repo.h"

/* A process in two versions. */
struct diff_pair {
	struct reader *reader;
	const Icp__Process *a, *b; /* NULL: not in that version */
	struct ctl *ca, *cb;	   /* never NULL; empty for a process that is not there */
	uint32_t page_size;
	struct ctl_diffs diffs;
};

struct changed_symbol {
	char *name;
	const char *path;	/* of the manifest */
	uint64_t address, size; /* bytes */
	uint64_t differ;	/* bytes that differ, at least one */
	uint64_t first;		/* offset of the first of those in the variable */
};
struct nameless {
	const char *path; /* of the manifest */
	char why[128];
};
struct changed_symbols {
	VEC(struct changed_symbol) found;
	VEC(struct nameless)
	nameless; /* files with changed data whose names are not to be had */
};

/*
 * The variables of the ELF files mapped in both versions that differ. The file on disk must have
 * the build id that the version has.
 */
int diff_symbols(const struct diff_pair *pair, struct changed_symbols *out) _must_use_;
void changed_symbols_free(struct changed_symbols *s);

const Icp__Vma *diff_vma_at(const Icp__Process *p, uint64_t address); /* @p may be NULL */

#endif
