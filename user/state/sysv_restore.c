// SPDX-License-Identifier: GPL-2.0
/*
 * Semaphores and message queues again. An adjustment for the end of a process (SEM_UNDO) can only be made by that process:
 * it runs one semop() that adds and takes away the same, one of the two with SEM_UNDO. Values come after that, since setting
 * them by semctl() would forget all adjustments.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/syscall.h>

#include "state/ipc.h"
#include "state/kinds.h"
#include "state/sysv.pb-c.h"

#define VALUE_MAX 32767
#define SETS_MAX 32768

/* NULL: there is none, or none that makes sense. */
Icp__SysvObjects *sysv_unpack(const Icp__Manifest *m)
{
	const Icp__StateBlob *blob = state_find_blob(m->blobs, m->n_blobs, "sysv");

	return blob && blob->version == SYSV_VERSION
		       ? icp__sysv_objects__unpack(NULL, blob->data.len, blob->data.data)
		       : NULL;
}

static int check_set(const Icp__SemSet *s)
{
	bool good =
		s->perm && s->n_values && s->n_values <= SETS_MAX && s->n_pids == s->n_values;

	for (size_t i = 0; good && i < s->n_values; i++)
		good = s->values[i] <= VALUE_MAX;
	for (size_t i = 0; good && i < s->n_undo; i++)
		good = s->undo[i]->number < s->n_values && s->undo[i]->adjust >= -VALUE_MAX &&
		       s->undo[i]->adjust <= VALUE_MAX;
	return good ? 0 : refuse(-EBADMSG, "a semaphore set makes no sense");
}

static int check_queue(const Icp__MessageQueue *q)
{
	bool good = q->perm;

	for (size_t i = 0; good && i < q->n_messages; i++)
		good = q->messages[i]->type > 0;
	return good ? 0 : refuse(-EBADMSG, "a message queue makes no sense");
}

int sysv_load(const Icp__Manifest *m, Icp__SysvObjects **out)
{
	int err = 0;

	*out = NULL;
	if (!state_find_blob(m->blobs, m->n_blobs, "sysv"))
		return 0;
	err = restore_unpack(m->blobs, m->n_blobs, "sysv", SYSV_VERSION,
			     &icp__sysv_objects__descriptor, out);
	for (size_t i = 0; !err && i < (*out)->n_sets; i++)
		err = check_set((*out)->sets[i]);
	for (size_t i = 0; !err && i < (*out)->n_queues; i++)
		err = check_queue((*out)->queues[i]);
	return err;
}

/* ---- by icp-bpf ---- */

int sysv_send_all(int id, const Icp__MessageQueue *q)
{
	for (size_t i = 0; i < q->n_messages; i++) {
		const Icp__QueuedMessage *m = q->messages[i];
		_cleanup_free_ struct msgbuf *buf = malloc(sizeof(long) + m->text.len + 1);

		if (!buf)
			return fail(-ENOMEM, "send messages");
		buf->mtype = m->type;
		if (m->text.len)
			memcpy(buf->mtext, m->text.data, m->text.len);
		if (msgsnd(id, buf, m->text.len, IPC_NOWAIT))
			return fail(-errno, "send message %zu of %zu again", i + 1,
				    q->n_messages);
	}
	return 0;
}

int sysv_set_values(int id, const Icp__SemSet *s)
{
	for (size_t i = 0; i < s->n_values; i++) {
		struct sembuf op = {(unsigned short)i, (short)s->values[i], IPC_NOWAIT};

		if (s->values[i] && semop(id, &op, 1))
			return fail(-errno, "set a semaphore");
	}
	return 0;
}

/* ---- by the processes ---- */

/* One call that changes nothing in sum. */
static int net_zero(struct batch *b, int id, const struct sembuf ops[2], bool must)
{
	uint64_t at;
	int err = batch_data(b, ops, 2 * sizeof(*ops), &at);

	if (err)
		return err;
	return must ? batch_call(b, "note what to undo in a semaphore", SYS_semop,
				 BATCH_ARGS((uint64_t)id, at, 2))
		    : batch_try(b, SYS_semop, BATCH_ARGS((uint64_t)id, at, 2));
}

static int process(struct state_restore *r, void *note, struct batch *b)
{
	const Icp__SysvObjects *o = ipc_sysv(r->job);
	int err = 0;

	for (size_t s = 0; o && s < o->n_sets; s++) {
		const Icp__SemSet *set = o->sets[s];

		for (size_t i = 0; i < set->n_undo && !err; i++) {
			const Icp__SemUndo *u = set->undo[i];
			unsigned short num = (unsigned short)u->number;
			short n = (short)u->adjust;
			/* what is undone is the negative of what was done; up first */
			struct sembuf ops[2] = {{num, n > 0 ? n : (short)-n,
						 (short)(IPC_NOWAIT | (n > 0 ? 0 : SEM_UNDO))},
						{num, n > 0 ? (short)-n : n,
						 (short)(IPC_NOWAIT | (n > 0 ? SEM_UNDO : 0))}};

			if (u->pid == r->image->pid && n)
				err = net_zero(b, ipc_restored_sysv(r->job, SYSV_SEM, s), ops,
					       true);
		}
	}
	return err;
}

/* Be the one who changed it last, where it was that before. */
static int settle(struct state_restore *r, void *note, struct batch *b)
{
	const Icp__SysvObjects *o = ipc_sysv(r->job);
	int err = 0;

	for (size_t s = 0; o && s < o->n_sets; s++) {
		const Icp__SemSet *set = o->sets[s];

		for (size_t i = 0; i < set->n_values && !err; i++) {
			bool full = set->values[i] == VALUE_MAX;
			struct sembuf ops[2] = {{(unsigned short)i, full ? -1 : 1, IPC_NOWAIT},
						{(unsigned short)i, full ? 1 : -1, IPC_NOWAIT}};

			if (set->pids[i] == r->image->pid)
				err = net_zero(b, ipc_restored_sysv(r->job, SYSV_SEM, s), ops,
					       false);
		}
	}
	return err;
}

static const struct restore_ops restore = {.process = process, .settle = settle};

const struct state_ops state_sysv = {.name = "sysv", .restore = &restore};
