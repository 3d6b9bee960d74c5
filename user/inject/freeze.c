// SPDX-License-Identifier: GPL-2.0
#include "inject/freeze.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "inject/arch.h"
#include "inject/second.h"

#define MS 1000000ull
#define SOON_MS 50	/* an attach waits that long for all threads */
#define PATIENCE_MS 100 /* and that long for at least one; a freeze for all */
#define BUSY_MS 2000	/* ... of which one only waits for a processor */
#define ATTEMPTS 5

/* Sleep until a tracee reports something (SIGCHLD is blocked, so none is missed) or @until. */
static bool wait_sigchld(uint64_t until)
{
	uint64_t now = now_ns(), left = until > now ? until - now : 0;
	struct timespec ts = {.tv_sec = (time_t)(left / 1000000000ull),
			      .tv_nsec = (long)(left % 1000000000ull)};
	sigset_t set;

	if (!left)
		return false;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigtimedwait(&set, NULL, &ts);
	return true;
}

/*
 * A signal that a thread has in its hands stays there, should we be killed, only as long as
 * nobody has waited for the stop. So it isn't waited for: the thread can be let go on all the
 * same.
 */
static bool is_signal_stop(int status)
{
	return WIFSTOPPED(status) && !(status >> 16) && !(WSTOPSIG(status) & 0x80);
}

/* Look at the next status, of @tid or (0) of anybody, and leave it there. 0 for none, or -1. */
static pid_t look(pid_t tid, int *status)
{
	siginfo_t info = {0};

	if (waitid(tid ? P_PID : P_ALL, (id_t)tid, &info,
		   WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL))
		return -1;
	/* as waitpid() has it */
	*status = info.si_code == CLD_TRAPPED || info.si_code == CLD_STOPPED
			  ? info.si_status << 8 | 0x7f
			  : 0;
	return info.si_pid;
}

struct tracee *freeze_find(struct freeze *f, pid_t tid)
{
	/* Statuses and directory entries come mostly in the order we know them. */
	for (size_t i = 0; i < f->threads.n; i++) {
		size_t at = (f->hint + i) % f->threads.n;

		if (f->threads.data[at].tid == tid) {
			f->hint = at + 1;
			return &f->threads.data[at];
		}
	}
	return NULL;
}

/* Take @tid out of the stragglers, into @out. */
static bool straggler_take(struct freeze *f, pid_t tid, struct tracee *out)
{
	for (size_t i = 0; i < f->stragglers.n; i++) {
		if (f->stragglers.data[i].tid != tid)
			continue;
		*out = f->stragglers.data[i];
		f->stragglers.data[i] = f->stragglers.data[--f->stragglers.n];
		return true;
	}
	return false;
}

/* Without memory for the note it is let go all the same: see straggler_status(). */
static void straggler_add(struct freeze *f, const struct tracee *t)
{
	struct tracee *slot = vec_push(&f->stragglers);

	if (slot)
		*slot = *t;
}

int tracee_block(struct tracee *t)
{
	uint64_t all = ~0ull;

	if (!t->mask_saved) {
		if (ptrace(PTRACE_GETSIGMASK, t->tid, sizeof(t->mask), &t->mask))
			return -errno;
		t->mask_saved = true;
		note_mask(t);
	}
	return ptrace(PTRACE_SETSIGMASK, t->tid, sizeof(all), &all) ? -errno : 0;
}

int tracee_unblock(struct tracee *t)
{
	if (!t->mask_saved)
		return 0;
	if (ptrace(PTRACE_SETSIGMASK, t->tid, sizeof(t->mask), &t->mask))
		return -errno;
	t->mask_saved = false;
	note_forget(t->tid);
	return 0;
}

static void set_state(struct freeze *f, struct tracee *t, int state)
{
	if (t->state == TRACEE_COMING && state != TRACEE_COMING)
		f->coming--;
	t->state = state;
	if (state == TRACEE_GONE)
		note_gone(t->tid);
}

