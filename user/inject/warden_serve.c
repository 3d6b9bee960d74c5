// SPDX-License-Identifier: GPL-2.0
/* The warden's own process: one request at a time, and the deadline. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/io.h"
#include "inject/arch.h"
#include "inject/freeze.h"
#include "inject/proto.h"
#include "inject/repair.h"
#include "inject/second.h"
#include "inject/syscall.h"
#include "inject/warden.h"

#define UFFD_USER_MODE_ONLY 1
#define GONE_NS 2000000000ull /* how long killed processes are given to be gone */

/* Requests of <linux/ptrace.h> that only read, and how many bytes each may write at most. */
#define SECCOMP_GET_METADATA 0x420d
#define SECCOMP_FILTER_MAX (4096 * 8) /* BPF_MAXINSNS instructions */
static const struct {
	unsigned long request;
	size_t writes; /* 0: as many as the request's @addr or count says, checked below */
} readers[] = {
	{0x4201, 8},		      /* GETEVENTMSG */
	{0x4202, sizeof(siginfo_t)},  /* GETSIGINFO */
	{0x4209, 0},		      /* PEEKSIGINFO */
	{0x420a, 8},		      /* GETSIGMASK */
	{0x420c, SECCOMP_FILTER_MAX}, /* SECCOMP_GET_FILTER */
	{SECCOMP_GET_METADATA, 0},
	{0x420e, 0}, /* GET_SYSCALL_INFO */
	{0x420f, 0}, /* GET_RSEQ_CONFIGURATION */
	{0x4210, 0}, /* GET_SYSCALL_USER_DISPATCH_CONFIG */
};

struct server {
	int sock;
	struct freeze freeze;
	bool frozen, expired;
	uint64_t deadline;
	pid_t insn_pid; /* whose instruction it is */
	uint64_t insn;
	VEC(char) data;	 /* of the reply */
	char *remove[2]; /* files to remove at the end */
	char *table;	 /* and what holds back packets */
};

static int room(struct server *s, size_t len)
{
	if (len > WARDEN_DATA_MAX || vec_reserve(&s->data, len + 1))
		return fail(-ENOMEM, "%zu bytes of reply", len);
	memset(s->data.data, 0, len + 1);
	return 0;
}

static int check_frozen(const struct server *s)
{
	if (s->expired)
		return refuse(-ETIMEDOUT, "the deadline passed and the job was thawed");
	if (!s->frozen)
		return refuse(-EINVAL, "nothing is frozen");
	return 0;
}

static int find_thread(struct server *s, pid_t tid, struct tracee **out)
{
	int err = check_frozen(s);

	if (err)
		return err;
	*out = freeze_find(&s->freeze, tid);
	if (!*out || (*out)->state != TRACEE_STOPPED)
		return refuse(-ESRCH, "thread %d is not one of the frozen job", tid);
	return 0;
}

/* icp-bpf is dead or late, and something that a call has made is still there. */
static void undo_rest(struct server *s)
{
	struct warden_call call;
	uint64_t insn;
	pid_t tid = note_undo(&insn, &call);
	struct tracee *t = tid ? freeze_find(&s->freeze, tid) : NULL;
	int err;

	if (t && t->state == TRACEE_STOPPED)
		inject_run(t, insn, &call, 1, &err);
	if (tid)
		note_gone(tid); /* nobody will have it in hand again */
}

static void thaw(struct server *s)
{
	undo_rest(s);
	freeze_release(&s->freeze);
	s->frozen = false;
}

/* The part of an attach between the first stop and the release. */
static int make_uffd(struct tracee *t, uint64_t insn, int pidfd, int *uffd)
{
	struct warden_call call = {.nr = SYS_userfaultfd, .args = {O_CLOEXEC | O_NONBLOCK}};
	int err, got;

	if (!inject_run(t, insn, &call, 1, &err))
		return err;
	if (call.ret == -EPERM) {
		call.args[0] |= UFFD_USER_MODE_ONLY;
		if (!inject_run(t, insn, &call, 1, &err))
			return err;
	}
	if (call.ret < 0)
		return fail((int)call.ret, "userfaultfd in process %d", t->pid);
	got = (int)syscall(SYS_pidfd_getfd, pidfd, (int)call.ret, 0);
	err = got < 0 ? -errno : 0;
	call = (struct warden_call){.nr = SYS_close, .args = {(uint64_t)call.ret}};
	*uffd = got;
	if (err == -EPERM)
		err = refuse(
			err,
			"may not take a descriptor of process %d: CAP_SYS_PTRACE is needed",
			t->pid);
	else if (err)
		err = fail(err, "take the userfaultfd out of process %d", t->pid);
	if (inject_run(t, insn, &call, 1, &got))
		return err;
	return err ? err : got;
}

