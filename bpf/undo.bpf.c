// SPDX-License-Identifier: GPL-2.0
/*
 * SEM_UNDO adjustments, which no file of /proc shows: an iterator over all tasks that walks the undo list of each
 * (ipc/sem.c). An object of its own: user/track/undo.c loads it, only where there are semaphores.
 */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "icp_undo.h"

#define LISTS_MAX 1024

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct list_head___undo {
	struct list_head___undo *next;
};
struct sem_undo_list {
	struct list_head___undo list_proc;
};
struct sem_undo {
	struct list_head___undo list_proc;
	int semid;
};
struct sem_undo___pointer {
	short *semadj;
};
/* behind the struct itself since 5.15 or so */
struct sem_undo___flat {
	short semadj[0];
};
struct sysv_sem {
	struct sem_undo_list *undo_list;
};
struct task_struct___undo {
	int tgid;
	struct sysv_sem sysvsem;
};
struct bpf_iter__task___undo {
	void *meta;
	struct task_struct___undo *task;
};
#pragma clang attribute pop

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ICP_UNDO_SETS);
	__type(key, int);     /* semid */
	__type(value, __u32); /* semaphores in it */
} sets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ICP_UNDO_VALUES);
	__type(key, struct icp_undo_key);
	__type(value, int);
} values SEC(".maps");

__u64 lost; /* values that did not fit, lists that were cut short */

struct semaphores {
	struct icp_undo_key key;
	const short *adjust;
};

static long one_semaphore(__u32 i, struct semaphores *s)
{
	short adjust = 0;
	int value;

	if (bpf_probe_read_kernel(&adjust, sizeof(adjust), s->adjust + i)) {
		__sync_fetch_and_add(&lost, 1);
		return 1;
	}
	if (!adjust)
		return 0;
	s->key.num = i;
	value = adjust;
	if (bpf_map_update_elem(&values, &s->key, &value, BPF_ANY))
		__sync_fetch_and_add(&lost, 1);
	return 0;
}

struct walk {
	struct list_head___undo *head, *at;
	int tgid;
	bool done;
};

static long one_undo(__u32 i, struct walk *w)
{
	struct list_head___undo *at = w->at;
	struct sem_undo *undo = (void *)at; /* list_proc is its first member */
	struct semaphores s = {};
	__u32 *n;

	if (!at || at == w->head) {
		w->done = true;
		return 1;
	}
	s.key.tgid = w->tgid;
	s.key.semid = BPF_CORE_READ(undo, semid);
	if (bpf_core_field_exists(struct sem_undo___pointer, semadj))
		s.adjust = BPF_CORE_READ((struct sem_undo___pointer *)undo, semadj);
	else
		s.adjust = (void *)undo + bpf_core_field_offset(struct sem_undo___flat, semadj);
	n = bpf_map_lookup_elem(&sets, &s.key.semid);
	if (n)
		bpf_loop(*n, one_semaphore, &s, 0);
	w->at = BPF_CORE_READ(at, next);
	return 0;
}

SEC("iter/task")
int sem_undos(struct bpf_iter__task___undo *ctx)
{
	struct task_struct___undo *task = ctx->task;
	struct sem_undo_list *list;
	struct walk w = {};

	if (!task)
		return 0;
	list = BPF_CORE_READ(task, sysvsem.undo_list);
	if (!list)
		return 0;
	w.tgid = BPF_CORE_READ(task, tgid);
	w.head = (void *)list + bpf_core_field_offset(struct sem_undo_list, list_proc);
	w.at = BPF_CORE_READ(list, list_proc.next);
	bpf_loop(LISTS_MAX, one_undo, &w, 0);
	if (!w.done)
		__sync_fetch_and_add(&lost, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
