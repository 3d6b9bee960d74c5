// SPDX-License-Identifier: GPL-2.0
#include "session/checkpoint.h"
#include "session/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/page.h"
#include "proc/tasks.h"

/* A child that ends or execs at once is not worth stopping: it gets this long first. */
#define NEWCOMER_NS 20000000u

struct tracked *session_find(struct session *s, pid_t pid)
{
	vec_each (p, &s->processes)
		if ((*p)->target->pid == pid)
			return *p;
	return NULL;
}

static int watch(struct session *s, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	return epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event) ? fail(-errno, "epoll_ctl") : 0;
}

int session_add(struct session *s, pid_t pid)
{
	struct tracked *p, **slot;
	int err;

	if (session_find(s, pid))
		return 0;
	err = s->events ? events_add(s->events, pid, s->config.tree) : 0;
	if (err)
		return err;
	err = tracked_open(pid, s->info.tracker, s->warden, s->config.interval_s, &p);
	if (err)
		goto forget;
	err = watch(s, p->target->pidfd);
	slot = err ? NULL : vec_push(&s->processes);
	if (!slot) {
		err = err ? err : fail(-ENOMEM, "pid %d", pid);
		tracked_free(p);
		goto forget;
	}
	*slot = p;
	return 0;
forget:
	if (s->events)
		events_del(s->events, pid);
	return err;
}

/* A child of vfork() lives in the memory of its parent, which is followed, until it executes or ends. */
static bool lives_with_parent(const struct session *s, pid_t pid)
{
	vec_each (p, &s->processes)
		if (!syscall(SYS_kcmp, pid, (*p)->target->pid, KCMP_VM, 0, 0))
			return true;
	return false;
}

static int add_later(struct session *s, pid_t pid)
{
	struct newcomer *c;

	vec_each (known, &s->newcomers)
		if (known->pid == pid)
			return 0;
	c = vec_push(&s->newcomers);
	if (!c)
		return fail(-ENOMEM, "child %d", pid);
	*c = (struct newcomer){.pid = pid, .since_ns = now_ns()};
	return 0;
}

/* Children made before their parent was followed are found in /proc; the list is read until nobody new is in it. */
static int add_descendants(struct session *s, pid_t pid, bool must)
{
	_cleanup_(free_pids) pid_list list = {0};
	size_t before;

	do {
		int err = tasks_descendants(pid, &list);

		if (err)
			return err;
		before = s->processes.n;
		for (size_t i = 0; i < list.n; i++) {
			err = session_add(s, list.data[i]);
			if (err == -EBUSY && lives_with_parent(s, list.data[i])) {
				err_clear();
				err = add_later(s, list.data[i]);
			}
			if (err && err != -ESRCH && must)
				return err;
			if (err)
				err_clear();
		}
	} while (s->processes.n != before);
	return 0;
}

static int add_job(struct session *s, const pid_t *pids, size_t n)
{
	int err = 0;

	for (size_t i = 0; !err && i < n; i++) {
		err = session_add(s, pids[i]);
		if (!err && s->config.tree)
			err = add_descendants(s, pids[i], true);
	}
	return err;
}

static void open_events(struct session *s)
{
	const char *ring = getenv("ICP_FAULT_RING"); /* bytes: the tests lose events with it */
	struct events_config config = {
		.no_syscalls = !s->config.segment_events,
		.fault_ring_bytes = ring ? strtoul(ring, NULL, 0) : 0,
	};
	int err = events_open(&config, &s->events);

	s->info.events = !err;
	if (err)
		snprintf(s->info.no_events, sizeof(s->info.no_events), "%s", err_text(err));
	err_clear();
}

static uint64_t cpu_ns(void)
{
	struct timespec cpu;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
	return (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec;
}

static void read_clock(struct session *s)
{
	struct timespec real;

	s->start_ns = now_ns();
	s->start_cpu_ns = cpu_ns();
	clock_gettime(CLOCK_REALTIME, &real);
	s->clock_offset_ns =
		(int64_t)real.tv_sec * 1000000000 + real.tv_nsec - (int64_t)s->start_ns;
	s->info.start_time = (double)((int64_t)s->start_ns + s->clock_offset_ns) / 1e9;
}

static int open_parts(struct session *s)
{
	const struct tracker_ops *ops;
	int err = tracker_choose(s->config.tracker, &ops);

	if (err)
		return err;
	s->info.tracker = ops->name;
	s->info.page_size = page_size();
	s->info.interval_s = s->config.interval_s;
	err = warden_open(&s->warden);
	if (err)
		return err;
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll < 0)
		return fail(-errno, "epoll_create1");
	err = symbols_new(&s->symbols);
	if (err)
		return err;
	open_events(s);
	return s->events ? watch(s, events_fd(s->events)) : 0;
}

