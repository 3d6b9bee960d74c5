// SPDX-License-Identifier: GPL-2.0
/* The store in a local directory. Nothing in it follows a symbolic link below that directory.
 */
#include "image/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"

/* Start writing back early, so that the fsync at the end does not find everything still to do.
 */
#define WRITE_BEHIND (8u << 20)
#define TMP_PREFIX ".tmp-"

struct dir_store {
	struct store base;
	int fd;
	int lock_fd;
	char *path;
};

struct dir_put {
	struct store_put base;
	int fd;
	uint64_t written, flushed;
	bool direct, no_direct; /* O_DIRECT is set; the file system refused it */
	char name[PATH_MAX];
};

struct dir_obj {
	struct store_obj base;
	int fd;
	char name[128];
};

static struct dir_store *of(struct store *s)
{
	return (struct dir_store *)s;
}

static int dir_put_open(struct store *s, const char *name, struct store_put **out)
{
	struct dir_put *p = calloc(1, sizeof(*p));

	if (!p)
		return fail(-ENOMEM, "create %s", name);
	p->base.store = s;
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->fd = openat(of(s)->fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		       0600);
	if (p->fd < 0) {
		int err = -errno;

		free(p);
		return err == -EEXIST ? err : fail(err, "create %s/%s", of(s)->path, name);
	}
	*out = &p->base;
	return 0;
}

#define DIRECT_ALIGN 4096u
#define DIRECT_BYTES (256u << 10)

/*
 * Large aligned writes go past the page cache: the pages are not read again soon, and filling the cache costs more than the
 * disk does. Memory file systems have nothing to gain and say so, or copy as before.
 */
static void choose_direct(struct dir_put *p, const struct iovec *iov, int n)
{
	bool want = !p->no_direct && p->written % DIRECT_ALIGN == 0;
	size_t bytes = 0;

	for (int i = 0; i < n; i++) {
		want &= (uintptr_t)iov[i].iov_base % DIRECT_ALIGN == 0 &&
			iov[i].iov_len % DIRECT_ALIGN == 0;
		bytes += iov[i].iov_len;
	}
	want &= bytes >= DIRECT_BYTES;
	if (want == p->direct)
		return;
	if (fcntl(p->fd, F_SETFL, want ? O_DIRECT : 0))
		p->no_direct = true;
	else
		p->direct = want;
}

static int dir_put_write(struct store_put *put, const struct iovec *iov, int n)
{
	struct dir_put *p = (struct dir_put *)put;
	struct iovec part[IOV_MAX];

	choose_direct(p, iov, n);
	while (n > 0) {
		int take = n < IOV_MAX ? n : IOV_MAX, first = 0;

		memcpy(part, iov, (size_t)take * sizeof(*iov));
		while (first < take) {
			ssize_t done =
				pwritev(p->fd, part + first, take - first, (off_t)p->written);

			if (done < 0 && errno == EINTR)
				continue;
			if (done < 0 && errno == EINVAL && p->direct &&
			    !fcntl(p->fd, F_SETFL, 0)) {
				p->no_direct = true; /* wants more alignment than ours */
				p->direct = false;
				continue;
			}
			if (done < 0)
				return fail(-errno, "write %s/%s", of(put->store)->path,
					    p->name);
			p->written += (uint64_t)done;
			while (first < take && (size_t)done >= part[first].iov_len)
				done -= (ssize_t)part[first++].iov_len;
			if (first < take) {
				part[first].iov_base = (char *)part[first].iov_base + done;
				part[first].iov_len -= (size_t)done;
			}
		}
		iov += take;
		n -= take;
	}
	if (!p->direct && p->written - p->flushed >= WRITE_BEHIND) {
		sync_file_range(p->fd, (off_t)p->flushed, (off_t)(p->written - p->flushed),
				SYNC_FILE_RANGE_WRITE);
		p->flushed = p->written;
	}
	return 0;
}

static int dir_put_finish(struct store_put *put)
{
	struct dir_put *p = (struct dir_put *)put;
	int err = 0;

	if (fsync(p->fd))
		err = fail(-errno, "sync %s/%s", of(put->store)->path, p->name);
	/* NFS and quotas tell some write errors only here */
	if (close(p->fd) && !err)
		err = fail(-errno, "close %s/%s", of(put->store)->path, p->name);
	free(p);
	return err;
}

static void dir_put_cancel(struct store_put *put)
{
	struct dir_put *p = (struct dir_put *)put;

	close(p->fd);
	unlinkat(of(put->store)->fd, p->name, 0);
	free(p);
}

