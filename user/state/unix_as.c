// SPDX-License-Identifier: GPL-2.0
/*
 * SO_PEERCRED is of whoever called socketpair(), connect() or listen(): so that is done by a
 * process with the pid that it was, which lives for that moment only.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "state/fd_unix.h"

/* File system access stays ours. Raw calls: nothing of the C library's is to notice. */
static int become(const Icp__SocketCredentials *c)
{
	gid_t gid = (gid_t)syscall(SYS_getegid);
	uid_t uid = (uid_t)syscall(SYS_geteuid);

	if (c->n_groups && syscall(SYS_setgroups, c->n_groups, c->groups) && errno != EPERM)
		return errno;
	if (c->gid != gid && syscall(SYS_setresgid, -1, c->gid, -1))
		return errno;
	if (c->uid != uid && syscall(SYS_setresuid, -1, c->uid, -1))
		return errno;
	syscall(SYS_setfsuid, uid);
	return 0;
}

static pid_t clone_with(pid_t pid)
{
	struct clone_args args = {.flags = CLONE_FILES,
				  .set_tid = pid > 0 ? (uint64_t)(uintptr_t)&pid : 0,
				  .set_tid_size = pid > 0};

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

int unix_as(const Icp__SocketCredentials *c, int (*fn)(const void *arg), const void *arg)
{
	pid_t pid = clone_with(c ? (pid_t)c->pid : 0);
	int status;

	if (pid < 0 && c && c->pid)
		pid = clone_with(0);
	if (pid < 0)
		return -errno;
	if (!pid) {
		int err = c ? become(c) : 0;

		syscall(SYS_exit_group, err ? err : fn(arg));
	}
	while (waitpid(pid, &status, __WALL) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}

struct pair {
	int type, fds[2];
};

static int make_pair(const void *arg)
{
	const struct pair *p = arg;
	int fds[2];

	if (socketpair(AF_UNIX, p->type | SOCK_CLOEXEC, 0, fds))
		return errno;
	/* in the places that our parent keeps for them */
	for (int i = 0; i < 2; i++)
		if (dup3(fds[i], p->fds[i], O_CLOEXEC) < 0 || close(fds[i]))
			return errno;
	return 0;
}

int unix_pair_as(const Icp__SocketCredentials *c, int type, int fds[2])
{
	struct pair p = {.type = type};
	int err;

	for (int i = 0; i < 2; i++)
		p.fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	err = p.fds[0] < 0 || p.fds[1] < 0 ? -errno : unix_as(c, make_pair, &p);
	for (int i = 0; i < 2; i++) {
		if (err)
			cleanup_fd(&p.fds[i]);
		fds[i] = p.fds[i];
	}
	return err ? fail(err, "make a pair of sockets") : 0;
}

static int do_listen(const void *arg)
{
	const int *a = arg;

	return listen(a[0], a[1]) ? errno : 0;
}

int unix_listen_as(const Icp__SocketCredentials *c, int fd, int backlog)
{
	const int arg[2] = {fd, backlog};
	int err = unix_as(c, do_listen, arg);

	return err ? fail(err, "listen on a socket") : 0;
}

struct connection {
	int fd;
	struct sockaddr_un address;
	socklen_t len;
};

static int do_connect(const void *arg)
{
	const struct connection *c = arg;

	return connect(c->fd, (const struct sockaddr *)&c->address, c->len) ? errno : 0;
}

int unix_connect_as(const Icp__SocketCredentials *c, int fd, int to)
{
	struct connection arg = {.fd = fd};
	_cleanup_fd_ int keep = -1;
	int flags = fcntl(fd, F_GETFL), err = unix_address(to, &arg.address, &keep);

	if (err < 0)
		return err;
	arg.len = (socklen_t)err;
	/* a queue that is full must not hold us up */
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	err = unix_as(c, do_connect, &arg);
	fcntl(fd, F_SETFL, flags);
	return err ? fail(err, "connect a socket") : 0;
}
