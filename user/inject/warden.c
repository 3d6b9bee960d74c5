// SPDX-License-Identifier: GPL-2.0
/* The side of icp-bpf: start the warden, ask it, pass on what it says. */
#include "inject/warden.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/io.h"
#include "inject/proto.h"
#include "inject/repair.h"
#include "inject/second.h"

struct warden {
	int sock;
	pid_t pid, second;
	bool frozen; /* a freeze has succeeded, and no thaw was asked for */
};

int warden_send(int sock, const void *head, size_t head_len, const void *data, size_t len,
		int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov[2] = {{(void *)head, head_len}, {(void *)data, len}};

	while (iov[0].iov_len || iov[1].iov_len) {
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
		size_t put, of_head;
		ssize_t sent;

		if (fd >= 0) {
			msg.msg_control = control.buf;
			msg.msg_controllen = sizeof(control.buf);
			*CMSG_FIRSTHDR(&msg) =
				(struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
						 .cmsg_level = SOL_SOCKET,
						 .cmsg_type = SCM_RIGHTS};
			memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof(fd));
		}
		sent = sendmsg(sock, &msg, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return -errno;
		put = (size_t)sent;
		of_head = put < iov[0].iov_len ? put : iov[0].iov_len;
		iov[0].iov_base = (char *)iov[0].iov_base + of_head;
		iov[0].iov_len -= of_head;
		iov[1].iov_base = (char *)iov[1].iov_base + (put - of_head);
		iov[1].iov_len -= put - of_head;
		fd = -1;
	}
	return 0;
}

