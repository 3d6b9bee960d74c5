/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/icp: the contract between the module icp_helper and its users.
 *
 * An open file is bound once to the memory (mm) of one process. From then on it can ask which pages were written since they were
 * last reset, and reset them, page by page in one atomic step: a write is in this answer or in the next one, never in neither.
 * "Reset" takes the WRITE and the soft-dirty bit from the entry of the page table; the next write faults and sets both again.
 * Closing the file (or dying) leaves nothing behind: the pages stay write-protected until they are written, which nobody notices.
 *
 * One file at a time may be bound to an mm (-EBUSY). After execve or exit of the process all operations say -ESRCH: open anew.
 * Soft-dirty bits (/proc/PID/clear_refs) are shared with this: use one or the other.
 *
 * All structs are the same for 32 and 64 bits. Fields called reserved and unknown flags must be zero (-EINVAL).
 */
#ifndef ICP_UAPI_H
#define ICP_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define ICP_DEVICE "/dev/icp"
#define ICP_HELPER_VERSION 1
#define ICP_RUNS_MAX 4096 /* of one call */

struct icp_version {
	__u32 version;	 /* ICP_HELPER_VERSION; grows when the contract changes */
	__u32 page_size; /* bytes */
	__u32 runs_max;
	__u32 reserved;
};

/*
 * Bind the file to the memory of @pid, a process of the caller's pid namespace. Needs the rights that ptrace needs: CAP_SYS_PTRACE in
 * the user namespace of its memory, or all of its uids and gids, no capability that the caller has not, and a dumpable process.
 * A pid can be reused: hold a pidfd, and look whether the process lives after binding.
 * -ESRCH no such process, or it has no memory; -EPERM; -EBUSY bound already, or by another file.
 */
struct icp_bind {
	__u32 pid;
	__u32 reserved;
};

/* What is true of the pages of a run. */
#define ICP_PAGE_WRITTEN (1u << 0) /* since the last reset */
#define ICP_PAGE_POPULATED                                                                     \
	(1u                                                                                    \
	 << 1) /* has content of its own: not nothing, zeroes, or a file's page in a private mapping */
/* May have been written: pinned for DMA, mergeable (KSM), under migration, of a kind that is not looked at (hugetlbfs, devices). */
#define ICP_PAGE_UNKNOWN (1u << 2)
#define ICP_PAGE_HUGE                                                                          \
	(1u << 3) /* one entry for 2 MiB: written as a whole, if any byte of it was */
#define ICP_PAGE_ALL (ICP_PAGE_WRITTEN | ICP_PAGE_POPULATED | ICP_PAGE_UNKNOWN | ICP_PAGE_HUGE)

struct icp_run {
	__u64 start, end; /* bytes; within the range asked for */
	__u32 what;	  /* ICP_PAGE_*, of those asked for */
	__u32 reserved;
};

/*
 * TAKE: look at [start, end), both multiples of the page size. Pages that have one of the bits of @report are told as runs, in
 * order, neighbours that are alike joined; with ICP_TAKE_RESET every page that was looked at is reset. The call ends when @n_runs are
 * full or after a bounded number of pages: go on at @next until it is @end. What is not mapped is skipped.
 *
 * Huge pages are never split. A shared mapping's entry can be dropped with its bits by reclaim and MADV_DONTNEED: of a page that was
 * POPULATED and is not any more, WRITTEN is not known. In a private mapping it reads as zero then, or as the file.
 *
 * Resetting flushes the TLBs of all CPUs before it returns. -EFAULT: @runs can't be written; pages may have been reset untold:
 * from then on this file tells every populated page as UNKNOWN.
 * -EOPNOTSUPP: devices or virtual machines share this memory (MMU notifiers): their writes could not be seen.
 */
struct icp_take {
	__u64 start, end;
	__u64 next;	/* out */
	__u64 runs;	/* pointer to @n_runs of struct icp_run */
	__u32 n_runs;	/* at most ICP_RUNS_MAX */
	__u32 n_filled; /* out */
	__u32 report;	/* ICP_PAGE_* */
	__u32 flags;	/* ICP_TAKE_* */
};
#define ICP_TAKE_RESET (1u << 0)

/*
 * FRESH: tell the private mappings in [start, end) that the kernel still marks as new (VM_SOFTDIRTY: mapped, grown or merged since the
 * last call) and take that mark from them. In a marked mapping a page that was swapped in by a read is writable without
 * a fault, and a fork or a page-out can hide that write: with swap, what is populated there is to be treated as UNKNOWN once.
 * @report and @flags are zero; runs are whole mappings (what: 0). The mark is taken only from mappings that are told, so all of them.
 */

struct icp_stats {
	__u64 takes;   /* calls */
	__u64 pages;   /* entries looked at */
	__u64 reset;   /* entries changed */
	__u64 written; /* pages found written, huge ones as many */
	__u64 unknown;
	__u64 flushes; /* of all TLBs */
	__u64 lost;    /* answers that could not be delivered */
	__u64 reserved;
};

#define ICP_IOC_VERSION _IOR('i', 0x60, struct icp_version)
#define ICP_IOC_BIND _IOW('i', 0x61, struct icp_bind)
#define ICP_IOC_TAKE _IOWR('i', 0x62, struct icp_take)
#define ICP_IOC_FRESH _IOWR('i', 0x63, struct icp_take)
#define ICP_IOC_STATS _IOR('i', 0x64, struct icp_stats)

#endif
