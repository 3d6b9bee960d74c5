// SPDX-License-Identifier: GPL-2.0
/* What can't be restarted is refused while the job still runs. */
#include <errno.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "state/files.h"

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

/* Why @f can't be restarted, or NULL. */
static const char *reason(const struct state_process *p, const struct fd_info *f)
{
	if (!file_restorable(f->kind))
		return file_kind_text(f->kind);
	if (procfs_field(f->fdinfo, "lock"))
		return "a file with a lock on it";
	/* /dev/shm, tmpfiles: the content goes away with the process. */
	if ((f->kind == FILE_REGULAR || f->kind == FILE_DIRECTORY) && f->st.st_nlink == 0)
		return "a deleted file";
	if (f->kind == FILE_MEMFD && !is_mapped(p, f))
		return "a memfd that isn't mapped as a whole";
	return NULL;
}

/* Segments are known of our own namespace only: the same id is another one elsewhere. */
static int check_namespace(const struct state_process *p)
{
	struct stat ours, its;

	if (stat("/proc/thread-self/ns/ipc", &ours) ||
	    fstatat(p->target->proc_fd, "ns/ipc", &its, 0) || ours.st_ino == its.st_ino)
		return 0;
	return refuse(
		-EOPNOTSUPP,
		"it attaches System V segments of another IPC namespace: run icp-bpf in it "
		"(nsenter --ipc=/proc/%d/ns/ipc)",
		p->target->pid);
}

static int check_segment(const struct state_process *p, const struct vma *v)
{
	struct statfs fs;
	char path[64];
	int err = check_namespace(p);

	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", p->target->pid, v->start,
		 v->end);
	if (err || statfs(path, &fs) || fs.f_type != HUGETLBFS_MAGIC)
		return err;
	return refuse(-EOPNOTSUPP,
		      "the segment %lu attached at %#lx is of huge pages (SHM_HUGETLB), which "
		      "can't be restarted: --no-restart saves the data only",
		      v->inode, v->start);
}

static int check_maps(const struct state_process *p)
{
	for (size_t i = 0; i < p->maps.n; i++) {
		const struct vma *v = &p->maps.data[i];

		if (v->kind == VMA_SHM && check_segment(p, v))
			return -EOPNOTSUPP;
		if ((v->kind == VMA_SPECIAL && v->name[0] != '[') ||
		    !strncmp(v->name, "/[aio]", 6))
			return refuse(-EOPNOTSUPP,
				      "%s is mapped at %#lx, which can't be restarted", v->name,
				      v->start);
	}
	return 0;
}

int files_check(struct state_process *p)
{
	_cleanup_fd_list_ struct fd_list fds = {0};
	const struct fd_info *first = NULL;
	char more[48] = "";
	unsigned others = 0;
	int err = fd_list_read(p->target, &fds);

	if (err)
		return err;
	vec_each (f, &fds) {
		if (!reason(p, f))
			continue;
		others += first != NULL;
		if (!first)
			first = f;
	}
	if (!first)
		return check_maps(p);
	if (others)
		snprintf(more, sizeof(more), " (and %u more like that)", others);
	return refuse(-EOPNOTSUPP,
		      "descriptor %d is %s (%s), which can't be restarted%s: "
		      "--no-restart saves the data only",
		      first->fd, reason(p, first), first->path, more);
}
