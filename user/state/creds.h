/* SPDX-License-Identifier: GPL-2.0 */
/* Credentials, scheduling and seccomp of threads: the part of "ids" that each thread has. */
#ifndef ICP_STATE_CREDS_H
#define ICP_STATE_CREDS_H

#include "state/kinds.h"
#include "state/ids.pb-c.h"

struct creds;

int creds_plan(struct state_process *p, struct creds **out) _must_use_;
int creds_dump(struct state_process *p, struct creds *c) _must_use_;
/* Fill in the blobs of the threads, and what is the process's in @image and @state, whose
 * pointers are into @c. */
int creds_finish(struct state_process *p, struct creds *c, Icp__ProcessState *state) _must_use_;
void creds_free(struct creds *c);

/* The restore half. @process must outlive it. */
#define IDS_VERSION 1
struct state_restore;
struct batch;
struct creds_restore;
int creds_restore_check(struct state_restore *r, const Icp__ProcessState *process,
			struct creds_restore **out) _must_use_;
int creds_restore_thread(struct state_restore *r, const struct creds_restore *c, size_t i,
			 struct batch *b) _must_use_;
void creds_restore_free(struct creds_restore *c);

/* prctl(2): Linux 6.3 and 6.4, newer than Debian 12's headers. */
#define SET_MDWE 65
#define GET_MDWE 66
#define SET_MEMORY_MERGE 67
#define GET_MEMORY_MERGE 68

/* check() of the kind. */
int ids_check(struct state_process *p) _must_use_;

#endif
