/* SPDX-License-Identifier: GPL-2.0 */
/* Checkpoints of a session's job, by the session itself or for a client that asks over its control socket. */
#ifndef ICP_SESSION_CHECKPOINT_H
#define ICP_SESSION_CHECKPOINT_H

#include "dump/dump.h"
#include "session/session.h"

/* What to do about a process outside the job that attaches a segment of it. */
enum shm_peers { SHM_PEERS_WARN, SHM_PEERS_INCLUDE, SHM_PEERS_REFUSE };

struct checkpoint_request {
	const char *
		dir; /* of the repository; made if it is not there. Absolute when sent to a session */
	const char *label; /* may be NULL */
	bool full, no_restart, paranoid, tcp_close, shm_detached;
	enum shm_peers shm_peers;
	enum icp_codec codec;
	enum dump_release_how how;
	unsigned deadline_ms; /* the longest pause; 0: 5 s */
	const pid_t *roots;   /* the trees to save; each must be a process of the session */
	size_t n_roots;
	pid_t asker; /* whose request it is; 0: our own */
};

/*
 * Cut one version of the trees @roots. Children that the session doesn't follow yet are attached first. On failure there is no
 * version, and what was dirty belongs to the next one.
 */
int session_checkpoint(struct session *s, const struct checkpoint_request *request,
		       struct dump_result *out) _must_use_;

/* Of the checkpoint that is being cut; may be read from another thread while the session lives. */
const struct dump_progress *session_progress(const struct session *s);

/* ---- over a session's control socket (/run/icp-bpf/SESSION.sock) ---- */

/* Listen; -EACCES (bare) where the user may not. Requests are served by session_step(). */
int control_open(struct session *s) _must_use_;

/*
 * Ask the session that follows all of request->roots, if there is one: -ENOENT (bare) otherwise. Its failure is passed on
 * with its message.
 */
int control_checkpoint(const struct checkpoint_request *request,
		       struct dump_result *out) _must_use_;
/* Tell the background session that follows @pid to end; -ENOENT (bare): there is none; -EPERM: it is not in the background. */
int control_end(pid_t pid) _must_use_;
/* How fast segments are written, as the sessions' last samples saw it. The caller frees the list. */
struct segment_rate {
	int32_t shmid;
	double bytes_per_s;
	pid_t session;
};
typedef VEC(struct segment_rate) segment_rates;
int control_rates(segment_rates *out) _must_use_;
/* The process whose session follows @pid, 0 for none. */
pid_t control_owner(pid_t pid);

#endif