/* An x32 program: its system calls have other numbers, and its pointers 32 bits. Bare 0 when it
 * can't be told. */
static int check_class(pid_t pid)
{
	_cleanup_fd_ int fd = -1;
	unsigned char ident[5];
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && !io_read_full(fd, ident, sizeof(ident)) && ident[4] == 1)
		return refuse(-ENOEXEC, "process %d is a 32-bit process", pid);
	return 0;
}

/* A process that died while frozen is reaped by its parent, and its number may belong to
 * somebody else by now. */
static bool proc_alive(struct freeze *f, pid_t pid)
{
	vec_each (t, &f->threads)
		if (t->pid == pid && t->state == TRACEE_STOPPED)
			return true;
	return false;
}

static int try_uffd(struct server *s, const struct warden_request *q, struct warden_reply *r,
		    int *fd)
{
	_cleanup_fd_ int pidfd = -1, uffd = -1;
	uint64_t insn = 0;
	int err = freeze_check(q->id, s->freeze.owner);

	if (!err && s->frozen && !proc_alive(&s->freeze, q->id))
		err = refuse(-EBUSY, "a job is frozen");
	if (!err)
		err = check_class(q->id);
	if (!err)
		err = inject_find(q->id, &insn);
	if (err)
		return err;
	pidfd = (int)syscall(SYS_pidfd_open, q->id, 0);
	if (pidfd < 0)
		return fail(-errno, "open process %d", q->id);
	note_await_second();
	err = s->frozen ? 0 : freeze_most(&s->freeze, q->id);
	if (err)
		return err;
	err = -ESRCH;
	vec_each (t, &s->freeze.threads) {
		if (t->pid != q->id || t->state != TRACEE_STOPPED)
			continue;
		err = make_uffd(t, insn, pidfd, &uffd);
		/* Another thread may be able to: this one was killed, or intercepts its calls.
		 */
		if (err != -ESRCH && err != -EBUSY)
			break;
	}
	if (!s->frozen) {
		r->ns = s->freeze.since;
		thaw(s);
		r->ns = now_ns() - r->ns;
	}
	if (err == -ESRCH)
		return refuse(err, "process %d has exited", q->id);
	if (err)
		return err;
	*fd = take_fd(&uffd);
	return 0;
}

static int serve_uffd(struct server *s, const struct warden_request *q, struct warden_reply *r,
		      int *fd)
{
	int err = try_uffd(s, q, r, fd);

	/* It may just have executed another program: its code came and went while we looked for
	 * it. */
	for (int again = 0; (err == -EAGAIN || err == -ENOEXEC) && again < 5; again++) {
		usleep(1000);
		err = try_uffd(s, q, r, fd);
	}
	return err;
}

static int serve_freeze(struct server *s, const struct warden_request *q, const void *in,
			struct warden_reply *r)
{
	const pid_t *pids = in;
	size_t n = q->len / sizeof(*pids);
	int err;

	if (s->frozen)
		return refuse(-EBUSY, "a job is frozen already");
	s->expired = false;
	s->insn_pid = 0;
	for (size_t i = 0; i < n; i++) {
		err = freeze_check(pids[i], s->freeze.owner);
		if (err)
			return err;
	}
	s->deadline = now_ns() + q->addr * 1000000ull;
	note_await_second();
	err = freeze_all(&s->freeze, pids, n, q->request, s->deadline);
	if (err)
		return err;
	s->frozen = true;
	s->deadline = s->freeze.since + q->addr * 1000000ull;
	r->ns = s->freeze.since;
	return 0;
}

static int serve_threads(struct server *s, struct warden_reply *r)
{
	struct warden_thread *out;
	int err = check_frozen(s);

	if (!err)
		err = room(s, s->freeze.threads.n * sizeof(*out));
	if (err)
		return err;
	out = (struct warden_thread *)(void *)s->data.data;
	vec_each (t, &s->freeze.threads) {
		if (t->state != TRACEE_STOPPED)
			continue;
		*out++ = (struct warden_thread){t->pid, t->tid, t->group_stop};
		r->len += sizeof(*out);
	}
	return 0;
}

