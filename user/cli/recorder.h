/* SPDX-License-Identifier: GPL-2.0 */
/* From a session (config.raw) to a recording. */
#ifndef ICP_CLI_RECORDER_H
#define ICP_CLI_RECORDER_H

#include "obs/intern.h"
#include "obs/rec.h"
#include "session/session.h"

/* The memory of a process that the recording goes on about: after execve it is a new one with the same pid. */
struct recorded {
	uint32_t process; /* number in the recording */
	bool exec_ahead;  /* what is being read was written by the program before */
};

struct recorder {
	struct session *session;
	struct rec_writer *writer;
	uint64_t base_ns; /* CLOCK_MONOTONIC at time 0 */
	struct intern pids;
	VEC(struct recorded) processes; /* by number of the pid */
	uint64_t faults, takes, lost;
};

int recorder_open(struct recorder *r, struct session *s, const char *path,
		  const pid_list *pids) _must_use_;
/* After session_step(): what it took in. */
int recorder_events(struct recorder *r) _must_use_;
/* After session_sample(). */
int recorder_sample(struct recorder *r, const struct sample *sample) _must_use_;
uint64_t recorder_time_us(const struct recorder *r);
/* Ends the file, also after a failure. */
int recorder_close(struct recorder *r, const char *reason) _must_use_;

#endif
