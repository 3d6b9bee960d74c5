/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Scope-bound cleanup. A variable marked _cleanup_(x) is released on every return path;
 * take_fd()/take_ptr() hand the resource on and leave an empty value behind.
 */
#ifndef ICP_BASE_CLEANUP_H
#define ICP_BASE_CLEANUP_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(fn) __attribute__((cleanup(fn)))
#define _must_use_ __attribute__((warn_unused_result))

static inline void cleanup_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_free(void *ptr)
{
	free(*(void **)ptr);
}

static inline void cleanup_file(FILE **file)
{
	if (*file)
		fclose(*file);
}

static inline void cleanup_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

#define _cleanup_fd_ _cleanup_(cleanup_fd)
#define _cleanup_free_ _cleanup_(cleanup_free)
#define _cleanup_file_ _cleanup_(cleanup_file)
#define _cleanup_dir_ _cleanup_(cleanup_dir)

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#define take_ptr(ptr)                                                                          \
	({                                                                                     \
		__typeof__(ptr) *slot_ = &(ptr);                                               \
		__typeof__(ptr) taken_ = *slot_;                                               \
		*slot_ = NULL;                                                                 \
		taken_;                                                                        \
	})

#endif
