// SPDX-License-Identifier: GPL-2.0
/* Dispositions; blocked and pending signals; alternate stacks. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "state/kinds.h"
#include "state/restore.h"
#include "state/signals.pb-c.h"

#define SIGNALS_VERSION 1
#define SIGNALS 64
#define PEEK 32		   /* siginfos per request */
#define PENDING_MAX 100000 /* far above RLIMIT_SIGPENDING's default of 4 per MiB */

/* The kernel's struct sigaction; the same on all 64-bit architectures that have a restorer. */
struct kernel_sigaction {
	uint64_t handler, flags, restorer, mask;
};

struct pending {
	VEC(siginfo_t) list;
};

struct note {
	int action[SIGNALS + 1]; /* handle, or -1 */
	int *altstack;		 /* per thread */
	struct pending shared;
	struct pending *own;
	size_t n;
};

static void free_note(void *arg)
{
	struct note *note = arg;

	for (size_t i = 0; note->own && i < note->n; i++)
		vec_free(&note->own[i].list);
	vec_free(&note->shared.list);
	free(note->own);
	free(note->altstack);
	free(note);
}

static int plan(struct state_process *p, void **slot)
{
	static const uint64_t get_altstack[6] = {0};
	struct note *note = *slot = calloc(1, sizeof(*note));
	/* SIGCHLD always: SA_NOCLDWAIT matters with the default action, too. */
	uint64_t set = 1ull << (SIGCHLD - 1);

	if (note) {
		note->n = p->n_threads;
		note->altstack = calloc(p->n_threads, sizeof(int));
		note->own = calloc(p->n_threads, sizeof(*note->own));
	}
	if (!note || !note->altstack || !note->own)
		return fail(-ENOMEM, "note signals");
	set |= procfs_number(p->status[0], "SigCgt", 16);
	set |= procfs_number(p->status[0], "SigIgn", 16);
	for (unsigned sig = 1; sig <= SIGNALS; sig++) {
		const uint64_t args[6] = {sig, 0, 0, sizeof(uint64_t)};

		note->action[sig] = -1;
		if (!(set >> (sig - 1) & 1))
			continue;
		note->action[sig] = gather_call(p, 0, SYS_rt_sigaction, args, 2,
						sizeof(struct kernel_sigaction));
		if (note->action[sig] < 0)
			return note->action[sig];
	}
	for (size_t i = 0; i < p->n_threads; i++) {
		note->altstack[i] =
			gather_call(p, i, SYS_sigaltstack, get_altstack, 1, sizeof(stack_t));
		if (note->altstack[i] < 0)
			return note->altstack[i];
	}
	return 0;
}

static int peek(struct state_process *p, pid_t tid, bool shared, struct pending *out)
{
	for (;;) {
		struct __ptrace_peeksiginfo_args args = {
			.off = out->list.n, .flags = shared ? 1 : 0, .nr = PEEK};
		siginfo_t got[PEEK];
		size_t len = sizeof(got);
		long n = warden_ptrace(p->warden, PTRACE_PEEKSIGINFO, tid, 0, &args,
				       sizeof(args), got, &len);

		if (n < 0)
			return wrap((int)n, "pending signals of thread %d", tid);
		if (out->list.n + (size_t)n > PENDING_MAX)
			return refuse(-E2BIG, "thread %d has too many pending signals", tid);
		for (long i = 0; i < n; i++) {
			siginfo_t *slot = vec_push(&out->list);

			if (!slot)
				return fail(-ENOMEM, "note signals");
			*slot = got[i];
		}
		if (n < PEEK)
			return 0;
	}
}

static int dump(struct state_process *p, void **slot)
{
	struct note *note = *slot;
	int err = 0;

	if (procfs_number(p->status[0], "ShdPnd", 16))
		err = peek(p, p->threads[0].tid, true, &note->shared);
	for (size_t i = 0; i < p->n_threads && !err; i++)
		if (procfs_number(p->status[i], "SigPnd", 16))
			err = peek(p, p->threads[i].tid, false, &note->own[i]);
	return err;
}

/* @list as protobuf has it; freed by the caller, the bytes stay ours. */
static int pending_message(struct pending *pending, ProtobufCBinaryData **out, size_t *n)
{
	*out = calloc(pending->list.n + 1, sizeof(**out));
	if (!*out)
		return fail(-ENOMEM, "note signals");
	for (size_t i = 0; i < pending->list.n; i++)
		(*out)[i] = (ProtobufCBinaryData){sizeof(siginfo_t),
						  (uint8_t *)&pending->list.data[i]};
	*n = pending->list.n;
	return 0;
}

