// SPDX-License-Identifier: GPL-2.0
#include "inject/arch.h"

#include <errno.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define CS_64 0x33
/* Kernel-internal, see include/linux/errno.h: restart, unless a handler runs first; then it is
 * EINTR. */
#define ERESTARTNOHAND 514
#define ERESTART_RESTARTBLOCK 516
#define NR_EPOLL_PWAIT2 441
#define NR_IO_PGETEVENTS 333

const unsigned char arch_syscall_insn[ARCH_SYSCALL_MAX] = {0x0f, 0x05};
const size_t arch_syscall_len = 2;

int arch_regs_get(pid_t tid, struct arch_regs *regs)
{
	return ptrace(PTRACE_GETREGS, tid, NULL, &regs->user) ? -errno : 0;
}

int arch_regs_set(pid_t tid, const struct arch_regs *regs)
{
	return ptrace(PTRACE_SETREGS, tid, NULL, &regs->user) ? -errno : 0;
}

bool arch_native(const struct arch_regs *regs)
{
	return regs->user.cs == CS_64;
}

uint64_t arch_pc(const struct arch_regs *regs)
{
	return regs->user.rip;
}

void arch_set_pc(struct arch_regs *regs, uint64_t pc)
{
	regs->user.rip = pc;
}

/* seccomp(2): strict mode has it, too. */
const struct warden_call arch_no_call = {.nr = SYS_read, .args = {(uint64_t)-1}};

static void set_arguments(struct user_regs_struct *r, const struct warden_call *call)
{
	r->rdi = call->args[0];
	r->rsi = call->args[1];
	r->rdx = call->args[2];
	r->r10 = call->args[3];
	r->r8 = call->args[4];
	r->r9 = call->args[5];
}

void arch_call_setup(struct arch_regs *regs, uint64_t insn, const struct warden_call *call)
{
	struct user_regs_struct *r = &regs->user;

	r->rip = insn;
	r->rax = (unsigned long)call->nr;
	r->orig_rax = -1ul; /* not in a system call: nothing to restart on the way out */
	set_arguments(r, call);
}

void arch_call_replace(struct arch_regs *regs, const struct warden_call *call)
{
	regs->user.orig_rax = (unsigned long)call->nr;
	set_arguments(&regs->user, call);
}

bool arch_call_is(const struct arch_regs *regs, uint64_t insn, const struct warden_call *call)
{
	const struct user_regs_struct *r = &regs->user;

	return r->rip == insn + arch_syscall_len && r->orig_rax == (unsigned long)call->nr &&
	       r->rdi == call->args[0] && r->rsi == call->args[1] && r->rdx == call->args[2] &&
	       r->r10 == call->args[3];
}

long arch_call_result(const struct arch_regs *regs)
{
	return (long)regs->user.rax;
}

/*
 * Calls that answer EINTR, instead of one of the restart codes, when a stop wakes them:
 * signal(7), "Interruption of system calls and library functions by stop signals", and sockets
 * with SO_RCVTIMEO or SO_SNDTIMEO. All of them have done nothing yet when they say EINTR.
 * close() is not one: it has closed.
 */
static bool restartable(unsigned long nr)
{
	switch (nr) {
	case SYS_epoll_wait:
	case SYS_epoll_pwait:
	case NR_EPOLL_PWAIT2:
	case SYS_semop:
	case SYS_semtimedop:
	case SYS_msgrcv:
	case SYS_msgsnd:
	case SYS_rt_sigtimedwait:
	case SYS_io_getevents:
	case NR_IO_PGETEVENTS:
	case SYS_io_uring_enter:
	case SYS_futex:
	case SYS_poll:
	case SYS_ppoll:
	case SYS_select:
	case SYS_pselect6:
	case SYS_read:
	case SYS_readv:
	case SYS_write:
	case SYS_writev:
	case SYS_recvfrom:
	case SYS_recvmsg:
	case SYS_recvmmsg:
	case SYS_sendto:
	case SYS_sendmsg:
	case SYS_sendmmsg:
	case SYS_accept:
	case SYS_accept4:
	case SYS_connect:
		return true;
	}
	return false;
}

