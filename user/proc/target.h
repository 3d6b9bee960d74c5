/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A process that we look at. It is known by pid, start time and boot id, never by pid alone: everything
 * here goes through a /proc/PID directory and a pidfd that were opened once and belong to that process
 * for good, so a reused pid can not be mistaken for it.
 */
#ifndef ICP_PROC_TARGET_H
#define ICP_PROC_TARGET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct target {
	pid_t pid;	     /* as seen in our pid namespace */
	int pidfd;	     /* readable once the process is dead */
	int proc_fd;	     /* O_PATH directory /proc/PID */
	int pagemap_fd;	     /* of the mm that it had at the last target_reopen_pagemap() */
	uint64_t start_time; /* clock ticks since boot, field 22 of /proc/PID/stat */
	uid_t uid;	     /* real uid */
	char comm[16];
};

/* Fields of /proc/PID/status and /proc/PID/stat that decide what may be done. */
struct target_status {
	char state; /* R S D T t Z X ... */
	bool kthread;
	pid_t ppid;
	pid_t tracer;	    /* 0 for none */
	int seccomp;	    /* 0 none, 1 strict, 2 filter */
	uint64_t vm_pin_kb; /* memory pinned for DMA */
	uint64_t rss_kb;
	unsigned threads;
};

/*
 * Open @pid and check that it can be observed at all. Refuses with a message: no such process (-ESRCH), a
 * thread id that is not a process, a zombie, a kernel thread, icp-bpf itself, a 32-bit process, missing
 * privileges (-EPERM, names the capability). Nothing in the target changes.
 * The target is freed by target_free(); free(NULL) is fine.
 */
int target_open(pid_t pid, struct target **out) _must_use_;
void target_free(struct target *t);

static inline void cleanup_target(struct target **t)
{
	target_free(*t);
}
#define _cleanup_target_ _cleanup_(cleanup_target)

bool target_alive(const struct target *t); /* false once it is dead or a zombie */
/*
 * After an -ESRCH about its memory: has it ended? A process that is ending loses its memory a moment before it is dead; one that
 * executes another program gets a new one. Waits up to 0.2 s to tell them apart.
 */
bool target_ended(const struct target *t);
int target_status(const struct target *t, struct target_status *out) _must_use_;

/* After execve of the target: reopen what belongs to its memory, refresh comm. Same refusals as open. */
int target_reopen_mm(struct target *t) _must_use_;

/* Nobody has the memory any more that the target was opened with: it executed another program, or is ending. */
bool target_memory_gone(const struct target *t);
/* The refusal then, -EAGAIN: who asked for a checkpoint begins again. */
int target_executed(const struct target *t) _must_use_;
/* A /proc/PID/pagemap goes on showing the mm it was opened for: after execve an empty one. -ESRCH (bare): dead. */
int target_reopen_pagemap(struct target *t) _must_use_;

/* Copy this boot's id (36 characters and NUL) to @id. */
int boot_id(char id[37]) _must_use_;

#endif