int session_open(const struct session_config *config, const pid_t *pids, size_t n,
		 struct session **out)
{
	_cleanup_session_ struct session *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return fail(-ENOMEM, "session");
	s->config = *config;
	s->epoll = -1;
	sysvshm_join(pids, n);
	err = open_parts(s);
	if (err)
		return err;
	err = add_job(s, pids, n);
	for (size_t i = 0; err == -EBUSY && i < n; i++) {
		pid_t owner = control_owner(pids[i]);

		if (owner)
			return refuse(err,
				      "pid %d is followed by another icp-bpf already (pid %d): "
				      "end that first",
				      pids[i], owner);
	}
	if (err)
		return err;
	read_clock(s);
	*out = take_ptr(s);
	return 0;
}

void session_close(struct session *s)
{
	if (!s)
		return;
	control_close(s);
	vec_each (p, &s->processes)
		tracked_free(*p);
	vec_free(&s->processes);
	vec_free(&s->newcomers);
	vec_free(&s->rates);
	vec_each (c, &s->segment_ctls)
		ctl_free(c->ctl);
	vec_free(&s->segment_ctls);
	vec_free(&s->gone);
	sysvshm_free(&s->segments_seen);
	event_batch_free(&s->batch);
	events_close(s->events);
	symbols_free(s->symbols);
	warden_close(s->warden);
	cleanup_fd(&s->epoll);
	free(s);
}

const struct trace_info *session_info(const struct session *s)
{
	return &s->info;
}

int session_fd(const struct session *s)
{
	return s->epoll;
}

static int attach_newcomers(struct session *s, uint64_t now)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->newcomers.n; i++) {
		struct newcomer *c = &s->newcomers.data[i];
		int err;

		if (now - c->since_ns < NEWCOMER_NS) {
			s->newcomers.data[kept++] = *c;
			continue;
		}
		err = session_add(s, c->pid);
		if (err == -EBUSY && lives_with_parent(s, c->pid)) {
			c->since_ns = now;
			s->newcomers.data[kept++] = *c;
		} else if (err) { /* ended meanwhile, or became somebody we may not look at */
			debug("child %s", err_text(-ESRCH));
		}
		err_clear();
	}
	s->newcomers.n = kept;
	return 0;
}

/* execve gave it another memory: attach to that, or let go of what can't be followed any more. */
static void reattach(struct session *s, struct tracked *p)
{
	int err = tracked_reattach(p, s->info.tracker, s->warden);

	p->reattach = false;
	if (err && target_alive(p->target) && err != -ESRCH)
		note("pid %d can't be followed after its execve: %s", p->target->pid,
		     err_text(err));
	if (err) {
		err_clear();
		p->ended = true;
	}
}

/* Without system-call events the guard tells when the layout may have changed: that takes the mmap_lock for writing. */
static void watch_layout(struct session *s, struct tracked *p)
{
	struct icp_counters now;

	if (!s->events || s->config.segment_events ||
	    events_counters(s->events, p->target->pid, &now) ||
	    now.write_locks == p->write_locks)
		return;
	p->write_locks = now.write_locks;
	p->maps_stale = true;
}

static int keep_up(struct session *s, struct tracked *p)
{
	int err;

	if (!p->ended && !target_alive(p->target))
		p->ended = true;
	if (!p->ended && p->reattach)
		reattach(s, p);
	if (p->ended)
		return 0;
	watch_layout(s, p);
	err = tracked_follow(p);
	if (err ==
	    -ESRCH) { /* execve that no event told of, or the end that is about to show */
		p->reattach = !target_ended(p->target);
		err_clear();
		return 0;
	}
	return err;
}

int session_catch_up(struct session *s)
{
	int err = s->events ? session_take_events(s, NULL, false) : 0;

	for (size_t i = 0; !err && i < s->processes.n; i++)
		err = keep_up(s, s->processes.data[i]);
	return err;
}

/* Those that have ended were shown for the last time. */
static int let_go(struct session *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->processes.n; i++) {
		struct tracked *p = s->processes.data[i];
		struct process_total *total;

		if (!p->ended) {
			s->processes.data[kept++] = p;
			continue;
		}
		total = vec_push(&s->gone);
		if (total) {
			*total = p->total;
			total->ended = true;
		}
		if (s->events)
			events_del(s->events, p->target->pid);
		tracked_free(p);
	}
	s->processes.n = kept;
	return 0;
}

