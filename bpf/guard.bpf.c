// SPDX-License-Identifier: GPL-2.0
/*
 * The guard: counts how often the mmap_lock of a followed process was taken, by anybody. What
 * changes memory without a fault (O_DIRECT, process_vm_writev, ptrace, madvise) takes it; a
 * fault on an existing VMA does not, from Linux 6.4 on, except one from kernel mode.
 */
#include "icp.bpf.h"
#include "arch.bpf.h"
#include "core_fixes.bpf.h"

#define PF_IO_WORKER 0x00000010

static __always_inline struct icp_counters *counters_of(struct mm_struct *mm, __u32 *pid)
{
	struct task_struct *owner = mm_owner(mm);

	if (!owner)
		return 0;
	*pid = observer.level ? task_pid(owner) : owner->tgid;
	return bpf_map_lookup_elem(&targets, pid);
}

static __always_inline bool is_observer(void)
{
	return bpf_get_current_pid_tgid() >> 32 == observer.tgid;
}

/*
 * A page fault from kernel mode takes the lock once, and is counted by itself. That is no
 * explanation for others: another process, or a call that changes memory without a fault.
 */
static __always_inline bool is_hard(__u32 pid)
{
	struct task_struct *me = bpf_get_current_task_btf();
	struct pt_regs *regs;

	if (current_pid() != pid || me->flags & PF_IO_WORKER)
		return true;
	regs = (struct pt_regs *)bpf_task_pt_regs(me);
	return is_hard_call(CALL_NR(regs));
}

SEC("tp_btf/mmap_lock_acquire_returned")
int guard(unsigned long long *ctx)
{
	struct icp_counters *counters;
	__u32 pid;

	counters = counters_of((struct mm_struct *)ctx[0], &pid);
	if (!counters || !mmap_lock_success(ctx))
		return 0;
	if (mmap_lock_write(ctx))
		counters->write_locks++;
	else
		counters->read_locks++;
	if (is_observer()) {
		counters->own_locks++;
	} else if (!mmap_lock_write(ctx)) {
		counters->readers_in++;
		if (is_hard(pid))
			counters->hard_locks++;
	}
	return 0;
}

/* Comes before the lock is let go. */
SEC("tp_btf/mmap_lock_released")
int guard_end(unsigned long long *ctx)
{
	struct icp_counters *counters;
	__u32 pid;

	counters = counters_of((struct mm_struct *)ctx[0], &pid);
	if (counters && !mmap_lock_write(ctx) && !is_observer())
		counters->readers_out++;
	return 0;
}

char LICENSE[] SEC("license") __weak = "GPL";