/*
 * @t came to us with a signal in its hands. The signal goes back into the queue it came from,
 * with its siginfo: all signals are blocked, so the kernel requeues what we pass on. Then it
 * stops again, now for the interrupt, and every frozen thread is in the same kind of stop.
 * (SIGSTOP can't be blocked: that one is obeyed, and we see the group stop.)
 */
static void put_signal_back(struct tracee *t, int sig)
{
	if (tracee_block(t) || ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL))
		return; /* killed: waitpid() will say so */
	ptrace(PTRACE_CONT, t->tid, NULL, (long)sig);
}

static void tracee_status(struct freeze *f, struct tracee *t, int status)
{
	int sig = WIFSTOPPED(status) ? WSTOPSIG(status) : 0;

	if (!WIFSTOPPED(status)) {
		set_state(f, t, TRACEE_GONE);
	} else if (status >> 16 == PTRACE_EVENT_STOP) {
		/* Failures here mean that it was just killed. */
		if (!arch_unearned_eintr(t->tid) && !tracee_unblock(t)) {
			t->group_stop = sig != SIGTRAP;
			set_state(f, t, TRACEE_STOPPED);
		}
	} else if (t->state == TRACEE_COMING) {
		put_signal_back(t, sig);
	}
}

static void straggler_status(struct freeze *f, pid_t tid, int status)
{
	struct tracee t = {.tid = tid};
	int sig = 0;

	straggler_take(f, tid, &t);
	if (!WIFSTOPPED(status)) {
		note_gone(tid);
		return;
	}
	if (status >> 16 != PTRACE_EVENT_STOP)
		sig = WSTOPSIG(status);
	if (arch_unearned_eintr(tid) || tracee_unblock(&t) ||
	    ptrace(PTRACE_DETACH, tid, NULL, (long)sig))
		straggler_add(f, &t);
}

void freeze_drain(struct freeze *f)
{
	pid_t tid, last = 0;
	int status;

	for (; (tid = look(0, &status)) > 0; last = tid) {
		struct tracee *t = freeze_find(f, tid);
		bool in_hand = is_signal_stop(status) && tid != last &&
			       (!t || t->state == TRACEE_COMING);

		if (!in_hand && waitpid(tid, &status, __WALL | WNOHANG) != tid)
			continue;
		if (t)
			tracee_status(f, t, status);
		else
			straggler_status(f, tid, status);
	}
}

/* A thread that execs takes its leader's id, and its old one vanishes without a word. */
static void forget_vanished(struct freeze *f)
{
	vec_each (t, &f->threads)
		if (t->state == TRACEE_COMING && tgkill(t->pid, t->tid, 0) && errno == ESRCH)
			set_state(f, t, TRACEE_GONE);
}

/* Wait until nobody is coming any more; false at @until. */
static bool settle(struct freeze *f, uint64_t until)
{
	for (;;) {
		uint64_t soon = now_ns() + 10 * MS;

		freeze_drain(f);
		if (!f->coming)
			return true;
		if (!wait_sigchld(soon < until ? soon : until))
			return false;
		if (now_ns() >= soon)
			forget_vanished(f);
	}
}

bool freeze_wait_dead(struct freeze *f, uint64_t until)
{
	/* All together: a leader's death is only told after those of its threads. */
	vec_each (t, &f->threads) {
		if (t->state != TRACEE_STOPPED)
			continue;
		t->state = TRACEE_COMING;
		f->coming++;
	}
	return settle(f, until);
}

long task_status(pid_t pid, pid_t tid, const char *key)
{
	_cleanup_free_ char *text = NULL;
	char path[64], line[32];
	const char *at;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
	snprintf(line, sizeof(line), "\n%s:\t", key);
	if (io_read_file(AT_FDCWD, path, &text, NULL))
		return -1;
	at = strstr(text, line);
	return at ? strtol(at + strlen(line), NULL, 10) : -1;
}

