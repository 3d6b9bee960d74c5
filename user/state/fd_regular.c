// SPDX-License-Identifier: GPL-2.0
/*
 * Regular files. Mostly opened again by name, if what is there now still fits. One that was
 * deleted is made again with what was in it (contents.c), or found by its file handle where
 * another name keeps it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/log.h"
#include "state/contents.h"
#include "state/fd_path.pb-c.h"
#include "state/fdkind.h"

/* A file that has a name, but none that we know. */
static bool is_linked(const struct fd_info *f)
{
	return f->deleted && f->st.st_nlink;
}

/* ---- dump ---- */

struct note {
	struct file_handle handle; /* its bytes follow */
	unsigned char bytes[MAX_HANDLE_SZ];
};

static int look_up_handle(int fd, struct note *note)
{
	int mount;

	note->handle.handle_bytes = MAX_HANDLE_SZ;
	return name_to_handle_at(fd, "", &note->handle, &mount, AT_EMPTY_PATH) ? -errno : 0;
}

/* A mapping of it would not be known as the same file. */
static bool mapped_by_other_number(const struct state_process *p, const struct fd_info *f)
{
	for (size_t i = 0; i < p->maps.n; i++) {
		const struct vma *v = &p->maps.data[i];

		if (v->shared && v->deleted && v->inode == f->st.st_ino &&
		    makedev(v->dev_major, v->dev_minor) != f->st.st_dev)
			return true;
	}
	return false;
}

static int check_deleted(struct state_process *p, const struct fd_info *f)
{
	if (strstr(f->fdinfo, "LEASE"))
		return refuse(-EOPNOTSUPP, "a deleted file with a lease on it");
	if (mapped_by_other_number(p, f))
		return refuse(-EOPNOTSUPP, "a deleted file that is mapped, on a file system "
					   "with several device numbers");
	return 0;
}

static int check(struct state_process *p, const struct fd_info *f)
{
	_cleanup_fd_ int fd = -1;
	struct note note;

	if (!f->st.st_nlink)
		return check_deleted(p, f);
	if (!is_linked(f))
		return 0;
	fd = fd_borrow(p, f->fd);
	if (fd < 0) {
		err_clear();
		return 0; /* closed meanwhile: the freeze will show */
	}
	return look_up_handle(fd, &note)
		       ? refuse(-EOPNOTSUPP,
				"a deleted file that has another name, where file handles "
				"don't work")
		       : 0;
}

static int dump(struct state_process *p, struct file_jobs *jobs, struct description *d)
{
	_cleanup_fd_ int fd = -1;
	int err;

	if (!is_linked(&d->info))
		return contents_note(p, &d->info, true);
	fd = fd_borrow(p, d->info.fd);
	if (fd < 0)
		return fd;
	d->note = calloc(1, sizeof(struct note));
	if (!d->note)
		return fail(-ENOMEM, "note an open file");
	err = look_up_handle(fd, d->note);
	if (err == -EOPNOTSUPP) { /* without --no-restart it was refused before */
		free(take_ptr(d->note));
		return 0;
	}
	return err ? fail(err, "look at descriptor %d (%s)", d->info.fd, d->info.path) : 0;
}

static int finish(const struct description *d, Icp__OpenFile *out)
{
	Icp__LinkedFile msg = ICP__LINKED_FILE__INIT;
	struct note *note = d->note;

	if (!note)
		return 0;
	msg.type = note->handle.handle_type;
	msg.handle = (ProtobufCBinaryData){note->handle.handle_bytes, note->handle.f_handle};
	return fd_pack_detail(out, &msg.base);
}

/* ---- restart ---- */

static int refuse_file(struct restore_job *job, const Icp__OpenFile *f, const char *why)
{
	uint32_t pid = 0, fd = files_number(job, f->id, &pid);
	char path[PATH_MAX];

	return refuse(-ESTALE, "process %u: descriptor %u: %s %s", pid, fd, fd_path_of(f, path),
		      why);
}

static int open_by_handle(struct restore_job *job, const Icp__OpenFile *f,
			  const Icp__LinkedFile *msg)
{
	char path[PATH_MAX];
	_cleanup_fd_ int dir = contents_directory(fd_path_of(f, path)), fd = -1;
	struct note note;
	struct stat st;

	if (dir < 0)
		return dir;
	if (!msg->handle.len || msg->handle.len > MAX_HANDLE_SZ)
		return refuse(-EBADMSG, "the handle of %s makes no sense", path);
	note.handle.handle_bytes = (unsigned)msg->handle.len;
	note.handle.handle_type = msg->type;
	memcpy(note.handle.f_handle, msg->handle.data, msg->handle.len);
	fd = open_by_handle_at(
		dir, &note.handle,
		(int)(f->flags & FD_KEPT_FLAGS & ~(uint32_t)(O_DIRECTORY | O_PATH)) |
			O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == ESTALE)
		return refuse_file(job, f, "was removed, and by now so is its last other name");
	if (fd < 0)
		return fail(-errno, "find the other name of %s", path);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_ino != f->inode)
		return refuse_file(job, f, "is another file now");
	if (!(f->flags & O_NONBLOCK) && fcntl(fd, F_SETFL, f->flags & FD_KEPT_FLAGS))
		return fail(-errno, "open %s", path);
	return take_fd(&fd);
}