int session_step(struct session *s, struct trace_events *out, bool every_fault)
{
	int err = s->events ? session_take_events(s, out, every_fault) : 0;

	if (!err)
		err = control_serve(s);
	if (!err)
		err = attach_newcomers(s, now_ns());
	for (size_t i = 0; !err && i < s->processes.n; i++) {
		struct tracked *p = s->processes.data[i];

		if (!s->events && s->config.tree && !p->ended)
			err = add_descendants(s, p->target->pid, false);
		if (!err)
			err = keep_up(s, p);
	}
	if (!err && s->config.checkpoints) /* nobody will sample them for the last time */
		err = let_go(s);
	return err ? err : segments_watch(s, out);
}

/* The counters only grow: the sample gets the difference to the last one. */
static void sample_counters(struct session *s, struct tracked *p, struct process_sample *out)
{
	struct icp_counters now, *then = &p->counted;
	uint64_t locks, explained;

	if (!s->events || events_counters(s->events, p->target->pid, &now))
		return;
	out->kernel_faults = now.faults_kernel - then->faults_kernel;
	out->faults = now.faults_user - then->faults_user + out->kernel_faults;
	out->lost_events =
		now.lost_faults - then->lost_faults + now.lost_changes - then->lost_changes;
	locks = now.read_locks - then->read_locks;
	explained = now.own_locks - then->own_locks + out->kernel_faults;
	out->events_complete = !out->lost_events && locks <= explained;
	p->total.faults += out->faults;
	p->total.kernel_faults += out->kernel_faults;
	p->total.lost_events += out->lost_events;
	*then = now;
}

static int sample_process(struct session *s, struct tracked *p, struct process_sample *out)
{
	int err = tracked_sample(p, s->config.top, out);

	if (err == -ESRCH) {
		err_clear();
		p->reattach = !target_ended(p->target);
		p->ended = !p->reattach;
		out->ended = p->ended;
		err = 0;
	}
	if (err)
		return wrap(err, "pid %d", p->target->pid);
	sample_counters(s, p, out);
	return tracked_writers(p, s->symbols, s->config.top, out);
}

static int sample_segments(struct session *s, struct sample *out)
{
	_cleanup_sysvshm_ struct sysvshm list = {0};
	_cleanup_sysvshm_attachments_ struct sysvshm_attachments attached = {0};
	bool any = false;
	int err;

	for (size_t i = 0; i < s->processes.n; i++)
		vec_each (v, &s->processes.data[i]->maps)
			any |= v->kind == VMA_SHM;
	if (!any)
		return 0;
	err = sysvshm_read(&list);
	if (!err)
		err = sysvshm_attachments(&attached);
	for (size_t i = 0; !err && i < s->processes.n; i++)
		if (!s->processes.data[i]->ended)
			err = segments_sample(s, s->processes.data[i], &list, &attached,
					      &out->processes.data[i]);
	return err;
}

int session_sample(struct session *s, struct sample *out)
{
	uint64_t now = now_ns();
	int err = 0;

	sample_clear(out);
	out->index = ++s->index;
	out->time = (double)((int64_t)now + s->clock_offset_ns) / 1e9;
	out->elapsed = (double)(now - s->start_ns) / 1e9;
	for (size_t i = 0; !err && i < s->processes.n; i++) {
		struct process_sample *p = vec_push(&out->processes);

		err = p ? sample_process(s, s->processes.data[i], p) : fail(-ENOMEM, "sample");
	}
	if (!err)
		err = sample_segments(s, out);
	if (!err)
		err = segments_note_rates(s, out);
	return err ? err : let_go(s);
}

bool session_alive(const struct session *s)
{
	if (s->end_asked)
		return false;
	if (s->newcomers.n)
		return true;
	vec_each (p, &s->processes)
		if (!(*p)->ended)
			return true;
	return false;
}

int session_summary(const struct session *s, struct summary *out)
{
	out->cpu_us = (cpu_ns() - s->start_cpu_ns) / 1000u;
	out->seconds = (double)(now_ns() - s->start_ns) / 1e9;
	for (size_t i = 0; i < s->gone.n + s->processes.n; i++) {
		struct process_total *total = vec_push(&out->processes);

		if (!total)
			return fail(-ENOMEM, "summary");
		*total = i < s->gone.n ? s->gone.data[i]
				       : s->processes.data[i - s->gone.n]->total;
	}
	return 0;
}
