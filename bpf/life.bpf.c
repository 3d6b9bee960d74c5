// SPDX-License-Identifier: GPL-2.0
/* Fork, exec and exit of followed processes; and learning who observes. */
#include "icp.bpf.h"

/* Follow @child like its parent. False when there is no room. */
static __always_inline bool adopt(__u32 child)
{
	struct icp_member member = {.follow = 1};
	struct icp_counters none = {};

	/* BPF_ANY: what is left of a dead process with the same pid is replaced */
	if (bpf_map_update_elem(&members, &child, &member, BPF_ANY))
		return false;
	if (bpf_map_update_elem(&targets, &child, &none, BPF_ANY)) {
		bpf_map_delete_elem(&members, &child);
		return false;
	}
	return true;
}

/* Runs in the parent, before the child's first instruction. */
SEC("raw_tp/sched_process_fork")
int life_fork(unsigned long long *ctx)
{
	struct task_struct *parent = (struct task_struct *)ctx[0];
	struct task_struct *child = (struct task_struct *)ctx[1];
	struct icp_counters *counters;
	struct icp_member *member;
	struct icp_change *change;
	__u32 pid, child_pid;
	bool adopted = false;

	if (BPF_CORE_READ(child, tgid) == BPF_CORE_READ(parent, tgid))
		return 0; /* a thread */
	pid = current_pid();
	counters = bpf_map_lookup_elem(&targets, &pid);
	member = bpf_map_lookup_elem(&members, &pid);
	if (!counters || !member)
		return 0;
	child_pid = task_pid(child);
	if (member->follow) {
		adopted = child_pid && adopt(child_pid);
		if (!adopted)
			counters->lost_changes++;
	}
	change = change_new(counters, pid, ICP_EV_FORK);
	if (!change)
		return 0;
	change->op =
		BPF_CORE_READ(child, mm) == BPF_CORE_READ(parent, mm) ? ICP_FORK_SHARED_MM : 0;
	change->arg[0] = child_pid;
	change->arg[1] = adopted;
	bpf_ringbuf_submit(change, 0);
	return 0;
}

SEC("raw_tp/sched_process_exec")
int life_exec(void *ctx)
{
	struct icp_counters *counters;
	struct icp_change *change;
	__u32 pid = current_pid();

	counters = bpf_map_lookup_elem(&targets, &pid);
	if (!counters)
		return 0;
	change = change_new(counters, pid, ICP_EV_EXEC);
	if (change)
		bpf_ringbuf_submit(change, 0);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int life_exit(unsigned long long *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct icp_counters *counters;
	struct icp_member *member;
	struct icp_change *change;
	__u32 pid = current_pid();

	counters = bpf_map_lookup_elem(&targets, &pid);
	member = bpf_map_lookup_elem(&members, &pid);
	if (!counters || !member || BPF_CORE_READ(task, signal, live.counter))
		return 0;
	/* two threads that end at once both see no living one */
	if (__sync_lock_test_and_set(&member->ended, 1))
		return 0;
	change = change_new(counters, pid, ICP_EV_EXIT);
	if (change)
		bpf_ringbuf_submit(change, 0);
	return 0;
}

/* Run once by the observer itself (bpf_prog_test_run), so "current" is who observes. */
SEC("syscall")
int learn_observer(void *ctx)
{
	struct task_struct *me = (struct task_struct *)bpf_get_current_task();
	struct pid *pid = BPF_CORE_READ(me, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid *upid;

	upid = (void *)pid + bpf_core_field_offset(struct pid, numbers) +
	       level * bpf_core_type_size(struct upid);
	observer.ns_inum = BPF_CORE_READ(upid, ns, ns.inum);
	observer.level = level;
	observer.tgid = bpf_get_current_pid_tgid() >> 32;
	return 0;
}

char LICENSE[] SEC("license") __weak = "GPL";