static int serve_regset(struct server *s, const struct warden_request *q,
			struct warden_reply *r)
{
	struct tracee *t;
	struct iovec iov;
	int err = find_thread(s, q->id, &t);

	if (!err)
		err = room(s, q->room);
	if (err)
		return err;
	iov = (struct iovec){s->data.data, q->room};
	if (ptrace(PTRACE_GETREGSET, t->tid, q->request, &iov))
		return fail(-errno, "read register set %#lx of thread %d", q->request, t->tid);
	r->len = (uint32_t)iov.iov_len;
	if (q->request == NT_PRSTATUS && iov.iov_len == sizeof(struct arch_regs))
		arch_name_call(t->tid, iov.iov_base);
	return 0;
}

static int serve_ptrace(struct server *s, const struct warden_request *q, const void *in,
			struct warden_reply *r)
{
	uint64_t addr = q->len ? (uint64_t)(uintptr_t)in : q->addr;
	size_t writes = 0, i;
	struct tracee *t;
	int err = find_thread(s, q->id, &t);

	if (err)
		return err;
	for (i = 0; i < sizeof(readers) / sizeof(*readers); i++)
		if (readers[i].request == q->request)
			break;
	if (i == sizeof(readers) / sizeof(*readers))
		return refuse(-EINVAL, "ptrace request %#lx is not one that only reads",
			      q->request);
	writes = readers[i].writes;
	if (q->request == PTRACE_PEEKSIGINFO) {
		struct __ptrace_peeksiginfo_args args;

		if (q->len != sizeof(args))
			return refuse(-EINVAL, "PEEKSIGINFO without its arguments");
		memcpy(&args, in, sizeof(args));
		writes = args.nr < 0 ? 0 : (size_t)args.nr * sizeof(siginfo_t);
	} else if (!writes) {
		writes = q->addr;
	}
	if (q->request == SECCOMP_GET_METADATA)
		addr = q->addr; /* the index of the filter comes in the buffer */
	else if (q->request != PTRACE_PEEKSIGINFO && q->len)
		return refuse(-EINVAL, "ptrace request %#lx takes no argument", q->request);
	if (writes > WARDEN_DATA_MAX)
		return refuse(-EINVAL, "ptrace request %#lx: bad length", q->request);
	err = room(s, writes > q->room ? writes : q->room);
	if (err)
		return err;
	if (q->request == SECCOMP_GET_METADATA && q->len <= q->room)
		memcpy(s->data.data, in, q->len);
	/* No buffer asks for the size of a seccomp filter. */
	r->ret = syscall(SYS_ptrace, q->request, t->tid, addr, q->room ? s->data.data : NULL);
	if (r->ret < 0)
		return fail(-errno, "ptrace request %#lx of thread %d", q->request, t->tid);
	r->len = q->room;
	return 0;
}

/* Read (or @put back) the memory that injected calls may use. -EFAULT, bare. */
static int scratch_copy(pid_t tid, uint64_t addr, void *data, size_t len, bool put)
{
	struct iovec local = {data, len}, remote = {(void *)addr, len};
	ssize_t got = put ? process_vm_writev(tid, &local, 1, &remote, 1, 0)
			  : process_vm_readv(tid, &local, 1, &remote, 1, 0);

	return got == (ssize_t)len ? 0 : got < 0 && errno == ESRCH ? -ESRCH : -EFAULT;
}

/* @len bytes at @addr are as before afterwards, and what they held after the calls in @after.
 */
static int inject_with_scratch(struct server *s, struct tracee *t, struct warden_call *calls,
			       size_t n, uint64_t addr, void *after, size_t len)
{
	_cleanup_free_ void *before = len ? malloc(len) : NULL;
	int err = 0, back = 0;
	size_t done;

	if (len && !before)
		return fail(-ENOMEM, "inject into thread %d", t->tid);
	if (len && scratch_copy(t->tid, addr, before, len, false))
		return refuse(-EFAULT, "thread %d has no memory at %#lx", t->tid, addr);
	note_memory(t->pid, addr, before, len);
	done = inject_run(t, s->insn, calls, n, &err);
	if (len) {
		back = scratch_copy(t->tid, addr, after, len, false);
		if (!back)
			back = scratch_copy(t->tid, addr, before, len, true);
		note_memory(0, 0, NULL, 0);
	}
	if (err == -ESRCH || (!err && back == -ESRCH))
		return refuse(-ESRCH, "thread %d was killed", t->tid);
	if (back)
		return fail(back, "put back the memory of thread %d", t->tid);
	return done < n && !err ? -EIO : err;
}

