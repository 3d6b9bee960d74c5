// SPDX-License-Identifier: GPL-2.0
#include "inject/second.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "inject/repair.h"
#include "inject/syscall.h"
#include "proc/tasks.h"

#define THREADS 64
#define TERMINAL_STOPS (1ull << (SIGTSTP - 1) | 1ull << (SIGTTIN - 1) | 1ull << (SIGTTOU - 1))
#define AWAIT_S 2		 /* a processor that is busy; nothing is held yet */
#define RELEASE_NS 2000000000ull /* how long the dying warden may take to let go */

struct noted_thread {
	_Atomic pid_t tid; /* 0: the place is free */
	pid_t pid;
	uint64_t mask;
	_Atomic bool stopped;  /* by SIGSTOP and the like, or it is about to */
	uint64_t terminal;     /* for the second: stops of a terminal that wait */
	_Atomic bool has_ours; /* our registers; its own are in saved */
	_Atomic bool in_call;
	uint64_t insn;
	struct arch_regs saved;
	struct warden_call call;
};

/* What takes back a call that was made. */
struct undo {
	_Atomic pid_t tid; /* 0: none */
	pid_t pid;
	uint64_t insn;
	struct warden_call call;
};

/* One side writes, the other one reads when the writer is stopped: each tid, pid or len tells
 * that the rest is there. */
struct journal {
	_Atomic uint32_t present; /* the second is there */
	struct noted_thread threads[THREADS];
	struct undo undo;
	struct {
		_Atomic size_t len;
		pid_t pid;
		uint64_t addr;
		char before[NOTE_MEMORY];
	} memory;
	struct {
		_Atomic pid_t pid;
		int fd, reuse;
	} repair;
};

#define each_note(n, j)                                                                        \
	for (__typeof__((j)->threads[0]) *n = (j)->threads; n < (j)->threads + THREADS; n++)   \
		if (n->tid)

static struct journal *journal;

