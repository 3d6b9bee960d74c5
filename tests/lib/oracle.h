/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Is a version what the processes hold? Both directions: every page of every mapping that the image is responsible for, and no
 * entry of the image outside of them. Knows nothing of user/dump.
 */
#ifndef ICP_TESTS_ORACLE_H
#define ICP_TESTS_ORACLE_H

#include "image/repo.h"
#include "lib/robust_procs.h"

struct verdict {
	uint64_t processes, pages, entries, wrong;
	char first[512]; /* what is wrong, in words */
};

/*
 * Compare @version with the live processes: @root and its descendants, which must be blocked or stopped. Reads only pages that
 * are populated, and shared memory through its file, so that the target's page tables stay as they are.
 */
void oracle_compare(struct repo *r, uint32_t version, pid_t root, struct verdict *out);
/* A number that stands for all content of a version. */
uint64_t oracle_digest(struct repo *r, uint32_t version);
/* No problem in the version (0: in all). */
void oracle_verify(struct repo *r, uint32_t version);
/* @root and its living descendants. */
size_t oracle_job(pid_t root, pid_t *pids, size_t max);

#endif
