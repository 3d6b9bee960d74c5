// SPDX-License-Identifier: GPL-2.0
/*
 * The system calls of followed processes that change their layout or their segments, from
 * sys_exit alone. It runs on every system call of the machine: nothing but one test of the
 * number may happen before the return.
 */
#include "icp.bpf.h"
#include "arch.bpf.h"

#define IPC_RMID 0

struct call {
	__u64 nr, arg[3];
	__s64 ret;
};

static __always_inline void put_map(struct icp_change *change, const struct call *call)
{
	change->arg[0] = call->arg[0];
	change->arg[1] = call->arg[1];
	change->arg[2] = 0;
	switch (call->nr) {
	case NR_MMAP:
		change->op = ICP_MAP_MMAP;
		change->arg[0] = call->ret;
		break;
	case NR_MUNMAP:
		change->op = ICP_MAP_MUNMAP;
		break;
	case NR_MREMAP:
		change->op = ICP_MAP_MREMAP;
		change->arg[0] = call->ret;
		change->arg[1] = call->arg[2];
		change->arg[2] = call->arg[0];
		break;
	case NR_MPROTECT:
		change->op = ICP_MAP_MPROTECT;
		change->arg[2] = call->arg[2];
		break;
	case NR_BRK:
		change->op = ICP_MAP_BRK;
		change->arg[1] = 0;
		break;
	default:
		change->op = ICP_MAP_MADVISE;
		change->arg[2] = call->arg[2];
	}
}

static __always_inline bool put_shm(struct icp_change *change, const struct call *call)
{
	switch (call->nr) {
	case NR_SHMGET:
		change->op = ICP_SHM_GET;
		break;
	case NR_SHMAT:
		change->op = ICP_SHM_AT;
		break;
	case NR_SHMDT:
		change->op = ICP_SHM_DT;
		break;
	case NR_SHMCTL:
		change->op = ICP_SHM_RMID;
		break;
	default:
		return false;
	}
	change->type = ICP_EV_SHM;
	change->arg[0] = call->arg[0];
	if (call->nr == NR_SHMGET || call->nr == NR_SHMAT) {
		change->arg[1] = call->arg[1];
		change->arg[2] = call->arg[2];
	}
	return true;
}

/* Did it change anything? Results from -4095 on are errors. */
static __always_inline bool call_changed(const struct call *call)
{
	if ((__u64)call->ret >= (__u64)-4095)
		return false;
	if (call->nr == NR_BRK) /* never fails: returns the break, which a query or a refusal
				   leaves as it was */
		return call->arg[0] && (__u64)call->ret == call->arg[0];
	if (call->nr == NR_SHMCTL)
		return (__s32)call->arg[1] == IPC_RMID;
	return true;
}

SEC("tp_btf/sys_exit")
int calls(unsigned long long *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];
	struct icp_counters *counters;
	struct icp_change *change;
	struct call call;
	__u32 pid;

	call.nr = CALL_NR(regs);
	if (!call_wanted(call.nr))
		return 0;
	pid = current_pid();
	counters = bpf_map_lookup_elem(&targets, &pid);
	if (!counters)
		return 0;
	call.arg[0] = CALL_ARG0(regs);
	call.arg[1] = CALL_ARG1(regs);
	call.arg[2] = CALL_ARG2(regs);
	call.ret = ctx[1];
	if (!call_changed(&call))
		return 0;
	change = change_new(counters, pid, ICP_EV_MAP);
	if (!change)
		return 0;
	if (!put_shm(change, &call))
		put_map(change, &call);
	change->ret = call.ret;
	bpf_ringbuf_submit(change, 0);
	return 0;
}

char LICENSE[] SEC("license") __weak = "GPL";
