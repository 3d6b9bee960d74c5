/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A session owns the trackers of one job: it follows its processes as they fork, exec and end, and hands out samples. One
 * thread; the caller's loop waits on session_fd() and calls session_step().
 */
#ifndef ICP_SESSION_SESSION_H
#define ICP_SESSION_SESSION_H

#include "dump/dump.h"
#include "obs/sample.h"
#include "obs/wws.h"
#include "track/events.h"
#include "track/tracker.h"

struct session;

/* A daemon is told so many write faults per second and processor one by one; of a storm beyond that one in ICP_KEEP_EVERY. */
#define SESSION_FAULTS_PER_S 20000u
/* Children are taken in by themselves up to so many processes of a daemon; a checkpoint takes in its whole job. */
#define SESSION_PROCESSES_MAX 128u

struct session_config {
	const char *tracker; /* NULL: the best available */
	bool tree;	     /* descendants too, present and future */
	double interval_s; /* what the caller will sample at, for the windows of the working set */
	bool checkpoints; /* only checkpoints are wanted: no sites, no symbols */
	size_t top;	  /* how many VMAs and writers a sample holds */
	/* Segment events, all of them. Costs every system call of the machine about 80 ns; samples don't need it. */
	bool segment_events;
	int cancel_fd;	 /* readable: a checkpoint that is being cut is given up; -1: none */
	bool background; /* nobody else ends it: it ends when somebody asks over its socket */
	/*
	 * A daemon's: processes come by session_admit(), one that fails is let go of and the others stay, a storm of faults is
	 * thinned, stacks are taken, and nothing is kept of who has ended. session_open() may be given no process.
	 */
	bool daemon;
	bool raw; /* keep what the eBPF programs tell for session_raw() */
	uint64_t
		stack_period_ns; /* take user stacks, as in struct events_config; a daemon does anyway */
};

/*
 * Attach to @pids. All or nothing: a refusal of one leaves all of them untouched. Without the privilege for eBPF the session
 * works without events, and session_info() says so.
 */
int session_open(const struct session_config *config, const pid_t *pids, size_t n,
		 struct session **out) _must_use_;

/* The processes were restarted from @version of the repository @dir: the next version there is its child. */
int session_set_base(struct session *s, const char *dir, uint32_t version) _must_use_;

/* Follow one more process, with its descendants where the session is of trees; 0 also when it is followed already. */
int session_admit(struct session *s, pid_t pid) _must_use_;

/* Detach from everything; the targets run on. */
void session_close(struct session *s);

static inline void cleanup_session(struct session **s)
{
	session_close(*s);
}
#define _cleanup_session_ _cleanup_(cleanup_session)

const struct trace_info *session_info(const struct session *s);

/* An epoll descriptor: readable when session_step() has something to do. Call that at least every STEP_MS, too. */
#define STEP_MS 100
int session_fd(const struct session *s);

/*
 * Take in what happened: new and ended processes, new memory, faults. Appends segment events (if configured) to @out, and with
 * @every_fault each write access; NULL when nobody looks. Sorted by time.
 */
int session_step(struct session *s, struct trace_events *out, bool every_fault) _must_use_;

/* The interval up to now, of every process. @out is cleared first; the caller ends with sample_clear(). */
int session_sample(struct session *s, struct sample *out) _must_use_;

/* What the last sample of a process was made of; everything is the session's. */
struct session_detail {
	const struct maps *maps;
	const struct dirty *dirty; /* of the interval */
	struct wws *wws;
	uint64_t tick, since_ns;
	const uint32_t *window_ticks;
	const struct icp_stack *stacks; /* since the sample before; a daemon's only */
	size_t n_stacks;
	uint32_t since_version;	   /* of the session's repository; 0: none */
	const struct dirty *since; /* written since that version, up to the last sample */
	double stopped_s;
};
/* Valid until the next call of the session. False: @pid is not followed (any more). */
bool session_detail(struct session *s, pid_t pid, struct session_detail *out);
/* Stacks were looked at. */
void session_forget_stacks(struct session *s);
/* The function at @ip of @pid, or module+offset; "?" when it is not followed. */
void session_function(struct session *s, pid_t pid, uint64_t ip, char *out, size_t len);

/* A checkpoint that this session cut or failed to cut. */
struct session_cut {
	double time; /* of its end, seconds since 1970 */
	char dir[512], label[128], comm[16];
	pid_t root;
	int err;
	char error[256];
	struct dump_result result; /* when err is 0 */
};
/* The next one that was not handed out yet, oldest first; a daemon's only, the last 64 are kept. False: there is none. */
bool session_next_cut(struct session *s, struct session_cut *out);
/* The root of the job whose checkpoint is being cut, or 0; may be called from another thread while the session lives. */
pid_t session_cutting(const struct session *s);

/*
 * With config.raw: every event since the session began or since the caller emptied it (n = 0). In @stacks those that went to
 * session_detail() as well.
 */
struct event_batch *session_raw(struct session *s);

/* Are there processes left to look at, and has nobody asked the session to end? */
bool session_alive(const struct session *s);

/* Totals so far; the caller frees the list. */
int session_summary(const struct session *s, struct summary *out) _must_use_;

#endif
