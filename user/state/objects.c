// SPDX-License-Identifier: GPL-2.0
/* What mappings of several processes refer to: mapped files, and memory that they share. All are
 * opened by icp-bpf, once; the processes inherit the descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "state/kinds.h"
#include "state/restore.h"

struct object {
	uint64_t dev, inode;
	char *path; /* NULL: memory */
	bool write;
	int fd;
};

struct restore_objects {
	VEC(struct object) list;
};

int objects_new(struct restore_objects **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : fail(-ENOMEM, "prepare to share memory");
}

void objects_free(struct restore_objects *o)
{
	if (!o)
		return;
	vec_each (at, &o->list) {
		cleanup_fd(&at->fd);
		free(at->path);
	}
	vec_free(&o->list);
	free(o);
}

int objects_find(const struct restore_objects *o, uint64_t dev, uint64_t inode)
{
	vec_each (at, &o->list)
		if (!at->path && at->dev == dev && at->inode == inode)
			return at->fd;
	return -1;
}

static int add(struct restore_job *job, const struct object *what)
{
	struct object *o;
	int fd = restore_high_fd(job, what->fd);

	o = fd < 0 ? NULL : vec_push(&job->objects->list);
	if (!o) {
		free(what->path);
		if (fd >= 0)
			close(fd);
		return fd < 0 ? fd : fail(-ENOMEM, "share memory");
	}
	*o = *what;
	o->fd = fd;
	return fd;
}

int objects_put(struct restore_job *job, uint64_t dev, uint64_t inode, int fd)
{
	return add(job, &(struct object){.dev = dev, .inode = inode, .fd = fd});
}

/* The file behind a new shared anonymous mapping, which /proc shows as one and not as a memfd;
 * takes CAP_CHECKPOINT_RESTORE. */
static int anonymous(uint64_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char path[64];
	int fd;

	if (at == MAP_FAILED)
		return -1;
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)at,
		 (unsigned long)at + size);
	fd = open(path, O_RDWR | O_CLOEXEC);
	munmap(at, size);
	return fd;
}

int objects_add(struct restore_job *job, uint64_t dev, uint64_t inode, const char *name,
		uint64_t size)
{
	static const char prefix[] = "/memfd:";
	struct object o = {.dev = dev, .inode = inode, .fd = -1};
	bool memfd = !strncmp(name, prefix, sizeof(prefix) - 1);
	const char *base = strrchr(name, '/');

	if (!memfd && !strcmp(name, "/dev/zero"))
		o.fd = anonymous(size);
	if (o.fd < 0)
		o.fd = memfd_create(memfd  ? name + sizeof(prefix) - 1
				    : base ? base + 1
					   : name,
				    MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (o.fd < 0 || size > INT64_MAX || ftruncate(o.fd, (off_t)size)) {
		int err = o.fd >= 0 && size > INT64_MAX ? -EFBIG : -errno;

		cleanup_fd(&o.fd);
		return fail(err, "make the shared memory %s", name);
	}
	return add(job, &o);
}

/* Is @fd the file that @v was a mapping of? */
static int check_file(const Icp__Vma *v, int fd)
{
	struct file_id id = {0};
	struct stat st;

	if (fstat(fd, &st))
		return fail(-errno, "look at %s", v->path);
	if (!S_ISREG(st.st_mode))
		return v->file_size ? refuse(-ESTALE, "%s is no regular file any more", v->path)
				    : 0;
	if (v->build_id.len) {
		if (buildid_read(fd, &id) && id.len == v->build_id.len &&
		    !memcmp(id.build_id, v->build_id.data, id.len) &&
		    (uint64_t)st.st_size == v->file_size)
			return 0;
		return refuse(-ESTALE, "%s is another one than the program had mapped",
			      v->path);
	}
	if (v->shared) /* its content is the file's, whatever it is now */
		return (uint64_t)st.st_size >= v->file_size
			       ? 0
			       : refuse(-ESTALE, "%s is shorter than it was", v->path);
	if ((uint64_t)st.st_size != v->file_size ||
	    st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec != v->file_mtime_ns)
		return refuse(-ESTALE, "%s was changed since", v->path);
	return 0;
}

int objects_file(struct restore_job *job, const Icp__Vma *v, bool write)
{
	struct object o = {.write = write, .fd = -1};
	int err;

	vec_each (at, &job->objects->list)
		if (at->path && at->write == write && !strcmp(at->path, v->path))
			return at->fd;
	/* not a device or pipe that was put in its place: opening may have effects */
	o.fd = open(v->path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (o.fd < 0)
		return fail(-errno, "open the mapped file %s", v->path);
	err = check_file(v, o.fd);
	if (err) {
		close(o.fd);
		return err;
	}
	o.path = strdup(v->path);
	if (!o.path) {
		close(o.fd);
		return fail(-ENOMEM, "open the mapped file %s", v->path);
	}
	return add(job, &o);
}
