/* SPDX-License-Identifier: GPL-2.0 */
/* Text of /proc. */
#ifndef ICP_STATE_PROCFS_H
#define ICP_STATE_PROCFS_H

#include <stdint.h>

#include "base/err.h"
#include "proc/target.h"

/* The value of the line "@key:" (after blanks), or NULL; it ends with the line. */
const char *procfs_field(const char *text, const char *key);
uint64_t procfs_number(const char *text, const char *key, int base); /* 0 without it */
/* All numbers of the line, at most @max. Returns how many there are. */
size_t procfs_numbers(const char *text, const char *key, uint32_t *out, size_t max);

/* Fields @first..@last (as numbered in proc_pid_stat(5), 3 at least) of the text of a stat
 * file. */
int procfs_stat(const char *text, unsigned first, unsigned last, int64_t *out) _must_use_;

/* The text of a file of the target, to be freed; NULL when it can't be read. */
char *procfs_text(const struct target *t, const char *name);

/* Where a link of the target's /proc directory leads to, to be freed; " (deleted)" is cut
 * off and told. */
int procfs_link(int dirfd, const char *name, char **out, bool *deleted) _must_use_;

/* A copy that is valid UTF-8 ('?' for what isn't): for people. NULL without memory. */
char *procfs_utf8(const char *text);

#endif
