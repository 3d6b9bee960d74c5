// SPDX-License-Identifier: GPL-2.0
/* Write faults of the followed processes: the hot path of tracing. Recorded without waking
 * anybody. */
#include "icp.bpf.h"
#include "arch.bpf.h"

/* How many faults this one is told for; 0: it is not told. */
static __always_inline __u32 weigh(struct icp_counters *counters, __u64 now)
{
	struct icp_budget *budget;
	__u32 zero = 0;

	if (!fault_budget)
		return 1;
	budget = bpf_map_lookup_elem(&budgets, &zero);
	if (!budget)
		return 1;
	if (now - budget->start >= ICP_BUDGET_NS) {
		budget->start = now;
		budget->told = 0;
	}
	if (budget->told < fault_budget) {
		budget->told++;
		return 1;
	}
	if (++budget->untold % ICP_KEEP_EVERY) {
		counters->untold++;
		return 0;
	}
	return ICP_KEEP_EVERY;
}

/*
 * Which one of the coming faults: at random about one in stack_every, which is such that there is about one stack in a period. The first
 * one after a period would always be the one that begins a burst, perhaps a system call.
 */
static __always_inline void next_stack(struct icp_counters *counters, __u64 now)
{
	__u64 since = now - counters->stack_ns;
	__u32 every = counters->stack_every;

	if (since < stack_period_ns)
		every *= 2;
	else
		every = every * stack_period_ns / since;
	if (every > ICP_STACK_EVERY_MAX)
		every = ICP_STACK_EVERY_MAX;
	counters->stack_every = every ? every : 1;
	counters->stack_next = 1 + bpf_get_prandom_u32() % (2 * counters->stack_every - 1);
	counters->stack_ns = now;
}

static __always_inline void take_stack(void *ctx, struct icp_counters *counters, __u32 pid,
				       __u64 now)
{
	struct icp_stack *stack;
	long len;

	if (++counters->stack_skipped < counters->stack_next)
		return;
	stack = bpf_ringbuf_reserve(&stacks, sizeof(*stack), 0);
	if (!stack)
		return; /* the next one stands for these as well */
	stack->pid = pid;
	stack->tid = current_tid();
	stack->weight = counters->stack_skipped;
	len = bpf_get_stack(ctx, stack->ip, sizeof(stack->ip), BPF_F_USER_STACK);
	stack->n = len > 0 ? (__u32)len / 8 : 0;
	bpf_ringbuf_submit(stack, BPF_RB_NO_WAKEUP);
	counters->stack_skipped = 0;
	next_stack(counters, now);
}

static __always_inline int write_fault(unsigned long long *ctx, __u32 flags)
{
	unsigned long addr = ctx[0], error = ctx[2];
	struct icp_counters *counters;
	struct icp_fault *fault;
	struct pt_regs *regs;
	__u32 pid, weight;
	__u64 now;

	/* a kernel address is the kernel's own business, or a wild pointer */
	if (!(error & FAULT_WRITE) || (long)addr < 0)
		return 0;
	pid = current_pid();
	counters = bpf_map_lookup_elem(&targets, &pid);
	if (!counters)
		return 0;
	if (flags & ICP_FAULT_KERNEL)
		counters->faults_kernel++;
	else
		counters->faults_user++;

	now = bpf_ktime_get_ns();
	if (stack_period_ns)
		take_stack(ctx, counters, pid, now);
	weight = weigh(counters, now);
	if (!weight)
		return 0;
	/* always where the thread left user mode, not the regs of the fault, which may be the
	 * kernel's */
	regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	fault = bpf_ringbuf_reserve(&faults, sizeof(*fault), 0);
	if (!fault) {
		counters->lost_faults++;
		return 0;
	}
	fault->time = now;
	fault->addr = addr;
	fault->ip = REGS_IP(regs);
	fault->pid = pid;
	fault->tid = current_tid();
	fault->flags = flags;
	fault->weight = weight;
	bpf_ringbuf_submit(fault, BPF_RB_NO_WAKEUP);
	return 0;
}

/* (unsigned long address, struct pt_regs *regs, unsigned long error_code) */
SEC("raw_tp/page_fault_user")
int fault_user(unsigned long long *ctx)
{
	return write_fault(ctx, 0);
}

SEC("raw_tp/page_fault_kernel")
int fault_kernel(unsigned long long *ctx)
{
	return write_fault(ctx, ICP_FAULT_KERNEL);
}

char LICENSE[] SEC("license") __weak = "GPL";
