/* SPDX-License-Identifier: GPL-2.0 */
/* What is x86-64's own: page-fault error codes, system-call numbers and where their arguments
 * are. */
#ifndef ICP_ARCH_X86_BPF_H
#define ICP_ARCH_X86_BPF_H

#define FAULT_WRITE 2 /* error_code bit 1: arch/x86/include/asm/trap_pf.h */

enum {
	NR_MMAP = 9,
	NR_MPROTECT = 10,
	NR_MUNMAP = 11,
	NR_BRK = 12,
	NR_MREMAP = 25,
	NR_MADVISE = 28,
	NR_SHMGET = 29,
	NR_SHMAT = 30,
	NR_SHMCTL = 31,
	NR_SHMDT = 67,
};

/* All but shmdt fit into one 64-bit mask: every system call of the machine is tested here, most
 * end here. */
#define CALLS_LOW                                                                              \
	(1ull << NR_MMAP | 1ull << NR_MPROTECT | 1ull << NR_MUNMAP | 1ull << NR_BRK |          \
	 1ull << NR_MREMAP | 1ull << NR_MADVISE | 1ull << NR_SHMGET | 1ull << NR_SHMAT |       \
	 1ull << NR_SHMCTL)

static __always_inline bool call_wanted(__u64 nr)
{
	return nr < 64 ? CALLS_LOW >> nr & 1 : nr == NR_SHMDT;
}

/*
 * Calls that change memory under the lock without any page fault: madvise (its 32-bit number is
 * 219), process_madvise, io_setup to io_cancel, io_uring. The 32-bit names of others are
 * harmless here: they only seem to change something.
 */
static __always_inline bool is_hard_call(__u64 nr)
{
	nr = (__u32)nr & ~0x40000000u; /* x32 */
	return nr == NR_MADVISE || nr == 219 || nr == 440 || (nr >= 206 && nr <= 210) ||
	       (nr >= 425 && nr <= 427);
}

/* At exit the argument registers are as they were at entry; only ax has changed. */
#define CALL_NR(regs) ((regs)->orig_ax)
#define CALL_ARG0(regs) ((regs)->di)
#define CALL_ARG1(regs) ((regs)->si)
#define CALL_ARG2(regs) ((regs)->dx)
#define REGS_IP(regs) ((regs)->ip)

#endif
