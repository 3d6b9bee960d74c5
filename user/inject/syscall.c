// SPDX-License-Identifier: GPL-2.0
#include "inject/syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "inject/arch.h"
#include "inject/second.h"
#include "proc/tasks.h"

/* Requests that Debian 12's <sys/ptrace.h> may lack; include/uapi/linux/ptrace.h. */
#define GET_RSEQ_CONFIGURATION 0x420f /* 5.13 */
#define GET_USER_DISPATCH 0x4210      /* 6.4 */
#define O_SUSPEND_SECCOMP (1 << 21)
#define SYSCALL_STOP (SIGTRAP | 0x80)
#define CALL_NS 1000000000ull /* a call that takes longer is broken off like by a signal */
#define LOOKS 5
#define CALL_WAITS                                                                             \
	3 /* unless it waits for a CPU: so often again, still within the deadline of a pause */

struct rseq_config {
	uint64_t pointer;
	uint32_t size, signature, flags, pad;
};

struct user_dispatch {
	uint64_t mode, selector, offset, len;
};

/* Search [@start, @end) of the memory file @mem. */
static uint64_t find_in(int mem, uint64_t start, uint64_t end)
{
	unsigned char buf[16384];

	for (uint64_t at = start; at < end; at += sizeof(buf) - arch_syscall_len + 1) {
		size_t want = end - at < sizeof(buf) ? end - at : sizeof(buf);
		ssize_t got = pread(mem, buf, want, (off_t)at);
		const unsigned char *hit;

		if (got <= 0)
			return 0;
		hit = memmem(buf, (size_t)got, arch_syscall_insn, arch_syscall_len);
		if (hit)
			return at + (uint64_t)(hit - buf);
	}
	return 0;
}

/* *@insn is 0 when there is none. */
static int find_once(pid_t pid, uint64_t *insn)
{
	_cleanup_free_ char *maps = NULL;
	_cleanup_fd_ int mem = -1;
	char path[32];
	int err;

	*insn = 0;
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	if (mem < 0 && (errno == EACCES || errno == EPERM))
		return refuse(-EPERM, "process %d may not be traced: CAP_SYS_PTRACE is needed",
			      pid);
	if (mem < 0)
		return fail(-errno, "open the memory of process %d", pid);
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	err = io_read_file(AT_FDCWD, path, &maps, NULL);
	if (err)
		return fail(err, "read %s", path);
	/* First the vdso, always there and small; then any other code. */
	for (int any = 0; any < 2; any++) {
		for (char *line = maps, *next; *line; line = next) {
			uint64_t start, end;
			char prot[5];

			next = strchrnul(line, '\n');
			if (sscanf(line, "%lx-%lx %4s", &start, &end, prot) == 3 &&
			    prot[2] == 'x' &&
			    (any || memmem(line, (size_t)(next - line), "[vdso]", 6)))
				*insn = find_in(mem, start, end);
			if (*insn)
				return 0;
			next += *next == '\n';
		}
	}
	return 0;
}

int inject_find(pid_t pid, uint64_t *insn)
{
	int err;

	for (int i = 0; i < LOOKS; i++) {
		err = find_once(pid, insn);
		if (err || *insn)
			return err;
		usleep(1000); /* an execve() that has not mapped the program yet */
	}
	return refuse(-ENOEXEC, "process %d has no system call instruction in its code", pid);
}

/*
 * A thread stopped inside a restartable sequence would come back to it after our calls without
 * the kernel knowing that it was away. Do what the kernel does to a preempted one: send it to
 * its abort handler.
 */
static int leave_rseq(pid_t tid, struct arch_regs *saved)
{
	struct {
		uint32_t version, flags;
		uint64_t start, length, abort;
	} cs;
	struct rseq_config config;
	uint64_t cs_addr;
	struct iovec to = {&cs_addr, sizeof(cs_addr)}, from;

	if (ptrace(GET_RSEQ_CONFIGURATION, tid, sizeof(config), &config) <
		    (long)sizeof(config) ||
	    !config.pointer)
		return 0;
	from = (struct iovec){(void *)(config.pointer + 8), sizeof(cs_addr)};
	if (process_vm_readv(tid, &to, 1, &from, 1, 0) != sizeof(cs_addr))
		return fail(-EFAULT, "read the restartable sequence of thread %d", tid);
	if (!cs_addr)
		return 0;
	to = (struct iovec){&cs, sizeof(cs)};
	from = (struct iovec){(void *)cs_addr, sizeof(cs)};
	if (process_vm_readv(tid, &to, 1, &from, 1, 0) != sizeof(cs))
		return fail(-EFAULT, "read the restartable sequence of thread %d", tid);
	if (arch_pc(saved) - cs.start < cs.length)
		arch_set_pc(saved, cs.abort);
	return 0;
}

/* May this thread run a call for us? Lifts seccomp for as long as it is traced by us. */
static int check_thread(const struct tracee *t, const struct arch_regs *regs, uint64_t insn)
{
	struct user_dispatch sud = {0};
	long word;

	if (!arch_native(regs))
		return refuse(-ENOEXEC, "process %d is a 32-bit process", t->pid);
	if (ptrace(GET_USER_DISPATCH, t->tid, sizeof(sud), &sud) == 0 && sud.mode)
		return refuse(-EBUSY, "thread %d of process %d intercepts its own system calls",
			      t->tid, t->pid);
	errno = 0;
	word = ptrace(PTRACE_PEEKTEXT, t->tid, insn, NULL);
	if (errno || memcmp(&word, arch_syscall_insn, arch_syscall_len))
		return refuse(-EAGAIN,
			      "the code of process %d changed: it was just executed anew",
			      t->pid);
	if (ptrace(PTRACE_SETOPTIONS, t->tid, NULL,
		   PTRACE_O_TRACESYSGOOD | O_SUSPEND_SECCOMP) &&
	    errno != ESRCH && task_status(t->pid, t->tid, "Seccomp") != 0)
		return refuse(
			-EPERM,
			"process %d is under seccomp, which may kill it for our system calls; "
			"to suspend it CAP_SYS_ADMIN and CONFIG_CHECKPOINT_RESTORE are needed",
			t->pid);
	return 0;
}

