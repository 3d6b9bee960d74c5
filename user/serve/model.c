// SPDX-License-Identifier: GPL-2.0
#include "serve/model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "proc/tasks.h"
#include "serve/forecast.h"

#define KEYS_MAX 256
#define MEANWHILE_MAX 60 /* seconds */
#define STATS_MAX 64	 /* names of jobs; the rest counts as "other" */

const double pause_bounds[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
			       0.05,   0.1,	0.25,	0.5,   1,      2.5,   5};
const double duration_bounds[] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
				  2.5,	5,     10,   30,  60,	300};
const size_t n_pause_bounds = sizeof(pause_bounds) / sizeof(pause_bounds[0]),
	     n_duration_bounds = sizeof(duration_bounds) / sizeof(duration_bounds[0]);
_Static_assert(sizeof(pause_bounds) / sizeof(pause_bounds[0]) <= BUCKETS_MAX, "buckets");

int model_new(struct model **out)
{
	struct model *m = calloc(1, sizeof(*m));

	if (!m)
		return fail(-ENOMEM, "serve");
	pthread_mutex_init(&m->lock, NULL);
	*out = m;
	return 0;
}

static void free_segments(struct process_sample *p)
{
	vec_each (seg, &p->segments)
		vec_free(&seg->pids);
	vec_free(&p->segments);
}

static void proc_free(struct proc *p)
{
	free_segments(&p->last);
	vec_free(&p->areas);
	for (int i = 0; i < 2; i++) {
		vec_free(&p->writers[i]);
		flame_clear(&p->flames[i]);
	}
	heat_fini(&p->heat);
	free(p);
}