/* The state letter and the PF_ flags of a thread; false when it is gone. */
static bool task_stat(pid_t pid, pid_t tid, char *state, unsigned *flags)
{
	_cleanup_free_ char *text = NULL;
	const char *at;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
	if (io_read_file(AT_FDCWD, path, &text, NULL))
		return false;
	at = strrchr(text, ')');
	return at && sscanf(at, ") %c %*d %*d %*d %*d %*d %u", state, flags) == 2;
}

int tracee_wait(struct tracee *t, uint64_t until, int *status)
{
	for (bool woken = false;; woken = true) {
		uint64_t soon = now_ns() + 10 * MS;
		pid_t got = look(t->tid, status);
		unsigned flags;
		char state;

		if (got > 0 && !is_signal_stop(*status))
			got = waitpid(t->tid, status, __WALL | WNOHANG);
		if (got > 0 && WIFSTOPPED(*status))
			return 0;
		/* The death of a leader is told only after those of its threads: do not wait
		 * for it. */
		if (got || (woken && (!task_stat(t->pid, t->tid, &state, &flags) ||
				      state == 'Z' || state == 'X'))) {
			t->state = TRACEE_GONE;
			note_gone(t->tid);
			return -ESRCH;
		}
		if (!wait_sigchld(soon < until ? soon : until))
			return -ETIMEDOUT;
	}
}

/* Kernel threads, and the workers that io_uring and vhost start inside a process: no user code,
 * not traceable. */
#define PF_NO_USER (0x00200000u | 0x00000010u | 0x00004000u)

static int traced_by(pid_t pid, long tracer)
{
	_cleanup_free_ char *comm = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%ld/comm", tracer);
	if (!io_read_file(AT_FDCWD, path, &comm, NULL))
		comm[strcspn(comm, "\n")] = 0;
	return refuse(-EBUSY, "process %d is already traced by process %ld (%s)", pid, tracer,
		      comm ? comm : "?");
}

int freeze_check(pid_t pid, pid_t owner)
{
	unsigned flags = 0;
	long tgid, tracer;
	char state = 0;

	if (pid <= 0 || (tgid = task_status(pid, pid, "Tgid")) < 0)
		return refuse(-ESRCH, "no such process: %d", pid);
	if (tgid != pid)
		return refuse(-EINVAL, "%d is a thread of process %ld, not a process", pid,
			      tgid);
	if (pid == owner || pid == getpid())
		return refuse(-EINVAL, "process %d is icp-bpf itself", pid);
	if (!task_stat(pid, pid, &state, &flags))
		return refuse(-ESRCH, "no such process: %d", pid);
	if (flags & 0x00200000u)
		return refuse(-EINVAL, "%d is a kernel thread", pid);
	if ((state == 'Z' && task_status(pid, pid, "Threads") <= 1) || state == 'X')
		return refuse(-ESRCH, "process %d is a zombie", pid);
	tracer = task_status(pid, pid, "TracerPid");
	if (tracer > 0 && tracer != getpid())
		return traced_by(pid, tracer);
	return 0;
}

/*
 * SEIZE said no: why, or 0 when that thread is none to bother about, or 1 when it was just
 * dying, and may have started another that the list, cut short by its death, does not show.
 */
static int seize_failed(pid_t pid, pid_t tid, int err)
{
	unsigned flags = 0;
	char state = 0;
	long tracer;

	if (err == -ESRCH || !task_stat(pid, tid, &state, &flags))
		return 1;
	if (state == 'Z' || state == 'X')
		return tid != pid; /* a dead leader stays until its threads have gone */
	if (flags & PF_NO_USER)
		return 0;
	tracer = task_status(pid, tid, "TracerPid");
	if (tracer > 0)
		return traced_by(pid, tracer);
	if (err == -EPERM)
		return refuse(err, "process %d may not be traced: CAP_SYS_PTRACE is needed",
			      pid);
	return fail(err, "seize thread %d of process %d", tid, pid);
}

/*
 * Seize the threads of @pid that we do not have yet. *@whole: the list was; the kernel ends it
 * early when the thread it stands at dies just then, so it is compared with the number of
 * threads, which is the link count of the directory.
 */