struct journal *journal_new(void)
{
	void *at = mmap(NULL, sizeof(struct journal), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

void journal_free(struct journal *j)
{
	if (j)
		munmap(j, sizeof(*j));
}

void journal_use(struct journal *j)
{
	journal = j;
}

/* ---- the warden notes ---- */

void note_await_second(void)
{
	struct timespec most = {.tv_sec = AWAIT_S};

	if (journal && !journal->present)
		syscall(SYS_futex, &journal->present, FUTEX_WAIT, 0, &most, NULL, 0);
}

static struct noted_thread *find_note(pid_t tid)
{
	for (size_t i = 0; journal && i < THREADS; i++)
		if (journal->threads[i].tid == tid)
			return &journal->threads[i];
	return NULL;
}

void note_mask(const struct tracee *t)
{
	struct noted_thread *n = find_note(t->tid);

	if (!n)
		n = find_note(0);
	if (!n)
		return;
	n->pid = t->pid;
	n->mask = t->mask;
	n->stopped = t->group_stop;
	n->has_ours = n->in_call = false;
	n->tid = t->tid;
}

void note_forget(pid_t tid)
{
	struct noted_thread *n = find_note(tid);

	if (n)
		n->tid = 0;
}

void note_gone(pid_t tid)
{
	note_forget(tid);
	if (journal && journal->undo.tid == tid)
		journal->undo.tid = 0;
}

void note_stopped(pid_t tid, bool stopped)
{
	struct noted_thread *n = find_note(tid);

	if (n)
		n->stopped = stopped;
}

void note_registers(pid_t tid, const struct arch_regs *saved, uint64_t insn)
{
	struct noted_thread *n = find_note(tid);

	if (!n)
		return;
	n->saved = *saved;
	n->insn = insn;
	n->has_ours = true;
}

void note_call(pid_t tid, const struct warden_call *call)
{
	struct noted_thread *n = find_note(tid);

	if (!n)
		return;
	n->call = *call;
	n->in_call = true;
}

/* The call of @n has returned call->ret: what does that change in @undo? */
static void undo_after(struct undo *undo, const struct noted_thread *n,
		       const struct warden_call *call)
{
	if (call->ret < 0 && call->ret >= -4095)
		return;
	if (undo->tid && undo->pid == n->pid && call->nr == undo->call.nr &&
	    call->args[0] == undo->call.args[0])
		undo->tid = 0;
	if (call->nr != SYS_userfaultfd && call->nr != SYS_mmap)
		return;
	undo->pid = n->pid;
	undo->insn = n->insn;
	undo->call = (struct warden_call){.nr = SYS_close, .args = {(uint64_t)call->ret}};
	if (call->nr == SYS_mmap)
		undo->call = (struct warden_call){.nr = SYS_munmap,
						  .args = {(uint64_t)call->ret, call->args[1]}};
	undo->tid = n->tid;
}

void note_result(pid_t tid, const struct warden_call *call)
{
	struct noted_thread *n = find_note(tid);

	if (!n)
		return;
	undo_after(&journal->undo, n, call);
	n->in_call = false;
}

pid_t note_undo(uint64_t *insn, struct warden_call *call)
{
	pid_t tid = journal ? journal->undo.tid : 0;

	if (tid) {
		*insn = journal->undo.insn;
		*call = journal->undo.call;
	}
	return tid;
}

void note_memory(pid_t pid, uint64_t addr, const void *before, size_t len)
{
	if (!journal || len > NOTE_MEMORY)
		return;
	journal->memory.len = 0;
	if (!len)
		return;
	journal->memory.pid = pid;
	journal->memory.addr = addr;
	memcpy(journal->memory.before, before, len);
	journal->memory.len = len;
}

void note_repair(pid_t pid, int fd, int reuse)
{
	if (!journal)
		return;
	journal->repair.pid = 0;
	journal->repair.fd = fd;
	journal->repair.reuse = reuse;
	journal->repair.pid = pid;
}

/* ---- the second ---- */

static bool is_at_exit(int status)
{
	return status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8);
}

/* Until the warden is about to end; false when it has ended. */
static bool await_exit(pid_t warden)
{
	int status;

	for (;;) {
		long sig;

		if (waitpid(warden, &status, __WALL) < 0) {
			if (errno == EINTR)
				continue;
			return false;
		}
		if (!WIFSTOPPED(status))
			return false;
		if (is_at_exit(status))
			return true;
		/* What it holds stopped could not wait for SIGCONT. All others are blocked: it
		 * is a fault, of which it must end. */
		sig = status >> 16 || WSTOPSIG(status) == SIGSTOP ? 0 : WSTOPSIG(status);
		ptrace(PTRACE_CONT, warden, NULL, sig);
	}
}

static void leave_repair(const struct journal *j)
{
	_cleanup_fd_ int pidfd = -1, sock = -1;

	if (!j->repair.pid)
		return;
	pidfd = (int)syscall(SYS_pidfd_open, j->repair.pid, 0);
	if (pidfd >= 0)
		sock = (int)syscall(SYS_pidfd_getfd, pidfd, j->repair.fd, 0);
	if (sock >= 0)
		repair_end(sock, j->repair.reuse);
}

static void return_memory(const struct journal *j)
{
	struct iovec from = {(void *)j->memory.before, j->memory.len},
		     to = {(void *)j->memory.addr, j->memory.len};

	if (j->memory.len && process_vm_writev(j->memory.pid, &from, 1, &to, 1, 0) < 0)
		errno = 0; /* it is dead */
}

/* Signals that wait for @pid, or for its @tid alone. */
static uint64_t pending(pid_t pid, pid_t tid)
{
	_cleanup_free_ char *text = NULL;
	uint64_t own = 0, common = 0;
	char path[64], *at;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
	if (io_read_file(AT_FDCWD, path, &text, NULL))
		return 0;
	at = strstr(text, "\nSigPnd:\t");
	if (at && sscanf(at, "\nSigPnd:\t%lx\nShdPnd:\t%lx", &own, &common) != 2)
		return 0;
	return own | common;
}

/* The signal that a stopped thread has in its hands and that its tracer has not asked for, or 0;
 * proc(5): exit_code. */
static int in_hand(pid_t tid)
{
	_cleanup_free_ char *text = NULL;
	const char *at;
	char path[32];
	int code;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	if (io_read_file(AT_FDCWD, path, &text, NULL))
		return 0;
	at = strrchr(text, ' ');
	return at && sscanf(at, " %d", &code) == 1 && code < NSIG ? code : 0;
}

/* What a terminal has sent is sent again later, as SIGCONT takes it back. Of what was sent while it was held the last counts: each of both takes the other one back. */
static void see_stops(struct noted_thread *n)
{
	uint64_t waiting = pending(n->pid, n->tid);
	int hand = in_hand(n->tid);

	if (hand)
		waiting |= 1ull << (hand - 1);
	n->terminal = waiting & TERMINAL_STOPS;
	if (waiting & 1ull << (SIGSTOP - 1))
		n->stopped = true;
	else if (waiting & 1ull << (SIGCONT - 1))
		n->stopped = false;
}

/* None of its threads gets back to its own code: a thread looks for signals before that. */
static void hold_process(pid_t pid, pid_t first)
{
	struct dirent *e;
	char path[32];
	DIR *dir;

	syscall(SYS_tgkill, pid, first, SIGSTOP);
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (e = readdir(dir)))
		if (e->d_name[0] != '.' && atoi(e->d_name) != first)
			syscall(SYS_tgkill, pid, (pid_t)atoi(e->d_name), SIGSTOP);
	if (dir)
		closedir(dir);
}