/* It could go on, or has stopped just now: the machine is busy. */
static bool waits_for_cpu(pid_t tid)
{
	char state = tasks_state(tid);

	return state == 'R' || state == 't';
}

/*
 * Let @t run to its next stop at a system call. The stop is PTRACE_SYSCALL's and not that of a
 * single step: the SIGTRAP of a step is a forced signal, which would reset the target's own
 * handling of it for good. -EBUSY when the thread stopped for our interrupt first (it can't
 * run, say in a frozen cgroup); -ESRCH when killed.
 */
static int run_to_syscall(struct tracee *t, bool *sigstop)
{
	bool interrupted = false;
	int waits = 0;

	for (;;) {
		uint64_t until = interrupted ? UINT64_MAX : now_ns() + CALL_NS;
		int status, err, sig;

		if (ptrace(PTRACE_SYSCALL, t->tid, NULL, NULL) && errno != ESRCH)
			return -errno;
		err = tracee_wait(t, until, &status);
		while (err == -ETIMEDOUT && waits++ < CALL_WAITS && waits_for_cpu(t->tid))
			err = tracee_wait(t, now_ns() + CALL_NS, &status);
		if (err == -ETIMEDOUT) {
			interrupted = true;
			ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL);
			err = tracee_wait(t, UINT64_MAX, &status);
		}
		if (err)
			return err;
		sig = WSTOPSIG(status);
		if (sig == SYSCALL_STOP)
			return 0;
		if (status >> 16 == PTRACE_EVENT_STOP) {
			note_stopped(t->tid, sig != SIGTRAP);
			if (interrupted)
				return -EBUSY;
		} else if (sig == SIGSTOP) {
			*sigstop = true; /* can't be blocked; sent again when we are done */
			note_stopped(t->tid, true);
		} else {
			return -EFAULT; /* all others are blocked, so it is a fault */
		}
	}
}

/*
 * It enters the kernel for a call that does nothing, which becomes ours there: a thread under
 * seccomp that loses its tracer at the entry goes on to its filter with what it has.
 */
static int run_one(struct tracee *t, const struct arch_regs *saved, uint64_t insn,
		   struct warden_call *call, bool *sigstop)
{
	struct arch_regs regs = *saved;
	int err;

	arch_call_setup(&regs, insn, &arch_no_call);
	err = arch_regs_set(t->tid, &regs);
	if (!err)
		err = run_to_syscall(t, sigstop);
	if (!err)
		err = arch_regs_get(t->tid, &regs);
	if (err)
		return err;
	arch_call_replace(&regs, call);
	note_call(t->tid, call);
	err = arch_regs_set(t->tid, &regs);
	if (!err)
		err = run_to_syscall(t, sigstop);
	if (!err)
		err = arch_regs_get(t->tid, &regs);
	if (err)
		return err;
	call->ret = arch_call_result(&regs);
	note_result(t->tid, call);
	return 0;
}

/*
 * Back to where we found it: an interrupt stop with its own registers. They are in place before
 * it moves, so that even if we died here it would run on right: an interrupt is pending, which
 * makes the kernel look at a call to restart.
 */
static int put_back(struct tracee *t, const struct arch_regs *saved, bool *sigstop)
{
	int status, err = arch_regs_set(t->tid, saved);

	if (!err && ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL))
		err = -errno;
	while (!err) {
		if (ptrace(PTRACE_CONT, t->tid, NULL, NULL))
			return -errno;
		err = tracee_wait(t, UINT64_MAX, &status);
		if (!err && status >> 16 == PTRACE_EVENT_STOP) {
			note_stopped(t->tid, *sigstop || WSTOPSIG(status) != SIGTRAP);
			break;
		}
		if (!err && WSTOPSIG(status) == SIGSTOP) {
			*sigstop = true;
			note_stopped(t->tid, true);
			err = ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL) ? -errno : 0;
		}
	}
	if (!err && ptrace(PTRACE_SETOPTIONS, t->tid, NULL, PTRACE_O_TRACESYSGOOD))
		err = -errno;
	return err;
}

size_t inject_run(struct tracee *t, uint64_t insn, struct warden_call *calls, size_t n,
		  int *err)
{
	struct arch_regs saved;
	bool sigstop = false;
	size_t done = 0;
	int back;

	*err = 0;
	if (!n)
		return 0;
	*err = arch_regs_get(t->tid, &saved);
	if (!*err)
		*err = check_thread(t, &saved, insn);
	if (!*err)
		*err = leave_rseq(t->tid, &saved);
	if (!*err)
		*err = tracee_block(t);
	if (*err)
		return 0;
	note_registers(t->tid, &saved, insn);
	while (done < n && !*err) {
		*err = run_one(t, &saved, insn, &calls[done], &sigstop);
		done += !*err;
	}
	back = put_back(t, &saved, &sigstop);
	if (sigstop)
		kill(t->pid, SIGSTOP);
	if (!back)
		back = tracee_unblock(t);
	if (*err == -EBUSY)
		refuse(*err, "thread %d of process %d can not run: is its cgroup frozen?",
		       t->tid, t->pid);
	else if (*err == -EFAULT)
		refuse(*err, "process %d faulted in an injected system call", t->pid);
	else if (back)
		*err = back;
	return done;
}