static int seize_new(struct freeze *f, pid_t pid, bool *whole)
{
	_cleanup_dir_ DIR *dir = NULL;
	struct dirent *entry;
	struct stat st;
	char path[32];
	nlink_t listed = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		return 0;
	while ((entry = readdir(dir))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
		struct tracee *t, known = {.pid = pid, .tid = tid};

		listed++;
		if (tid <= 0 || freeze_find(f, tid))
			continue;
		if (vec_reserve(&f->threads, f->threads.n + 1))
			return fail(-ENOMEM, "note thread %d", tid);
		if (!straggler_take(f, tid, &known) &&
		    ptrace(PTRACE_SEIZE, tid, NULL, PTRACE_O_TRACESYSGOOD)) {
			int err = seize_failed(pid, tid, -errno);

			if (err < 0)
				return err;
			*whole &= !err;
			continue;
		}
		t = vec_push(&f->threads);
		*t = known;
		t->state = TRACEE_COMING;
		f->coming++;
	}
	*whole &= !fstat(dirfd(dir), &st) && st.st_nlink == listed;
	return 0;
}

/*
 * Seize and stop all threads of the processes from @from on, until a look at the task lists
 * finds no new one after all that we knew had stopped: only a running thread of the process can
 * make one. (PTRACE_O_TRACECLONE would do without the second look, but stops the cloning thread
 * inside its call, where its registers are not final.) -EAGAIN when @until came first.
 */
static int stop_level(struct freeze *f, size_t from, uint64_t until)
{
	for (;;) {
		size_t old = f->threads.n;
		bool whole = true;

		for (size_t i = from; i < f->procs.n; i++) {
			int err = seize_new(f, f->procs.data[i], &whole);

			if (err)
				return err;
		}
		if (f->threads.n == old && whole)
			return 0;
		if (!f->since)
			f->since = now_ns();
		for (size_t i = old; i < f->threads.n; i++)
			ptrace(PTRACE_INTERRUPT, f->threads.data[i].tid, NULL, NULL);
		if (!settle(f, until) || now_ns() >= until)
			return -EAGAIN;
	}
}

static bool have_proc(const struct freeze *f, pid_t pid)
{
	for (size_t i = 0; i < f->procs.n; i++)
		if (f->procs.data[i] == pid)
			return true;
	return false;
}

static int add_proc(struct freeze *f, pid_t pid)
{
	pid_t *slot;

	if (have_proc(f, pid))
		return 0;
	slot = vec_push(&f->procs);
	if (!slot)
		return fail(-ENOMEM, "note process %d", pid);
	*slot = pid;
	return 0;
}

/* The children of a stopped thread: exact, because nobody else can add to them. */
static int add_children(struct freeze *f, const struct tracee *t)
{
	_cleanup_free_ char *text = NULL;
	char path[64], *at;
	int err;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", t->pid, t->tid);
	err = io_read_file(AT_FDCWD, path, &text, NULL);
	if (err == -ESRCH || (err == -ENOENT && tgkill(t->pid, t->tid, 0)))
		return 0;
	if (err)
		return fail(err, "list the children of process %d", t->pid);
	at = text;
	for (long pid; (pid = strtol(at, &at, 10)) > 0;) {
		if (pid == getpid())
			continue;
		if (pid == f->owner)
			return refuse(-EINVAL,
				      "icp-bpf itself (process %ld) belongs to the job of %d",
				      pid, t->pid);
		err = add_proc(f, (pid_t)pid);
		if (err)
			return err;
	}
	return 0;
}

/*
 * Generation by generation: the children of a process are known for good once it is stopped,
 * and a parent that waits in vfork() can only stop when its child, not yet stopped, has gone on
 * to exec.
 */
