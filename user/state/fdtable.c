// SPDX-License-Identifier: GPL-2.0
/* What a process has open, from /proc. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "state/files.h"

#define MEM_MAJOR 1

static const struct {
	const char *prefix;
	enum file_kind kind;
} anonymous[] = {
	{"anon_inode:[eventpoll]", FILE_EPOLL},
	{"anon_inode:[eventfd]", FILE_EVENTFD},
	{"anon_inode:[timerfd]", FILE_TIMERFD},
	{"anon_inode:[signalfd]", FILE_SIGNALFD},
	{"anon_inode:[pidfd]", FILE_PIDFD},
	{"pidfd:", FILE_PIDFD},
	{"anon_inode:[userfaultfd]", FILE_USERFAULTFD},
	{"anon_inode:[io_uring]", FILE_IO_URING},
	{"anon_inode:[perf_event]", FILE_PERF_EVENT},
	{"anon_inode:bpf", FILE_BPF},
	{"anon_inode:inotify", FILE_INOTIFY},
	{"anon_inode:[fanotify]", FILE_FANOTIFY},
};

static enum file_kind device_kind(const struct stat *st)
{
	unsigned maj = major(st->st_rdev), min = minor(st->st_rdev);

	/* Documentation/admin-guide/devices.txt */
	if (maj == MEM_MAJOR && (min == 3 || min == 5 || min == 7 || min == 8 || min == 9))
		return FILE_MEMORY_DEVICE;
	if (maj == 5 && min == 2)
		return FILE_PTY_MASTER;
	if (maj == 4 || maj == 5 || (maj >= 136 && maj <= 143))
		return FILE_TERMINAL;
	return FILE_OTHER_DEVICE;
}

static bool begins(const char *text, const char *with)
{
	return !strncmp(text, with, strlen(with));
}

enum file_kind file_classify(const char *path, const struct stat *st, uint32_t flags)
{
	if (flags & O_PATH)
		return FILE_PATH;
	if (path[0] != '/') {
		for (size_t i = 0; i < sizeof(anonymous) / sizeof(*anonymous); i++)
			if (begins(path, anonymous[i].prefix))
				return anonymous[i].kind;
		if (begins(path, "pipe:[") && S_ISFIFO(st->st_mode))
			return FILE_PIPE;
		return S_ISSOCK(st->st_mode) ? FILE_SOCKET
		       : strchr(path, ':')   ? FILE_NAMESPACE
					     : FILE_OTHER;
	}
	if (begins(path, "/memfd:") && major(st->st_dev) == 0)
		return FILE_MEMFD;
	/* a process has directories there, too */
	if (begins(path, "/proc/") && major(st->st_dev) == 0 &&
	    (!S_ISDIR(st->st_mode) || (path[6] >= '1' && path[6] <= '9')))
		return FILE_PROC;
	switch (st->st_mode & S_IFMT) {
	case S_IFREG:
		return FILE_REGULAR;
	case S_IFDIR:
		return FILE_DIRECTORY;
	case S_IFIFO:
		return FILE_FIFO;
	case S_IFCHR:
		return device_kind(st);
	case S_IFBLK:
		return FILE_OTHER_DEVICE;
	case S_IFSOCK:
		return FILE_SOCKET;
	}
	return FILE_OTHER;
}

/* Of a socket, by its protocol's name: no look at the socket itself is needed. */
static enum file_kind socket_kind(int fds, const char *name)
{
	static const struct {
		const char *protocol;
		enum file_kind kind;
	} kinds[] = {
		{"TCP", FILE_TCP},	    {"TCPv6", FILE_TCP},       {"UDP", FILE_UDP},
		{"UDPv6", FILE_UDP},	    {"NETLINK", FILE_NETLINK}, {"UNIX", FILE_UNIX},
		{"UNIX-STREAM", FILE_UNIX},
	};
	char path[48], protocol[32] = "";

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", fds, name);
	if (getxattr(path, "system.sockprotoname", protocol, sizeof(protocol) - 1) < 0)
		return FILE_SOCKET;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (!strcmp(protocol, kinds[i].protocol))
			return kinds[i].kind;
	return FILE_SOCKET;
}

/* A file may have a name that ends like that of a deleted one. */
static int named_deleted(struct fd_info *f)
{
	char *path;
	struct stat st;

	if (asprintf(&path, "%s (deleted)", f->path) < 0)
		return -ENOMEM;
	if (lstat(path, &st) || st.st_ino != f->st.st_ino || st.st_dev != f->st.st_dev) {
		free(path);
		return 0;
	}
	free(f->path);
	f->path = path;
	f->deleted = false;
	return 0;
}

/* Bare -ENOENT: it was closed meanwhile (of a running process). */
static int read_fd(int fds, int infos, int fd, struct fd_info *out)
{
	char name[16];
	int err;

	out->fd = fd;
	snprintf(name, sizeof(name), "%d", fd);
	err = io_read_file(infos, name, &out->fdinfo, NULL);
	if (!err)
		err = procfs_link(fds, name, &out->path, &out->deleted);
	if (!err && fstatat(fds, name, &out->st, 0))
		err = -errno;
	if (!err && out->deleted && out->st.st_nlink)
		err = named_deleted(out);
	if (err == -ENOENT)
		return err;
	if (err)
		return fail(err, "look at descriptor %d", fd);
	out->pos = (int64_t)procfs_number(out->fdinfo, "pos", 10);
	out->flags = (uint32_t)procfs_number(out->fdinfo, "flags", 8);
	out->mnt_id = (uint32_t)procfs_number(out->fdinfo, "mnt_id", 10);
	out->tag = procfs_number(out->fdinfo, "eventfd-id", 10);
	out->kind = file_classify(out->path, &out->st, out->flags);
	if (out->kind == FILE_SOCKET)
		out->kind = socket_kind(fds, name);
	return 0;
}

static void free_one(struct fd_info *f)
{
	free(f->path);
	free(f->fdinfo);
}

int fd_info_read(const struct target *t, int fd, struct fd_info *out)
{
	_cleanup_fd_ int infos = openat(t->proc_fd, "fdinfo", O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_fd_ int fds = openat(t->proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fds < 0 || infos < 0)
		return fail(-errno, "list its descriptors");
	return read_fd(fds, infos, fd, out);
}

int fd_list_read(const struct target *t, struct fd_list *out)
{
	_cleanup_fd_ int infos = openat(t->proc_fd, "fdinfo", O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_dir_ DIR *dir = NULL;
	int fds = openat(t->proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	dir = fds < 0 ? NULL : fdopendir(fds);
	if (!dir || infos < 0)
		return fail(-errno, "list its descriptors");
	for (struct dirent *e; (e = readdir(dir));) {
		struct fd_info *slot;
		int err;

		if (e->d_name[0] == '.')
			continue;
		slot = vec_push(out);
		if (!slot)
			return fail(-ENOMEM, "list its descriptors");
		err = read_fd(fds, infos, atoi(e->d_name), slot);
		if (err == -ENOENT) {
			free_one(slot);
			out->n--;
		} else if (err) {
			return err;
		}
	}
	return 0;
}

void fd_list_free(struct fd_list *list)
{
	vec_each (f, list)
		free_one(f);
	vec_free(list);
}