/*
 * The calls that a stop of ours interrupted, and that go by the number of restart_syscall(2) from then on: a slot is overwritten
 * by another thread's, and a match is of all that a call can be told by.
 */
static struct noted {
	pid_t tid;
	struct user_regs_struct regs;
} noted[1024];

static struct noted *slot_of(pid_t tid)
{
	return &noted[(unsigned)tid % (sizeof(noted) / sizeof(noted[0]))];
}

static int note_call(pid_t tid)
{
	struct arch_regs now;
	int err = arch_regs_get(tid, &now);

	if (!err && (long)now.user.orig_rax >= 0 && now.user.orig_rax != SYS_restart_syscall)
		*slot_of(tid) = (struct noted){tid, now.user};
	return err;
}

/* Let go on and stopped again before it did: at the instruction, to call restart_syscall(2). */
static bool will_restart(const struct user_regs_struct *r)
{
	return r->rax == SYS_restart_syscall;
}

void arch_name_call(pid_t tid, struct arch_regs *regs)
{
	const struct noted *slot = slot_of(tid);
	const struct user_regs_struct *was = &slot->regs;
	struct user_regs_struct *r = &regs->user;

	if (slot->tid != tid || r->rsp != was->rsp || r->rdi != was->rdi ||
	    r->rsi != was->rsi || r->rdx != was->rdx || r->r10 != was->r10)
		return;
	if (r->orig_rax == SYS_restart_syscall && (long)r->rax == -ERESTART_RESTARTBLOCK &&
	    r->rip == was->rip)
		r->orig_rax = was->orig_rax;
	if (will_restart(r) && r->rip + arch_syscall_len == was->rip) {
		r->rax = was->orig_rax;
		r->orig_rax = -1ul;
	}
}

/*
 * We do not rewind the call ourselves: a signal that came between our look at the pending ones
 * and the release would run its handler and then find the call restarted, and a program that
 * waits for the EINTR would hang. With ERESTARTNOHAND in place the kernel decides, under its
 * lock, when the thread runs on.
 */
int arch_unearned_eintr(pid_t tid)
{
	long rax, nr;

	errno = 0;
	rax = ptrace(PTRACE_PEEKUSER, tid, offsetof(struct user, regs.rax), NULL);
	if (errno)
		return -errno;
	if (rax == -ERESTART_RESTARTBLOCK)
		return note_call(tid);
	if (rax != -EINTR)
		return 0;
	nr = ptrace(PTRACE_PEEKUSER, tid, offsetof(struct user, regs.orig_rax), NULL);
	if (errno)
		return -errno;
	if (nr < 0 || !restartable((unsigned long)nr))
		return 0;
	return ptrace(PTRACE_POKEUSER, tid, offsetof(struct user, regs.rax),
		      -(long)ERESTARTNOHAND)
		       ? -errno
		       : 0;
}

/*
 * r12: the header (next, end, pid, tid, SIGSTOP); r13: the call; r14: the end; rbp: may it fail?
 * No stack is used.
 */
__asm__(".pushsection .rodata\n"
	".globl arch_batch_code, arch_batch_code_size\n"
	"arch_batch_code:\n"
	"0:\n"
	"	mov 0(%r12), %r13\n"
	"	mov 8(%r12), %r14\n"
	"1:	cmp %r14, %r13\n"
	"	jae 2f\n"
	"	mov 0(%r13), %rax\n"
	"	mov 8(%r13), %rdi\n"
	"	mov 16(%r13), %rsi\n"
	"	mov 24(%r13), %rdx\n"
	"	mov 32(%r13), %r10\n"
	"	mov 40(%r13), %r8\n"
	"	mov 48(%r13), %r9\n"
	"	mov 56(%r13), %rbp\n"
	"	syscall\n"
	"	mov %rax, 56(%r13)\n"
	"	cmp $-4095, %rax\n"
	"	jb 3f\n"
	"	test %rbp, %rbp\n"
	"	jz 2f\n"
	"3:	add $64, %r13\n"
	"	jmp 1b\n"
	"2:	mov %r13, 0(%r12)\n"
	"	mov $234, %eax\n" /* tgkill */
	"	mov 16(%r12), %rdi\n"
	"	mov 24(%r12), %rsi\n"
	"	mov 32(%r12), %rdx\n"
	"	syscall\n"
	"	jmp 0b\n"
	"4:\n"
	".balign 8\n"
	"arch_batch_code_size: .quad 4b - arch_batch_code\n"
	".popsection\n");

