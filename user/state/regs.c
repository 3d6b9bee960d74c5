// SPDX-License-Identifier: GPL-2.0
/* Per thread: register sets, name, rseq, robust futex list, clear-child-tid. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "inject/arch.h"
#include "state/kinds.h"
#include "state/regs.pb-c.h"
#include "state/restore.h"

#define SETS_MAX 16
#define GET_RSEQ_CONFIGURATION 0x420f /* Linux 5.13 */
#define REGS_VERSION 1

struct rseq_config {
	uint64_t pointer;
	uint32_t size, signature, flags, pad;
};

struct thread_regs {
	int sets[SETS_MAX], rseq, tid_address;
	uint64_t robust, robust_len;
};

static int plan_thread(struct state_process *p, size_t i, struct thread_regs *t)
{
	static const uint64_t get_tid_address[6] = {PR_GET_TID_ADDRESS};

	for (size_t s = 0; state_arch.sets[s].type; s++) {
		t->sets[s] =
			gather_regset(p, i, state_arch.sets[s].type, state_arch.sets[s].room);
		if (t->sets[s] < 0)
			return t->sets[s];
	}
	t->rseq = gather_ptrace(p, i, GET_RSEQ_CONFIGURATION, sizeof(struct rseq_config),
				sizeof(struct rseq_config));
	if (t->rseq < 0)
		return t->rseq;
	t->tid_address = gather_call(p, i, SYS_prctl, get_tid_address, 1, sizeof(uint64_t));
	return t->tid_address < 0 ? t->tid_address : 0;
}

static int plan(struct state_process *p, void **note)
{
	struct thread_regs *t = *note = calloc(p->n_threads, sizeof(*t));
	int err = t ? 0 : fail(-ENOMEM, "note registers");

	for (size_t i = 0; i < p->n_threads && !err; i++)
		err = plan_thread(p, i, &t[i]);
	return err;
}

static int dump(struct state_process *p, void **note)
{
	struct thread_regs *t = *note;

	for (size_t i = 0; i < p->n_threads; i++) {
		void *head = NULL;
		size_t len = 0;

		/* A kernel without futexes has none. */
		if (syscall(SYS_get_robust_list, p->threads[i].tid, &head, &len) &&
		    errno != ENOSYS)
			return fail(-errno, "robust futex list of thread %d",
				    p->threads[i].tid);
		t[i].robust = (uint64_t)(uintptr_t)head;
		t[i].robust_len = len;
	}
	return 0;
}

static int add_set(Icp__Thread *image, uint32_t type, const void *data, size_t len)
{
	Icp__RegSet *set = malloc(sizeof(*set));

	if (!set)
		return fail(-ENOMEM, "note registers");
	icp__reg_set__init(set);
	image->regs[image->n_regs++] = set;
	set->type = type;
	set->data.data = malloc(len + 1);
	if (!set->data.data)
		return fail(-ENOMEM, "note registers");
	memcpy(set->data.data, data, len);
	set->data.len = len;
	return 0;
}

static int finish_sets(struct state_process *p, size_t i, const struct thread_regs *t)
{
	Icp__Thread *image = p->image->threads[i];

	image->regs = calloc(SETS_MAX, sizeof(*image->regs));
	if (!image->regs)
		return fail(-ENOMEM, "note registers");
	for (size_t s = 0; state_arch.sets[s].type; s++) {
		const void *data;
		size_t len;
		long ret = gather_answer(p, i, t->sets[s], &data, &len);
		int err;

		if (ret < 0 && state_arch.sets[s].optional)
			continue;
		if (ret < 0)
			return fail((int)ret, "register set %#x of thread %d",
				    state_arch.sets[s].type, p->threads[i].tid);
		if (len == state_arch.sets[s].room && state_arch.sets[s].optional)
			return refuse(-E2BIG, "register set %#x of thread %d is too large",
				      state_arch.sets[s].type, p->threads[i].tid);
		err = add_set(image, state_arch.sets[s].type, data, len);
		if (err)
			return err;
	}
	return 0;
}

