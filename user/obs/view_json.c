// SPDX-License-Identifier: GPL-2.0
/* JSON Lines, as docs/json.md describes them. */
#include "obs/view.h"

#include <errno.h>

#include "obs/json.h"

/* Numbers of pages and bytes are below 2^63: a 64-bit address space has 2^52 pages. */
#define COUNT(n) ((json_int_t)(n))

static int put(const struct view *v, json_t *line)
{
	if (!line)
		return -ENOMEM;
	if (!json_dumpf(line, v->out, JSON_COMPACT))
		fputc('\n', v->out);
	json_decref(line);
	return view_flush(v);
}

static int start(const struct view *v, const struct trace_info *info, const pid_t *pids,
		 size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_integer(pids[i]));
	return put(v,
		   json_pack("{s:s, s:s, s:f, s:o, s:s, s:I, s:f, s:b, s:o?}", "type", "start",
			     "version", ICP_VERSION, "time", info->start_time, "pids", list,
			     "tracker", info->tracker, "page_size", COUNT(info->page_size),
			     "interval_s", info->interval_s, "events", info->events,
			     "no_events", info->events ? NULL : json_name(info->no_events)));
}

static json_t *vmas(const struct process_sample *p)
{
	json_t *list = json_array();

	vec_each (vma, &p->vmas)
		json_array_append_new(list, json_pack("{s:o, s:o, s:o, s:I}", "start",
						      json_address(vma->start), "end",
						      json_address(vma->end), "name",
						      json_name(vma->name), "dirty_pages",
						      COUNT(vma->dirty_pages)));
	return list;
}

static json_t *segments(const struct process_sample *p)
{
	json_t *list = json_array();

	vec_each (seg, &p->segments) {
		json_t *pids = json_array();

		vec_each (pid, &seg->pids)
			json_array_append_new(pids, json_integer(*pid));
		json_array_append_new(list,
				      json_pack("{s:o, s:i, s:I, s:I, s:I, s:I, s:o}", "key",
						json_key(seg->key), "id", seg->id, "size",
						COUNT(seg->size), "dirty_pages",
						COUNT(seg->dirty_pages), "dirty_pages_all",
						COUNT(seg->dirty_pages_all), "attach_count",
						COUNT(seg->attach_count), "pids", pids));
	}
	return list;
}

static json_t *writers(const struct process_sample *p)
{
	json_t *list = json_array();

	vec_each (w, &p->writers)
		json_array_append_new(
			list, json_pack("{s:i, s:o, s:o, s:I, s:I}", "tid", w->tid, "comm",
					json_name(w->comm), "function", json_name(w->function),
					"faults", COUNT(w->faults), "kernel_faults",
					COUNT(w->kernel_faults)));
	return list;
}

static int show_sample(const struct view *v, const struct trace_info *info,
		       const struct sample *s)
{
	int err = 0;

	for (size_t i = 0; !err && i < s->processes.n; i++) {
		const struct process_sample *p = &s->processes.data[i];
		json_t *wws = json_object();

		for (size_t w = 0; w < WINDOWS; w++) {
			char key[16];

			snprintf(key, sizeof(key), "%u", window_seconds[w]);
			json_object_set_new(wws, key, json_integer(COUNT(p->wws_pages[w])));
		}
		err = put(v,
			  json_pack("{s:s, s:f, s:i, s:i, s:o, s:b, s:f, s:I, s:f, s:I, s:o, "
				    "s:I, s:I, s:I, s:b, s:o, "
				    "s:o, s:o}",
				    "type", "sample", "time", s->time, "index", (int)s->index,
				    "pid", p->pid, "comm", json_name(p->comm), "ended",
				    p->ended, "interval_s", p->interval_s, "dirty_pages",
				    COUNT(p->dirty_pages), "dirty_bytes_per_s",
				    p->dirty_bytes_per_s, "unknown_pages",
				    COUNT(p->unknown_pages), "wws_pages", wws, "faults",
				    COUNT(p->faults), "kernel_faults", COUNT(p->kernel_faults),
				    "lost_events", COUNT(p->lost_events), "events_complete",
				    p->events_complete, "vmas", vmas(p), "segments",
				    segments(p), "writers", writers(p)));
	}
	return err;
}

static int show_event(const struct view *v, const struct trace_event *e)
{
	json_t *line =
		json_pack("{s:f, s:i, s:i}", "time", e->time, "pid", e->pid, "tid", e->tid);

	switch (e->kind) {
	case TRACE_WRITE:
		json_object_update_new(line,
				       json_pack("{s:s, s:o, s:o, s:o, s:o, s:b}", "type",
						 "write", "address", json_address(e->addr),
						 "vma", json_name(e->vma), "ip",
						 json_address(e->ip), "function",
						 json_name(e->function), "kernel", e->kernel));
		break;
	case TRACE_SEGMENT:
		json_object_update_new(
			line, json_pack("{s:s, s:s, s:o, s:i, s:I, s:o?, s:I, s:s?}", "type",
					"segment", "op", e->op, "key", json_key(e->key), "id",
					e->id, "size", COUNT(e->size), "address",
					e->addr ? json_address(e->addr) : NULL, "attach_count",
					COUNT(e->attach_count), "implied", e->implied));
		break;
	case TRACE_PROCESS:
		json_object_update_new(line,
				       json_pack("{s:s, s:s}", "type", "process", "op", e->op));
		if (e->id)
			json_object_set_new(line, "child", json_integer(e->id));
		break;
	}
	return put(v, line);
}

static int show_summary(const struct view *v, const struct trace_info *info,
			const struct summary *s)
{
	json_t *list = json_array();

	vec_each (t, &s->processes)
		json_array_append_new(
			list,
			json_pack("{s:i, s:o, s:b, s:f, s:I, s:I, s:I, s:I, s:f, s:I, s:I, "
				  "s:I, s:f}",
				  "pid", t->pid, "comm", json_name(t->comm), "ended", t->ended,
				  "seconds", t->seconds, "samples", COUNT(t->samples),
				  "dirty_pages", COUNT(t->dirty_pages), "unique_pages",
				  COUNT(t->unique_pages), "peak_dirty_pages",
				  COUNT(t->peak_pages), "peak_dirty_bytes_per_s",
				  t->peak_bytes_per_s, "faults", COUNT(t->faults),
				  "kernel_faults", COUNT(t->kernel_faults), "lost_events",
				  COUNT(t->lost_events), "stopped_s", t->stopped_s));
	return put(v, json_pack("{s:s, s:s, s:f, s:f, s:o}", "type", "summary", "reason",
				s->reason, "seconds", s->seconds, "cpu_s",
				(double)s->cpu_us / 1e6, "processes", list));
}

const struct view_ops view_json = {
	.start = start,
	.sample = show_sample,
	.event = show_event,
	.summary = show_summary,
};
