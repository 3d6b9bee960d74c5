/* SPDX-License-Identifier: GPL-2.0 */
/* What the sessions that run on this machine see, asked for over their control sockets (/run/icp-bpf). */
#ifndef ICP_SESSION_LOOK_H
#define ICP_SESSION_LOOK_H

#include "obs/sample.h"

struct look_process {
	pid_t session;
	unsigned
		index; /* of the sample, from 1; 0: the session takes none (only checkpoints), or has not yet */
	struct process_sample sample;
};

struct look_pause {
	pid_t session;
	uint64_t until_ns;
};

struct looks {
	VEC(struct look_process) processes;
	VEC(struct look_pause)
	pauses;		   /* sessions that did not answer are not asked for some seconds */
	unsigned sessions; /* that answered */
};

/* Ask all sessions but our own; of process @detail the lists come too. Each gets 0.4 s. */
int control_look(struct looks *l, pid_t detail) _must_use_;
void looks_free(struct looks *l);

#endif
