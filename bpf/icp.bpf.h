/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the program files share: maps, who is observing, and pids as the observer sees them.
 * Everything here is
 * __weak: each file has a copy, bpftool's linker keeps one.
 */
#ifndef ICP_BPF_H
#define ICP_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "icp_events.h"

/* Counters per followed process. Per CPU, so that counting needs no atomics. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct icp_counters);
} targets SEC(".maps") __weak;

/* The same keys: what must be one value for all CPUs. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct icp_member);
} members SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20);
} faults SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} changes SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} stacks SEC(".maps") __weak;

/* What was told in the current ICP_BUDGET_NS of this processor. */
struct icp_budget {
	__u64 start;
	__u32 told, untold;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct icp_budget);
} budgets SEC(".maps") __weak;

/* Faults told per processor and ICP_BUDGET_NS before a storm is thinned; 0: all of them. */
const volatile __u32 fault_budget __weak = 0;
/* A process's stack is taken about once in so many ns per processor; 0: never. */
const volatile __u64 stack_period_ns __weak = 0;

/* Written once by learn_observer, before anything is attached. level 0: the initial pid
 * namespace. */
struct icp_observer observer __weak = {};

/* @pid's number in the observer's namespace; 0 when it isn't visible there. */
static __always_inline __u32 pid_seen(struct pid *pid)
{
	struct upid *upid;

	if (!pid || BPF_CORE_READ(pid, level) < observer.level)
		return 0;
	upid = (void *)pid + bpf_core_field_offset(struct pid, numbers) +
	       observer.level * bpf_core_type_size(struct upid);
	if (BPF_CORE_READ(upid, ns, ns.inum) != observer.ns_inum)
		return 0;
	return BPF_CORE_READ(upid, nr);
}

static __always_inline __u32 task_pid(struct task_struct *task)
{
	if (!observer.level)
		return BPF_CORE_READ(task, tgid);
	return pid_seen(BPF_CORE_READ(task, signal, pids[PIDTYPE_TGID]));
}

static __always_inline __u32 task_tid(struct task_struct *task)
{
	if (!observer.level)
		return BPF_CORE_READ(task, pid);
	return pid_seen(BPF_CORE_READ(task, thread_pid));
}

static __always_inline __u32 current_pid(void)
{
	if (!observer.level)
		return bpf_get_current_pid_tgid() >> 32;
	return task_pid((struct task_struct *)bpf_get_current_task());
}

static __always_inline __u32 current_tid(void)
{
	if (!observer.level)
		return bpf_get_current_pid_tgid();
	return task_tid((struct task_struct *)bpf_get_current_task());
}

/* A change of @pid, begun by the current thread. The caller fills the rest and submits; NULL
 * was counted. */
static __always_inline struct icp_change *change_new(struct icp_counters *counters, __u32 pid,
						     __u32 type)
{
	struct icp_change *change = bpf_ringbuf_reserve(&changes, sizeof(*change), 0);

	if (!change) {
		counters->lost_changes++;
		return 0;
	}
	change->time = bpf_ktime_get_ns();
	change->pid = pid;
	change->tid = current_tid();
	change->type = type;
	change->op = 0;
	change->arg[0] = change->arg[1] = change->arg[2] = 0;
	change->ret = 0;
	return change;
}

#endif