void model_free(struct model *m)
{
	if (!m)
		return;
	vec_each (p, &m->procs)
		proc_free(*p);
	vec_each (seg, &m->segments)
		vec_free(&seg->pids);
	vec_free(&m->procs);
	vec_free(&m->jobs);
	vec_free(&m->segments);
	vec_free(&m->keys);
	vec_free(&m->cuts);
	vec_free(&m->stats);
	vec_free(&m->refused);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

struct proc *model_proc(struct model *m, pid_t pid)
{
	vec_each (p, &m->procs)
		if ((*p)->pid == pid)
			return *p;
	return NULL;
}

struct job *model_job(struct model *m, pid_t pid)
{
	vec_each (j, &m->jobs)
		if (j->pid == pid)
			return j;
	return NULL;
}

/* The topmost followed ancestor. */
static pid_t job_of(struct model *m, pid_t pid)
{
	pid_t top = pid, at = pid;

	for (int depth = 0; depth < 64 && (at = tasks_parent(at)) > 1; depth++)
		if (model_proc(m, at))
			top = at;
	return top;
}

static int by_pid(const void *a, const void *b)
{
	const struct proc *x = *(struct proc *const *)a, *y = *(struct proc *const *)b;

	return (x->pid > y->pid) - (x->pid < y->pid);
}

static int add_proc(struct model *m, pid_t pid, double time, struct proc **out)
{
	struct proc *p = calloc(1, sizeof(*p)), **slot = p ? vec_push(&m->procs) : NULL;

	if (!slot) {
		free(p);
		return fail(-ENOMEM, "pid %d", pid);
	}
	*slot = *out = p;
	p->pid = p->job = p->total.pid = pid;
	p->since = time;
	heat_init(&p->heat);
	qsort(m->procs.data, m->procs.n, sizeof(struct proc *), by_pid);
	return 0;
}

static void add_totals(struct process_total *t, const struct process_sample *s)
{
	t->samples++;
	t->seconds += s->interval_s;
	t->dirty_pages += s->dirty_pages;
	t->faults += s->faults;
	t->kernel_faults += s->kernel_faults;
	t->lost_events += s->lost_events;
	if (s->dirty_pages > t->peak_pages)
		t->peak_pages = s->dirty_pages;
	if (s->dirty_bytes_per_s > t->peak_bytes_per_s)
		t->peak_bytes_per_s = s->dirty_bytes_per_s;
}

static int by_writer(const struct writer_stat *a, const struct writer_stat *b)
{
	return a->tid != b->tid ? (a->tid > b->tid) - (a->tid < b->tid)
				: strcmp(a->function, b->function);
}

static int add_writers(struct proc *p, const struct process_sample *s)
{
	vec_each (w, &s->writers) {
		struct writer_stat *found = NULL;

		vec_each (have, &p->writers[0])
			if (!by_writer(have, w))
				found = have;
		if (found) {
			found->faults += w->faults;
			found->kernel_faults += w->kernel_faults;
			continue;
		}
		if (p->writers[0].n == WRITERS_MAX)
			continue;
		found = vec_push(&p->writers[0]);
		if (!found)
			return fail(-ENOMEM, "writers of pid %d", p->pid);
		*found = *w;
	}
	return 0;
}

/* A new minute. */
static void turn_page(struct model *m, double time)
{
	if (time - m->generation_time[0] < GENERATION_S && m->generation_time[0])
		return;
	m->generation_time[1] = m->generation_time[0] ? m->generation_time[0] : time;
	m->generation_time[0] = time;
	vec_each (p, &m->procs) {
		__typeof__((*p)->writers[0]) writers = (*p)->writers[1];

		(*p)->writers[1] = (*p)->writers[0];
		(*p)->writers[0] = writers;
		(*p)->writers[0].n = 0;
		flame_clear(&(*p)->flames[1]);
		(*p)->flames[1] = (*p)->flames[0];
		(*p)->flames[0] = (struct flame){0};
	}
}

static int take_process(struct model *m, struct session *s, struct process_sample *from,
			double time)
{
	struct proc *p = model_proc(m, from->pid);
	struct point *point;
	int err;

	if (!p && m->procs.n >= PROCESSES_MAX)
		return 0;
	err = p ? 0 : add_proc(m, from->pid, time - from->interval_s, &p);

	if (err)
		return err;
	free_segments(&p->last);
	p->last = *from;
	memset(&p->last.vmas, 0, sizeof(p->last.vmas));
	memset(&p->last.writers, 0, sizeof(p->last.writers));
	memset(&from->segments, 0, sizeof(from->segments));
	memcpy(p->comm, from->comm, sizeof(p->comm));
	p->time = time;
	add_totals(&p->total, from);
	p->untold += from->untold_faults;
	m->faults += from->faults;
	m->kernel_faults += from->kernel_faults;
	m->lost += from->lost_events;
	m->untold += from->untold_faults;
	m->untold_now += from->untold_faults;
	point = &p->ring[p->points++ % HISTORY];
	*point = (struct point){.time = time,
				.bytes_per_s = from->dirty_bytes_per_s,
				.dirty = from->dirty_pages,
				.faults = from->faults};
	memcpy(point->wws, from->wws_pages, sizeof(point->wws));
	heat_advance(&p->heat, time);
	err = add_writers(p, from);
	return err || from->ended ? err : model_detail(m, s, p);
}

/* Those that were not in the sample have ended, and were shown for the last time. */
static void drop_ended(struct model *m)
{
	size_t kept = 0;

	for (size_t i = 0; i < m->procs.n; i++) {
		struct proc *p = m->procs.data[i];

		if (p->time < m->time)
			proc_free(p);
		else
			m->procs.data[kept++] = p;
	}
	m->procs.n = kept;
}

static int take_jobs(struct model *m)
{
	size_t kept = 0;

	for (size_t i = 0; i < m->jobs.n; i++)
		if (model_proc(m, m->jobs.data[i].pid))
			m->jobs.data[kept++] = m->jobs.data[i];
	m->jobs.n = kept;
	vec_each (p, &m->procs) {
		struct job *job;

		/* who is whose child changes seldom */
		if ((*p)->points == 1 || m->index % 10 == 0 || !model_proc(m, (*p)->job))
			(*p)->job = job_of(m, (*p)->pid);
		if ((*p)->job != (*p)->pid || model_job(m, (*p)->pid))
			continue;
		job = vec_push(&m->jobs);
		if (!job)
			return fail(-ENOMEM, "jobs");
		job->pid = (*p)->pid;
		memcpy(job->comm, (*p)->comm, sizeof(job->comm));
	}
	return 0;
}

static int count_key(struct model *m, int32_t key, uint64_t pages)
{
	struct key_total *found = NULL;

	vec_each (k, &m->keys)
		if (k->key == key)
			found = k;
	if (!found && m->keys.n < KEYS_MAX) {
		found = vec_push(&m->keys);
		if (!found)
			return fail(-ENOMEM, "segments");
		found->key = key;
	}
	if (found)
		found->pages += pages;
	return 0;
}

/* A segment is told with every process that attaches it: once is enough. */
static int take_segment(struct model *m, const struct process_sample *p,
			const struct segment_stat *seg)
{
	struct segment_total *found = NULL;

	vec_each (t, &m->segments)
		if (t->id == seg->id)
			found = t;
	if (found && found->index == m->index)
		return 0;
	if (!found)
		found = vec_push(&m->segments);
	if (!found)
		return fail(-ENOMEM, "segments");
	found->id = seg->id;
	found->key = seg->key;
	found->size = seg->size;
	found->attach_count = seg->attach_count;
	found->dirty = seg->dirty_pages_all;
	found->total += seg->dirty_pages_all;
	found->bytes_per_s =
		p->interval_s > 0
			? (double)(seg->dirty_pages_all * m->info.page_size) / p->interval_s
			: 0;
	found->index = m->index;
	found->pids.n = 0;
	vec_each (pid, &seg->pids) {
		pid_t *slot = vec_push(&found->pids);

		if (!slot)
			return fail(-ENOMEM, "segments");
		*slot = *pid;
	}
	return count_key(m, seg->key, seg->dirty_pages_all);
}

static int take_segments(struct model *m)
{
	size_t kept = 0;
	int err = 0;

	vec_each (p, &m->procs)
		vec_each (seg, &(*p)->last.segments)
			if (!err)
				err = take_segment(m, &(*p)->last, seg);
	for (size_t i = 0; i < m->segments.n; i++) {
		if (m->segments.data[i].index == m->index)
			m->segments.data[kept++] = m->segments.data[i];
		else
			vec_free(&m->segments.data[i].pids);
	}
	m->segments.n = kept;
	return err;
}

int model_sample(struct model *m, struct session *s, struct sample *sample)
{
	int err = 0;

	m->index = sample->index;
	m->time = sample->time;
	m->sample_ns = now_ns();
	m->samples++;
	m->untold_now = 0;
	turn_page(m, sample->time);
	vec_each (p, &sample->processes)
		if (!err)
			err = take_process(m, s, p, sample->time);
	drop_ended(m);
	if (!err)
		err = take_jobs(m);
	return err ? err : take_segments(m);
}

static void histogram_add(struct histogram *h, const double *bounds, size_t n, double value)
{
	size_t i = 0;

	while (i < n && value > bounds[i])
		i++;
	h->counts[i]++;
	h->sum += value;
}

static struct cut_stats *stats_of(struct model *m, const char *comm)
{
	struct cut_stats *s;

	if (m->stats.n >= STATS_MAX)
		comm = "other";
	vec_each (have, &m->stats)
		if (!strcmp(have->comm, comm))
			return have;
	s = vec_push(&m->stats);
	if (s)
		snprintf(s->comm, sizeof(s->comm), "%s", comm);
	return s;
}

static void count_cut(struct cut_stats *s, const struct session_cut *cut)
{
	const struct dump_result *r = &cut->result;

	if (cut->err) {
		s->failed++;
		return;
	}
	s->last_time = cut->time;
	*(r->incremental ? &s->incremental : &s->full) += 1;
	*(r->incremental ? &s->bytes_incremental : &s->bytes_full) += r->bytes_written;
	histogram_add(&s->pause, pause_bounds, n_pause_bounds, (double)r->pause_ns / 1e9);
	histogram_add(&s->duration, duration_bounds, n_duration_bounds,
		      (double)r->total_ns / 1e9);
}

static double rate_of(const struct model *m, pid_t job)
{
	double rate = 0;

	vec_each (p, &m->procs)
		if ((*p)->job == job && (*p)->last.interval_s > 0)
			rate += (double)(*p)->last.dirty_pages / (*p)->last.interval_s;
	return rate;
}

/* It holds what was expected when it began, and what came while it was cut. */
static double meanwhile_of(const struct model *m, const struct job *job,
			   const struct session_cut *cut)
{
	const struct dump_result *r = &cut->result;
	double began = cut->time - (double)r->total_ns / 1e9, growth,
	       expected = forecast_written(m, job, began - m->time, &growth), more;

	if (!r->incremental || expected < 0 || growth <= 0)
		return -1;
	more = ((double)r->pages - expected) / growth;
	return more < 0 ? 0 : more > MEANWHILE_MAX ? MEANWHILE_MAX : more;
}

static void measure(struct model *m, const struct session_cut *cut)
{
	const struct dump_result *r = &cut->result;
	const struct proc *p = model_proc(m, cut->root);
	struct job *job = model_job(m, p ? p->job : cut->root);
	struct measured now = {.pages = r->pages,
			       .bytes = r->bytes_written,
			       .pause_ns = r->pause_ns,
			       .copy_ns = r->phase.copy_ns,
			       .total_ns = r->total_ns};

	if (!job || cut->err)
		return;
	now.rate = rate_of(m, job->pid);
	now.meanwhile_s = meanwhile_of(m, job, cut);
	snprintf(job->dir, sizeof(job->dir), "%s", cut->dir);
	job->version = r->version;
	if (r->incremental)
		job->measured[job->n_measured++ % MEASURED] = now;
	else
		job->full = now;
	job->has_full |= !r->incremental;
}

int model_cut(struct model *m, const struct session_cut *cut)
{
	struct cut_stats *stats = stats_of(m, cut->comm);
	struct session_cut *slot;

	if (!stats)
		return fail(-ENOMEM, "checkpoints");
	count_cut(stats, cut);
	measure(m, cut);
	if (m->cuts.n == CUTS_MAX)
		memmove(m->cuts.data, m->cuts.data + 1, --m->cuts.n * sizeof(*m->cuts.data));
	slot = vec_push(&m->cuts);
	if (!slot)
		return fail(-ENOMEM, "checkpoints");
	*slot = *cut;
	return 0;
}
