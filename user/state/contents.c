// SPDX-License-Identifier: GPL-2.0
/*
 * Deleted files. Before the freeze and in it they are noted, for the dumper to save what is in
 * them. A restart makes each again where it was, without a name; a mapping of it finds it as
 * an object.
 */
#include "state/contents.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "state/fdkind.h"
#include "state/kinds.h"
#include "state/restore.h"

#define TMPFILE_FLAG (O_TMPFILE & ~O_DIRECTORY)
/* What can be set of a description that is open. */
#define SETTABLE (O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME)

static struct state_content *known(struct state_contents *all, uint64_t dev, uint64_t inode)
{
	vec_each (c, all)
		if (c->dev == dev && c->inode == inode)
			return c;
	return NULL;
}

static bool is_mapped(const struct state_process *p, const struct fd_info *f)
{
	for (size_t i = 0; i < p->maps.n; i++)
		if (p->maps.data[i].shared && p->maps.data[i].inode == f->st.st_ino)
			return true;
	return false;
}

int contents_note(struct state_process *p, const struct fd_info *f, bool frozen)
{
	uint64_t dev = restore_dev(major(f->st.st_dev), minor(f->st.st_dev));
	struct state_content *c;
	char path[32];

	/* opening it would break a lease */
	if (f->kind != FILE_REGULAR || f->st.st_nlink || strstr(f->fdinfo, "LEASE"))
		return 0;
	c = known(&p->job->contents, dev, f->st.st_ino);
	if (!c) {
		c = vec_push(&p->job->contents);
		if (!c)
			return fail(-ENOMEM, "note a deleted file");
		/* not a copy of the descriptor: finding the data moves the offset */
		snprintf(path, sizeof(path), "fd/%d", f->fd);
		*c = (struct state_content){.dev = dev, .inode = f->st.st_ino};
		c->fd = io_open_unseen(p->target->proc_fd, path, O_NONBLOCK);
		c->path = strdup(f->path);
		if (c->fd < 0 && errno == ENOENT && !frozen) { /* closed meanwhile */
			free(c->path);
			p->job->contents.n--;
			return 0;
		}
		if (c->fd < 0 || !c->path)
			return fail(c->fd < 0 ? -errno : -ENOMEM,
				    "look into descriptor %d (%s)", f->fd, f->path);
	}
	c->open |= frozen;
	c->unseen |= f->flags & O_DIRECT || is_mapped(p, f);
	return 0;
}

int contents_prepare(struct state_process *p, void **note)
{
	_cleanup_fd_list_ struct fd_list fds = {0};
	int err = fd_list_read(p->target, &fds);

	vec_each (f, &fds)
		if (!err)
			err = contents_note(p, f, false);
	return err;
}

void contents_fini(struct state_contents *all)
{
	vec_each (c, all) {
		cleanup_fd(&c->fd);
		free(c->path);
	}
	vec_free(all);
}

/* ---- restart ---- */

int contents_directory(const char *path)
{
	char dir[PATH_MAX];

	snprintf(dir, sizeof(dir), "%s", path);
	for (char *slash; (slash = strrchr(dir, '/'));) {
		int fd;

		slash[slash == dir] = 0;
		fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0 || (errno != ENOENT && errno != ENOTDIR) || slash == dir)
			return fd < 0 ? fail(-errno, "open %s", dir) : fd;
	}
	return refuse(-EBADMSG, "the open file '%s' is no path", path);
}

/* The flags of the description that made it with O_TMPFILE, if there is one. */
static uint32_t first_flags(const struct restore_job *job, const Icp__FileData *c)
{
	const Icp__OpenFiles *all = files_restore_all(job);

	for (size_t i = 0; i < all->n_files; i++) {
		const Icp__OpenFile *f = all->files[i];

		if (f->dev == c->dev && f->inode == c->inode && f->flags & TMPFILE_FLAG &&
		    (f->flags & O_ACCMODE) != O_RDONLY)
			return f->flags;
	}
	return O_RDWR;
}

