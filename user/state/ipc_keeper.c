// SPDX-License-Identifier: GPL-2.0
/*
 * System V objects outlive whoever makes them. Those of a restart are made by a small process of its own, the keeper, so that
 * there is no moment in which one is there and nobody knows of it: when the restart ends without saying that the job runs,
 * killed or not, the keeper removes what it made. In a session of its own: what kills our group does not reach it.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include "state/ipc.h"

enum op { MAKE, ENTER, KEEP };

struct request {
	enum op op;
	struct sysv_wanted w;
};

struct control {
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	};
};

/* ---- in the keeper ---- */

typedef VEC(struct kept {
	enum sysv_kind kind;
	int id;
}) kept_list;

/* False: whoever asks has ended. */
static bool receive(int sock, struct request *q, int *fd)
{
	struct control control;
	struct iovec iov = {q, sizeof(*q)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c;
	ssize_t got;

	*fd = -1;
	do {
		got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got != sizeof(*q))
		return false;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	return true;
}

/* There is room for it before it is there. */
static int make(const struct sysv_wanted *w, kept_list *all)
{
	struct kept *slot = vec_push(all);

	if (!slot)
		return -ENOMEM;
	slot->kind = w->kind;
	slot->id = sysv_make(w);
	if (slot->id >= 0)
		return slot->id;
	all->n--;
	return all->data[all->n].id;
}

static void __attribute__((noreturn)) keeper_main(int sock)
{
	kept_list all = {0};
	struct request q;
	sigset_t every;
	int fd, answer;

	sigfillset(&every);
	sigprocmask(SIG_SETMASK, &every, NULL);
	prctl(PR_SET_NAME, "icp-bpf ipc");
	setsid();
	if (sock && dup2(sock, 0) != 0)
		_exit(1);
	syscall(SYS_close_range, 1, ~0u, 0);
	while (receive(0, &q, &fd)) {
		if (q.op == KEEP)
			_exit(0);
		if (q.op == MAKE)
			answer = make(&q.w, &all);
		else
			answer = setns(fd, CLONE_NEWIPC) ? -errno : 0;
		if (fd >= 0)
			close(fd);
		if (send(0, &answer, sizeof(answer), MSG_NOSIGNAL) < 0)
			break;
	}
	vec_each (k, &all)
		ignore_failure(sysv_remove(k->kind, k->id));
	_exit(0);
}

/* ---- in icp-bpf ---- */

int ipc_keeper_start(struct ipc_keeper *k)
{
	int ends[2];

	*k = (struct ipc_keeper){.sock = -1};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return fail(-errno, "socketpair");
	/* no signal at its end, so nobody who waits for the job meets it */
	k->pid = (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0);
	if (!k->pid)
		keeper_main(ends[1]);
	close(ends[1]);
	k->sock = ends[0];
	return k->pid < 0 ? fail(-errno, "fork") : 0;
}

void ipc_keeper_end(struct ipc_keeper *k)
{
	cleanup_fd(&k->sock);
	while (k->pid > 0 && waitpid(k->pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	k->pid = 0;
}

/* ---- in the builder ---- */

static int tell(int sock, const struct request *q, int fd)
{
	struct control control = {0};
	struct iovec iov = {(void *)q, sizeof(*q)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
							.cmsg_level = SOL_SOCKET,
							.cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof(fd));
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL) == sizeof(*q) ? 0 : -EPIPE;
}

static int ask(int sock, const struct request *q, int fd)
{
	int answer, err = tell(sock, q, fd);
	ssize_t got;

	if (err)
		return err;
	do {
		got = recv(sock, &answer, sizeof(answer), 0);
	} while (got < 0 && errno == EINTR);
	return got == sizeof(answer) ? answer : -EPIPE;
}

int ipc_keeper_make(int sock, const struct sysv_wanted *w)
{
	return ask(sock, &(struct request){.op = MAKE, .w = *w}, -1);
}

int ipc_keeper_enter(int sock)
{
	_cleanup_fd_ int fd = open("/proc/thread-self/ns/ipc", O_RDONLY | O_CLOEXEC);
	int err = fd < 0 ? -errno : ask(sock, &(struct request){.op = ENTER}, fd);

	return err ? fail(err, "let the new objects be in the IPC namespace") : 0;
}

void ipc_keeper_keep(int sock)
{
	/* a keeper that was killed removes nothing */
	ignore_failure(tell(sock, &(struct request){.op = KEEP}, -1));
}
