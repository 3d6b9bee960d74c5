/* SPDX-License-Identifier: GPL-2.0 */
/* Between events.c and events_hooks.c only. */
#ifndef ICP_TRACK_EVENTS_PRIV_H
#define ICP_TRACK_EVENTS_PRIV_H

#include <bpf/libbpf.h>
#include <stddef.h>

#include "track/events.h"

struct icp_bpf;

/* Every program that is attached. */
struct events_prog {
	size_t prog, link; /* offsets in struct icp_bpf */
	const char *tracepoint;
	const char *name; /* as `icp-bpf check` shows it */
	const char *purpose;
	const char *without; /* what is lost where it is missing */
	uint32_t missing;    /* EVENTS_NO_*; 0: required */
	enum { PROG_FAULTS = 1, PROG_CALLS, PROG_OTHER } kind;
};
extern const struct events_prog events_progs[];
extern const size_t events_progs_n;

struct bpf_program *events_prog_of(const struct icp_bpf *skel, const struct events_prog *p);
struct bpf_link **events_link_of(struct icp_bpf *skel, const struct events_prog *p);

/* Open the object and configure it for this kernel; *@absent: bit i: the kernel lacks the
 * tracepoint of program i. */
int events_object(struct icp_bpf **out, uint32_t *absent) _must_use_;

/* Is eBPF allowed? 0, or -EPERM with a message that names what is missing. */
int events_allowed(void) _must_use_;
/* Turn what the kernel said (@err) about @what into a failure with a message. */
int events_refused(int err, const char *what);

#endif