void arch_batch_setup(struct arch_regs *regs, uint64_t code, uint64_t header)
{
	struct user_regs_struct *r = &regs->user;

	r->rip = code;
	r->r12 = header;
	r->orig_rax = -1ul;
	r->eflags &= ~0x500ul; /* direction, single step */
}

static bool holds(pid_t tid, unsigned long addr, uint32_t value)
{
	uint32_t there;
	struct iovec to = {&there, sizeof(there)}, from = {(void *)addr, sizeof(there)};

	return process_vm_readv(tid, &to, 1, &from, 1, 0) == sizeof(there) && there == value;
}

/*
 * A call that was interrupted twice goes by the number of restart_syscall(2), and nothing tells
 * which one it is: the kernel keeps that to itself. Where the first time was not ours (else see
 * arch_name_call()): there are four that can be (those that set a restart_block); mostly the code
 * before the instruction loads the number, else the arguments must tell.
 */
static unsigned long restarted_call(pid_t tid, const struct user_regs_struct *r)
{
	enum { PTR = 65536, FUTEX_FLAGS = 128 | 256, WAIT_BITSET = 9 };
	static const unsigned long calls[] = {SYS_clock_nanosleep, SYS_poll, SYS_futex,
					      SYS_nanosleep};
	unsigned char code[32];
	struct iovec to = {code, sizeof(code)},
		     from = {(void *)(r->rip - 2 - sizeof(code)), sizeof(code)};
	unsigned long op = r->rsi & ~(unsigned long)FUTEX_FLAGS;

	if (process_vm_readv(tid, &to, 1, &from, 1, 0) == sizeof(code)) {
		for (size_t at = sizeof(code) - 5; at + 1; at--) {
			uint32_t nr;

			memcpy(&nr, code + at + 1, sizeof(nr));
			for (size_t i = 0; code[at] == 0xb8 && i < 4; i++) /* mov $nr, %eax */
				if (nr == calls[i])
					return nr;
		}
	}
	if (r->rdi < PTR || r->rdi >> 31 == 1 ||
	    (int64_t)r->rdi < 0) /* a clock, or no array to poll */
		return r->rdx < PTR ? SYS_poll : SYS_clock_nanosleep;
	if (r->rsi >= PTR)
		return SYS_nanosleep;
	if (!r->rsi && (r->r10 < PTR || !holds(tid, r->rdi, (uint32_t)r->rdx)))
		return SYS_nanosleep; /* poll() of an array of none is rarer */
	return (op == 0 || op == WAIT_BITSET) && r->r10 >= PTR ? SYS_futex : SYS_poll;
}

static bool holds_syscall(pid_t tid, unsigned long addr)
{
	unsigned char code[2];
	struct iovec to = {code, sizeof(code)}, from = {(void *)addr, sizeof(code)};

	return process_vm_readv(tid, &to, 1, &from, 1, 0) == sizeof(code) &&
	       !memcmp(code, arch_syscall_insn, sizeof(code));
}

void arch_restart_anew(pid_t tid, struct arch_regs *regs)
{
	struct user_regs_struct *r = &regs->user, after = *r;

	after.rip += arch_syscall_len;
	if (will_restart(r) && holds_syscall(tid, r->rip)) {
		r->rax = restarted_call(tid, &after);
		r->orig_rax = -1ul;
	}
	if ((long)r->orig_rax < 0 || (long)r->rax != -ERESTART_RESTARTBLOCK)
		return;
	r->rax = r->orig_rax == SYS_restart_syscall ? restarted_call(tid, r) : r->orig_rax;
	r->rip -= arch_syscall_len;
	r->orig_rax = -1ul;
}
