// SPDX-License-Identifier: GPL-2.0
#include "proc/sysvshm.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/io.h"
#include "base/log.h"

#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26 /* linux/memfd.h, which sys/mman.h of glibc leaves out */
#endif

/* include/linux/shm.h: kept in the mode, beside the permission bits */
#define SHM_DEST_BIT 01000
#define SHM_LOCKED_BIT 02000

static int by_shmid(const void *a, const void *b)
{
	int32_t x = ((const struct sysvshm_segment *)a)->shmid;
	int32_t y = ((const struct sysvshm_segment *)b)->shmid;

	return (x > y) - (x < y);
}

static int parse_segment(const char *line, struct sysvshm_segment *s)
{
	uint32_t perms;
	int got =
		sscanf(line,
		       "%" SCNd32 " %" SCNd32 " %" SCNo32 " %" SCNu64 " %d %d %" SCNu64
		       " %u %u %u %u %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNu64 " %" SCNu64,
		       &s->key, &s->shmid, &perms, &s->size, &s->cpid, &s->lpid, &s->nattch,
		       &s->uid, &s->gid, &s->cuid, &s->cgid, &s->atime, &s->dtime, &s->ctime,
		       &s->rss, &s->swap);

	if (got != 16)
		return fail(-EPROTO, "/proc/sysvipc/shm: '%.120s'", line);
	s->mode = perms & 0777;
	s->removed = perms & SHM_DEST_BIT;
	s->locked = perms & SHM_LOCKED_BIT;
	return 0;
}

int sysvshm_parse(const char *text, struct sysvshm *out)
{
	_cleanup_sysvshm_ struct sysvshm list = {};
	const char *line = strchr(text, '\n'); /* behind the headings */

	if (strncmp(text + strspn(text, " "), "key ", 4))
		return fail(-EPROTO, "/proc/sysvipc/shm: '%.120s'", text);
	for (; line && line[1]; line = strchr(line + 1, '\n')) {
		struct sysvshm_segment *s = vec_push(&list);
		int err;

		if (!s)
			return fail(-ENOMEM, "shared memory segments");
		err = parse_segment(line + 1, s);
		if (err)
			return err;
	}
	if (list.n)
		qsort(list.data, list.n, sizeof(*list.data), by_shmid);
	*out = list;
	list = (struct sysvshm){};
	return 0;
}

int sysvshm_read(struct sysvshm *out)
{
	_cleanup_free_ char *text = NULL;
	int err = io_read_file(AT_FDCWD, "/proc/sysvipc/shm", &text, NULL);

	*out = (struct sysvshm){};
	if (err == -ENOENT)
		return 0;
	if (err)
		return fail(err, "read /proc/sysvipc/shm");
	return sysvshm_parse(text, out);
}

void sysvshm_free(struct sysvshm *s)
{
	vec_free(s);
}

const struct sysvshm_segment *sysvshm_find(const struct sysvshm *s, int32_t shmid)
{
	struct sysvshm_segment key = {.shmid = shmid};

	return s->n ? bsearch(&key, s->data, s->n, sizeof(key), by_shmid) : NULL;
}

/*
 * The devices that segments' files live on, as maps shows them: the kernel's internal tmpfs,
 * and one internal hugetlbfs for each size of huge pages (SHM_HUGETLB). memfds live on the same
 * mounts (mm/shmem.c: shm_mnt, fs/hugetlbfs/inode.c: hugetlbfs_vfsmount), so one of each tells,
 * and leaves nothing in the system. A file that somebody calls /SYSV... lies on another device.
 */
struct devices {
	dev_t data[8];
	size_t n;
};

static void add_device(struct devices *d, unsigned flags)
{
	_cleanup_fd_ int fd = memfd_create("icp-bpf", MFD_CLOEXEC | flags);
	struct stat st;

	if (fd >= 0 && !fstat(fd, &st))
		d->data[d->n++] = st.st_dev;
}

static int learn_devices(struct devices *d)
{
	/* log2 of the sizes of huge pages on x86-64 and arm64; those that don't exist here fail
	 */
	static const unsigned sizes[] = {16, 21, 25, 29, 30, 34};

	d->n = 0;
	add_device(d, 0);
	if (!d->n)
		return fail(-errno, "create a memfd");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		add_device(d, MFD_HUGETLB | sizes[i] << MFD_HUGE_SHIFT);
	return 0;
}

static bool is_segment_device(const struct devices *d, unsigned dev_major, unsigned dev_minor)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->data[i] == makedev(dev_major, dev_minor))
			return true;
	return false;
}

/* One line of maps; the next VMA of an attachment that is already last in the list extends it.
 */
