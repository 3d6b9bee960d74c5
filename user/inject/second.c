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

#define THREADS 64
#define AWAIT_NS 50000000
#define RELEASE_NS 2000000000ull /* how long the dying warden may take to let go */

struct noted_thread {
	_Atomic pid_t tid; /* 0: the place is free */
	pid_t pid;
	uint64_t mask;
	bool was_stopped;
	_Atomic bool in_call;
	uint64_t insn;
	struct warden_call call;
	struct arch_regs saved;
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
	struct timespec most = {.tv_nsec = AWAIT_NS};

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
	n->was_stopped = t->group_stop;
	n->in_call = false;
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

void note_call(const struct tracee *t, const struct arch_regs *saved, uint64_t insn,
	       const struct warden_call *call)
{
	struct noted_thread *n = find_note(t->tid);

	if (!n)
		return;
	n->in_call = false;
	if (!saved)
		return;
	n->saved = *saved;
	n->insn = insn;
	n->call = *call;
	n->in_call = true;
}

/* What @call, which returned call->ret, changes in @undo. */
static void undo_after(struct undo *undo, pid_t pid, pid_t tid, uint64_t insn,
		       const struct warden_call *call)
{
	bool failed = call->ret < 0 && call->ret >= -4095;

	if (failed)
		return;
	if (undo->tid && call->nr == undo->call.nr && call->args[0] == undo->call.args[0])
		undo->tid = 0;
	if (call->nr != SYS_userfaultfd && call->nr != SYS_mmap)
		return;
	undo->pid = pid;
	undo->insn = insn;
	undo->call =
		call->nr == SYS_mmap
			? (struct warden_call){.nr = SYS_munmap,
					       .args = {(uint64_t)call->ret, call->args[1]}}
			: (struct warden_call){.nr = SYS_close, .args = {(uint64_t)call->ret}};
	undo->tid = tid;
}

void note_result(const struct tracee *t, uint64_t insn, const struct warden_call *call)
{
	if (journal)
		undo_after(&journal->undo, t->pid, t->tid, insn, call);
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
		if (waitpid(warden, &status, __WALL) < 0) {
			if (errno == EINTR)
				continue;
			return false;
		}
		if (!WIFSTOPPED(status))
			return false;
		if (is_at_exit(status))
			return true;
		/* SIGSTOP, all others are blocked: what it holds could not wait for SIGCONT */
		ptrace(PTRACE_CONT, warden, NULL, NULL);
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

/* None of its threads gets back to its own code: a thread looks for signals before that. */
static void hold_process(pid_t pid)
{
	struct dirent *e;
	char path[32];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (e = readdir(dir)))
		if (e->d_name[0] != '.')
			syscall(SYS_tgkill, pid, (pid_t)atoi(e->d_name), SIGSTOP);
	if (dir)
		closedir(dir);
}

/* Stop @tid, once nobody else traces it; false when it is gone. */
static bool seize(pid_t tid, int *status)
{
	uint64_t end = now_ns() + RELEASE_NS;
	struct timespec nap = {.tv_nsec = 50000};

	while (ptrace(PTRACE_SEIZE, tid, NULL, NULL)) {
		if (errno != EPERM || now_ns() > end)
			return false;
		nanosleep(&nap, NULL);
	}
	return !ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) &&
	       waitpid(tid, status, __WALL) == tid && WIFSTOPPED(*status);
}

static void give_back_registers(struct journal *j, const struct noted_thread *n)
{
	struct warden_call call = n->call;
	struct arch_regs regs;

	if (arch_regs_get(n->tid, &regs))
		return;
	call.ret = arch_call_result(&regs);
	if (arch_pc(&regs) == n->insn + arch_syscall_len)
		undo_after(&j->undo, n->pid, n->tid, n->insn, &call);
	return_memory(j);
	if (arch_regs_set(n->tid, &n->saved))
		errno = 0; /* killed */
}

static void put_right(struct journal *j, const struct noted_thread *n)
{
	struct tracee t = {.pid = n->pid, .tid = n->tid};
	int status, err, sig;

	if (!seize(n->tid, &status))
		return;
	sig = status >> 16 || n->in_call ? 0 : WSTOPSIG(status);
	if (n->in_call)
		give_back_registers(j, n);
	else if (arch_unearned_eintr(n->tid))
		return;
	if (j->undo.tid == n->tid) {
		inject_run(&t, j->undo.insn, &j->undo.call, 1, &err);
		j->undo.tid = 0;
	}
	if (ptrace(PTRACE_SETSIGMASK, n->tid, sizeof(n->mask), &n->mask))
		errno = 0;
	ptrace(PTRACE_DETACH, n->tid, NULL, (long)sig);
}

static void undo_last(struct journal *j)
{
	struct tracee t = {.pid = j->undo.pid, .tid = j->undo.tid};
	int status, err;

	if (!t.tid || !seize(t.tid, &status))
		return;
	if (!arch_unearned_eintr(t.tid))
		inject_run(&t, j->undo.insn, &j->undo.call, 1, &err);
	ptrace(PTRACE_DETACH, t.tid, NULL, status >> 16 ? 0L : (long)WSTOPSIG(status));
}

void second_serve(struct journal *j, pid_t warden)
{
	bool there = !ptrace(PTRACE_SEIZE, warden, NULL, PTRACE_O_TRACEEXIT);

	j->present = 1;
	syscall(SYS_futex, &j->present, FUTEX_WAKE, 1, NULL, NULL, 0);
	if (!there || !await_exit(warden))
		_exit(0);
	leave_repair(j);
	return_memory(j);
	for (struct noted_thread *n = j->threads; n < j->threads + THREADS; n++)
		if (n->tid && n->in_call)
			hold_process(n->pid);
	ptrace(PTRACE_DETACH, warden, NULL, NULL);
	for (struct noted_thread *n = j->threads; n < j->threads + THREADS; n++)
		if (n->tid)
			put_right(j, n);
	undo_last(j);
	for (struct noted_thread *n = j->threads; n < j->threads + THREADS; n++)
		if (n->tid && n->in_call && !n->was_stopped)
			kill(n->pid, SIGCONT);
	_exit(0);
}
