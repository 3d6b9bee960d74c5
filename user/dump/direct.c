// SPDX-License-Identifier: GPL-2.0
/*
 * Direct I/O pins a page first and the device writes it later, without any fault: a take in between arms the page, and the copy that
 * follows is too early. At the freeze every read() has ended, so what was taken while such a process ran is compared once more.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "dump/internal.h"

static bool is_direct(int dir_fd, const char *name)
{
	_cleanup_free_ char *text = NULL;
	const char *flags;

	if (io_read_file(dir_fd, name, &text, NULL)) /* closed meanwhile */
		return false;
	flags = strstr(text, "flags:");
	return flags && strtoul(flags + 6, NULL, 8) & O_DIRECT;
}

bool proc_uses_direct_io(const struct dump_proc *p)
{
	int fd = openat(p->src.target->proc_fd, "fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	bool found = false;

	if (!dir && fd >= 0)
		close(fd);
	for (struct dirent *e; dir && !found && (e = readdir(dir));)
		found = e->d_name[0] != '.' && is_direct(dirfd(dir), e->d_name);
	if (dir)
		closedir(dir);
	return found;
}
