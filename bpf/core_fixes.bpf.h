/* SPDX-License-Identifier: GPL-2.0 */
/* Differences between kernels, found by BTF: here and nowhere else. */
#ifndef ICP_CORE_FIXES_BPF_H
#define ICP_CORE_FIXES_BPF_H

#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/*
 * mmap_lock_acquire_returned has (mm, memcg_path, write, success) on 6.1 and (mm, write,
 * success) on 6.18. User space counts the parameters of btf_trace_mmap_lock_acquire_returned
 * and sets this before the load.
 */
const volatile bool mmap_lock_has_path __weak = false;

/* Assembly, because the compiler joins two loads into one from a computed address, which the
 * verifier refuses. */
#define CTX_ARG(ctx, n)                                                                        \
	({                                                                                     \
		unsigned long long value_;                                                     \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(value_) : "r"(ctx), "i"((n)*8));  \
		value_;                                                                        \
	})

static __always_inline bool mmap_lock_write(unsigned long long *ctx)
{
	if (mmap_lock_has_path)
		return CTX_ARG(ctx, 2);
	return CTX_ARG(ctx, 1);
}

static __always_inline bool mmap_lock_success(unsigned long long *ctx)
{
	if (mmap_lock_has_path)
		return CTX_ARG(ctx, 3);
	return CTX_ARG(ctx, 2);
}

/* Whose memory this is. Without CONFIG_MEMCG there is no owner: then only what a process does
 * to itself is seen. */
static __always_inline struct task_struct *mm_owner(struct mm_struct *mm)
{
	struct task_struct *me;

	if (bpf_core_field_exists(mm->owner))
		return mm->owner;
	me = bpf_get_current_task_btf();
	return me->mm == mm ? me : 0;
}

#endif