/* Some file systems make no files without a name: then it has one for a moment. */
static int make_named(int dir, uint32_t access)
{
	char name[48];
	int fd;

	snprintf(name, sizeof(name), ".icp-bpf-restart-%d", getpid());
	fd = openat(dir, name, (int)access | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0 && unlinkat(dir, name, 0)) {
		int err = errno;

		close(fd);
		errno = err;
		return -1;
	}
	return fd;
}

static int make_file(const Icp__FileData *c, const char *path, uint32_t access)
{
	_cleanup_fd_ int dir = contents_directory(path), fd = -1;

	if (dir < 0)
		return dir;
	fd = openat(dir, ".", O_TMPFILE | (int)access | O_CLOEXEC, 0600);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR))
		fd = make_named(dir, access);
	if (fd < 0)
		return fail(-errno, "make the deleted file %s again", path);
	if (fchmod(fd, c->mode & 0777) ||
	    ((c->uid != geteuid() || c->gid != getegid()) && fchown(fd, c->uid, c->gid)))
		return fail(-errno, "give the deleted file %s to who had it", path);
	if (ftruncate(fd, (off_t)c->size))
		return fail(-errno, "make the deleted file %s again", path);
	return take_fd(&fd);
}

static int make_one(struct restore_job *job, const Icp__FileData *c, int *first)
{
	uint32_t flags = first_flags(job, c);
	char path[PATH_MAX], self[32];
	int fd;

	snprintf(path, sizeof(path), "%.*s", (int)c->path.len, (const char *)c->path.data);
	*first = make_file(c, path, flags & O_ACCMODE);
	if (*first >= 0)
		*first = restore_high_fd(job, *first);
	if (*first < 0)
		return *first;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", *first);
	fd = open(self, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return fail(-errno, "open the deleted file %s", path);
	if (!(flags & TMPFILE_FLAG))
		close(take_fd(first));
	fd = objects_put(job, c->dev, c->inode, fd);
	return fd < 0 ? fd : 0;
}

int contents_restore_new(struct restore_job *job)
{
	const Icp__Manifest *m = job->manifest;
	int err = 0;

	job->first_of = malloc((m->n_contents + 1) * sizeof(int));
	if (!job->first_of)
		return fail(-ENOMEM, "make deleted files again");
	for (size_t i = 0; i < m->n_contents; i++)
		job->first_of[i] = -1;
	for (size_t i = 0; i < m->n_contents && !err; i++)
		err = make_one(job, m->contents[i], &job->first_of[i]);
	return err;
}

void contents_restore_free(struct restore_job *job)
{
	for (size_t i = 0; job->first_of && i < job->manifest->n_contents; i++)
		cleanup_fd(&job->first_of[i]);
	free(take_ptr(job->first_of));
}

/* The description that made it, once: O_TMPFILE stays in its flags, and can't be had otherwise. */
static int take_first(struct restore_job *job, const Icp__OpenFile *f)
{
	for (size_t i = 0; i < job->manifest->n_contents; i++) {
		const Icp__FileData *c = job->manifest->contents[i];

		if (c->dev != f->dev || c->inode != f->inode || job->first_of[i] < 0 ||
		    fcntl(job->first_of[i], F_SETFL, f->flags & SETTABLE))
			continue;
		return take_fd(&job->first_of[i]);
	}
	return -1;
}

int contents_open(struct restore_job *job, const Icp__OpenFile *f)
{
	int object = objects_find(job->objects, f->dev, f->inode);
	_cleanup_fd_ int fd = -1;
	char path[PATH_MAX];

	if (object < 0)
		return refuse(-ENOENT, "what was in the deleted file %s is not in the image",
			      fd_path_of(f, path));
	if (f->flags & TMPFILE_FLAG)
		fd = take_first(job, f);
	if (fd < 0)
		fd = fd_reopen(object, f->flags & ~(uint32_t)(O_DIRECTORY | O_PATH));
	if (fd < 0 || (f->offset && lseek(fd, f->offset, SEEK_SET) != f->offset))
		return fail(-errno, "open the deleted file %s", fd_path_of(f, path));
	return take_fd(&fd);
}