static int open_linked(struct restore_job *job, const Icp__OpenFile *f)
{
	Icp__LinkedFile *msg;
	int err = fd_unpack_detail(f, &icp__linked_file__descriptor, &msg), fd;

	if (err)
		return err;
	fd = open_by_handle(job, f, msg);
	protobuf_c_message_free_unpacked(&msg->base, NULL);
	if (fd >= 0 && f->offset && lseek(fd, f->offset, SEEK_SET) != f->offset) {
		close(fd);
		return fail(-errno, "seek in a deleted file");
	}
	return fd;
}

static bool writes(const Icp__OpenFile *f)
{
	return (f->flags & O_ACCMODE) != O_RDONLY;
}

/* Another one than at the checkpoint, where that can be told: a copy elsewhere is as good. */
static bool is_other(const struct restore_job *job, const Icp__OpenFile *f,
		     const struct stat *st)
{
	char boot[37];

	return !boot_id(boot) && !strcmp(boot, job->manifest->boot_id) &&
	       restore_dev(major(st->st_dev), minor(st->st_dev)) == f->dev &&
	       st->st_ino != f->inode;
}

static int fits(struct restore_job *job, const Icp__OpenFile *f, int fd)
{
	char why[200];
	struct stat st;

	if (fstat(fd, &st))
		return fail(-errno, "look at an open file");
	if ((uint64_t)st.st_size < f->size) {
		snprintf(why, sizeof(why),
			 "is shorter than it was: %lld bytes instead of %llu: put it back as "
			 "it was",
			 (long long)st.st_size, (unsigned long long)f->size);
		return refuse_file(job, f, why);
	}
	if (!writes(f))
		return 0; /* it reads what was added */
	if (is_other(job, f, &st) && (!job->rewind || (uint64_t)st.st_size != f->size))
		return refuse_file(job, f,
				   "is another file than the one that it was writing: put that "
				   "back, or a copy of the same length and use --files rewind");
	if ((uint64_t)st.st_size == f->size || job->rewind)
		return 0;
	snprintf(why, sizeof(why),
		 "is longer than it was at the checkpoint: %lld bytes instead of %llu: "
		 "--files rewind cuts it back",
		 (long long)st.st_size, (unsigned long long)f->size);
	return refuse_file(job, f, why);
}

static int open_regular(struct restore_job *job, const Icp__OpenFile *f)
{
	_cleanup_fd_ int fd = -1;
	int err;

	if (f->deleted && !f->detail.len)
		return contents_open(job, f);
	fd = f->deleted ? open_linked(job, f)
			: fd_open_path(f, f->flags & ~(uint32_t)(O_PATH | O_DIRECTORY));
	if (fd < 0)
		return fd;
	err = fits(job, f, fd);
	return err ? err : take_fd(&fd);
}

/* Of the same length, and written since: that can't be undone, nor told from what belongs there. */
static bool written_since(const Icp__OpenFile *f, int fd)
{
	struct stat st;

	return fd >= 0 && f->kind == FILE_REGULAR && writes(f) && !f->deleted && f->mtime_ns &&
	       !fstat(fd, &st) && (uint64_t)st.st_size == f->size &&
	       st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec != f->mtime_ns;
}

static void note_written(struct restore_job *job)
{
	const Icp__OpenFiles *all = files_restore_all(job);
	const Icp__OpenFile *first = NULL;
	char path[PATH_MAX];
	size_t n = 0;

	for (size_t i = 0; i < all->n_files; i++)
		if (written_since(all->files[i], files_restored_fd(job, all->files[i]->id)) &&
		    !n++)
			first = all->files[i];
	if (n)
		note("note: %zu file%s that the job was writing %s written since the "
		     "checkpoint (%s): "
		     "what was written over is not undone",
		     n, n > 1 ? "s" : "", n > 1 ? "were" : "was", fd_path_of(first, path));
}

int files_restore_rewind(struct restore_job *job)
{
	const Icp__OpenFiles *all = files_restore_all(job);

	note_written(job);
	for (size_t i = 0; job->rewind && i < all->n_files; i++) {
		const Icp__OpenFile *f = all->files[i];
		int fd = files_restored_fd(job, f->id);
		char path[PATH_MAX];
		struct stat st;

		if (fd < 0 || f->kind != FILE_REGULAR || !writes(f) ||
		    (f->deleted && !f->detail.len))
			continue;
		if (fstat(fd, &st) || !S_ISREG(st.st_mode) || (uint64_t)st.st_size <= f->size)
			continue;
		if (ftruncate(fd, (off_t)f->size))
			return fail(-errno, "cut %s back to %llu bytes", fd_path_of(f, path),
				    (unsigned long long)f->size);
	}
	return 0;
}

const struct fd_kind fd_regular = {.kind = FILE_REGULAR,
				   .text = "a file",
				   .check = check,
				   .dump = dump,
				   .finish = finish,
				   .free_note = free,
				   .open = open_regular};