/* The name as it is: status shows a newline and a backslash escaped. */
static void thread_name(const char *status, char name[64])
{
	const char *at = procfs_field(status, "Name");
	size_t n = 0;

	for (; at && *at && *at != '\n' && n < 63; at++) {
		if (*at == '\\' && at[1] == 'n') {
			name[n++] = '\n';
			at++;
		} else if (*at == '\\' && at[1] == '\\') {
			name[n++] = '\\';
			at++;
		} else {
			name[n++] = *at;
		}
	}
	name[n] = 0;
}

static int finish_thread(struct state_process *p, size_t i, const struct thread_regs *t)
{
	Icp__ThreadState msg = ICP__THREAD_STATE__INIT;
	Icp__Thread *image = p->image->threads[i];
	struct rseq_config rseq = {0};
	uint32_t nspids[32];
	const void *data;
	size_t len;
	char name[64];
	long ret = gather_answer(p, i, t->rseq, &data, &len);
	int err;

	if (ret >= (long)sizeof(rseq))
		memcpy(&rseq, data, sizeof(rseq));
	else if (ret != -EIO && ret != -EINVAL) /* that would be a kernel without it */
		return fail(ret < 0 ? (int)ret : -EPROTO, "rseq of thread %d",
			    p->threads[i].tid);
	ret = gather_ret(p, i, t->tid_address);
	if (ret)
		return fail((int)ret, "clear-child-tid of thread %d", p->threads[i].tid);
	memcpy(&msg.clear_child_tid, gather_out(p, i, t->tid_address), sizeof(uint64_t));
	msg.rseq_addr = rseq.pointer;
	msg.rseq_size = rseq.size;
	msg.rseq_signature = rseq.signature;
	msg.rseq_flags = rseq.flags;
	msg.robust_list = t->robust;
	msg.robust_len = t->robust_len;
	thread_name(p->status[i], name);
	msg.name = (ProtobufCBinaryData){strlen(name), (uint8_t *)name};
	msg.n_nspids = procfs_numbers(p->status[i], "NSpid", nspids, 32);
	msg.nspids = nspids;
	if (msg.n_nspids > 32)
		msg.n_nspids = 32;
	image->name = procfs_utf8(name);
	if (!image->name)
		return fail(-ENOMEM, "note a thread");
	err = state_pack_blob(&image->blobs, &image->n_blobs, "regs", REGS_VERSION, &msg.base);
	return err ? err : finish_sets(p, i, t);
}

static int finish(struct state_process *p, void **note)
{
	struct thread_regs *t = *note;
	int err = 0;

	for (size_t i = 0; i < p->n_threads && !err; i++)
		err = finish_thread(p, i, &t[i]);
	return err;
}

/* ---- restore ---- */

struct thread_note {
	Icp__ThreadState *msg;
	uint64_t abort_ip; /* of the restartable sequence that it was in, 0: none */
};

struct restore_note {
	struct thread_note *threads;
	size_t n;
};

static void restore_free(void *arg)
{
	struct restore_note *note = arg;

	for (size_t i = 0; i < note->n; i++)
		if (note->threads[i].msg)
			protobuf_c_message_free_unpacked(&note->threads[i].msg->base, NULL);
	free(note->threads);
	free(note);
}

static const Icp__RegSet *find_set(const Icp__Thread *t, uint32_t type)
{
	for (size_t i = 0; i < t->n_regs; i++)
		if (t->regs[i]->type == type)
			return t->regs[i];
	return NULL;
}

static int check_thread(struct state_restore *r, size_t i, struct thread_note *note)
{
	const Icp__Thread *t = r->image->threads[i];
	const Icp__RegSet *set = find_set(t, state_arch.sets[0].type);

	if (!set || set->data.len != sizeof(struct arch_regs) ||
	    !arch_native((const struct arch_regs *)set->data.data))
		return refuse(-EBADMSG, "the registers of thread %u make no sense", t->tid);
	return restore_unpack(t->blobs, t->n_blobs, "regs", REGS_VERSION,
			      &icp__thread_state__descriptor, &note->msg);
}

