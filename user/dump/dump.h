/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Cutting one version of a job. The phases are separate calls, in this order; each may fail, and dump_close() undoes
 * everything: a frozen job is thawed, an unfinished version is aborted, and no dirty page is forgotten.
 *
 *     dump_check      may it be done at all? On its own, before anything
 *     dump_open       begins the version
 *     dump_add        each process of the job
 *     dump_precopy    copies what is dirty while the job runs, again and again until little is left
 *     dump_freeze     stops every thread of every process; -EAGAIN: there are processes that were not added. They may be
 *                     now (dump_add_frozen, dump_go_on), or when all run again (dump_thaw)
 *     dump_collect    last dirty set and registers, into memory
 *     dump_release    thaw: the pause ends (a job that is to be killed or left stopped waits for the commit)
 *     dump_write      the rest of the pages, the control structures
 *     dump_commit     manifest, decision
 *     dump_end_job    kill the job, or leave it stopped
 *
 * A dirty set that was taken is joined into the source's `since` first, and that is emptied by the commit only.
 */
#ifndef ICP_DUMP_DUMP_H
#define ICP_DUMP_DUMP_H

#include <stdbool.h>

#include "image/repo.h"
#include "inject/warden.h"
#include "proc/tasks.h"
#include "track/events.h"
#include "track/tracker.h"

struct dump;
struct state_smaps;

enum dump_release_how { DUMP_THAW, DUMP_KILL, DUMP_LEAVE_STOPPED };

/* Control structures of the segments as of the last version, kept by the owner like those of processes. */
struct dump_segment_ctl {
	int shmid;
	struct ctl *ctl; /* may be NULL */
	struct dump_segment_times {
		int64_t attached, detached; /* the last time, seconds since 1970 */
		pid_t pid;		    /* who did it */
	} times;
};
typedef VEC(struct dump_segment_ctl) dump_segment_ctls;

struct dump_config {
	struct repo *repo;     /* opened for writing; borrowed */
	struct warden *warden; /* borrowed */
	struct events *events; /* borrowed, or NULL */
	struct event_batch
		*batch;	    /* events drained meanwhile are appended here; with events only */
	const pid_t *roots; /* the processes that the user named; borrowed */
	size_t n_roots;
	uint32_t parent; /* a visible version, or 0: full */
	bool dedup;	 /* store equal pages once: worth it for several processes */
	bool full;	 /* write every page, whatever the parent has */
	bool no_restart; /* don't refuse what can't be restarted */
	pid_t asker;	 /* the process that asked for it over a socket, or 0 */
	bool kill;	 /* the job is to end after it */
	bool tcp_close;	 /* connections out of the job are saved as closed */
	dump_segment_ctls *segment_ctls; /* borrowed, or NULL */
	bool shm_detached; /* save segments that the job made and does not attach, too */
	bool ipc_unused;   /* and semaphore sets and queues that nobody has used yet */
	bool paranoid;	   /* event-driven and scan: fail on a difference that costs data */
	enum icp_codec codec;
	const char *label;		/* "" for none */
	struct dump_progress *progress; /* kept up to date; borrowed */
	int cancel_fd; /* readable: give up while the job runs (-EINTR); -1: never */
	unsigned
		deadline_ms; /* the longest pause; the job is thawed by then whatever happens */
};

/* How far it is; may be read from another thread. */
struct dump_progress {
	_Atomic uint64_t pages_done, pages_to_do;
	const char *_Atomic phase;
};

/* One process, whose owner keeps it until dump_close(). */
struct dump_source {
	struct target *target;
	struct tracker *tracker;
	struct dirty *since; /* everything known to be dirty since version @since_version */
	struct dirty *
		taken; /* what is taken is joined into this too, for the owner's statistics; or NULL */
	struct ctl **
		ctl; /* the owner's copy of the control structure, used if it is of config.parent; left empty if the
				   version fails, of the new version else. NULL: there is no owner's copy */
	struct state_smaps *smaps; /* the owner's, or NULL */
	uint32_t
		since_version; /* == config.parent: only `since` needs copying; else everything is compared by hash */
};

/* A process outside the job that attaches a segment of it. */
struct dump_peer {
	pid_t pid;
	int32_t key, shmid;
	char comm[16];
};
#define DUMP_PEERS 16

struct dump_result {
	uint32_t version, parent;
	bool incremental;
	const char *tracker,
		*found_by; /* "events", "scan", "hash"; "full" never: that is !incremental */
	uint64_t processes, threads;
	uint64_t pages; /* stored or found to be zero in this version */
	uint64_t zero_pages;
	uint64_t bytes_written;
	unsigned precopy_rounds;
	char held[32]; /* the table of nft that holds back packets of its connections; "" */
	uint64_t stale_pages;		    /* stored, and stored again in a later round */
	struct dump_peer peers[DUMP_PEERS]; /* those that were only warned of */
	size_t n_peers;
	uint64_t pause_ns, total_ns;
	struct { /* where the pause went */
		uint64_t freeze_ns, dirty_ns, copy_ns, state_ns;
	} phase;
};

/* Before a process is as much as stopped: refuse what a restart would refuse. Everything is asked again later. */
int dump_check(const struct dump_config *config) _must_use_;
int dump_open(const struct dump_config *config, struct dump **out) _must_use_;
int dump_add(struct dump *d, const struct dump_source *source) _must_use_;
int dump_precopy(struct dump *d) _must_use_;
/* -EAGAIN (bare): @strangers lists processes that are frozen, too, and were not added. */
int dump_freeze(struct dump *d, pid_list *strangers) _must_use_;
/* One of them: all of it is copied, in the pause. */
int dump_add_frozen(struct dump *d, const struct dump_source *source) _must_use_;
/* They were added: as dump_freeze(). */
int dump_go_on(struct dump *d, pid_list *strangers) _must_use_;
/* Not all could be: the job runs, the next is dump_precopy() again. */
int dump_thaw(struct dump *d) _must_use_;
int dump_collect(struct dump *d) _must_use_;
int dump_release(struct dump *d, enum dump_release_how how) _must_use_;
int dump_write(struct dump *d) _must_use_;
int dump_commit(struct dump *d, struct dump_result *out) _must_use_;
/* After the commit: what dump_release() was told to do with the job. */
int dump_end_job(struct dump *d, enum dump_release_how how) _must_use_;
void dump_close(struct dump *d);

static inline void cleanup_dump(struct dump **d)
{
	dump_close(*d);
}
#define _cleanup_dump_ _cleanup_(cleanup_dump)

#endif