static int serve_inject(struct server *s, const struct warden_request *q, const void *in,
			struct warden_reply *r)
{
	size_t n = q->len / sizeof(struct warden_call);
	struct tracee *t;
	int err = find_thread(s, q->id, &t);

	if (!err)
		err = room(s, (size_t)q->len + q->room);
	if (!err && s->insn_pid != t->pid) {
		err = inject_find(t->pid, &s->insn);
		s->insn_pid = err ? 0 : t->pid;
	}
	if (err)
		return err;
	memcpy(s->data.data, in, q->len);
	err = inject_with_scratch(s, t, (struct warden_call *)(void *)s->data.data, n, q->addr,
				  s->data.data + q->len, q->room);
	if (!err)
		r->len = q->len + q->room;
	return err;
}

static int serve_thaw(struct server *s, struct warden_reply *r)
{
	uint64_t since = s->freeze.since;
	int err = check_frozen(s);

	s->expired = false;
	if (err)
		return err;
	thaw(s);
	r->ns = now_ns() - since;
	return 0;
}

static int signal_all(struct server *s, int sig)
{
	int err = check_frozen(s);

	if (err)
		return err;
	freeze_drain(&s->freeze);
	vec_each (pid, &s->freeze.procs)
		if (proc_alive(&s->freeze, *pid) && kill(*pid, sig) && errno != ESRCH)
			err = fail(-errno, "send %s to process %d", strsignal(sig), *pid);
	return err;
}

static int serve_kill(struct server *s)
{
	uint64_t until = now_ns() + GONE_NS;
	int err = signal_all(s, SIGKILL);

	if (!err && !freeze_wait_dead(&s->freeze, until))
		err = refuse(-EBUSY, "the job was killed, but does not die");
	if (!s->expired)
		thaw(s);
	return err;
}

static int serve_leave_stopped(struct server *s)
{
	int err = signal_all(s, SIGSTOP);

	if (!s->expired)
		thaw(s);
	return err;
}

static int serve_remove(struct server *s, const struct warden_request *q, const char *path)
{
	char **slot = s->remove[0] ? &s->remove[1] : &s->remove[0];

	if (*slot)
		return refuse(-E2BIG, "more than two files to remove");
	*slot = strndup(path, q->len);
	return *slot ? 0 : fail(-ENOMEM, "path");
}

static int serve_repair(struct server *s, const struct warden_request *q,
			struct warden_reply *r)
{
	_cleanup_fd_ int pidfd = -1, sock = -1;
	struct repair_state *out;
	socklen_t len = sizeof(int);
	int reuse = 0, err = check_frozen(s);

	if (!err && (!proc_alive(&s->freeze, q->id) || q->room < sizeof(*out)))
		err = refuse(-ESRCH, "process %d is not one of the frozen job", q->id);
	if (!err)
		err = room(s, q->room);
	if (err)
		return err;
	pidfd = (int)syscall(SYS_pidfd_open, q->id, 0);
	if (pidfd >= 0)
		sock = (int)syscall(SYS_pidfd_getfd, pidfd, (int)q->request, 0);
	if (sock < 0 || getsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &reuse, &len))
		return fail(-errno, "take descriptor %d of process %d", (int)q->request, q->id);
	out = (struct repair_state *)(void *)s->data.data;
	note_repair(q->id, (int)q->request, reuse);
	err = repair_read(sock, out, out + 1, q->room - sizeof(*out));
	note_repair(0, -1, 0);
	r->len = q->room;
	return err ? fail(err, "read the connection of descriptor %d of process %d",
			  (int)q->request, q->id)
		   : 0;
}

static int serve_hold(struct server *s, const struct warden_request *q, const char *table)
{
	free(s->table);
	s->table = q->len ? strndup(table, q->len) : NULL;
	return s->table || !q->len ? 0 : fail(-ENOMEM, "table");
}