static int finish_thread(struct state_process *p, size_t i, struct note *note)
{
	_cleanup_free_ ProtobufCBinaryData *pending = NULL;
	Icp__ThreadSignals msg = ICP__THREAD_SIGNALS__INIT;
	Icp__Thread *image = p->image->threads[i];
	long ret = gather_ret(p, i, note->altstack[i]);
	stack_t stack;
	int err;

	if (ret)
		return fail((int)ret, "alternate stack of thread %d", p->threads[i].tid);
	memcpy(&stack, gather_out(p, i, note->altstack[i]), sizeof(stack));
	msg.altstack_sp = (uint64_t)(uintptr_t)stack.ss_sp;
	msg.altstack_size = stack.ss_size;
	msg.altstack_flags = (uint32_t)stack.ss_flags;
	msg.blocked = procfs_number(p->status[i], "SigBlk", 16);
	err = pending_message(&note->own[i], &pending, &msg.n_pending);
	if (err)
		return err;
	msg.pending = pending;
	return state_pack_blob(&image->blobs, &image->n_blobs, "signals", SIGNALS_VERSION,
			       &msg.base);
}

static int finish_process(struct state_process *p, struct note *note)
{
	Icp__SigAction actions[SIGNALS], *list[SIGNALS];
	_cleanup_free_ ProtobufCBinaryData *pending = NULL;
	Icp__SignalState msg = ICP__SIGNAL_STATE__INIT;
	int err;

	for (unsigned sig = 1; sig <= SIGNALS; sig++) {
		struct kernel_sigaction sa;
		Icp__SigAction *a = &actions[msg.n_actions];
		long ret;

		if (note->action[sig] < 0)
			continue;
		ret = gather_ret(p, 0, note->action[sig]);
		if (ret)
			return fail((int)ret, "action of signal %u", sig);
		memcpy(&sa, gather_out(p, 0, note->action[sig]), sizeof(sa));
		if (!sa.handler && !sa.flags)
			continue;
		icp__sig_action__init(a);
		a->sig = sig;
		a->handler = sa.handler;
		a->flags = sa.flags;
		a->restorer = sa.restorer;
		a->mask = sa.mask;
		list[msg.n_actions++] = a;
	}
	msg.actions = list;
	err = pending_message(&note->shared, &pending, &msg.n_pending);
	if (err)
		return err;
	msg.pending = pending;
	return state_pack_blob(&p->image->blobs, &p->image->n_blobs, "signals", SIGNALS_VERSION,
			       &msg.base);
}

static int finish(struct state_process *p, void **slot)
{
	int err = finish_process(p, *slot);

	for (size_t i = 0; i < p->n_threads && !err; i++)
		err = finish_thread(p, i, *slot);
	return err;
}

/* ---- restore ---- */

struct restore_note {
	Icp__SignalState *shared;
	Icp__ThreadSignals **threads;
	size_t n;
};

static void restore_free(void *arg)
{
	struct restore_note *note = arg;

	for (size_t i = 0; i < note->n; i++)
		if (note->threads[i])
			protobuf_c_message_free_unpacked(&note->threads[i]->base, NULL);
	if (note->shared)
		protobuf_c_message_free_unpacked(&note->shared->base, NULL);
	free(note->threads);
	free(note);
}

static int check_pending(const ProtobufCBinaryData *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		siginfo_t info;

		if (list[i].len != sizeof(info))
			return refuse(-EBADMSG, "a pending signal makes no sense");
		memcpy(&info, list[i].data, sizeof(info));
		if (info.si_signo < 1 || info.si_signo > SIGNALS)
			return refuse(-EBADMSG, "signal %d is pending", info.si_signo);
	}
	return 0;
}

static int restore_check_signals(struct state_restore *r, void **slot)
{
	struct restore_note *note = *slot = calloc(1, sizeof(*note));
	int err;

	if (note)
		note->threads = calloc(r->image->n_threads + 1, sizeof(*note->threads));
	if (!note || !note->threads)
		return fail(-ENOMEM, "prepare signals");
	note->n = r->image->n_threads;
	err = restore_unpack(r->image->blobs, r->image->n_blobs, "signals", SIGNALS_VERSION,
			     &icp__signal_state__descriptor, &note->shared);
	if (!err)
		err = check_pending(note->shared->pending, note->shared->n_pending);
	for (size_t i = 0; i < note->n && !err; i++) {
		const Icp__Thread *t = r->image->threads[i];

		err = restore_unpack(t->blobs, t->n_blobs, "signals", SIGNALS_VERSION,
				     &icp__thread_signals__descriptor, &note->threads[i]);
		if (!err)
			err = check_pending(note->threads[i]->pending,
					    note->threads[i]->n_pending);
	}
	return err;
}

