/* SPDX-License-Identifier: GPL-2.0 */
/* Between cmd_diff.c, diff_symbols.c and diff_print.c. */
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

/* ---- diff_print.c: text to stdout, or members of @o (not 0: no memory) ---- */

struct tally {
	uint64_t changed, added, gone;
};

/* Pages in a row that differ alike, in one mapping. */
struct piece {
	uint64_t start, n; /* bytes, pages */
	enum ctl_change what;
	const Icp__Vma *vma; /* NULL: none */
	bool of_a;	     /* the mapping is one of version A */
};

struct pieces {
	struct piece *data;
	size_t n, cap;
};

void diff_tally_add(struct tally *t, enum ctl_change what, uint64_t n);
void diff_print_tally(const struct tally *t);
void diff_print_pages(const struct pieces *list, uint32_t page_size);
void diff_print_symbols(const struct changed_symbols *s);
int diff_json_tally(json_t *o, const struct tally *t);
int diff_json_pages(json_t *o, const struct pieces *list);
int diff_json_symbols(json_t *o, const struct changed_symbols *s);
/* These want the pieces sorted by mapping. */
void diff_print_vmas(const struct pieces *list);
int diff_json_vmas(json_t *o, const struct pieces *list);

#endif
