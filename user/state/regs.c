// SPDX-License-Identifier: GPL-2.0
/* Per thread: register sets, name, rseq, robust futex list, clear-child-tid. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "state/kinds.h"
#include "state/regs.pb-c.h"

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

const struct state_ops state_regs = {
	.name = "regs", .plan = plan, .dump = dump, .finish = finish, .free_note = free};
