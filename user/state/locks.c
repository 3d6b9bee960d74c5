// SPDX-License-Identifier: GPL-2.0
/*
 * Locks on open files, from the "lock:" lines of fdinfo.
 *
 *     flock, OFD   belong to the description: icp-bpf takes them when all files are open and
 *                  nothing else is made; the processes inherit them with the description
 *     POSIX        belong to the process, which takes them itself: last of all, since closing
 *                  any descriptor of a file drops them
 *     leases       likewise, since the signal of a lease tells a descriptor's number
 *
 * Who waited for a lock waits again: its system call is restarted like any other.
 */
#include "state/locks.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "state/fdkind.h"
#include "state/locks.pb-c.h"

#define LOCKS_VERSION 1
#define LOCKS_MAX 1000000

/* As lock_get_status() of fs/locks.c prints it, after the number. */
struct line {
	char kind[8], how[12], type[8], end[24];
	int pid;
	unsigned major, minor;
	uint64_t inode, start;
};

static bool parse(const char *text, struct line *l)
{
	return sscanf(text, "%*u: %7s %11s %7s %d %x:%x:%lu %lu %23s", l->kind, l->how, l->type,
		      &l->pid, &l->major, &l->minor, &l->inode, &l->start, l->end) == 9;
}

static enum lock_kind kind_of(const struct line *l)
{
	return !strcmp(l->kind, "FLOCK")				? LOCK_FLOCK
	       : !strcmp(l->kind, "OFDLCK")				? LOCK_OFD
	       : !strcmp(l->kind, "POSIX")				? LOCK_POSIX
	       : !strcmp(l->kind, "LEASE") && !strcmp(l->how, "ACTIVE") ? LOCK_LEASE
									: 0;
}

/* The text of the next lock after @at (of the first one: NULL). */
static const char *next_lock(const struct fd_info *f, const char *at)
{
	static const char key[] = "\nlock:\t";

	at = strstr(at ? at : f->fdinfo, key);
	return at ? at + sizeof(key) - 1 : NULL;
}

const char *locks_reason(const struct fd_info *f)
{
	for (const char *at = NULL; (at = next_lock(f, at));) {
		struct line l;

		if (!parse(at, &l) || !kind_of(&l))
			return strstr(at, "BREAKING") ? "a file whose lease is being broken"
						      : "a file with an unknown kind of lock";
	}
	return NULL;
}

static bool known(const struct lock_list *list, const struct lock *l)
{
	vec_each (k, list)
		if (k->file == l->file && k->kind == l->kind && k->start == l->start &&
		    k->length == l->length)
			return true;
	return false;
}

/* A lease is set again by whoever set it; where that process is gone, by the first that has it. */
static bool sets_lease(pid_t self, const struct line *l, bool fresh)
{
	return l->pid == self ||
	       (fresh && (l->pid <= 0 || (kill(l->pid, 0) && errno == ESRCH)));
}

int locks_note(struct lock_list *list, pid_t pid, const struct fd_info *f, uint32_t file,
	       bool fresh)
{
	for (const char *at = NULL; (at = next_lock(f, at));) {
		struct lock lock = {.file = file, .fd = f->fd}, *slot;
		struct line l;

		if (!parse(at, &l) || !kind_of(&l))
			return refuse(-EOPNOTSUPP, "descriptor %d (%s) has the lock '%.*s'",
				      f->fd, f->path, (int)strcspn(at, "\n"), at);
		lock.kind = kind_of(&l);
		lock.write = !strcmp(l.type, "WRITE");
		lock.start = l.start;
		lock.length =
			strcmp(l.end, "EOF") ? strtoull(l.end, NULL, 10) - l.start + 1 : 0;
		if (lock.kind == LOCK_LEASE ? !sets_lease(pid, &l, fresh)
					    : lock.kind != LOCK_POSIX && !fresh)
			continue;
		if (known(list, &lock))
			continue;
		slot = vec_push(list);
		if (!slot)
			return fail(-ENOMEM, "note locks");
		*slot = lock;
	}
	return 0;
}

int locks_pack(const struct lock_list *list, Icp__Process *image)
{
	_cleanup_free_ Icp__FileLock *msgs = calloc(list->n + 1, sizeof(*msgs));
	_cleanup_free_ Icp__FileLock **slots = calloc(list->n + 1, sizeof(*slots));
	Icp__FileLocks all = ICP__FILE_LOCKS__INIT;

	if (!list->n)
		return 0;
	if (!msgs || !slots)
		return fail(-ENOMEM, "note locks");
	for (size_t i = 0; i < list->n; i++) {
		const struct lock *l = &list->data[i];

		icp__file_lock__init(&msgs[i]);
		msgs[i].file = l->file;
		msgs[i].fd = (uint32_t)l->fd;
		msgs[i].kind = l->kind;
		msgs[i].write = l->write;
		msgs[i].start = l->start;
		msgs[i].length = l->length;
		slots[i] = &msgs[i];
	}
	all.locks = slots;
	all.n_locks = list->n;
	return state_pack_blob(&image->blobs, &image->n_blobs, "locks", LOCKS_VERSION,
			       &all.base);
}

/* ---- restore ---- */

