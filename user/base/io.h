/* SPDX-License-Identifier: GPL-2.0 */
/* Whole reads and writes. All restart after EINTR; none sets an error message. */
#ifndef ICP_BASE_IO_H
#define ICP_BASE_IO_H

#include <stddef.h>
#include <sys/types.h>

#include "base/cleanup.h"

/*
 * Read a whole file relative to @dirfd (AT_FDCWD for none) into a new, NUL-terminated buffer that the
 * caller frees. Works on files of unknown size such as those of /proc. @len may be NULL.
 * Returns 0 or a negative errno.
 */
int io_read_file(int dirfd, const char *path, char **data, size_t *len) _must_use_;

/* Read to the end of @fd, as above. */
int io_read_all(int fd, char **data, size_t *len) _must_use_;

/* openat(2) for reading, without a trace in the times of the file where that is allowed. Bare -1 with errno. */
int io_open_unseen(int dirfd, const char *path, int flags) _must_use_;

/* Read or write exactly @len bytes; -ENODATA when the file ends early. */
int io_read_full(int fd, void *data, size_t len) _must_use_;
int io_pread_full(int fd, void *data, size_t len, off_t at) _must_use_;
int io_write_full(int fd, const void *data, size_t len) _must_use_;
int io_pwrite_full(int fd, const void *data, size_t len, off_t at) _must_use_;

#endif
