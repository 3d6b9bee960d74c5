// SPDX-License-Identifier: GPL-2.0
#include "serve/api_priv.h"

#include <unistd.h>

#include "obs/json.h"
#include "serve/forecast.h"
#include "serve/metrics.h"
#include "serve/serve.h"

#define COUNT(n) ((json_int_t)(n))

static json_t *pid_list_json(const pid_t *pids, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_integer(pids[i]));
	return list;
}

static json_t *followed_by(const struct model *m)
{
	json_t *cgroups = json_array();

	for (size_t i = 0; i < m->n_cgroups; i++)
		json_array_append_new(cgroups, json_name(m->cgroups[i]));
	return json_pack("{s:o, s:o, s:o?}", "pids", pid_list_json(m->pids, m->n_pids),
			 "cgroups", cgroups, "match", m->match ? json_name(m->match) : NULL);
}

static json_t *sampling(const struct model *m)
{
	return json_pack("{s:b, s:I, s:I, s:I, s:i}", "active", m->untold_now > 0,
			 "fault_budget_per_s", COUNT(SESSION_FAULTS_PER_S), "told",
			 COUNT(m->faults - m->untold), "untold", COUNT(m->untold), "keep_every",
			 (int)ICP_KEEP_EVERY);
}

json_t *api_status(const struct model *m)
{
	return json_pack(
		"{s:s, s:i, s:f, s:f, s:I, s:f, s:i, s:s, s:b, s:o?, s:b, s:{s:i, s:i}, s:I, "
		"s:o, s:I, s:f, s:I, s:f, s:o}",
		"version", ICP_VERSION, "pid", (int)getpid(), "time", m->time, "start_time",
		m->start_time, "page_size", COUNT(m->info.page_size), "interval_s",
		m->interval_s, "index", (int)m->index, "tracker",
		m->info.tracker ? m->info.tracker : "", "events", m->info.events, "no_events",
		m->info.events ? NULL : json_name(m->info.no_events), "stacks", m->info.events,
		"history", "samples", (int)HISTORY, "columns", (int)HEAT_COLUMNS, "processes",
		COUNT(m->procs.n), "sampling", sampling(m), "lost_events", COUNT(m->lost),
		"cpu_s", m->cpu_s, "rss_bytes", COUNT(m->rss_bytes), "mtbf_s", m->mtbf_s,
		"followed_by", followed_by(m));
}

static json_t *windows(const uint64_t *pages, uint64_t unit)
{
	return json_pack("{s:I, s:I, s:I}", "1", COUNT(pages[0] * unit), "10",
			 COUNT(pages[1] * unit), "60", COUNT(pages[2] * unit));
}

static json_t *process(const struct model *m, const struct proc *p)
{
	const struct process_sample *s = &p->last;

	return json_pack(
		"{s:i, s:o, s:i, s:f, s:f, s:b, s:f, s:I, s:I, s:f, s:o, s:o, s:I, s:I, s:I, "
		"s:I, s:b}",
		"pid", (int)p->pid, "comm", json_name(p->comm), "job", (int)p->job, "since",
		p->since, "time", p->time, "ended", s->ended, "interval_s", s->interval_s,
		"dirty_pages", COUNT(s->dirty_pages), "unknown_pages", COUNT(s->unknown_pages),
		"dirty_bytes_per_s", s->dirty_bytes_per_s, "wws_pages",
		windows(s->wws_pages, 1), "wws_bytes", windows(s->wws_pages, m->info.page_size),
		"faults", COUNT(s->faults), "kernel_faults", COUNT(s->kernel_faults),
		"lost_events", COUNT(s->lost_events), "untold_faults", COUNT(s->untold_faults),
		"events_complete", s->events_complete);
}

json_t *api_with_totals(const struct model *m, const struct proc *p)
{
	const struct process_total *t = &p->total;
	json_t *json = process(m, p);

	json_object_set_new(json, "totals",
			    json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "samples",
				      COUNT(t->samples), "dirty_pages", COUNT(t->dirty_pages),
				      "faults", COUNT(t->faults), "kernel_faults",
				      COUNT(t->kernel_faults), "lost_events",
				      COUNT(t->lost_events), "untold_faults", COUNT(p->untold),
				      "peak_dirty_bytes_per_s", t->peak_bytes_per_s,
				      "stopped_s", t->stopped_s));
	return json;
}

json_t *api_processes(const struct model *m)
{
	json_t *list = json_array(), *refused = json_array();

	vec_each (p, &m->procs)
		json_array_append_new(list, api_with_totals(m, *p));
	vec_each (r, &m->refused)
		json_array_append_new(refused,
				      json_pack("{s:i, s:o, s:o, s:f}", "pid", (int)r->pid,
						"comm", json_name(r->comm), "why",
						json_name(r->why), "time", r->time));
	return json_pack("{s:o, s:o}", "processes", list, "refused", refused);
}