static int restore_check_regs(struct state_restore *r, void **slot)
{
	struct restore_note *note = *slot = calloc(1, sizeof(*note));
	int err = 0;

	if (note)
		note->threads = calloc(r->image->n_threads + 1, sizeof(*note->threads));
	if (!note || !note->threads)
		return fail(-ENOMEM, "prepare its threads");
	note->n = r->image->n_threads;
	for (size_t i = 0; i < note->n && !err; i++)
		err = check_thread(r, i, &note->threads[i]);
	return err;
}

/* Registering clears the field that says so; the kernel would have sent it to the abort handler
 * before it ran on. */
static void find_sequence(const struct state_restore *r, size_t i, struct thread_note *note)
{
	const Icp__RegSet *set = find_set(r->image->threads[i], state_arch.sets[0].type);
	struct {
		uint32_t version, flags;
		uint64_t start, length, abort;
	} cs;
	uint64_t at = 0, pc = arch_pc((const struct arch_regs *)set->data.data);
	struct iovec to = {&at, sizeof(at)}, from = {(void *)(note->msg->rseq_addr + 8), 8};
	pid_t pid = (pid_t)r->image->pid;

	if (process_vm_readv(pid, &to, 1, &from, 1, 0) != sizeof(at) || !at)
		return;
	to = (struct iovec){&cs, sizeof(cs)};
	from = (struct iovec){(void *)at, sizeof(cs)};
	if (process_vm_readv(pid, &to, 1, &from, 1, 0) == sizeof(cs) &&
	    pc - cs.start < cs.length)
		note->abort_ip = cs.abort;
}

static int restore_thread_regs(struct state_restore *r, void *arg, size_t i, struct batch *b)
{
	struct thread_note *note = &((struct restore_note *)arg)->threads[i];
	const Icp__ThreadState *t = note->msg;
	char name[16] = "";
	uint64_t at;
	int err;

	memcpy(name, t->name.data, t->name.len < 15 ? t->name.len : 15);
	err = batch_data(b, name, sizeof(name), &at);
	if (!err)
		err = batch_call(b, "name a thread", SYS_prctl, BATCH_ARGS(PR_SET_NAME, at));
	if (!err)
		err = batch_call(b, "clear-child-tid", SYS_set_tid_address,
				 BATCH_ARGS(t->clear_child_tid));
	if (!err && t->robust_list)
		err = batch_call(b, "robust futex list", SYS_set_robust_list,
				 BATCH_ARGS(t->robust_list, t->robust_len));
	if (err || !t->rseq_addr)
		return err;
	find_sequence(r, i, note);
	return batch_call(
		b, "register restartable sequences", SYS_rseq,
		BATCH_ARGS(t->rseq_addr, t->rseq_size, t->rseq_flags, t->rseq_signature));
}

static int release_thread(struct state_restore *r, void *arg, size_t i)
{
	const struct thread_note *note = &((struct restore_note *)arg)->threads[i];
	const Icp__Thread *t = r->image->threads[i];
	struct arch_regs regs;
	int err;

	/* From the second on: the first has what ARCH's own set function takes care of. Sets that
	 * hold the same state are set in order, the largest last. */
	for (size_t s = 1; state_arch.sets[s].type; s++) {
		const Icp__RegSet *set = find_set(t, state_arch.sets[s].type);
		struct iovec data;

		if (!set)
			continue;
		data = (struct iovec){set->data.data, set->data.len};
		if (ptrace(PTRACE_SETREGSET, t->tid, (uintptr_t)set->type, &data))
			return fail(-errno, "register set %#x of thread %u", set->type, t->tid);
	}
	memcpy(&regs, find_set(t, state_arch.sets[0].type)->data.data, sizeof(regs));
	arch_restart_anew((pid_t)t->tid, &regs);
	if (note->abort_ip)
		arch_set_pc(&regs, note->abort_ip);
	err = arch_regs_set((pid_t)t->tid, &regs);
	return err ? fail(err, "registers of thread %u", t->tid) : 0;
}

static const struct restore_ops regs_restore = {.check = restore_check_regs,
						.thread = restore_thread_regs,
						.release = release_thread,
						.free_note = restore_free};

const struct state_ops state_regs = {.name = "regs",
				     .plan = plan,
				     .dump = dump,
				     .finish = finish,
				     .free_note = free,
				     .restore = &regs_restore};