static bool is_dying(pid_t tid)
{
	char state = tasks_state(tid);

	return !state || state == 'Z' || state == 'X';
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
}

/* Stop @n, once nobody else traces it; false when it is gone or doesn't stop. */
static bool seize(const struct noted_thread *n, int *status)
{
	uint64_t end = now_ns() + RELEASE_NS;

	while (ptrace(PTRACE_SEIZE, n->tid, NULL, NULL)) {
		if (errno != EPERM || now_ns() > end || is_dying(n->tid))
			return false;
		nap();
	}
	if (ptrace(PTRACE_INTERRUPT, n->tid, NULL, NULL))
		return false;
	while (now_ns() < end) {
		pid_t got = waitpid(n->tid, status, __WALL | WNOHANG);

		if (got)
			return got == n->tid && WIFSTOPPED(*status) &&
			       !syscall(SYS_tgkill, n->pid, n->tid, 0);
		nap();
	}
	return false;
}

static void give_back_registers(struct journal *j, const struct noted_thread *n)
{
	struct warden_call call = n->call;
	struct arch_regs regs;

	if (!n->has_ours || arch_regs_get(n->tid, &regs))
		return;
	call.ret = arch_call_result(&regs);
	if (n->in_call && arch_call_is(&regs, n->insn, &call))
		undo_after(&j->undo, n, &call);
	return_memory(j);
	if (arch_regs_set(n->tid, &n->saved))
		errno = 0; /* killed */
}

/*
 * False: it lives, and is not as it was. Held by SIGSTOP and with all signals blocked it
 * can have no other one in its hands.
 */
static bool put_right(struct journal *j, const struct noted_thread *n)
{
	struct tracee t = {.pid = n->pid, .tid = n->tid};
	int status, err;

	if (!seize(n, &status))
		return is_dying(n->tid);
	if (n->has_ours)
		give_back_registers(j, n);
	else if (status >> 16 && arch_unearned_eintr(n->tid))
		return true;
	if (j->undo.tid == n->tid) {
		inject_run(&t, j->undo.insn, &j->undo.call, 1, &err);
		j->undo.tid = 0;
	}
	if (ptrace(PTRACE_SETSIGMASK, n->tid, sizeof(n->mask), &n->mask))
		errno = 0;
	ptrace(PTRACE_DETACH, n->tid, NULL, NULL);
	return true;
}

/*
 * A thread that has made something for us is as it was otherwise: a signal that it has in its
 * hands is its own, and it gets it back.
 */
static void undo_last(struct journal *j)
{
	struct noted_thread n = {.tid = j->undo.tid, .pid = j->undo.pid};
	struct tracee t = {.tid = j->undo.tid, .pid = j->undo.pid};
	int status, err, sig;

	if (!n.tid || !seize(&n, &status))
		return;
	sig = status >> 16 ? 0 : WSTOPSIG(status);
	if (sig && (tracee_block(&t) || ptrace(PTRACE_INTERRUPT, t.tid, NULL, NULL) ||
		    ptrace(PTRACE_CONT, t.tid, NULL, (long)sig) ||
		    tracee_wait(&t, now_ns() + RELEASE_NS, &status)))
		return;
	if (!arch_unearned_eintr(t.tid))
		inject_run(&t, j->undo.insn, &j->undo.call, 1, &err);
	if (!tracee_unblock(&t))
		ptrace(PTRACE_DETACH, t.tid, NULL, NULL);
}

static bool stays_stopped(const struct journal *j, pid_t pid)
{
	each_note (n, j)
		if (n->pid == pid && n->stopped)
			return true;
	return false;
}

static void let_go_on(const struct journal *j, const struct noted_thread *n)
{
	if (stays_stopped(j, n->pid)) {
		kill(n->pid, SIGSTOP);
		return;
	}
	kill(n->pid, SIGCONT);
	for (int sig = SIGTSTP; sig <= SIGTTOU; sig++)
		if (n->terminal & 1ull << (sig - 1))
			kill(n->pid, sig);
}

void second_serve(struct journal *j, pid_t warden)
{
	bool there = !ptrace(PTRACE_SEIZE, warden, NULL, PTRACE_O_TRACEEXIT);

	j->present = 1;
	syscall(SYS_futex, &j->present, FUTEX_WAKE, 1, NULL, NULL, 0);
	if (!there || !await_exit(warden))
		_exit(0);
	each_note (n, j)
		see_stops(n);
	each_note (n, j)
		hold_process(n->pid, n->tid);
	leave_repair(j);
	return_memory(j);
	ptrace(PTRACE_DETACH, warden, NULL, NULL);
	each_note (n, j)
		n->stopped |= !put_right(j, n);
	undo_last(j);
	each_note (n, j)
		let_go_on(j, n);
	_exit(0);
}
