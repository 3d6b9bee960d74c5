/* SPDX-License-Identifier: GPL-2.0 */
/* Private to user/session/. */
#ifndef ICP_SESSION_INTERNAL_H
#define ICP_SESSION_INTERNAL_H

#include "dump/dump.h"
#include "session/checkpoint.h"
#include "session/session.h"
#include "session/tracked.h"

struct newcomer {
	pid_t pid;
	uint64_t since_ns;
};

struct session {
	struct session_config config;
	struct warden *warden;
	struct events *events; /* NULL: not permitted */
	struct symbols *symbols;
	VEC(struct tracked *) processes;
	VEC(struct newcomer)
	newcomers; /* forked by ours; attached when they are a little older */
	VEC(struct process_total) gone; /* totals of those that were let go */
	struct event_batch batch;
	struct event_batch raw; /* config.raw: a copy for the caller */
	struct trace_info info;
	int64_t clock_offset_ns;	 /* realtime - monotonic */
	uint64_t start_ns, start_cpu_ns; /* when tracing began: setting up is not in it */
	unsigned index;
	int epoll;
	/* The last version that was cut, or restarted: the next one there is its child, for processes that have none of their own. */
	uint8_t base_repo[16];
	uint32_t base_version;	      /* 0: of the newest */
	struct control *control;      /* NULL: nobody can ask */
	struct sysvshm segments_seen; /* at the last look, which was at segments_ns */
	uint64_t segments_ns;
	dump_segment_ctls segment_ctls; /* of base_version of base_repo */
	segment_rates rates;		/* of the last sample */
	struct sample last;		/* a copy of it, where somebody can ask for it */
	bool end_asked;
	struct dump_progress progress; /* of the checkpoint that is being cut */
	VEC(struct session_cut) cuts;  /* not handed out yet */
	_Atomic pid_t cutting;
};

struct tracked *session_find(struct session *s, pid_t pid);

/* Follow one more process; 0 when it is followed already. */
int session_add(struct session *s, pid_t pid) _must_use_;
/* Take in events and lay-out changes, so that every tracker belongs to its process's present memory. */
int session_catch_up(struct session *s) _must_use_;

/* daemon.c */
/* A checkpoint has ended with @err, @out. */
void session_note_cut(struct session *s, const struct checkpoint_request *r, int err,
		      const struct dump_result *out);
/* A daemon goes on without a process that it can't follow any more; others end with @err. */
int session_drop(struct session *s, struct tracked *p, int err) _must_use_;
int session_take_stacks(struct session *s) _must_use_;

/* session_raw.c: copy the batch, where the session is to. */
int session_keep_raw(struct session *s) _must_use_;

/* peers.c */
/* Who attaches segments of @pids without being one of them: refuse, warn (into @out), or append to @roots. */
int peers_look(struct session *s, const struct checkpoint_request *r, const pid_list *pids,
	       pid_list *roots, struct dump_result *out) _must_use_;

/* control.c */
void control_close(struct session *s);
int control_serve(struct session *s) _must_use_;

/* Time, pid and tid of an event. */
void event_stamp(const struct session *s, struct trace_event *e, uint64_t time_ns, pid_t pid,
		 pid_t tid);
/* Append a copy, unless @out is NULL. */
int event_put(struct trace_events *out, const struct trace_event *e) _must_use_;

/* A shm call of @p; keeps the list of attachments. */
int segments_change(struct session *s, struct tracked *p, const struct icp_change *c,
		    struct trace_events *out) _must_use_;
/* exec and exit detach everything. */
int segments_drop_all(struct session *s, struct tracked *p, const struct icp_change *c,
		      const char *why, struct trace_events *out) _must_use_;
/* A child inherits its parent's attachments. */
int segments_inherit(struct session *s, const struct tracked *parent,
		     const struct icp_change *c, struct trace_events *out) _must_use_;
/* Where system calls are not traced: look what has changed. */
int segments_watch(struct session *s, struct trace_events *out) _must_use_;
int segments_sample(struct session *s, struct tracked *p, const struct sysvshm *list,
		    const struct sysvshm_attachments *attached,
		    struct process_sample *out) _must_use_;

/* Keep the dirty rates of @sample for whoever asks over the control socket. */
int segments_note_rates(struct session *s, const struct sample *sample) _must_use_;

/* control_look.c: keep @sample for whoever asks over the control socket. */
int session_note_sample(struct session *s, const struct sample *sample) _must_use_;

/* Take in what is in the batch, after draining the rings into it (session_events.c). */
int session_take_events(struct session *s, struct trace_events *out,
			bool every_fault) _must_use_;

#endif
