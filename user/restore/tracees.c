// SPDX-License-Identifier: GPL-2.0
/* From a stub to the process that it shall be. It is traced by us throughout, and dies with us. */
#include <errno.h>
#include <linux/sched.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/page.h"
#include "inject/arch.h"
#include "inject/syscall.h"
#include "proc/maps.h"
#include "restore/internal.h"
#include "state/kinds.h"

#define GET_RSEQ_CONFIGURATION 0x420f
#define O_SUSPEND_SECCOMP (1 << 21)
#define OPTIONS (PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACESYSGOOD)
#define SYSCALL_STOP (SIGTRAP | 0x80)
#define NUMBER_FREE_MS 5000

struct rseq_config {
	uint64_t pointer;
	uint32_t size, signature, flags, pad;
};

static int done(const struct restore_proc *p, int err)
{
	return err ? wrap(err, "process %d (%s)", p->pid, p->state.image->comm) : 0;
}

/* Its next stop. */
static int wait_stop(pid_t tid, int *status)
{
	pid_t got;

	do
		got = waitpid(tid, status, __WALL);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return fail(-errno, "wait for thread %d", tid);
	return WIFSTOPPED(*status) ? 0 : refuse(-ESRCH, "thread %d was killed meanwhile", tid);
}

/* Until it stands in a stop that is none of a signal or a call. */
static int wait_interrupt(pid_t tid)
{
	for (;;) {
		int status, err = wait_stop(tid, &status);

		if (err)
			return err;
		if (status >> 16 == PTRACE_EVENT_STOP)
			return 0;
		if (ptrace(PTRACE_CONT, tid, NULL, NULL))
			return fail(-errno, "continue thread %d", tid);
	}
}

static bool has_seccomp(const struct restore_proc *p)
{
	/* Lifting it takes CAP_SYS_ADMIN, so it is asked for only where needed. */
	const Icp__Process *image = p->state.image;

	for (size_t i = 0; i < image->n_threads; i++)
		if (restore_under_seccomp(image->threads[i]))
			return true;
	return false;
}

int tracee_seize(struct restore *r, struct restore_proc *p)
{
	long options = OPTIONS | (has_seccomp(p) ? O_SUSPEND_SECCOMP : 0);
	int err;

	if (ptrace(PTRACE_SEIZE, p->pid, NULL, options))
		return done(p, fail(-errno, "trace it"));
	p->traced = true;
	if (ptrace(PTRACE_INTERRUPT, p->pid, NULL, NULL))
		return done(p, fail(-errno, "stop it"));
	err = wait_interrupt(p->pid);
	return done(p, err ? err : batch_begin(r->batch, p->pid, p->pid));
}

/* It is of a copy of our memory, which goes away. */
static int leave_rseq(struct restore_proc *p, struct batch *b)
{
	struct rseq_config c;

	if (ptrace(GET_RSEQ_CONFIGURATION, p->pid, sizeof(c), &c) < (long)sizeof(c) ||
	    !c.pointer)
		return 0;
	return batch_call(b, "unregister restartable sequences", SYS_rseq,
			  BATCH_ARGS(c.pointer, c.size, 1, c.signature));
}

static int unmap(struct batch *b, uint64_t start, uint64_t end)
{
	return start < end ? batch_call(b, "unmap everything", SYS_munmap,
					BATCH_ARGS(start, end - start))
			   : 0;
}

/* All but the batch and what is inherited from us. */
static int unmap_all(struct restore *r)
{
	uint64_t size, start[2] = {batch_address(r->batch)}, end[2] = {start[0] + batch_size()};
	int low, err;

	start[1] = shares_arena(&r->job, &size);
	end[1] = start[1] + size;
	low = start[1] < start[0];
	err = unmap(r->batch, 0, start[low]);
	if (!err)
		err = unmap(r->batch, end[low], start[!low]);
	return err ? err : unmap(r->batch, end[!low], state_arch.task_size);
}

int tracee_map(struct restore *r, struct restore_proc *p)
{
	uint64_t size, arena = shares_arena(&r->job, &size);
	int err = batch_begin(r->batch, p->pid, p->pid);

	if (!err)
		err = leave_rseq(p, r->batch);
	if (!err)
		err = unmap_all(r);
	if (!err)
		err = restore_memory(&p->state, r->batch);
	if (!err) /* what others have */
		err = unmap(r->batch, arena, arena + size);
	return err ? err : batch_run(r->batch);
}

/* What the kernel placed by itself must be where it was. */
static int check_special(const struct restore_proc *p)
{
	_cleanup_target_ struct target *t = NULL;
	_cleanup_maps_ struct maps maps = {0};
	int err = target_open(p->pid, &t);

	if (!err)
		err = maps_read(t, &maps);
	for (size_t i = 0; i < p->state.image->n_vmas && !err; i++) {
		const Icp__Vma *v = p->state.image->vmas[i];
		const struct vma *now = maps_find(&maps, v->start);

		if (v->kind != VMA_SPECIAL + 1 || v->start >= state_arch.task_size)
			continue;
		if (!now || now->start != v->start || now->end != v->end ||
		    strcmp(now->name, v->name))
			err = refuse(-ENOEXEC, "this kernel's %s is not as it was", v->name);
	}
	return err;
}

