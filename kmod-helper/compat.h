/* SPDX-License-Identifier: GPL-2.0 */
/* What differs between kernels from 6.1 on, found by looking at their headers (Kbuild), not by version numbers. */
#ifndef ICP_COMPAT_H
#define ICP_COMPAT_H

#include <linux/capability.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/coredump.h>
#include <linux/sched/task.h>
#include <linux/swap.h>
#include <asm/tlbflush.h>

#ifndef CONFIG_X86_64
#error "icp_helper knows the page tables of x86-64 only"
#endif
#ifndef CONFIG_MEM_SOFT_DIRTY
#error "icp_helper needs CONFIG_MEM_SOFT_DIRTY: without it a write before a fork could be lost"
#endif

/* 6.3: flags of a mapping are changed by functions that tell per-VMA locks. */
#ifdef ICP_HAS_VM_FLAGS_CLEAR
#define icp_vm_flags_clear(vma, flags) vm_flags_clear(vma, flags)
#else
#define icp_vm_flags_clear(vma, flags) ((vma)->vm_flags &= ~(flags))
#endif

/* 6.19: swap entries became soft leaves. */
#ifdef ICP_HAS_LEAFOPS
#include <linux/leafops.h>
static inline bool icp_is_swap(pte_t pte)
{
	return softleaf_is_swap(softleaf_from_pte(pte));
}
static inline bool icp_is_marker(pte_t pte)
{
	return softleaf_is_marker(softleaf_from_pte(pte));
}
#else
#include <linux/swapops.h>
static inline bool icp_is_swap(pte_t pte)
{
	return !non_swap_entry(pte_to_swp_entry(pte));
}
static inline bool icp_is_marker(pte_t pte)
{
	return is_pte_marker_entry(pte_to_swp_entry(pte));
}
#endif

/*
 * What decides who may trace a memory: whether it is dumpable, and the user namespace that it was made in. 7.3 keeps both beside
 * the credentials of the task, before it was the mm. The caller holds exec_update_lock.
 */
#ifdef ICP_HAS_EXEC_STATE
#include <linux/sched/exec_state.h>
static inline bool icp_dumpable(struct task_struct *task, struct mm_struct *mm)
{
	bool yes;

	rcu_read_lock();
	yes = rcu_dereference(task->exec_state)->dumpable == TASK_DUMPABLE_OWNER;
	rcu_read_unlock();
	return yes;
}
static inline bool icp_capable(struct task_struct *task, struct mm_struct *mm)
{
	bool yes;

	rcu_read_lock();
	yes = ns_capable(rcu_dereference(task->exec_state)->user_ns, CAP_SYS_PTRACE);
	rcu_read_unlock();
	return yes;
}
#else
#ifdef ICP_HAS_GET_DUMPABLE
#define icp_mm_dumpable(mm) get_dumpable(mm)
#else /* 6.19: the flags of an mm are a bitmap of its own */
#define icp_mm_dumpable(mm) __mm_flags_get_dumpable(mm)
#endif
static inline bool icp_dumpable(struct task_struct *task, struct mm_struct *mm)
{
	return icp_mm_dumpable(mm) == SUID_DUMP_USER;
}
static inline bool icp_capable(struct task_struct *task, struct mm_struct *mm)
{
	return ns_capable(mm->user_ns, CAP_SYS_PTRACE);
}
#endif

/* The TLB of this CPU, all address spaces: what switches away keeps its entries, so the current one alone is not enough. */
#ifdef ICP_HAS_FLUSH_TLB_ALL
static inline void icp_flush_local(void *unused)
{
	__flush_tlb_all();
}
#else
/* Not exported to everybody any more: turning global pages off and on flushes everything (Intel SDM 4.10.4.1, AMD APM 5.5.3). */
static inline void icp_flush_local(void *unused)
{
	unsigned long flags, cr4;

	raw_local_irq_save(flags);
	asm volatile("mov %%cr4, %0" : "=r"(cr4)::"memory");
	asm volatile("mov %0, %%cr4" ::"r"(cr4 ^ X86_CR4_PGE) : "memory");
	asm volatile("mov %0, %%cr4" ::"r"(cr4) : "memory");
	raw_local_irq_restore(flags);
}
#endif

#endif
