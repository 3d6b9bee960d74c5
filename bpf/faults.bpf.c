// SPDX-License-Identifier: GPL-2.0
/* Write faults of the followed processes: the hot path of tracing. Recorded without waking
 * anybody. */
#include "icp.bpf.h"
#include "arch.bpf.h"

static __always_inline int write_fault(unsigned long addr, unsigned long error, __u32 flags)
{
	struct icp_counters *counters;
	struct icp_fault *fault;
	struct pt_regs *regs;
	__u32 pid;

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

	/* always where the thread left user mode, not the regs of the fault, which may be the
	 * kernel's */
	regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	fault = bpf_ringbuf_reserve(&faults, sizeof(*fault), 0);
	if (!fault) {
		counters->lost_faults++;
		return 0;
	}
	fault->time = bpf_ktime_get_ns();
	fault->addr = addr;
	fault->ip = REGS_IP(regs);
	fault->pid = pid;
	fault->tid = current_tid();
	fault->flags = flags;
	fault->pad = 0;
	bpf_ringbuf_submit(fault, BPF_RB_NO_WAKEUP);
	return 0;
}

/* (unsigned long address, struct pt_regs *regs, unsigned long error_code) */
SEC("raw_tp/page_fault_user")
int fault_user(unsigned long long *ctx)
{
	return write_fault(ctx[0], ctx[2], 0);
}

SEC("raw_tp/page_fault_kernel")
int fault_kernel(unsigned long long *ctx)
{
	return write_fault(ctx[0], ctx[2], ICP_FAULT_KERNEL);
}

char LICENSE[] SEC("license") __weak = "GPL";
