// SPDX-License-Identifier: GPL-2.0
/*
 * Names of Unix sockets. A name is the very bytes that were given to bind(2); the file that it
 * made may have been deleted since, or be found elsewhere from where we stand.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "state/fd_unix.h"

#ifndef SIOCUNIXFILE
#define SIOCUNIXFILE 0x89e0 /* linux/un.h: SIOCPROTOPRIVATE */
#endif
#define NAME_MAX_LEN sizeof(((struct sockaddr_un *)0)->sun_path)

struct name {
	int fd;
	struct sockaddr_un address;
	socklen_t len;
	char root[PATH_MAX], dir[PATH_MAX]; /* "": where we are */
};

static int set_name(struct name *n, int fd, const ProtobufCBinaryData *name)
{
	*n = (struct name){.fd = fd, .address = {.sun_family = AF_UNIX}};
	if (!name->len || name->len > NAME_MAX_LEN)
		return refuse(-EBADMSG, "the name of a socket makes no sense");
	memcpy(n->address.sun_path, name->data, name->len);
	n->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + name->len);
	return 0;
}

static bool is_abstract(const ProtobufCBinaryData *name)
{
	return name->len && !name->data[0];
}

static int bind_it(const struct name *n)
{
	return bind(n->fd, (const struct sockaddr *)&n->address, n->len) ? errno : 0;
}

/* In the process of unix_as(), whose root, directory and umask are its own. */
static int bind_there(const void *arg)
{
	const struct name *n = arg;

	if ((*n->root && chroot(n->root)) || (*n->dir && chdir(n->dir)))
		return errno;
	umask(0777);
	return bind_it(n);
}

/* In an empty root: the directories that the name wants, until it is bound. */
static int bind_nowhere(const void *arg)
{
	const struct name *n = arg;
	char path[NAME_MAX_LEN + 1] = "";
	int err;

	memcpy(path, n->address.sun_path, NAME_MAX_LEN);
	if (chroot(n->root) || chdir("/"))
		return errno;
	for (char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
		*at = 0;
		if (mkdir(path, 0700) && errno != EEXIST)
			return errno;
		*at = '/';
	}
	err = bind_it(n);
	unlink(path);
	for (char *at = strrchr(path + 1, '/'); at; at = strrchr(path + 1, '/')) {
		*at = 0;
		rmdir(path);
	}
	return err;
}

static const char *shown(const struct name *n, char text[NAME_MAX_LEN + 2])
{
	snprintf(text, NAME_MAX_LEN + 2, "%s%.*s", n->address.sun_path[0] ? "" : "@",
		 (int)NAME_MAX_LEN - 1, n->address.sun_path + !n->address.sun_path[0]);
	return text;
}

static int bind_abstract(const struct name *n)
{
	char text[NAME_MAX_LEN + 2];
	int err = bind_it(n);

	if (err == EADDRINUSE)
		return refuse(-err, "the name %s of a socket is taken by another process",
			      shown(n, text));
	return err ? fail(-err, "bind a socket to %s", shown(n, text)) : 0;
}

int unix_bind_hidden(int fd, const ProtobufCBinaryData *name)
{
	char dir[] = "/tmp/icp-bpf-XXXXXX", text[NAME_MAX_LEN + 2];
	struct name n;
	int err = set_name(&n, fd, name);

	if (err || is_abstract(name))
		return err ? err : bind_abstract(&n);
	if (!mkdtemp(dir))
		return fail(-errno, "make a directory in /tmp");
	snprintf(n.root, sizeof(n.root), "%s", dir);
	err = unix_as(NULL, bind_nowhere, &n);
	rmdir(dir);
	return err ? fail(err, "bind a socket to %s", shown(&n, text)) : 0;
}

/* Where one must stand for the name to lead to the file: below the root, or a directory. */
static void place_for(struct name *n, const char *file)
{
	const char *name = n->address.sun_path;
	size_t len = strnlen(name, NAME_MAX_LEN), all = strlen(file);

	while (len > 2 && name[0] == '.' && name[1] == '/') {
		name += 2;
		len -= 2;
	}
	if (len >= all || strncmp(file + all - len, name, len))
		return;
	if (*name == '/')
		snprintf(n->root, sizeof(n->root), "%.*s", (int)(all - len), file);
	else
		snprintf(n->dir, sizeof(n->dir), "%.*s", (int)(all - len), file);
}

/* A connection attempt of another type is not noticed by who listens. */
static bool is_dead(const char *path)
{
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	_cleanup_fd_ int file = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", file);
	return fd >= 0 && file >= 0 &&
	       connect(fd, (struct sockaddr *)&address, sizeof(address)) &&
	       errno == ECONNREFUSED;
}

static int make_way(const char *path)
{
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : fail(-errno, "look at the socket %s", path);
	if (!S_ISSOCK(st.st_mode))
		return refuse(-EEXIST, "%s, which was a socket, is something else now", path);
	if (!is_dead(path))
		return refuse(-EADDRINUSE, "the socket %s is used by another process", path);
	return unlink(path) ? fail(-errno, "replace the socket %s", path) : 0;
}

static bool leads_to(int fd, const char *path)
{
	_cleanup_fd_ int file = ioctl(fd, SIOCUNIXFILE, 0);
	struct stat a, b;

	return file < 0 || (!fstat(file, &a) && !lstat(path, &b) && a.st_ino == b.st_ino &&
			    a.st_dev == b.st_dev);
}

static int bind_file(struct name *n, const Icp__UnixSocket *u)
{
	char path[PATH_MAX], text[NAME_MAX_LEN + 2];
	int err;

	snprintf(path, sizeof(path), "%.*s", (int)u->file.len, (const char *)u->file.data);
	if (path[0] != '/' || strlen(path) != u->file.len)
		return refuse(-EBADMSG, "the place of a socket makes no sense");
	err = make_way(path);
	if (err)
		return err;
	place_for(n, path);
	err = unix_as(NULL, bind_there, n);
	if (err)
		return fail(err, "bind the socket %s", path);
	if (!leads_to(n->fd, path))
		return refuse(-ESTALE,
			      "the socket %s was bound as %s, which leads elsewhere now", path,
			      shown(n, text));
	if ((lchown(path, u->file_uid, u->file_gid) && errno != EPERM) ||
	    chmod(path, u->file_mode & 07777))
		return fail(-errno, "owner and mode of the socket %s", path);
	return 0;
}

int unix_bind(int fd, const Icp__UnixSocket *u)
{
	struct name n;
	int err;

	if (!u->name.len)
		return 0;
	err = set_name(&n, fd, &u->name);
	if (err)
		return err;
	if (is_abstract(&u->name))
		return bind_abstract(&n);
	return u->file.len ? bind_file(&n, u) : unix_bind_hidden(fd, &u->name);
}

int unix_address(int to, struct sockaddr_un *out, int *keep)
{
	socklen_t len = sizeof(*out);

	if (getsockname(to, (struct sockaddr *)out, &len))
		return fail(-errno, "look at the name of a socket");
	if (len <= offsetof(struct sockaddr_un, sun_path))
		return refuse(-EBADMSG, "a socket without a name can't be connected to");
	if (!out->sun_path[0])
		return (int)len;
	*keep = ioctl(to, SIOCUNIXFILE, 0);
	if (*keep < 0)
		return fail(-errno, "reach a socket by its file (needs CAP_NET_ADMIN)");
	return (int)(offsetof(struct sockaddr_un, sun_path) + 1) +
	       snprintf(out->sun_path, sizeof(out->sun_path), "/proc/self/fd/%d", *keep);
}
