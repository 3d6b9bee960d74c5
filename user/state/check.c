// SPDX-License-Identifier: GPL-2.0
/* What can't be restarted is refused while the job still runs. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "state/fdkind.h"
#include "state/locks.h"

#define WHY_MAX 200

/* What it is that makes @f impossible to restart, in @why. */
static int check_one(struct state_process *p, const struct fd_info *f, char why[WHY_MAX])
{
	const struct fd_kind *kind = fd_kind(f->kind);
	int err = 0;

	if (!fd_restorable(f->kind))
		err = refuse(-EOPNOTSUPP, "%s", kind->text);
	else if (locks_reason(f))
		err = refuse(-EOPNOTSUPP, "%s", locks_reason(f));
	else if (kind->check)
		err = kind->check(p, f);
	if (err == -EOPNOTSUPP)
		snprintf(why, WHY_MAX, "%s", err_text(err));
	return err;
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
	char why[WHY_MAX] = "", others[WHY_MAX] = "", more[48] = "";
	const struct fd_info *first = NULL;
	unsigned n = 0;
	int err = fd_list_read(p->target, &fds);

	if (err)
		return err;
	vec_each (f, &fds) {
		err = check_one(p, f, first ? others : why);
		if (err && err != -EOPNOTSUPP)
			return err;
		n += err != 0;
		if (err && !first)
			first = f;
	}
	if (!first) {
		err = check_maps(p);
		return err ? err : look_add(p->job->look, p->target->pid, &fds);
	}
	if (n > 1)
		snprintf(more, sizeof(more), " (and %u more like that)", n - 1);
	return refuse(-EOPNOTSUPP,
		      "descriptor %d is %s (%s), which can't be restarted%s: "
		      "--no-restart saves the data only",
		      first->fd, why, first->path, more);
}