static int check(struct state_restore *r, void **slot)
{
	Icp__FileLocks *msg;
	int err;

	if (!state_find_blob(r->image->blobs, r->image->n_blobs, "locks"))
		return 0;
	err = restore_unpack(r->image->blobs, r->image->n_blobs, "locks", LOCKS_VERSION,
			     &icp__file_locks__descriptor, &msg);
	if (err)
		return err;
	*slot = msg;
	for (size_t i = 0; i < msg->n_locks; i++) {
		const Icp__FileLock *l = msg->locks[i];

		if (msg->n_locks > LOCKS_MAX || l->kind < LOCK_FLOCK || l->kind > LOCK_LEASE ||
		    l->start > INT64_MAX || l->length > INT64_MAX - l->start)
			return refuse(-EBADMSG, "a lock on descriptor %u makes no sense",
				      l->fd);
	}
	return 0;
}

static void free_note(void *note)
{
	protobuf_c_message_free_unpacked(note, NULL);
}

static struct flock range_of(const Icp__FileLock *l)
{
	return (struct flock){.l_type = l->write ? F_WRLCK : F_RDLCK,
			      .l_whence = SEEK_SET,
			      .l_start = (off_t)l->start,
			      .l_len = (off_t)l->length};
}

/* Somebody with a lock on the file, from /proc/locks; 0: nobody that we can see. */
static pid_t holder(int fd)
{
	_cleanup_free_ char *text = NULL;
	struct stat st;

	if (fstat(fd, &st) || io_read_file(AT_FDCWD, "/proc/locks", &text, NULL))
		return 0;
	for (char *at = text, *next; at && *at; at = next) {
		struct line l;

		next = strchr(at, '\n');
		next = next ? next + 1 : NULL;
		if (parse(at, &l) && l.inode == st.st_ino && l.pid > 0 &&
		    makedev(l.major, l.minor) == st.st_dev)
			return l.pid;
	}
	return 0;
}

static int taken(const Icp__FileLock *l, int fd, pid_t pid)
{
	_cleanup_free_ char *comm = NULL, *path = NULL;
	char name[64], who[64] = "somebody";

	if (pid <= 0)
		pid = holder(fd);
	if (pid > 0) {
		snprintf(name, sizeof(name), "/proc/%d/comm", pid);
		if (io_read_file(AT_FDCWD, name, &comm, NULL))
			comm = strdup("?\n");
		snprintf(who, sizeof(who), "pid %d (%.*s)", pid,
			 comm ? (int)strcspn(comm, "\n") : 0, comm);
	}
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	if (procfs_link(AT_FDCWD, name, &path, NULL))
		path = NULL;
	return refuse(-EBUSY,
		      "descriptor %u: it had a lock on %s, which %s has locked now: end that "
		      "first",
		      l->fd, path ? path : "a file", who);
}

/* What belongs to descriptions is taken; of what a process must take itself: would it get it? */
static int opened(struct state_restore *r, void *note)
{
	const Icp__FileLocks *msg = note;

	for (size_t i = 0; msg && i < msg->n_locks; i++) {
		const Icp__FileLock *l = msg->locks[i];
		int fd = files_restored_fd(r->job, l->file);
		struct flock range = range_of(l);

		if (fd < 0)
			return refuse(-EBADMSG, "a lock on descriptor %u, which isn't open",
				      l->fd);
		if (l->kind == LOCK_FLOCK &&
		    flock(fd, (l->write ? LOCK_EX : LOCK_SH) | LOCK_NB))
			return errno == EWOULDBLOCK ? taken(l, fd, 0)
						    : fail(-errno, "lock descriptor %u", l->fd);
		if (l->kind == LOCK_OFD && fcntl(fd, F_OFD_SETLK, &range))
			return errno == EAGAIN || errno == EACCES
				       ? taken(l, fd,
					       fcntl(fd, F_OFD_GETLK, &range) ? 0 : range.l_pid)
				       : fail(-errno, "lock descriptor %u", l->fd);
		if (l->kind == LOCK_POSIX && !fcntl(fd, F_GETLK, &range) &&
		    range.l_type != F_UNLCK)
			return taken(l, fd, range.l_pid);
	}
	return 0;
}

static int settle(struct state_restore *r, void *note, struct batch *b)
{
	const Icp__FileLocks *msg = note;
	int err = 0;

	for (size_t i = 0; msg && i < msg->n_locks && !err; i++) {
		const Icp__FileLock *l = msg->locks[i];
		struct flock range = range_of(l);
		uint64_t at;

		if (l->kind == LOCK_LEASE)
			err = batch_call(
				b, "take the lease on a descriptor", SYS_fcntl,
				BATCH_ARGS(l->fd, F_SETLEASE, l->write ? F_WRLCK : F_RDLCK));
		if (l->kind != LOCK_POSIX)
			continue;
		err = batch_data(b, &range, sizeof(range), &at);
		if (!err)
			err = batch_call(b, "take the lock on a descriptor", SYS_fcntl,
					 BATCH_ARGS(l->fd, F_SETLK, at));
	}
	return err;
}

static const struct restore_ops locks_restore = {
	.check = check, .opened = opened, .settle = settle, .free_note = free_note};

/* Dumped with the descriptors. The last kind, so that nothing is closed after it. */
const struct state_ops state_locks = {.name = "locks", .restore = &locks_restore};