int tracee_protect(struct restore *r, struct restore_proc *p)
{
	int err = batch_begin(r->batch, p->pid, p->pid);

	if (!err)
		err = restore_protect(&p->state, r->batch);
	if (!err)
		err = batch_run(r->batch);
	return done(p, err ? err : check_special(p));
}

/* A thread's number is taken for a moment after it, and even its process, can't be seen any
 * more (Linux 6.15): so it is when a job was killed just now. */
static int clone_thread(struct batch *b, uint64_t at, size_t size, long *ret)
{
	uint64_t until = now_ns() + NUMBER_FREE_MS * 1000000ull;
	int err;

	do {
		err = batch_now_try(b, SYS_clone3, BATCH_ARGS(at, size), ret);
	} while (!err && *ret == -EEXIST && now_ns() < until && !usleep(1000));
	return err;
}

/* It starts in our code, after the call that made it, and stops there. */
static int make_thread(struct restore *r, struct restore_proc *p, pid_t tid)
{
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
			 CLONE_SYSVSEM,
		.set_tid_size = 1,
	};
	uint64_t at, set_tid;
	long ret;
	int err = batch_data(r->batch, &tid, sizeof(tid), &set_tid);

	args.set_tid = set_tid;
	if (!err)
		err = batch_data(r->batch, &args, sizeof(args), &at);
	if (!err)
		err = clone_thread(r->batch, at, sizeof(args), &ret);
	if (!err && ret != tid)
		err = ret < 0 ? fail((int)ret, "make a thread")
			      : refuse(-EPROTO, "thread %d became %ld", tid, ret);
	if (err)
		return wrap(err, "thread %d", tid);
	return wait_interrupt(tid);
}

static int make_threads(struct restore *r, struct restore_proc *p)
{
	const Icp__Process *image = p->state.image;
	int err = 0;

	for (size_t i = 1; i < image->n_threads && !err; i++)
		err = make_thread(r, p, (pid_t)image->threads[i]->tid);
	return err;
}

int tracee_state(struct restore *r, struct restore_proc *p)
{
	const Icp__Process *image = p->state.image;
	int err = batch_begin(r->batch, p->pid, p->pid);

	if (!err)
		err = make_threads(r, p);
	if (!err)
		err = restore_process(&p->state, r->batch);
	if (!err)
		err = batch_run(r->batch);
	for (size_t i = 0; i < image->n_threads && !err; i++) {
		err = batch_begin(r->batch, p->pid, (pid_t)image->threads[i]->tid);
		if (!err)
			err = restore_thread(&p->state, i, r->batch);
		if (!err)
			err = batch_run(r->batch);
	}
	return done(p, err);
}

static int to_syscall_stop(pid_t tid)
{
	for (;;) {
		int status, err;

		if (ptrace(PTRACE_SYSCALL, tid, NULL, NULL))
			return fail(-errno, "continue thread %d", tid);
		err = wait_stop(tid, &status);
		if (err)
			return err;
		if (WSTOPSIG(status) == SYSCALL_STOP)
			return 0;
		if (status >> 16 == 0 && WSTOPSIG(status) != SIGSTOP)
			return refuse(-EFAULT, "thread %d faulted (signal %d)", tid,
				      WSTOPSIG(status));
	}
}

/* The code of a batch can't unmap itself: that is done from the process's own code. */
static int unmap_batch(struct restore *r, pid_t pid)
{
	struct warden_call call = {.nr = SYS_munmap,
				   .args = {batch_address(r->batch), batch_size()}};
	struct arch_regs regs;
	uint64_t insn;
	int err = inject_find(pid, &insn);

	if (!err)
		err = arch_regs_get(pid, &regs);
	if (err)
		return err;
	arch_call_setup(&regs, insn, &call);
	err = arch_regs_set(pid, &regs);
	if (!err)
		err = to_syscall_stop(pid);
	if (!err)
		err = to_syscall_stop(pid);
	if (!err)
		err = arch_regs_get(pid, &regs);
	if (!err && arch_call_result(&regs))
		err = fail((int)arch_call_result(&regs), "unmap what we injected");
	/* into a stop where the kernel looks at a call to restart, before it runs on */
	if (!err &&
	    (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) || ptrace(PTRACE_CONT, pid, NULL, NULL)))
		err = fail(-errno, "stop it");
	return err ? err : wait_interrupt(pid);
}

int tracee_settle(struct restore *r, struct restore_proc *p)
{
	const Icp__Process *image = p->state.image;
	int err = batch_begin(r->batch, p->pid, p->pid);

	if (!err)
		err = restore_settle(&p->state, r->batch);
	if (!err)
		err = batch_run(r->batch);
	if (!err)
		err = unmap_batch(r, p->pid);
	for (size_t i = 0; i < image->n_threads && !err; i++)
		err = restore_release(&p->state, i);
	return done(p, err);
}

int tracee_detach(struct restore *r, struct restore_proc *p)
{
	const Icp__Process *image = p->state.image;

	if (image->threads[0]->stopped)
		kill(p->pid, SIGSTOP);
	for (size_t i = 0; i < image->n_threads; i++)
		if (ptrace(PTRACE_DETACH, image->threads[i]->tid, NULL, NULL) && errno != ESRCH)
			return done(p,
				    fail(-errno, "let thread %u go", image->threads[i]->tid));
	return 0;
}
