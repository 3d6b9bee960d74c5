// SPDX-License-Identifier: GPL-2.0
/*
 * Stubs. Each is cloned by the one that becomes its parent, with the pid that it had; sessions
 * are inherited, so whoever was in another session than its parent's is cloned before that
 * parent begins its own. A stub tells when it is ready, or what went wrong, through a pipe.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "restore/builder.h"

#define READY_MS 60000

struct report {
	uint32_t index;
	int32_t err;
	char text[248];
};

/* ---- order ---- */

static const Icp__Process *image_of(const Icp__Manifest *m, uint32_t pid)
{
	for (size_t i = 0; i < m->n_processes; i++)
		if (m->processes[i]->pid == pid)
			return m->processes[i];
	return NULL;
}

static size_t index_of(const struct restore *r, uint32_t pid)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->procs[i].pid == (pid_t)pid)
			return i;
	return SIZE_MAX;
}

int tree_plan(struct restore *r)
{
	const Icp__Manifest *m = r->manifest;

	if (!m->n_processes)
		return refuse(-EBADMSG, "there is no process in it");
	r->procs = calloc(m->n_processes, sizeof(*r->procs));
	if (!r->procs)
		return fail(-ENOMEM, "prepare the processes");
	while (r->n < m->n_processes) {
		size_t before = r->n;

		for (size_t i = 0; i < m->n_processes; i++) {
			const Icp__Process *p = m->processes[i], *above = image_of(m, p->ppid);
			size_t parent = index_of(r, p->ppid);

			if (index_of(r, p->pid) != SIZE_MAX || (above && parent == SIZE_MAX))
				continue;
			if (above ? above->no_memory : p->no_memory)
				return refuse(
					-EBADMSG,
					"process %u: a zombie has a parent and no children",
					p->pid);
			r->procs[r->n++] = (struct restore_proc){
				.state = {.job = &r->job,
					  .image = p,
					  .is_root = parent == SIZE_MAX},
				.pid = (pid_t)p->pid,
				.stream = r->streams[i],
				.parent = parent,
			};
		}
		if (r->n == before)
			return refuse(-EBADMSG, "its processes are each other's parents");
	}
	return 0;
}

/* ---- in the stubs ---- */

static void tell(int pipe, size_t index, int err)
{
	struct report report = {.index = (uint32_t)index, .err = err};

	if (err)
		snprintf(report.text, sizeof(report.text), "%s", err_text(err));
	if (write(pipe, &report, sizeof(report)) != sizeof(report) || err)
		_exit(1);
}

/* A first process is a sibling of the builder, and ends with the same signal as that. */
static pid_t clone_stub(pid_t pid, bool first)
{
	struct clone_args args = {
		.flags = first ? CLONE_PARENT : 0,
		.exit_signal = first ? 0 : SIGCHLD,
		.set_tid = (uint64_t)(uintptr_t)&pid,
		.set_tid_size = 1,
	};

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static int clone_failed(int err, pid_t pid)
{
	if (err == EPERM)
		return refuse(-EPERM, "a process with a given pid needs CAP_CHECKPOINT_RESTORE "
				      "or CAP_SYS_ADMIN");
	if (err == EEXIST)
		return refuse(-EEXIST,
			      "pid %d is taken: by a process, or by a process group or "
			      "session of that number",
			      pid);
	return fail(-err, "make process %d", pid);
}

static void stub_main(struct restore *r, size_t me, pid_t parent, int pipe);

/* The children of @me that are in the session that it was born in, or the others. */
static void clone_children(struct restore *r, size_t me, bool born, int pipe)
{
	uint32_t sid = r->procs[me].state.image->sid;
	pid_t self = getpid();

	for (size_t i = 0; i < r->n; i++) {
		const Icp__Process *image = r->procs[i].state.image;
		bool before =
			(uint32_t)self == sid && image->sid != sid && image->sid != image->pid;
		pid_t pid;

		if (r->procs[i].parent != me || before != born)
			continue;
		pid = clone_stub(r->procs[i].pid, false);
		if (!pid)
			stub_main(r, i, self, pipe);
		if (pid < 0)
			tell(pipe, i, clone_failed(errno, r->procs[i].pid));
	}
}

static bool in_job(const struct restore *r, uint32_t pid)
{
	return index_of(r, pid) != SIZE_MAX;
}

/* Its leader is neither itself nor among those that it descends from: nobody can join a session. */
static int check_session(const struct restore *r, const Icp__Process *image)
{
	if (!in_job(r, image->sid) || getsid(0) == (pid_t)image->sid)
		return 0;
	return refuse(
		-EOPNOTSUPP,
		"process %u (%s) is in session %u, but not under its leader: that can't be "
		"restarted",
		image->pid, image->comm, image->sid);
}

static void __attribute__((noreturn)) end_as_zombie(struct restore *r, size_t me)
{
	const Icp__Process *image = r->procs[me].state.image;
	char byte;

	while (read(r->die, &byte, 1) < 0 && errno == EINTR)
		;
	if (image->pgid != image->pid && in_job(r, image->pgid))
		setpgid(0, (pid_t)image->pgid);
	zombie_become(image);
}

static bool has_zombies(const struct restore *r, size_t me)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->procs[i].parent == me && r->procs[i].state.image->no_memory)
			return true;
	return false;
}

