/* SPDX-License-Identifier: GPL-2.0 */
/* The last write fault of each thread: a hash table by thread, for the events. All zero is an empty one. */
#ifndef ICP_TRACK_LAST_FAULTS_H
#define ICP_TRACK_LAST_FAULTS_H

#include "track/events.h"

struct last_fault {
	uint32_t tid, pid; /* tid 0: a free slot */
	uint64_t addr;
};

struct last_faults {
	struct last_fault *slots;
	size_t cap, n; /* cap: a power of two, or 0 */
};

int last_faults_note(struct last_faults *l, const struct icp_fault *fault) _must_use_;
int last_faults_of(const struct last_faults *l, pid_t pid,
		   struct fault_addresses *out) _must_use_;
void last_faults_free(struct last_faults *l);

#endif
