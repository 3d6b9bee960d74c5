// SPDX-License-Identifier: GPL-2.0
/*
 * The guard: counts how often the mmap_lock of a followed process was taken, by anybody. What
 * changes memory without a fault (O_DIRECT, process_vm_writev, ptrace, madvise) takes it; a
 * fault on an existing VMA does not, from Linux 6.4 on.
 */
#include "icp.bpf.h"
#include "core_fixes.bpf.h"

SEC("tp_btf/mmap_lock_acquire_returned")
int guard(unsigned long long *ctx)
{
	struct mm_struct *mm = (struct mm_struct *)ctx[0];
	struct icp_counters *counters;
	struct task_struct *owner;
	__u32 pid;

	owner = mm_owner(mm);
	if (!owner)
		return 0;
	pid = observer.level ? task_pid(owner) : owner->tgid;
	counters = bpf_map_lookup_elem(&targets, &pid);
	if (!counters || !mmap_lock_success(ctx))
		return 0;
	if (mmap_lock_write(ctx))
		counters->write_locks++;
	else
		counters->read_locks++;
	if (bpf_get_current_pid_tgid() >> 32 == observer.tgid)
		counters->own_locks++;
	return 0;
}

char LICENSE[] SEC("license") __weak = "GPL";
