// SPDX-License-Identifier: GPL-2.0
/* What a restart opens again by its name: directories, memory devices, O_PATH. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "state/fdkind.h"

static int check(struct state_process *p, const struct fd_info *f)
{
	return f->deleted || !f->st.st_nlink
		       ? refuse(-EOPNOTSUPP, "%s that was deleted", fd_kind(f->kind)->text)
		       : 0;
}

int fd_open_path(const Icp__OpenFile *f, uint32_t flags)
{
	char buf[PATH_MAX];
	const char *path = fd_path_of(f, buf);
	_cleanup_fd_ int at = -1, fd = -1;
	struct stat st;

	if (path[0] != '/' || strlen(path) != f->path.len)
		return refuse(-EBADMSG, "the open file '%s' is no path", path);
	if (f->deleted)
		return refuse(-EOPNOTSUPP, "%s was deleted", path);
	at = open(path, O_PATH | O_CLOEXEC);
	if (at < 0 || fstat(at, &st))
		return fail(-errno, "open %s", path);
	if ((st.st_mode & S_IFMT) != (f->mode & S_IFMT) ||
	    (S_ISCHR(st.st_mode) && st.st_rdev != makedev(f->rdev >> 32, (uint32_t)f->rdev)))
		return refuse(-ESTALE, "%s is something else now", path);
	fd = flags & O_PATH ? open(path, O_CLOEXEC | (int)(flags & FD_KEPT_FLAGS))
			    : fd_reopen(at, flags);
	if (fd < 0)
		return fail(-errno, "open %s", path);
	if ((S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) && !(flags & O_PATH) && f->offset &&
	    lseek(fd, f->offset, SEEK_SET) != f->offset)
		return fail(-errno, "seek in %s", path);
	return take_fd(&fd);
}

static int open_file(struct restore_job *job, const Icp__OpenFile *f)
{
	return fd_open_path(f, f->flags & ~(uint32_t)O_PATH);
}

static int open_o_path(struct restore_job *job, const Icp__OpenFile *f)
{
	return fd_open_path(f, f->flags | O_PATH);
}

const struct fd_kind fd_directory = {
	.kind = FILE_DIRECTORY, .text = "a directory", .check = check, .open = open_file};
const struct fd_kind fd_memory_device = {.kind = FILE_MEMORY_DEVICE,
					 .text = "a memory device",
					 .check = check,
					 .open = open_file};
const struct fd_kind fd_path = {
	.kind = FILE_PATH, .text = "a path", .check = check, .open = open_o_path};
