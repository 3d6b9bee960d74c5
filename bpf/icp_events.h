/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the eBPF programs tell user space. Shared by bpf/ and user/; fixed widths, explicit
 * padding, no pointers. All pids and tids are those of the observer's pid namespace. Times are
 * CLOCK_MONOTONIC in ns (bpf_ktime_get_ns()).
 */
#ifndef ICP_EVENTS_H
#define ICP_EVENTS_H

#ifndef __VMLINUX_H__
#include <stdint.h>
typedef uint64_t icp_u64;
typedef int64_t icp_s64;
typedef uint32_t icp_u32;
typedef uint8_t icp_u8;
#else
typedef __u64 icp_u64;
typedef __s64 icp_s64;
typedef __u32 icp_u32;
typedef __u8 icp_u8;
#endif

enum icp_event_type {
	ICP_EV_FAULT = 1, /* a write fault: ring `faults` */
	/* the rest: ring `changes`, with a wake-up each */
	ICP_EV_FORK, /* pid, tid: the parent's; arg[0] child, arg[1] 1: it is followed */
	ICP_EV_EXEC, /* pid has a new mm */
	ICP_EV_EXIT, /* the whole process has ended (its last thread) */
	ICP_EV_MAP, /* layout changed: op = enum icp_map_op, arg[0] start, arg[1] length or 0 */
	ICP_EV_SHM, /* op = enum icp_shm_op, arg[] = the arguments; ret: the call's result */
};

/*
 * op of a FORK: the child runs in the parent's memory (vfork, posix_spawn, CLONE_VM) until it
 * execs or exits. Its faults carry its own pid, and are not seen at all unless it is followed:
 * the parent's are not complete meanwhile.
 */
#define ICP_FORK_SHARED_MM 1

enum icp_map_op {
	ICP_MAP_MMAP = 1,
	ICP_MAP_MUNMAP,
	ICP_MAP_MREMAP,	  /* arg: new address, new length, old address */
	ICP_MAP_MPROTECT, /* arg[2]: protection */
	ICP_MAP_BRK,	  /* arg[0]: the new break */
	ICP_MAP_MADVISE,  /* arg[2]: advice */
};

enum icp_shm_op {
	ICP_SHM_GET = 1, /* arg: key, size, flags; ret: shmid */
	ICP_SHM_AT,	 /* arg: shmid, address asked, flags; ret: address */
	ICP_SHM_DT,	 /* arg: address */
	ICP_SHM_RMID,	 /* arg: shmid */
};

#define ICP_FAULT_KERNEL                                                                       \
	1 /* the kernel wrote on behalf of the thread (read(2), stat(2)...)                    \
	   */

struct icp_fault {
	icp_u64 time;
	icp_u64 addr; /* exact address of the access */
	icp_u64 ip; /* user instruction; of a kernel access: where the thread entered the kernel
		     */
	icp_u32 pid;
	icp_u32 tid;
	icp_u32 flags;	/* ICP_FAULT_* */
	icp_u32 weight; /* how many faults it stands for: 1, or more under a storm */
};

/* Under a storm: so many faults are told per processor and this time, then one in so many. */
#define ICP_BUDGET_NS 100000000ull
#define ICP_KEEP_EVERY 64u /* a power of two */

#define ICP_STACK_DEPTH 32
#define ICP_STACK_EVERY_MAX (1u << 20)

/* The user stack of a write fault, of some that are chosen at random, at a bounded rate: ring `stacks`. */
struct icp_stack {
	icp_u32 pid;
	icp_u32 tid;
	icp_u32 weight; /* faults of the process on this processor since the one before */
	icp_u32 n;
	icp_u64 ip[ICP_STACK_DEPTH]; /* innermost first */
};

struct icp_change {
	icp_u64 time;
	icp_u32 pid;
	icp_u32 tid;
	icp_u32 type; /* enum icp_event_type */
	icp_u32 op;
	icp_u64 arg[3];
	icp_s64 ret;
};

/* Per target, in the map `targets` (key: pid). Only ever grows; user space takes differences.
 */
struct icp_counters {
	icp_u64 faults_user;
	icp_u64 faults_kernel;
	icp_u64 lost_faults;  /* failed reserves in ring `faults` */
	icp_u64 lost_changes; /* failed reserves in ring `changes` */
	icp_u64 read_locks;   /* mmap_lock taken for reading, by anybody, on the target's mm */
	icp_u64 write_locks;  /* ... for writing */
	icp_u64 own_locks;    /* of those, taken by icp-bpf itself (observer_pid) */
	/* The reading ones of all others: began, ended. The difference holds the lock now. */
	icp_u64 readers_in, readers_out;
	icp_u64 hard_locks; /* of those: no page fault of the target took it; see guard.bpf.c */
	icp_u64 follow;	    /* children of this target are added too */
	icp_u64 untold;	    /* faults that were counted and, under a storm, not told */
	icp_u64 stack_ns;   /* of this processor: when the last stack was taken */
	icp_u64 stack_skipped; /* faults since then */
	icp_u32 stack_next;    /* take one when there are so many */
	icp_u32 stack_every;   /* on average */
};

/* In the map `members`, with the keys of `targets`. */
struct icp_member {
	icp_u32 follow; /* children are added too */
	icp_u32 ended;	/* its EXIT was told */
};

/* Who observes: its pid namespace, and itself as the initial one sees it. */
struct icp_observer {
	icp_u32 level; /* of its pid namespace; 0: the initial one */
	icp_u32 ns_inum;
	icp_u32 tgid;
};

_Static_assert(sizeof(struct icp_fault) == 40, "icp_fault");
_Static_assert(sizeof(struct icp_change) == 56, "icp_change");
_Static_assert(sizeof(struct icp_counters) == 120, "icp_counters");
_Static_assert(sizeof(struct icp_stack) == 272, "icp_stack");

#endif
