// SPDX-License-Identifier: GPL-2.0
/* memfd_create(2). Its content is that of the mappings. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "state/fdkind.h"

/* All of a memfd is among the memory that is saved. */
static bool is_mapped(const struct state_process *p, const struct fd_info *f)
{
	uint64_t end = 0;

	for (size_t i = 0; i < p->maps.n; i++) {
		const struct vma *v = &p->maps.data[i];

		if (v->inode == f->st.st_ino && v->shared && v->offset <= end &&
		    v->offset + (v->end - v->start) > end)
			end = v->offset + (v->end - v->start);
	}
	return end >= (uint64_t)f->st.st_size;
}

/* It can't be filled and mapped again once it is sealed, and not be sealed once it is mapped. */
static int check(struct state_process *p, const struct fd_info *f)
{
	_cleanup_fd_ int fd = fd_borrow(p, f->fd);
	int seals = fd < 0 ? 0 : fcntl(fd, F_GET_SEALS);

	if (fd < 0)
		return fd;
	if (seals < 0)
		return fail(-errno, "seals of descriptor %d", f->fd);
	if (f->st.st_size && seals & F_SEAL_WRITE)
		return refuse(-EOPNOTSUPP, "a memfd that is sealed against writing");
	return is_mapped(p, f) ? 0
			       : refuse(-EOPNOTSUPP, "a memfd that isn't mapped as a whole");
}

static int dump(struct state_process *p, struct file_jobs *jobs, struct description *d)
{
	_cleanup_fd_ int fd = fd_borrow(p, d->info.fd);
	int *seals = fd < 0 ? NULL : malloc(sizeof(*seals));

	if (fd < 0)
		return fd;
	if (!seals)
		return fail(-ENOMEM, "note a memfd");
	*seals = fcntl(fd, F_GET_SEALS);
	d->note = seals;
	return *seals < 0 ? fail(-errno, "seals of descriptor %d", d->info.fd) : 0;
}

static int finish(const struct description *d, Icp__OpenFile *out)
{
	out->memfd_seals = (uint32_t) * (const int *)d->note;
	return 0;
}

static int open_memfd(struct restore_job *job, const Icp__OpenFile *f)
{
	int object = objects_find(job->objects, f->dev, f->inode), fd;
	char path[PATH_MAX];

	if (object < 0 && !f->size)
		object = objects_add(job, f->dev, f->inode, fd_path_of(f, path), 0);
	if (object < 0)
		return refuse(-EOPNOTSUPP, "the content of %s is not in the image",
			      fd_path_of(f, path));
	if (ftruncate(object, (off_t)f->size))
		return fail(-errno, "size of %s", fd_path_of(f, path));
	fd = fd_reopen(object, f->flags);
	if (fd < 0 || (f->offset && lseek(fd, f->offset, SEEK_SET) != f->offset)) {
		cleanup_fd(&fd);
		return fail(-errno, "open %s", fd_path_of(f, path));
	}
	return fd;
}

/* Its content is there. A seal that another description put on already is fine. */
static int late(struct restore_job *job, const Icp__OpenFile *f, int fd)
{
	if (f->memfd_seals && fcntl(fd, F_ADD_SEALS, f->memfd_seals) && errno != EPERM)
		return fail(-errno, "seal a memfd");
	return 0;
}

const struct fd_kind fd_memfd = {.kind = FILE_MEMFD,
				 .text = "a memfd",
				 .check = check,
				 .dump = dump,
				 .finish = finish,
				 .free_note = free,
				 .open = open_memfd,
				 .late = late};