/* All of them: what is not in the image is SIG_DFL, whatever icp-bpf made of it. */
static int restore_actions(const Icp__SignalState *msg, struct batch *b)
{
	struct kernel_sigaction sa[SIGNALS + 1] = {0};
	int err = 0;

	for (size_t i = 0; i < msg->n_actions; i++) {
		const Icp__SigAction *a = msg->actions[i];

		if (a->sig < 1 || a->sig > SIGNALS || a->sig == SIGKILL || a->sig == SIGSTOP)
			return refuse(-EBADMSG, "signal %u has a handler", a->sig);
		sa[a->sig] =
			(struct kernel_sigaction){a->handler, a->flags, a->restorer, a->mask};
	}
	for (uint64_t sig = 1; sig <= SIGNALS && !err; sig++) {
		uint64_t at;

		if (sig == SIGKILL || sig == SIGSTOP)
			continue;
		err = batch_data(b, &sa[sig], sizeof(sa[sig]), &at);
		if (!err)
			err = batch_call(b, "set a signal's action", SYS_rt_sigaction,
					 BATCH_ARGS(sig, at, 0, sizeof(uint64_t)));
	}
	return err;
}

static int restore_process_signals(struct state_restore *r, void *arg, struct batch *b)
{
	return restore_actions(((struct restore_note *)arg)->shared, b);
}

/* Queued by the thread itself: only then the kernel takes any siginfo. */
static int queue(const struct state_restore *r, const ProtobufCBinaryData *list, size_t n,
		 uint32_t tid, struct batch *b)
{
	int err = 0;

	for (size_t i = 0; i < n && !err; i++) {
		siginfo_t info;
		uint64_t at, sig;

		memcpy(&info, list[i].data, sizeof(info));
		sig = (uint64_t)info.si_signo;
		err = batch_data(b, &info, sizeof(info), &at);
		if (!err && tid)
			err = batch_call(b, "queue a signal", SYS_rt_tgsigqueueinfo,
					 BATCH_ARGS(r->image->pid, tid, sig, at));
		else if (!err)
			err = batch_call(b, "queue a signal", SYS_rt_sigqueueinfo,
					 BATCH_ARGS(r->image->pid, sig, at));
	}
	return err;
}

static int restore_thread_signals(struct state_restore *r, void *arg, size_t i, struct batch *b)
{
	const Icp__ThreadSignals *t = ((struct restore_note *)arg)->threads[i];
	stack_t stack = {.ss_sp = (void *)t->altstack_sp,
			 .ss_size = t->altstack_size,
			 .ss_flags = (int)(t->altstack_flags & ~(uint32_t)SS_ONSTACK)};
	uint64_t at;
	int err = batch_data(b, &stack, sizeof(stack), &at);

	if (!err)
		err = batch_call(b, "set the alternate stack", SYS_sigaltstack,
				 BATCH_ARGS(at, 0));
	return err ? err : queue(r, t->pending, t->n_pending, r->image->threads[i]->tid, b);
}

static int restore_settle_signals(struct state_restore *r, void *arg, struct batch *b)
{
	const Icp__SignalState *s = ((struct restore_note *)arg)->shared;

	return queue(r, s->pending, s->n_pending, 0, b);
}

static int restore_release_signals(struct state_restore *r, void *arg, size_t i)
{
	const Icp__ThreadSignals *t = ((struct restore_note *)arg)->threads[i];
	uint64_t mask = t->blocked;

	if (ptrace(PTRACE_SETSIGMASK, r->image->threads[i]->tid, sizeof(mask), &mask))
		return fail(-errno, "signal mask of thread %u", r->image->threads[i]->tid);
	return 0;
}

static const struct restore_ops signals_restore = {.check = restore_check_signals,
						   .process = restore_process_signals,
						   .thread = restore_thread_signals,
						   .settle = restore_settle_signals,
						   .release = restore_release_signals,
						   .free_note = restore_free};

const struct state_ops state_signals = {.name = "signals",
					.plan = plan,
					.dump = dump,
					.finish = finish,
					.free_note = free_note,
					.restore = &signals_restore};