static int freeze_once(struct freeze *f, const pid_t *pids, size_t n, bool follow,
		       uint64_t until)
{
	for (size_t i = 0; i < n; i++) {
		int err = add_proc(f, pids[i]);

		if (err)
			return err;
	}
	for (size_t from = 0, next, seen = 0; from < f->procs.n; from = next) {
		int err = stop_level(f, from, until);

		if (err)
			return err;
		next = f->procs.n;
		for (; follow && seen < f->threads.n; seen++) {
			err = add_children(f, &f->threads.data[seen]);
			if (err)
				return err;
		}
	}
	for (size_t i = 0; i < n; i++) {
		bool alive = false;

		vec_each (t, &f->threads)
			alive |= t->pid == pids[i] && t->state == TRACEE_STOPPED;
		if (!alive)
			return refuse(-ESRCH, "process %d has exited", pids[i]);
	}
	return 0;
}

static bool is_runnable(const struct tracee *t)
{
	unsigned flags;
	char state;

	return task_stat(t->pid, t->tid, &state, &flags) && state == 'R';
}

/* Does one of those that come only wait for a processor? */
static bool any_runnable(struct freeze *f)
{
	vec_each (t, &f->threads)
		if (t->state == TRACEE_COMING && is_runnable(t))
			return true;
	return false;
}

/* Who is it that does not stop? */
static int blame(struct freeze *f)
{
	vec_each (t, &f->threads)
		if (t->state == TRACEE_COMING)
			return refuse(-EBUSY, "thread %d of process %d does not stop: %s",
				      t->tid, t->pid,
				      is_runnable(t) ? "it gets no processor"
						     : "it is in uninterruptible sleep");
	return refuse(-EBUSY, "new threads come faster than they can be stopped");
}

int freeze_all(struct freeze *f, const pid_t *pids, size_t n, bool follow, uint64_t until)
{
	for (unsigned attempt = 0;; attempt++) {
		uint64_t limit = now_ns() + PATIENCE_MS * MS;
		int err = freeze_once(f, pids, n, follow, limit < until ? limit : until);

		if (!err)
			return 0;
		if (err == -EAGAIN)
			err = blame(f);
		freeze_release(f);
		if (err != -EBUSY || attempt == ATTEMPTS - 1 || now_ns() >= until)
			return err;
		/* Perhaps a vfork() parent whose child we held: let them move. */
		usleep(2000u << attempt);
	}
}

int freeze_most(struct freeze *f, pid_t pid)
{
	uint64_t begin = now_ns();
	int err = add_proc(f, pid);

	if (!err)
		err = stop_level(f, 0, begin + SOON_MS * MS);
	if (err == -EAGAIN && f->coming == f->threads.n)
		settle(f, begin + PATIENCE_MS * MS);
	/* Nobody is held yet, so on a machine that is merely busy there is time. */
	while (err == -EAGAIN && f->coming == f->threads.n && now_ns() < begin + BUSY_MS * MS &&
	       any_runnable(f))
		settle(f, now_ns() + 10 * MS);
	if (!err || err == -EAGAIN) {
		vec_each (t, &f->threads)
			if (t->state == TRACEE_STOPPED)
				return 0;
		err = err ? blame(f) : refuse(-ESRCH, "process %d has exited", pid);
	}
	freeze_release(f);
	return err;
}

void freeze_release(struct freeze *f)
{
	vec_each (t, &f->threads) {
		if (t->state == TRACEE_GONE)
			continue;
		/* Not stopped yet, or dying: its status comes later. */
		if (t->state == TRACEE_COMING || ptrace(PTRACE_DETACH, t->tid, NULL, NULL))
			straggler_add(f, t);
	}
	f->threads.n = f->procs.n = f->coming = f->hint = 0;
	f->since = 0;
}

void freeze_see_off(struct freeze *f)
{
	uint64_t until = now_ns() + PATIENCE_MS * MS;

	do {
		freeze_drain(f);
	} while (f->stragglers.n && wait_sigchld(until));
}

void freeze_fini(struct freeze *f)
{
	freeze_release(f);
	vec_free(&f->threads);
	vec_free(&f->stragglers);
	vec_free(&f->procs);
}
