// SPDX-License-Identifier: GPL-2.0
#include "proc/target.h"

#include <ctype.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io.h"

#define PF_KTHREAD 0x00200000 /* include/linux/sched.h; field 9 of /proc/PID/stat */

static int read_stat(const struct target *t, char *state, uint64_t *flags, uint64_t *start)
{
	_cleanup_free_ char *text = NULL;
	const char *after;
	char *end;
	int err = io_read_file(t->proc_fd, "stat", &text, NULL);

	if (err)
		return err;
	after = strrchr(text, ')'); /* comm may hold anything, also ") " */
	if (!after || !after[1])
		return -ESRCH;
	after += 2;
	*state = *after;
	for (int field = 3; field < 9 && after; field++)
		after = strchr(after + 1, ' ');
	if (!after)
		return -EPROTO;
	*flags = strtoull(after, &end, 10);
	for (int field = 9; field < 22 && after; field++)
		after = strchr(after + 1, ' ');
	if (!after)
		return -EPROTO;
	*start = strtoull(after, &end, 10);
	return 0;
}

static const char *status_field(const char *text, const char *key)
{
	size_t len = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, key, len) && line[len] == ':') {
			line += len + 1;
			while (*line == ' ' || *line == '\t')
				line++;
			return line;
		}
	}
	return NULL;
}

static uint64_t status_number(const char *text, const char *key)
{
	const char *value = status_field(text, key);

	return value ? strtoull(value, NULL, 10) : 0;
}

int target_status(const struct target *t, struct target_status *out)
{
	_cleanup_free_ char *text = NULL;
	uint64_t flags, start;
	const char *state;
	int err = io_read_file(t->proc_fd, "status", &text, NULL);

	if (err)
		return err;
	state = status_field(text, "State");
	*out = (struct target_status){
		.state = state ? *state : 'X',
		.ppid = (pid_t)status_number(text, "PPid"),
		.tracer = (pid_t)status_number(text, "TracerPid"),
		.seccomp = (int)status_number(text, "Seccomp"),
		.vm_pin_kb = status_number(text, "VmPin"),
		.rss_kb = status_number(text, "VmRSS"),
		.threads = (unsigned)status_number(text, "Threads"),
	};
	err = read_stat(t, &out->state, &flags, &start);
	if (!err)
		out->kthread = flags & PF_KTHREAD;
	return err;
}

static int read_identity(struct target *t)
{
	_cleanup_free_ char *comm = NULL, *status = NULL;
	uint64_t flags;
	char state;
	int err = read_stat(t, &state, &flags, &t->start_time);

	if (!err)
		err = io_read_file(t->proc_fd, "comm", &comm, NULL);
	if (!err)
		err = io_read_file(t->proc_fd, "status", &status, NULL);
	if (err)
		return err == -ESRCH ? refuse(-ESRCH, "no such process")
				     : fail(err, "read its state in /proc");
	comm[strcspn(comm, "\n")] = 0;
	snprintf(t->comm, sizeof(t->comm), "%.15s", comm);
	t->uid = (uid_t)status_number(status, "Uid");
	if (flags & PF_KTHREAD)
		return refuse(-EINVAL, "%s is a kernel thread: it has no memory of its own",
			      t->comm);
	if (state == 'Z' && status_number(status, "Threads") > 1)
		return refuse(-EOPNOTSUPP,
			      "%s: its main thread has ended while others run on, which is not "
			      "supported",
			      t->comm);
	if (state == 'Z' || state == 'X')
		return refuse(-ESRCH, "%s is a zombie: it has already ended", t->comm);
	if (status_number(status, "Tgid") != (uint64_t)t->pid)
		return refuse(-EINVAL, "is a thread of process %ld: name the process",
			      (long)status_number(status, "Tgid"));
	return 0;
}

/* The executable's ELF class; the registers decide for good when the warden attaches. */
static int check_class(const struct target *t)
{
	unsigned char ident[EI_NIDENT];
	_cleanup_fd_ int fd = io_open_unseen(t->proc_fd, "exe", 0);

	if (fd < 0 || io_read_full(fd, ident, sizeof(ident)) || memcmp(ident, ELFMAG, SELFMAG))
		return 0;
	if (ident[EI_CLASS] == ELFCLASS32)
		return refuse(-EOPNOTSUPP,
			      "%s is a 32-bit process: only 64-bit ones are supported",
			      t->comm);
	return 0;
}

int target_reopen_pagemap(struct target *t)
{
	_cleanup_fd_ int fd = openat(t->proc_fd, "pagemap", O_RDONLY | O_CLOEXEC);
	char byte[8];

	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return refuse(-EPERM,
			      "not permitted to look at %s (uid %u): run as root, or with "
			      "CAP_SYS_PTRACE",
			      t->comm, t->uid);
	if (fd < 0 && (errno == ENOENT || errno == ESRCH))
		return -ESRCH;
	if (fd < 0)
		return fail(-errno, "open its pagemap");
	if (pread(fd, byte, sizeof(byte), 0) < 0)
		return fail(-errno, "read its pagemap");
	if (t->pagemap_fd >= 0)
		close(t->pagemap_fd);
	t->pagemap_fd = take_fd(&fd);
	return 0;
}

static int open_checked(struct target *t)
{
	char path[32];
	int err;

	snprintf(path, sizeof(path), "/proc/%d", t->pid);
	t->pidfd = (int)syscall(SYS_pidfd_open, t->pid, 0);
	t->proc_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (t->proc_fd < 0)
		return refuse(-ESRCH, "no such process");
	err = read_identity(t);
	if (err)
		return err;
	if (t->pidfd < 0)
		return fail(-ESRCH, "pidfd_open");
	if (t->pid == getpid())
		return refuse(-EINVAL, "is icp-bpf itself");
	err = check_class(t);
	return err ? err : target_reopen_pagemap(t);
}

int target_open(pid_t pid, struct target **out)
{
	_cleanup_target_ struct target *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return fail(-ENOMEM, "pid %d", pid);
	*t = (struct target){.pid = pid, .pidfd = -1, .proc_fd = -1, .pagemap_fd = -1};
	err = open_checked(t);
	if (err)
		return wrap(err, "pid %d", pid);
	*out = take_ptr(t);
	return 0;
}

void target_free(struct target *t)
{
	if (!t)
		return;
	cleanup_fd(&t->pidfd);
	cleanup_fd(&t->proc_fd);
	cleanup_fd(&t->pagemap_fd);
	free(t);
}

bool target_alive(const struct target *t)
{
	struct pollfd p = {.fd = t->pidfd, .events = POLLIN};

	return poll(&p, 1, 0) == 0;
}

int target_reopen_mm(struct target *t)
{
	int err = read_identity(t);

	if (!err)
		err = check_class(t);
	if (!err)
		err = target_reopen_pagemap(t);
	return err ? wrap(err, "pid %d", t->pid) : 0;
}

bool target_memory_gone(const struct target *t)
{
	uint64_t entry;

	return !pread(t->pagemap_fd, &entry, sizeof(entry), 0);
}

int target_executed(const struct target *t)
{
	return refuse(-EAGAIN, "pid %d executed another program meanwhile: try again", t->pid);
}

bool target_ended(const struct target *t)
{
	struct pollfd p = {.fd = t->pidfd, .events = POLLIN};

	return poll(&p, 1, 200) != 0;
}

int boot_id(char id[37])
{
	_cleanup_free_ char *text = NULL;
	int err = io_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", &text, NULL);

	if (err)
		return fail(err, "read the boot id");
	snprintf(id, 37, "%.36s", text);
	return 0;
}