static int receive_reply(int sock, struct warden_reply *reply, int *fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {reply, sizeof(*reply)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c;
	ssize_t got;

	do {
		got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got <= 0)
		return got ? -errno : -ENODATA;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	return io_read_full(sock, (char *)reply + got, sizeof(*reply) - (size_t)got);
}

/* Ask; @in is @q->len bytes of data. On success @reply is filled and its data is in *@out, to
 * be freed. */
static int ask(struct warden *w, const struct warden_request *q, const void *in,
	       struct warden_reply *reply, void **out, int *out_fd)
{
	_cleanup_free_ char *data = NULL;
	_cleanup_fd_ int fd = -1;
	int err;

	err = warden_send(w->sock, q, sizeof(*q), in, q->len, -1);
	if (!err)
		err = receive_reply(w->sock, reply, &fd);
	if (!err && reply->len) {
		data = malloc(reply->len);
		err = data ? io_read_full(w->sock, data, reply->len) : -ENOMEM;
	}
	if (err)
		return refuse(-EPIPE, "the warden has died (%s); what it had frozen runs on",
			      strerror(-err));
	if (reply->err)
		return refuse(reply->err, "%s", reply->text);
	if (out)
		*out = take_ptr(data);
	if (out_fd)
		*out_fd = take_fd(&fd);
	return 0;
}

/* In a new process, whose descriptors from 3 on are its own. */
static void settle(const char *name)
{
	int fd;

	setsid();
	prctl(PR_SET_NAME, name);
	/* On a busy machine what it has stopped would wait with it. Needs CAP_SYS_NICE. */
	if (setpriority(PRIO_PROCESS, 0, -20))
		errno = 0;
	signal(SIGCHLD, SIG_DFL); /* if it were ignored the tracees' statuses would be lost */
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		/* Lowering it needs CAP_SYS_RESOURCE. */
		if (write(fd, "-1000", 5) < 0)
			errno = 0;
		close(fd);
	}
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i <= 2 && fd >= 0; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

/* In the new process: keep nothing but the socket and the pidfd of its owner. */
static void become_warden(int sock, int pidfd, pid_t owner, struct journal *journal)
{
	/* Out of the way of 0 to 4 first, then exactly there. */
	sock = fcntl(sock, F_DUPFD, 5);
	pidfd = fcntl(pidfd, F_DUPFD, 5);
	if (dup2(sock, 3) < 0 || dup2(pidfd, 4) < 0)
		return;
	close_range(5, ~0u, 0);
	settle("icp-warden");
	journal_use(journal);
	warden_serve(3, 4, owner);
}

static void become_second(struct journal *journal, pid_t warden)
{
	close_range(3, ~0u, 0);
	settle("icp-second");
	second_serve(journal, warden);
}

/* Both with all signals blocked. */
static int start(struct warden *w, int sock, int self, struct journal *journal)
{
	pid_t owner = getpid();

	w->pid = fork();
	if (!w->pid) {
		become_warden(sock, self, owner, journal);
		_exit(0);
	}
	if (w->pid < 0)
		return fail(-errno, "start the warden: fork");
	w->second = fork();
	if (!w->second)
		become_second(journal, w->pid);
	return w->second < 0 ? fail(-errno, "start the warden: fork") : 0;
}

static void reap(pid_t pid)
{
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

int warden_open(struct warden **out)
{
	_cleanup_free_ struct warden *w = calloc(1, sizeof(*w));
	_cleanup_fd_ int ours = -1, theirs = -1, self = -1;
	struct journal *journal;
	sigset_t all, old;
	int pair[2], err;

	if (!w)
		return fail(-ENOMEM, "start the warden");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return fail(-errno, "start the warden");
	ours = pair[0];
	theirs = pair[1];
	self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (self < 0)
		return fail(-errno, "start the warden: pidfd_open");
	journal = journal_new();
	if (!journal)
		return fail(-ENOMEM, "start the warden");
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	err = start(w, theirs, self, journal);
	sigprocmask(SIG_SETMASK, &old, NULL);
	journal_free(journal);
	if (err) {
		close(take_fd(&ours));
		reap(w->pid);
		return err;
	}
	w->sock = take_fd(&ours);
	*out = take_ptr(w);
	return 0;
}

void warden_close(struct warden *w)
{
	if (!w)
		return;
	close(w->sock);
	reap(w->pid);
	reap(w->second);
	free(w);
}

int warden_uffd(struct warden *w, pid_t pid, int *uffd, uint64_t *stopped_ns)
{
	struct warden_request q = {.op = WARDEN_UFFD, .id = pid};
	struct warden_reply r;
	int err = ask(w, &q, NULL, &r, NULL, uffd);

	if (!err && stopped_ns)
		*stopped_ns = r.ns;
	return err;
}

int warden_freeze(struct warden *w, const pid_t *pids, size_t n, bool follow,
		  unsigned deadline_ms, uint64_t *frozen_ns)
{
	struct warden_request q = {.op = WARDEN_FREEZE,
				   .request = follow,
				   .addr = deadline_ms,
				   .len = (uint32_t)(n * sizeof(*pids))};
	struct warden_reply r;
	int err;

	if (!n || n > WARDEN_DATA_MAX / sizeof(*pids))
		return refuse(-EINVAL, "freeze %zu processes", n);
	err = ask(w, &q, pids, &r, NULL, NULL);
	w->frozen |= !err;
	if (!err && frozen_ns)
		*frozen_ns = r.ns;
	return err;
}

bool warden_is_frozen(const struct warden *w)
{
	return w->frozen;
}

int warden_threads(struct warden *w, struct warden_thread **out, size_t *n)
{
	struct warden_request q = {.op = WARDEN_THREADS};
	struct warden_reply r;
	void *data;
	int err = ask(w, &q, NULL, &r, &data, NULL);

	if (err)
		return err;
	*out = data;
	*n = r.len / sizeof(**out);
	return 0;
}

int warden_regset(struct warden *w, pid_t tid, unsigned type, void *data, size_t *len)
{
	struct warden_request q = {
		.op = WARDEN_REGSET, .id = tid, .request = type, .room = (uint32_t)*len};
	_cleanup_free_ void *got = NULL;
	struct warden_reply r;
	int err = ask(w, &q, NULL, &r, &got, NULL);

	if (err)
		return err;
	if (r.len)
		memcpy(data, got, r.len);
	*len = r.len;
	return 0;
}

long warden_ptrace(struct warden *w, long request, pid_t tid, uint64_t addr, const void *in,
		   size_t in_len, void *data, size_t *len)
{
	struct warden_request q = {.op = WARDEN_PTRACE,
				   .id = tid,
				   .request = (uint64_t)request,
				   .addr = addr,
				   .room = len ? (uint32_t)*len : 0,
				   .len = in ? (uint32_t)in_len : 0};
	_cleanup_free_ void *got = NULL;
	struct warden_reply r;
	int err = ask(w, &q, in, &r, &got, NULL);

	if (err)
		return err;
	if (r.len)
		memcpy(data, got, r.len);
	return r.ret;
}

int warden_inject(struct warden *w, pid_t tid, struct warden_call *calls, size_t n)
{
	struct warden_request q = {
		.op = WARDEN_INJECT, .id = tid, .len = (uint32_t)(n * sizeof(*calls))};
	_cleanup_free_ void *got = NULL;
	struct warden_reply r;
	int err;

	if (n > WARDEN_DATA_MAX / sizeof(*calls))
		return refuse(-EINVAL, "inject %zu calls", n);
	err = ask(w, &q, calls, &r, &got, NULL);
	if (!err && r.len)
		memcpy(calls, got, r.len);
	return err;
}

static int send_ask(struct warden *w, const struct warden_ask *a)
{
	static const uint32_t ops[] = {[WARDEN_ASK_REGSET] = WARDEN_REGSET,
				       [WARDEN_ASK_PTRACE] = WARDEN_PTRACE,
				       [WARDEN_ASK_INJECT] = WARDEN_INJECT};
	bool inject = a->what == WARDEN_ASK_INJECT;
	const void *in = inject ? a->calls : a->in;
	size_t len = inject ? a->n_calls * sizeof(*a->calls) : a->in ? a->in_len : 0;
	struct warden_request q = {.op = ops[a->what],
				   .id = a->tid,
				   .request = a->request,
				   .addr = a->addr,
				   .room = (uint32_t)a->len,
				   .len = (uint32_t)len};

	return warden_send(w->sock, &q, sizeof(q), in, len, -1);
}

static int receive_ask(struct warden *w, struct warden_ask *a)
{
	struct warden_reply r;
	size_t calls = 0;
	int err, fd = -1;

	err = receive_reply(w->sock, &r, &fd);
	if (err)
		return err;
	a->ret = r.err ? r.err : r.ret;
	if (r.err)
		return 0;
	if (a->what == WARDEN_ASK_INJECT)
		calls = a->n_calls * sizeof(*a->calls);
	if (r.len < calls || r.len - calls > a->len)
		return -EPROTO;
	a->len = r.len - calls;
	if (calls)
		err = io_read_full(w->sock, a->calls, calls);
	return err || !a->len ? err : io_read_full(w->sock, a->data, a->len);
}

int warden_ask_all(struct warden *w, struct warden_ask *asks, size_t n)
{
	int err = 0;

	for (size_t i = 0; !err && i < n; i++)
		err = send_ask(w, &asks[i]);
	for (size_t i = 0; !err && i < n; i++)
		err = receive_ask(w, &asks[i]);
	if (err)
		return refuse(-EPIPE, "the warden has died (%s); what it had frozen runs on",
			      strerror(-err));
	return 0;
}

int warden_thaw(struct warden *w, uint64_t *paused_ns)
{
	struct warden_request q = {.op = WARDEN_THAW};
	struct warden_reply r;
	int err = ask(w, &q, NULL, &r, NULL, NULL);

	w->frozen = false;
	if (!err && paused_ns)
		*paused_ns = r.ns;
	return err;
}

int warden_kill(struct warden *w)
{
	struct warden_request q = {.op = WARDEN_KILL};
	struct warden_reply r;

	w->frozen = false;
	return ask(w, &q, NULL, &r, NULL, NULL);
}

int warden_remove_later(struct warden *w, const char *path)
{
	struct warden_request q = {.op = WARDEN_REMOVE, .len = (uint32_t)strlen(path)};
	struct warden_reply r;

	return ask(w, &q, path, &r, NULL, NULL);
}

int warden_leave_stopped(struct warden *w)
{
	struct warden_request q = {.op = WARDEN_LEAVE_STOPPED};
	struct warden_reply r;

	w->frozen = false;
	return ask(w, &q, NULL, &r, NULL, NULL);
}

static int send_repair(struct warden *w, const struct warden_repair *ask)
{
	struct warden_request q = {.op = WARDEN_REPAIR,
				   .id = ask->pid,
				   .request = (uint64_t)ask->fd,
				   .room = (uint32_t)(sizeof(*ask->out) + ask->room)};

	return warden_send(w->sock, &q, sizeof(q), NULL, 0, -1);
}

/* @answer: the warden's, or of what there is none. */
static int receive_repair(struct warden *w, const struct warden_repair *ask,
			  struct warden_reply *answer)
{
	int fd = -1, err = receive_reply(w->sock, answer, &fd);

	if (err || answer->err)
		return err;
	if (answer->len != sizeof(*ask->out) + ask->room)
		return -EPROTO;
	err = io_read_full(w->sock, ask->out, sizeof(*ask->out));
	return err ? err : io_read_full(w->sock, ask->data, ask->room);
}

int warden_repair(struct warden *w, const struct warden_repair *list, size_t n)
{
	int err = 0, broken = 0;

	if (n > WARDEN_REPAIRS)
		return refuse(-EINVAL, "read %zu connections", n);
	for (size_t i = 0; i < n; i++)
		if (list[i].room > WARDEN_DATA_MAX - sizeof(*list[i].out))
			return refuse(-E2BIG, "there are %zu bytes to send", list[i].room);
	for (size_t i = 0; i < n && !broken; i++)
		broken = send_repair(w, &list[i]);
	for (size_t i = 0; i < n && !broken; i++) {
		struct warden_reply r = {0};

		broken = receive_repair(w, &list[i], &r);
		if (!broken && r.err && !err)
			err = refuse(r.err, "%s", r.text);
	}
	return broken ? refuse(-EPIPE, "the warden has died (%s); what it had frozen runs on",
			       strerror(-broken))
		      : err;
}

int warden_hold(struct warden *w, const char *table)
{
	struct warden_request q = {.op = WARDEN_HOLD,
				   .len = table ? (uint32_t)strlen(table) : 0};
	struct warden_reply r;

	return ask(w, &q, table, &r, NULL, NULL);
}
