/* SPDX-License-Identifier: GPL-2.0 */
/* Open files. What the kinds do: fdkind.h. Their numbers are in images: only append. */
#ifndef ICP_STATE_FILES_H
#define ICP_STATE_FILES_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "state/kinds.h"
#include "state/restore.h"

enum file_kind {
	FILE_REGULAR = 1,
	FILE_DIRECTORY,
	FILE_PIPE,	    /* anonymous; the bytes in it are in PipeContent */
	FILE_FIFO,	    /* with a name */
	FILE_MEMORY_DEVICE, /* /dev/null, zero, full, random, urandom */
	FILE_TERMINAL,
	FILE_MEMFD,
	FILE_PATH, /* O_PATH */
	FILE_OTHER_DEVICE = 32,
	FILE_SOCKET,
	FILE_EPOLL,
	FILE_EVENTFD,
	FILE_TIMERFD,
	FILE_SIGNALFD,
	FILE_INOTIFY,
	FILE_FANOTIFY,
	FILE_PIDFD,
	FILE_USERFAULTFD,
	FILE_IO_URING,
	FILE_PERF_EVENT,
	FILE_BPF,
	FILE_PROC, /* a file of /proc: says something else after a restart */
	FILE_NAMESPACE,
	FILE_OTHER,
	FILE_TCP,
	FILE_UDP,
	FILE_NETLINK,
	FILE_UNIX,
	FILE_PTY_MASTER,
	FILE_KINDS, /* how many; append before */
};

/* What it is, from where its link in /proc leads, its stat, and the O_* flags of its fdinfo. */
enum file_kind file_classify(const char *path, const struct stat *st, uint32_t flags);

/* One descriptor as /proc tells. */
struct fd_info {
	int fd;
	uint32_t flags; /* O_CLOEXEC included */
	int64_t pos;
	uint32_t mnt_id;
	struct stat st;
	bool deleted;
	enum file_kind kind;
	uint64_t tag; /* tells apart what shares an inode: eventfds have numbers */
	char *path;
	char *fdinfo; /* the whole text */
};

/* Those of @t, by number, in a vector. free_fds() on it. */
struct fd_list {
	struct fd_info *data;
	size_t n, cap;
};
/* The one descriptor @fd of @t. */
int fd_info_read(const struct target *t, int fd, struct fd_info *out) _must_use_;
int fd_list_read(const struct target *t, struct fd_list *out) _must_use_;
void fd_list_free(struct fd_list *list);
#define _cleanup_fd_list_ _cleanup_(fd_list_free)

/* check() of the kind. */
int files_check(struct state_process *p) _must_use_;

/* The restore half. */
#define FILES_VERSION 1
int files_restore_new(struct restore_job *job) _must_use_; /* unpacks; sets first_fd */
void files_restore_free(struct restore_files *f);
extern const struct restore_ops files_restore;

/* Refuse when a process that is restarted (@kept) shares what can't be opened again with one that isn't. */
int files_check_shared(const Icp__Manifest *m, const bool *kept) _must_use_;

#endif
