/* SPDX-License-Identifier: GPL-2.0 */
/* Pseudo-terminals whose master is part of the job. */
#ifndef ICP_STATE_PTY_H
#define ICP_STATE_PTY_H

#include "state/fdkind.h"

int pty_slave_check_job(struct look *l) _must_use_;
/* Of any terminal: what can be read is noted. */
int pty_slave_dump(struct state_process *p, struct file_jobs *jobs,
		   struct description *d) _must_use_;
int pty_finish(const struct description *d, Icp__OpenFile *out) _must_use_;
/* Refuse (-EAGAIN) a slave whose master is part of the job, with input that nobody has read. */
int pty_slave_verify(struct restore_job *job, const Icp__OpenFile *f) _must_use_;
/* The slave @f; -ENOENT (bare): its master is not part of the job. */
int pty_slave_open(struct restore_job *job, const Icp__OpenFile *f) _must_use_;
/* In the stub of a session leader, before it has children: its controlling terminal. */
int pty_restore_session(struct state_restore *r) _must_use_;
/* Its foreground process group, when all groups are there. */
int pty_restore_foreground(struct state_restore *r, struct batch *b) _must_use_;

#endif