/* Open the directory that holds @name; *@last is its last part. */
static int open_parent(struct dir_store *s, const char *name, const char **last)
{
	const char *slash = strrchr(name, '/');
	char dir[PATH_MAX];
	int fd;

	*last = slash ? slash + 1 : name;
	snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - name) : 1, slash ? name : ".");
	fd = openat(s->fd, dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* For file systems without O_TMPFILE or hard links: a name nobody looks at, then a rename that
 * never replaces. */
static int create_by_rename(int dir, const char *last, const void *data, size_t len)
{
	_cleanup_fd_ int fd = -1;
	char tmp[NAME_MAX + 1];
	int err;

	snprintf(tmp, sizeof(tmp), TMP_PREFIX "%s", last);
	unlinkat(dir, tmp, 0);
	fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	err = io_write_full(fd, data, len);
	if (!err && fsync(fd))
		err = -errno;
	if (!err && renameat2(dir, tmp, dir, last, RENAME_NOREPLACE))
		err = -errno;
	if (err)
		unlinkat(dir, tmp, 0);
	return err;
}

static int dir_create(struct store *store, const char *name, const void *data, size_t len)
{
	struct dir_store *s = of(store);
	_cleanup_fd_ int dir = -1, fd = -1;
	char self[64];
	const char *last;
	int err;

	dir = open_parent(s, name, &last);
	if (dir < 0)
		return fail(dir, "create %s/%s", s->path, name);
	fd = openat(dir, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0) {
		err = create_by_rename(dir, last, data, len);
	} else {
		err = io_write_full(fd, data, len);
		if (!err && fsync(fd))
			err = -errno;
		snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
		if (!err && linkat(AT_FDCWD, self, dir, last, AT_SYMLINK_FOLLOW))
			err = -errno;
		if (err == -EPERM || err == -EOPNOTSUPP || err == -ENOENT)
			err = create_by_rename(dir, last, data, len);
	}
	if (err == -EEXIST)
		return err;
	if (!err && fsync(dir))
		err = -errno;
	return err ? fail(err, "create %s/%s", s->path, name) : 0;
}

static int dir_obj_open(struct store *s, const char *name, struct store_obj **out)
{
	/* NONBLOCK: a pipe of that name must not hang us */
	_cleanup_fd_ int fd =
		openat(of(s)->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct dir_obj *o;
	struct stat st;

	if (fd < 0)
		return errno == ENOENT ? -ENOENT
				       : fail(-errno, "open %s/%s", of(s)->path, name);
	if (fstat(fd, &st))
		return fail(-errno, "stat %s/%s", of(s)->path, name);
	if (!S_ISREG(st.st_mode))
		return refuse(-EBADMSG, "%s/%s is not a regular file", of(s)->path, name);
	o = calloc(1, sizeof(*o));
	if (!o)
		return fail(-ENOMEM, "open %s", name);
	o->base.store = s;
	o->base.size = (uint64_t)st.st_size;
	o->fd = take_fd(&fd);
	snprintf(o->name, sizeof(o->name), "%s", name);
	*out = &o->base;
	return 0;
}

static int dir_obj_read(struct store_obj *obj, const struct iovec *iov, int n, uint64_t at)
{
	struct dir_obj *o = (struct dir_obj *)obj;

	for (int i = 0; i < n;) {
		int take = n - i < IOV_MAX ? n - i : IOV_MAX;
		ssize_t got = preadv(o->fd, iov + i, take, (off_t)at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return fail(-errno, "read %s/%s", of(obj->store)->path, o->name);
		at += (uint64_t)got;
		while (i < n && (size_t)got >= iov[i].iov_len)
			got -= (ssize_t)iov[i++].iov_len;
		if (i < n && got) { /* the rest of a buffer that was cut */
			int err = io_pread_full(o->fd, (char *)iov[i].iov_base + got,
						iov[i].iov_len - (size_t)got, (off_t)at);

			if (err)
				return fail(err, "read %s/%s", of(obj->store)->path, o->name);
			at += iov[i].iov_len - (size_t)got;
			i++;
		} else if (i < n && take && at >= obj->size) {
			return fail(-ENODATA, "read %s/%s", of(obj->store)->path, o->name);
		}
	}
	return 0;
}

static void dir_obj_close(struct store_obj *obj)
{
	close(((struct dir_obj *)obj)->fd);
	free(obj);
}

static bool name_is_plain(const char *name, size_t max)
{
	return strlen(name) < max && name[0] != '.' &&
	       strspn(name,
		      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") ==
		       strlen(name);
}

static int dir_list(struct store *s, const char *prefix, struct store_list *out)
{
	int fd = openat(of(s)->fd, prefix[0] ? prefix : ".",
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	_cleanup_dir_ DIR *dir = NULL;
	struct dirent *d;

	if (fd < 0)
		return errno == ENOENT ? -ENOENT
				       : fail(-errno, "list %s/%s", of(s)->path, prefix);
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return fail(-ENOMEM, "list %s/%s", of(s)->path, prefix);
	}
	while (errno = 0, (d = readdir(dir))) {
		struct store_item *item;
		struct stat st;

		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		if (!strncmp(d->d_name, TMP_PREFIX, strlen(TMP_PREFIX)))
			continue;
		item = vec_push(out);
		if (!item)
			return fail(-ENOMEM, "list %s/%s", of(s)->path, prefix);
		if (name_is_plain(d->d_name, sizeof(item->name)))
			snprintf(item->name, sizeof(item->name), "%s", d->d_name);
		item->prefix = d->d_type == DT_DIR;
		if (d->d_type == DT_UNKNOWN &&
		    !fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW))
			item->prefix = S_ISDIR(st.st_mode);
	}
	return errno ? fail(-errno, "list %s/%s", of(s)->path, prefix) : 0;
}

static int dir_remove(struct store *s, const char *name)
{
	if (unlinkat(of(s)->fd, name, 0) && errno != ENOENT)
		return fail(-errno, "remove %s/%s", of(s)->path, name);
	return 0;
}

static int dir_make_prefix(struct store *s, const char *name)
{
	if (mkdirat(of(s)->fd, name, 0700) && errno != EEXIST)
		return fail(-errno, "make directory %s/%s", of(s)->path, name);
	return 0;
}

static int dir_remove_prefix(struct store *s, const char *name)
{
	if (unlinkat(of(s)->fd, name, AT_REMOVEDIR) && errno != ENOENT)
		return fail(-errno, "remove directory %s/%s", of(s)->path, name);
	return 0;
}

static int dir_sync(struct store *s, const char *prefix)
{
	_cleanup_fd_ int fd = openat(of(s)->fd, prefix[0] ? prefix : ".",
				     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || fsync(fd))
		return fail(-errno, "sync %s/%s", of(s)->path, prefix);
	return 0;
}

/* An open-file-description lock: it goes with the last descriptor, so also with kill -9;
 * nothing is left to clear. */
static int dir_lock(struct store *store, const char *name)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct dir_store *s = of(store);
	_cleanup_fd_ int fd =
		openat(s->fd, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return fail(-errno, "lock %s/%s", s->path, name);
	if (fcntl(fd, F_OFD_SETLK, &lock)) {
		if (errno == EAGAIN || errno == EACCES)
			return -EBUSY;
		return fail(-errno, "lock %s/%s", s->path, name);
	}
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	s->lock_fd = take_fd(&fd);
	return 0;
}

static void dir_close(struct store *store)
{
	struct dir_store *s = of(store);

	if (s->fd >= 0)
		close(s->fd);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	free(s->path);
	free(s);
}

static const struct store_ops dir_ops = {
	.name = "dir",
	.put_open = dir_put_open,
	.put_write = dir_put_write,
	.put_finish = dir_put_finish,
	.put_cancel = dir_put_cancel,
	.create = dir_create,
	.open = dir_obj_open,
	.read = dir_obj_read,
	.obj_close = dir_obj_close,
	.list = dir_list,
	.remove = dir_remove,
	.make_prefix = dir_make_prefix,
	.remove_prefix = dir_remove_prefix,
	.sync = dir_sync,
	.lock = dir_lock,
	.close = dir_close,
};

int store_dir_open(const char *path, bool create, struct store **out)
{
	_cleanup_store_ struct store *base = NULL;
	struct dir_store *s = calloc(1, sizeof(*s));

	if (!s)
		return fail(-ENOMEM, "open %s", path);
	s->base.ops = &dir_ops;
	s->fd = s->lock_fd = -1;
	base = &s->base;
	s->path = strdup(path);
	if (!s->path)
		return fail(-ENOMEM, "open %s", path);
	if (create && mkdir(path, 0700) && errno != EEXIST)
		return fail(-errno, "make directory %s", path);
	s->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->fd < 0)
		return fail(-errno, "open %s", path);
	*out = take_ptr(base);
	return 0;
}