static int add_line(const char *line, pid_t pid, const struct devices *devices,
		    struct sysvshm_attachments *out)
{
	struct sysvshm_attachment *last = out->n ? &out->data[out->n - 1] : NULL, *a;
	uint64_t start, end, offset, inode;
	unsigned dev_major, dev_minor;
	int name = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %x:%x %" SCNu64 " %n", &start,
		   &end, &offset, &dev_major, &dev_minor, &inode, &name) != 6 ||
	    !name || strncmp(line + name, "/SYSV", 5) ||
	    !is_segment_device(devices, dev_major, dev_minor))
		return 0;
	if (last && last->pid == pid && last->shmid == (int32_t)inode && last->end == start &&
	    last->offset + (last->end - last->start) == offset) {
		last->end = end;
		return 0;
	}
	a = vec_push(out);
	if (!a)
		return -ENOMEM;
	*a = (struct sysvshm_attachment){.shmid = (int32_t)inode,
					 .pid = pid,
					 .start = start,
					 .end = end,
					 .offset = offset};
	return 0;
}

/* Bare errors: what /proc says when a process is gone, or not ours to look at. */
static int scan_process(int proc, const char *pid, const struct stat *our_ipc,
			const struct devices *devices, struct sysvshm_attachments *out)
{
	_cleanup_free_ char *text = NULL;
	struct stat ipc;
	char path[64];
	int err;

	snprintf(path, sizeof(path), "%s/ns/ipc", pid);
	if (fstatat(proc, path, &ipc, 0))
		return -errno;
	if (ipc.st_ino != our_ipc->st_ino || ipc.st_dev != our_ipc->st_dev)
		return 0;
	snprintf(path, sizeof(path), "%s/maps", pid);
	err = io_read_file(proc, path, &text, NULL);
	if (err)
		return err;
	if (!strstr(text, "/SYSV"))
		return 0;
	for (char *line = text, *next; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		err = add_line(line, (pid_t)atoi(pid), devices, out);
		if (err)
			return err;
	}
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct sysvshm_attachment *x = a, *y = b;

	if (x->shmid != y->shmid)
		return x->shmid < y->shmid ? -1 : 1;
	if (x->pid != y->pid)
		return x->pid < y->pid ? -1 : 1;
	return (x->start > y->start) - (x->start < y->start);
}

int sysvshm_attachments(struct sysvshm_attachments *out)
{
	_cleanup_sysvshm_attachments_ struct sysvshm_attachments list = {};
	_cleanup_dir_ DIR *proc = opendir("/proc");
	struct devices devices;
	struct stat our_ipc;
	struct dirent *entry;
	int err;

	*out = (struct sysvshm_attachments){};
	if (!proc)
		return fail(-errno, "open /proc");
	if (stat("/proc/thread-self/ns/ipc", &our_ipc))
		return errno == ENOENT ? 0 : fail(-errno, "stat /proc/thread-self/ns/ipc");
	err = learn_devices(&devices);
	if (err)
		return err;
	while ((entry = readdir(proc))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		err = scan_process(dirfd(proc), entry->d_name, &our_ipc, &devices, &list);
		if (err == -ENOMEM)
			return fail(err, "attachments of shared memory");
		if (err == -EACCES || err == -EPERM)
			list.unread++;
	}
	if (list.n)
		qsort(list.data, list.n, sizeof(*list.data), by_place);
	*out = list;
	list = (struct sysvshm_attachments){};
	return 0;
}

void sysvshm_attachments_free(struct sysvshm_attachments *a)
{
	vec_free(a);
}

/* The first attachment of a shmid that is not below @shmid. */
static size_t lower_bound(const struct sysvshm_attachments *a, int64_t shmid)
{
	size_t low = 0, high = a->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (a->data[mid].shmid < shmid)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

const struct sysvshm_attachment *sysvshm_attachments_of(const struct sysvshm_attachments *a,
							int32_t shmid, size_t *n)
{
	size_t first = lower_bound(a, shmid);

	*n = lower_bound(a, (int64_t)shmid + 1) - first;
	return *n ? a->data + first : NULL;
}

void sysvshm_join(const pid_t *pids, size_t n)
{
	_cleanup_fd_ int fd = -1;
	struct stat ours, first = {0}, st;
	char path[40];

	if (stat("/proc/thread-self/ns/ipc", &ours))
		return;
	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "/proc/%d/ns/ipc", pids[i]);
		if (stat(path, &st) || (i && st.st_ino != first.st_ino))
			return;
		first = st;
	}
	if (!n || first.st_ino == ours.st_ino)
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWIPC))
		debug("can't enter the IPC namespace of pid %d", pids[0]);
}