static int dispatch(struct server *s, const struct warden_request *q, const void *in,
		    struct warden_reply *r, int *fd)
{
	switch (q->op) {
	case WARDEN_UFFD:
		return serve_uffd(s, q, r, fd);
	case WARDEN_FREEZE:
		return serve_freeze(s, q, in, r);
	case WARDEN_THREADS:
		return serve_threads(s, r);
	case WARDEN_REGSET:
		return serve_regset(s, q, r);
	case WARDEN_PTRACE:
		return serve_ptrace(s, q, in, r);
	case WARDEN_INJECT:
		return serve_inject(s, q, in, r);
	case WARDEN_THAW:
		return serve_thaw(s, r);
	case WARDEN_KILL:
		return serve_kill(s);
	case WARDEN_LEAVE_STOPPED:
		return serve_leave_stopped(s);
	case WARDEN_REMOVE:
		return serve_remove(s, q, in);
	case WARDEN_REPAIR:
		return serve_repair(s, q, r);
	case WARDEN_HOLD:
		return serve_hold(s, q, in);
	}
	return refuse(-EINVAL, "unknown request %u", q->op);
}

static int serve_one(struct server *s)
{
	_cleanup_free_ void *in = NULL;
	_cleanup_fd_ int fd = -1;
	struct warden_reply r = {0};
	struct warden_request q;
	int err = io_read_full(s->sock, &q, sizeof(q));

	if (err || q.len > WARDEN_DATA_MAX || q.room > WARDEN_DATA_MAX)
		return -EPROTO;
	in = malloc(q.len + 1);
	if (!in || io_read_full(s->sock, in, q.len))
		return -EPROTO;
	err_clear();
	r.err = dispatch(s, &q, in, &r, &fd);
	if (r.err) {
		snprintf(r.text, sizeof(r.text), "%s", err_text(r.err));
		r.len = 0;
	}
	return warden_send(s->sock, &r, sizeof(r), s->data.data, r.len, fd);
}

/* Sleep until there is a request (> 0), or something else to look at (0), or nobody to serve (<
 * 0). */
static int wait_request(struct server *s, int sigfd, int owner_pidfd)
{
	struct pollfd fds[] = {{.fd = s->sock, .events = POLLIN},
			       {.fd = owner_pidfd, .events = POLLIN},
			       {.fd = sigfd, .events = POLLIN}};
	struct timespec left = {0}, *timeout = NULL;
	struct signalfd_siginfo drop;

	if (s->frozen) {
		uint64_t now = now_ns(), ns = s->deadline > now ? s->deadline - now : 0;

		left = (struct timespec){(time_t)(ns / 1000000000ull),
					 (long)(ns % 1000000000ull)};
		timeout = &left;
	}
	if (ppoll(fds, 3, timeout, NULL) < 0)
		return errno == EINTR ? 0 : -errno;
	if (fds[2].revents && read(sigfd, &drop, sizeof(drop)) < 0 && errno != EAGAIN)
		return -errno;
	if (fds[1].revents)
		return -EPIPE; /* icp-bpf is dead, though a child of it may still hold its
				  socket */
	return fds[0].revents ? 1 : 0;
}

void warden_serve(int sock, int owner_pidfd, int owner)
{
	struct server s = {.sock = sock, .freeze.owner = owner};
	_cleanup_fd_ int sigfd = -1;
	sigset_t chld;
	int ready = 0;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigfd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	while (sigfd >= 0 && ready >= 0) {
		freeze_drain(&s.freeze);
		if (s.frozen && now_ns() >= s.deadline) {
			thaw(&s);
			s.expired = true;
		}
		ready = wait_request(&s, sigfd, owner_pidfd);
		if (ready > 0 && serve_one(&s))
			break;
	}
	thaw(&s);
	/* whoever only now stops for us must not be left with what that does to its call */
	freeze_see_off(&s.freeze);
	freeze_fini(&s.freeze);
	vec_free(&s.data);
	for (int i = 0; i < 2 && s.remove[i]; i++) {
		unlink(s.remove[i]);
		free(s.remove[i]);
	}
	if (s.table) /* the last thing that it does: become nft */
		execlp("nft", "nft", "delete", "table", "inet", s.table, NULL);
	free(s.table);
}
