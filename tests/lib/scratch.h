/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Names for mkstemp() and mkdtemp(). The runner gives each program directories of its own and removes them: what a test
 * leaves there when it fails is gone, and what it leaves when it passes is a failure.
 */
#ifndef ICP_TESTS_SCRATCH_H
#define ICP_TESTS_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SCRATCH_MAX 128

static inline const char *scratch_top(void)
{
	const char *dir = getenv("TMPDIR");

	return dir && *dir ? dir : "/tmp";
}

static inline char *scratch(char path[SCRATCH_MAX], const char *what)
{
	snprintf(path, SCRATCH_MAX, "%s/icp-%s-XXXXXX", scratch_top(), what);
	return path;
}

/* In memory, where there is room for that. */
static inline char *scratch_shm(char path[SCRATCH_MAX], const char *what)
{
	const char *dir = getenv("ICP_TEST_SHM");

	if (!dir)
		dir = access("/dev/shm", W_OK) ? scratch_top() : "/dev/shm";
	snprintf(path, SCRATCH_MAX, "%s/icp-%s-XXXXXX", dir, what);
	return path;
}

#endif