static json_t *segment(const struct segment_total *t)
{
	return json_pack("{s:o, s:i, s:I, s:I, s:o, s:I, s:f, s:I}", "key", json_key(t->key),
			 "id", t->id, "size_bytes", COUNT(t->size), "attach_count",
			 COUNT(t->attach_count), "pids", pid_list_json(t->pids.data, t->pids.n),
			 "dirty_pages", COUNT(t->dirty), "dirty_bytes_per_s", t->bytes_per_s,
			 "dirty_pages_total", COUNT(t->total));
}

static json_t *segments(const struct model *m)
{
	json_t *list = json_array();

	vec_each (t, &m->segments)
		json_array_append_new(list, segment(t));
	return list;
}

json_t *api_segments(const struct model *m)
{
	return json_pack("{s:o}", "segments", segments(m));
}

static json_t *next_json(const struct job *job, const struct forecast *f)
{
	char basis[96] = "what is resident: there is no version of this job";

	if (f->incremental)
		snprintf(basis, sizeof(basis), "what was written since version %u",
			 job->version);
	return json_pack("{s:s, s:o?, s:i, s:I, s:I, s:f, s:s, s:i}", "type",
			 f->incremental ? "incremental" : "full", "dir",
			 f->incremental ? json_name(job->dir) : NULL, "parent",
			 f->incremental ? (int)job->version : 0, "pages", COUNT(f->pages),
			 "bytes", COUNT(f->bytes), "pause_s", f->pause_s, "basis", basis,
			 "measured", (int)f->measured);
}

static json_t *forecast(const struct model *m, const struct job *job)
{
	json_t *pids = json_array(), *dirtied = json_array();
	struct forecast f;

	forecast_job(m, job, model_age(m), &f);
	vec_each (p, &m->procs)
		if ((*p)->job == job->pid)
			json_array_append_new(pids, json_integer((*p)->pid));
	for (int i = 0; i < WINDOWS; i++)
		json_array_append_new(dirtied,
				      json_pack("{s:i, s:I}", "seconds", (int)window_seconds[i],
						"bytes", COUNT(f.dirtied[i])));
	return json_pack("{s:i, s:o, s:o, s:o, s:o, s:I, s:f, s:f, s:f, s:I}", "job",
			 (int)job->pid, "comm", json_name(job->comm), "pids", pids, "next",
			 next_json(job, &f), "dirtied", dirtied, "increment_bytes",
			 COUNT(f.increment_bytes), "cost_s", f.pause_s,
			 "recommended_interval_s", f.interval_s, "overhead", f.overhead,
			 "full_bytes", COUNT(f.full_bytes));
}

json_t *api_forecast(const struct model *m)
{
	json_t *list = json_array();

	vec_each (job, &m->jobs)
		json_array_append_new(list, forecast(m, job));
	return json_pack("{s:f, s:o}", "mtbf_s", m->mtbf_s, "jobs", list);
}

json_t *api_sample(const struct model *m)
{
	json_t *list = json_array(), *forecasts = json_array();
	double interval = m->interval_s;

	vec_each (p, &m->procs) {
		json_array_append_new(list, process(m, *p));
		interval = (*p)->last.interval_s;
	}
	vec_each (job, &m->jobs) {
		struct forecast f;

		forecast_job(m, job, model_age(m), &f);
		json_array_append_new(forecasts,
				      json_pack("{s:i, s:I, s:f, s:f}", "job", (int)job->pid,
						"bytes", COUNT(f.bytes), "pause_s", f.pause_s,
						"recommended_interval_s", f.interval_s));
	}
	return json_pack("{s:i, s:f, s:f, s:o, s:o, s:{s:b}, s:o}", "index", (int)m->index,
			 "time", m->time, "interval_s", interval, "processes", list, "segments",
			 segments(m), "sampling", "active", m->untold_now > 0, "forecast",
			 forecasts);
}

json_t *api_cut(const struct session_cut *cut)
{
	const struct dump_result *r = &cut->result;

	if (cut->err)
		return json_pack("{s:f, s:i, s:o, s:o, s:o}", "time", cut->time, "job",
				 (int)cut->root, "comm", json_name(cut->comm), "dir",
				 json_name(cut->dir), "error", json_name(cut->error));
	return json_pack("{s:o, s:i, s:i, s:s, s:f, s:i, s:o, s:o, s:I, s:I, s:I, s:I, s:I, "
			 "s:f, s:f, s:s, s:b}",
			 "dir", json_name(cut->dir), "version", (int)r->version, "parent",
			 (int)r->parent, "type", r->incremental ? "incremental" : "full",
			 "time", cut->time, "job", (int)cut->root, "comm", json_name(cut->comm),
			 "label", json_name(cut->label), "processes", COUNT(r->processes),
			 "threads", COUNT(r->threads), "pages", COUNT(r->pages), "zero_pages",
			 COUNT(r->zero_pages), "bytes", COUNT(r->bytes_written), "pause_s",
			 (double)r->pause_ns / 1e9, "total_s", (double)r->total_ns / 1e9,
			 "found_by", r->found_by ? r->found_by : "", "live", 1);
}