/* All of them have ended; that they tell us now is not for the process that we become. */
static void wait_for_zombies(struct restore *r, size_t me)
{
	const struct timespec now = {0};
	sigset_t chld;

	for (size_t i = 0; i < r->n; i++)
		if (r->procs[i].parent == me && r->procs[i].state.image->no_memory)
			while (waitid(P_PID, (id_t)r->procs[i].pid, &(siginfo_t){0},
				      WEXITED | WNOWAIT) &&
			       errno == EINTR)
				;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	while (sigtimedwait(&chld, NULL, &now) > 0)
		;
}

/* Raw system calls made it: the C library still thinks that it is its parent, so use little. */
static void __attribute__((noreturn))
stub_main(struct restore *r, size_t me, pid_t parent, int pipe)
{
	struct restore_proc *p = &r->procs[me];
	const Icp__Process *image = p->state.image;
	int err = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	if (getppid() != parent)
		_exit(1);
	clone_children(r, me, true, pipe);
	if (image->sid == image->pid && setsid() < 0)
		err = fail(-errno, "begin session %u", image->sid);
	else if (image->sid != image->pid && image->pgid == image->pid && setpgid(0, 0))
		err = fail(-errno, "begin process group %u", image->pgid);
	if (!err && image->sid == image->pid)
		err = restore_session(&p->state);
	if (!err)
		clone_children(r, me, false, pipe);
	if (!err)
		err = check_session(r, image);
	/* what refers to processes needs all of them */
	tell(pipe, me, err);
	if (read(r->go, &(uint64_t){0}, sizeof(uint64_t)) != sizeof(uint64_t))
		_exit(1);
	err = image->no_memory ? 0 : restore_stub(&p->state);
	tell(pipe, me, err);
	if (!err && image->no_memory)
		end_as_zombie(r, me);
	if (!err && has_zombies(r, me)) {
		wait_for_zombies(r, me);
		tell(pipe, me, 0);
	}
	for (;;)
		pause();
}

/* ---- in icp-bpf ---- */

static int collect_reports(int pipe, size_t wanted)
{
	uint64_t until = now_ns() + READY_MS * 1000000ull;

	for (size_t n = 0; n < wanted; n++) {
		struct pollfd fd = {.fd = pipe, .events = POLLIN};
		int64_t left = (int64_t)(until - now_ns()) / 1000000;
		struct report report;
		int got = left > 0 ? poll(&fd, 1, (int)left) : 0;

		if (got < 0 && errno == EINTR) {
			n--;
			continue;
		}
		if (got <= 0)
			return refuse(-ETIMEDOUT, "the new processes don't get ready");
		if (read(pipe, &report, sizeof(report)) != sizeof(report))
			return refuse(-ESRCH, "a new process was killed meanwhile");
		report.text[sizeof(report.text) - 1] = 0;
		if (report.err)
			return refuse(report.err, "%s", report.text);
	}
	return 0;
}

int tree_make(struct restore *r)
{
	_cleanup_fd_ int in = -1, out = -1, dying = -1, go = -1;
	size_t mourners = 0;
	int ends[2], err = 0;
	uint64_t n = r->n;
	sigset_t all, old;

	if (pipe2(ends, O_CLOEXEC))
		return fail(-errno, "prepare to make processes");
	in = restore_high_fd(&r->job, ends[0]);
	out = restore_high_fd(&r->job, ends[1]);
	if (pipe2(ends, O_CLOEXEC))
		return fail(-errno, "prepare to make processes");
	r->die = restore_high_fd(&r->job, ends[0]);
	dying = restore_high_fd(&r->job, ends[1]);
	go = restore_high_fd(&r->job, eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE));
	r->go = go;
	if (in < 0 || out < 0 || r->die < 0 || dying < 0 || go < 0)
		return -EMFILE;
	/* no handler of ours in a stub; it gets its own mask at the end */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	for (size_t i = 0; i < r->n && !err; i++) {
		pid_t pid;

		if (r->procs[i].parent != SIZE_MAX)
			continue;
		pid = clone_stub(r->procs[i].pid, true);
		if (!pid) {
			builder_forget(r);
			close(dying);
			stub_main(r, i, r->builder->parent, out);
		}
		r->procs[i].made = pid > 0;
		if (pid < 0)
			err = clone_failed(errno, r->procs[i].pid);
	}
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(take_fd(&out));
	if (!err)
		err = collect_reports(in, r->n);
	if (!err && write(go, &n, sizeof(n)) != sizeof(n))
		err = fail(-errno, "let the new processes go on");
	if (!err)
		err = collect_reports(in, r->n);
	close(take_fd(&dying)); /* now they may */
	for (size_t i = 0; i < r->n; i++)
		mourners += has_zombies(r, i);
	return err ? err : collect_reports(in, mourners);
}

/* A stub dies with its parent stub; who doesn't any more is traced. Parents reap, or icp-bpf. */
void tree_stop(struct restore *r)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->procs[i].traced || r->procs[i].made)
			kill(r->procs[i].pid, SIGKILL);
}

void tree_kill(struct restore *r)
{
	pid_t pid;

	tree_stop(r);
	do
		pid = waitpid(-1, NULL, __WALL);
	while (pid > 0 || (pid < 0 && errno == EINTR));
}
