// SPDX-License-Identifier: GPL-2.0
#include "track/last_faults.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIRST_CAP 256

static struct last_fault *slot_of(struct last_fault *slots, size_t cap, uint32_t tid)
{
	size_t i = (tid * 0x9e3779b1u) & (cap - 1);

	while (slots[i].tid && slots[i].tid != tid)
		i = (i + 1) & (cap - 1);
	return &slots[i];
}

static bool is_gone(const struct last_fault *f)
{
	return syscall(SYS_tgkill, f->pid, f->tid, 0) && errno == ESRCH;
}

/* Threads that have ended are left behind; twice the room for the others where it is still needed. */
static int grow(struct last_faults *l)
{
	struct last_faults bigger = {.cap = FIRST_CAP};
	size_t alive = 0;

	for (size_t i = 0; i < l->cap; i++) {
		if (l->slots[i].tid && is_gone(&l->slots[i]))
			l->slots[i].pid = 0;
		alive += l->slots[i].tid && l->slots[i].pid;
	}
	while (bigger.cap < 4 * alive)
		bigger.cap *= 2;
	bigger.slots = calloc(bigger.cap, sizeof(*bigger.slots));
	if (!bigger.slots)
		return -ENOMEM;
	for (size_t i = 0; i < l->cap; i++) {
		if (!l->slots[i].tid || !l->slots[i].pid)
			continue;
		*slot_of(bigger.slots, bigger.cap, l->slots[i].tid) = l->slots[i];
		bigger.n++;
	}
	free(l->slots);
	*l = bigger;
	return 0;
}

int last_faults_note(struct last_faults *l, const struct icp_fault *fault)
{
	struct last_fault *slot;

	if (2 * l->n >= l->cap && grow(l))
		return -ENOMEM;
	slot = slot_of(l->slots, l->cap, fault->tid);
	l->n += !slot->tid;
	*slot = (struct last_fault){fault->tid, fault->pid, fault->addr};
	return 0;
}

int last_faults_of(const struct last_faults *l, pid_t pid, struct fault_addresses *out)
{
	for (size_t i = 0; i < l->cap; i++) {
		uint64_t *addr;

		if (!l->slots[i].tid || (pid_t)l->slots[i].pid != pid)
			continue;
		addr = vec_push(out);
		if (!addr)
			return fail(-ENOMEM, "faults of pid %d", pid);
		*addr = l->slots[i].addr;
	}
	return 0;
}

void last_faults_free(struct last_faults *l)
{
	free(l->slots);
	*l = (struct last_faults){0};
}
