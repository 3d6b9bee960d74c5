// SPDX-License-Identifier: GPL-2.0
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int io_open_unseen(int dirfd, const char *path, int flags)
{
	int fd = openat(dirfd, path, O_RDONLY | O_NOATIME | O_CLOEXEC | flags);

	/* somebody else's, without CAP_FOWNER */
	return fd < 0 && errno == EPERM ? openat(dirfd, path, O_RDONLY | O_CLOEXEC | flags)
					: fd;
}

int io_read_all(int fd, char **data, size_t *len)
{
	_cleanup_free_ char *buf = NULL;
	size_t used = 0, cap = 0;

	for (;;) {
		ssize_t got;

		if (cap - used < 4096) {
			char *grown = realloc(buf, cap ? cap * 2 : 8192);

			if (!grown)
				return -ENOMEM;
			buf = grown;
			cap = cap ? cap * 2 : 8192;
		}
		got = read(fd, buf + used, cap - used - 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (!got)
			break;
		used += (size_t)got;
	}
	buf[used] = 0;
	if (len)
		*len = used;
	*data = take_ptr(buf);
	return 0;
}

int io_read_file(int dirfd, const char *path, char **data, size_t *len)
{
	_cleanup_fd_ int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return io_read_all(fd, data, len);
}

int io_read_full(int fd, void *data, size_t len)
{
	for (char *at = data; len;) {
		ssize_t got = read(fd, at, len);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -ENODATA;
		at += got;
		len -= (size_t)got;
	}
	return 0;
}

int io_pread_full(int fd, void *data, size_t len, off_t at)
{
	for (char *to = data; len;) {
		ssize_t got = pread(fd, to, len, at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -ENODATA;
		to += got;
		at += got;
		len -= (size_t)got;
	}
	return 0;
}

int io_write_full(int fd, const void *data, size_t len)
{
	for (const char *at = data; len;) {
		ssize_t put = write(fd, at, len);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		at += put;
		len -= (size_t)put;
	}
	return 0;
}

int io_pwrite_full(int fd, const void *data, size_t len, off_t at)
{
	for (const char *from = data; len;) {
		ssize_t put = pwrite(fd, from, len, at);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		from += put;
		at += put;
		len -= (size_t)put;
	}
	return 0;
}
