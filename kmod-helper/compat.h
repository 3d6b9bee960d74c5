/* SPDX-License-Identifier: GPL-2.0 */
/* What differs between kernels from 6.1 on, found by looking at their headers (Kbuild), not by version numbers. */
#ifndef ICP_COMPAT_H
#define ICP_COMPAT_H

#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/coredump.h>
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

/* Later kernels keep the flags of an mm in a bitmap of its own, and the dumpable state behind a function of a struct task's. */
#ifdef ICP_HAS_GET_DUMPABLE
#define icp_dumpable(mm) get_dumpable(mm)
#else
#define icp_dumpable(mm) __mm_flags_get_dumpable(mm)
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
