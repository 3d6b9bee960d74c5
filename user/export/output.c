// SPDX-License-Identifier: GPL-2.0
/*
 * The core gets its name when it is complete. Until then it has none (O_TMPFILE), so that nothing is
 * left whatever ends us; on file systems without that it has a temporary one beside it.
 */
#include "export/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int parent_of(const char *path, char dir[PATH_MAX])
{
	char copy[PATH_MAX];

	if (snprintf(copy, sizeof(copy), "%s", path) >= (int)sizeof(copy))
		return fail(-ENAMETOOLONG, "%.80s...", path);
	snprintf(dir, PATH_MAX, "%s", dirname(copy));
	return 0;
}

static int check_free(const char *path, bool force)
{
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : fail(-errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return refuse(-EEXIST, "%s exists and is not a regular file", path);
	return force ? 0 : refuse(-EEXIST, "%s exists: --force replaces it", path);
}

static int open_named(struct output *o)
{
	if (asprintf(&o->temporary, "%s.XXXXXX", o->path) < 0) {
		o->temporary = NULL;
		return fail(-ENOMEM, "create %s", o->path);
	}
	o->fd = mkostemp(o->temporary, O_CLOEXEC);
	if (o->fd >= 0)
		return 0;
	free(take_ptr(o->temporary));
	return fail(-errno, "create %s", o->path);
}

int output_open(const char *path, bool force, struct output *out)
{
	char dir[PATH_MAX];
	int err = parent_of(path, dir);

	*out = (struct output){.path = path, .fd = -1, .force = force};
	if (!err)
		err = check_free(path, force);
	if (err)
		return err;
	out->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (out->fd >= 0)
		return 0;
	if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)
		return open_named(out);
	return fail(-errno, "create %s", path);
}

/* linkat() can not replace a file, and rename() needs a name. */
static int give_temporary_name(struct output *o, const char *self)
{
	for (unsigned i = 0; i < 1000; i++) {
		if (asprintf(&o->temporary, "%s.%d.%u", o->path, (int)getpid(), i) < 0) {
			o->temporary = NULL;
			return fail(-ENOMEM, "name %s", o->path);
		}
		if (!linkat(AT_FDCWD, self, AT_FDCWD, o->temporary, AT_SYMLINK_FOLLOW))
			return 0;
		free(take_ptr(o->temporary));
		if (errno != EEXIST)
			break;
	}
	return fail(-errno, "name %s", o->path);
}

static int give_name(struct output *o)
{
	char self[32];
	int err = check_free(o->path, o->force);

	if (err)
		return err;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", o->fd);
	if (!o->force) {
		const char *from = o->temporary ? o->temporary : self;

		if (linkat(AT_FDCWD, from, AT_FDCWD, o->path, AT_SYMLINK_FOLLOW))
			return fail(-errno, "name %s", o->path);
		return 0;
	}
	if (!o->temporary)
		err = give_temporary_name(o, self);
	if (err)
		return err;
	if (rename(o->temporary, o->path))
		return fail(-errno, "name %s", o->path);
	free(take_ptr(o->temporary));
	return 0;
}

int output_publish(struct output *o)
{
	_cleanup_fd_ int dir_fd = -1;
	char dir[PATH_MAX];
	int err = parent_of(o->path, dir);

	if (!err && fsync(o->fd))
		err = fail(-errno, "write %s", o->path);
	if (!err)
		err = give_name(o);
	if (err)
		return err;
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir_fd < 0 || fsync(dir_fd) ? fail(-errno, "sync %s", dir) : 0;
}

void output_close(struct output *o)
{
	if (o->temporary)
		unlink(o->temporary);
	free(take_ptr(o->temporary));
	cleanup_fd(&o->fd);
	o->fd = -1;
}
