/* SPDX-License-Identifier: GPL-2.0 */
/* Threads of a process and descendants of a process, from /proc. */
#ifndef ICP_PROC_TASKS_H
#define ICP_PROC_TASKS_H

#include <string.h>

#include "base/vec.h"
#include "proc/target.h"

typedef VEC(pid_t) pid_list;

static inline void free_pids(pid_list *list)
{
	vec_free(list);
}

/* The thread ids of @t, ascending. May be outdated on return: re-read until stable where it matters. */
int tasks_threads(const struct target *t, pid_list *out) _must_use_;

/* @pid's descendants (children, their children...), without @pid itself, parents before children. */
int tasks_descendants(pid_t pid, pid_list *out) _must_use_;

/* The state of a process as /proc/PID/stat has it (R S D T t Z X), or 0 when there is none. */
char tasks_state(pid_t pid);

/* Field 22 of /proc/PID/stat (clock ticks since boot), 0 when there is no such process or it is dead. */
uint64_t tasks_start_time(pid_t pid);
/* Its parent, 0 when there is no such process (or none in our pid namespace). */
pid_t tasks_parent(pid_t pid);
/* Its name; false when there is no such process. */
bool tasks_comm(pid_t pid, char comm[16]);

#endif
