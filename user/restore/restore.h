/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A restart: a version becomes a running job again.
 *
 *     check        read the manifest and all state, refuse what can't be; nothing is made yet
 *     make         every process as a stub: a copy of icp-bpf with the wanted pid and place in
 *                  the tree, which opens its files and waits
 *     memory       each is seized; its memory is replaced by injected calls and filled
 *     state        threads, then everything else that only the thread itself can set
 *     release      registers; they run
 *
 * All or nothing: a failure, or the death of icp-bpf, at any moment kills all of them, or finds
 * all of them released: builder.h.
 */
#ifndef ICP_RESTORE_RESTORE_H
#define ICP_RESTORE_RESTORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "image/repo.h"
#include "state/restore.h"

struct restart_progress {
	_Atomic uint64_t pages_done, pages_to_do;
};

struct restart_result;
struct restart_config {
	const char *dir;
	uint32_t version; /* 0: the newest */
	bool detach;
	bool new_pid_namespace;
	bool rewind;	     /* cut files back to their length at the checkpoint */
	bool tcp_close;	     /* TCP connections come back closed */
	bool time_namespace; /* monotonic and boot time go on from where they were */
	enum ctl_lookup lookup;
	const pid_t
		*pids; /* only these of the version, each with its descendants; n_pids 0: all */
	size_t n_pids;
	enum ipc_existing shm_existing;
	bool new_ipc_namespace;
	bool lazy; /* pages of big private memory come when the job runs */
	struct restart_progress *progress; /* in memory that a fork shares; may be NULL */
	/* Called when the caller may start threads again: the builder is there. May be NULL. */
	void (*begun)(void *arg);
	void *begun_arg;
	/* Called when all processes are there, under their pids and in their groups, and are about to run. May be NULL. */
	void (*ready)(const struct restart_result *r, void *arg);
	void *ready_arg;
};

enum restart_phase {
	PHASE_CHECK,
	PHASE_MAKE,
	PHASE_MEMORY,
	PHASE_STATE,
	PHASE_RELEASE,
	PHASES
};
extern const char *const restart_phase_names[PHASES];

struct restart_result {
	uint32_t version;
	pid_t *pids; /* parents first; restart_result_free() */
	size_t n_pids;
	pid_t *roots; /* our children, or init's */
	size_t n_roots;
	pid_t init;	    /* of the new pid namespace, 0: none */
	pid_t *inner_roots; /* the roots as they are known in there */
	int status_fd; /* what became of them: struct init_status; -1: they are our children */
	uint64_t threads, pages, bytes; /* filled */
	uint64_t phase_ns[PHASES];
	int pages_fd; /* lazy: how the rest of the pages went; else -1 */
};
void restart_result_free(struct restart_result *r);

/*
 * Restart a job as children of the caller, which must have no threads until config->begun; they
 * run when this returns 0.
 */
int restart(const struct restart_config *config, struct restart_result *out) _must_use_;

/*
 * Wait until the last page of a lazy restart is there, or the job has ended. An error: one could
 * not be brought, and the job was killed. With config->detach the one who brings them says so
 * himself.
 */
int restart_finish(struct restart_result *r) _must_use_;

#endif
