// SPDX-License-Identifier: GPL-2.0
#include "obs/sample_json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "obs/json.h"

#define COUNT(n) ((json_int_t)(n))

static json_t *vmas_json(const struct process_sample *p)
{
	json_t *list = json_array();

	vec_each (v, &p->vmas)
		json_array_append_new(
			list, json_pack("{s:o, s:o, s:o, s:I}", "start", json_address(v->start),
					"end", json_address(v->end), "name", json_name(v->name),
					"dirty_pages", COUNT(v->dirty_pages)));
	return list;
}

static json_t *segments_json(const struct process_sample *p)
{
	json_t *list = json_array();

	vec_each (s, &p->segments)
		json_array_append_new(list, json_pack("{s:I, s:i, s:I, s:I, s:I, s:I}", "key",
						      (json_int_t)s->key, "id", s->id, "size",
						      COUNT(s->size), "dirty_pages",
						      COUNT(s->dirty_pages), "dirty_pages_all",
						      COUNT(s->dirty_pages_all), "attach_count",
						      COUNT(s->attach_count)));
	return list;
}

static json_t *writers_json(const struct process_sample *p)
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

json_t *process_sample_json(const struct process_sample *p, bool lists)
{
	json_t *out = json_pack(
		"{s:i, s:o, s:b, s:f, s:I, s:f, s:I, s:I, s:I, s:b, s:[III]}", "pid", p->pid,
		"comm", json_name(p->comm), "ended", p->ended, "interval_s", p->interval_s,
		"dirty_pages", COUNT(p->dirty_pages), "dirty_bytes_per_s", p->dirty_bytes_per_s,
		"faults", COUNT(p->faults), "kernel_faults", COUNT(p->kernel_faults),
		"lost_events", COUNT(p->lost_events), "events_complete", p->events_complete,
		"wws_pages", COUNT(p->wws_pages[0]), COUNT(p->wws_pages[1]),
		COUNT(p->wws_pages[2]));

	if (out && lists)
		json_object_update_new(out, json_pack("{s:o, s:o, s:o}", "vmas", vmas_json(p),
						      "segments", segments_json(p), "writers",
						      writers_json(p)));
	return out;
}

static void take_text(const json_t *object, const char *key, char *out, size_t len)
{
	const char *text = json_string_value(json_object_get(object, key));

	snprintf(out, len, "%s", text ? text : "");
}

static uint64_t take_address(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? strtoull(text, NULL, 0) : 0;
}

static uint64_t take_count(const json_t *object, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(object, key));

	return n > 0 ? (uint64_t)n : 0;
}

static int parse_lists(const json_t *json, struct process_sample *out)
{
	json_t *each;
	size_t i;

	json_array_foreach(json_object_get(json, "vmas"), i, each)
	{
		struct vma_stat *v = vec_push(&out->vmas);

		if (!v)
			return -ENOMEM;
		v->start = take_address(each, "start");
		v->end = take_address(each, "end");
		v->dirty_pages = take_count(each, "dirty_pages");
		take_text(each, "name", v->name, sizeof(v->name));
	}
	json_array_foreach(json_object_get(json, "segments"), i, each)
	{
		struct segment_stat *s = vec_push(&out->segments);

		if (!s)
			return -ENOMEM;
		s->key = (int32_t)json_integer_value(json_object_get(each, "key"));
		s->id = (int32_t)json_integer_value(json_object_get(each, "id"));
		s->size = take_count(each, "size");
		s->dirty_pages = take_count(each, "dirty_pages");
		s->dirty_pages_all = take_count(each, "dirty_pages_all");
		s->attach_count = take_count(each, "attach_count");
	}
	json_array_foreach(json_object_get(json, "writers"), i, each)
	{
		struct writer_stat *w = vec_push(&out->writers);

		if (!w)
			return -ENOMEM;
		w->tid = (pid_t)take_count(each, "tid");
		take_text(each, "comm", w->comm, sizeof(w->comm));
		take_text(each, "function", w->function, sizeof(w->function));
		w->faults = take_count(each, "faults");
		w->kernel_faults = take_count(each, "kernel_faults");
	}
	return 0;
}

int process_sample_parse(json_t *json, struct process_sample *out)
{
	const json_t *wws = json_object_get(json, "wws_pages");
	int err;

	*out = (struct process_sample){
		.pid = (pid_t)take_count(json, "pid"),
		.ended = json_is_true(json_object_get(json, "ended")),
		.interval_s = json_number_value(json_object_get(json, "interval_s")),
		.dirty_pages = take_count(json, "dirty_pages"),
		.dirty_bytes_per_s =
			json_number_value(json_object_get(json, "dirty_bytes_per_s")),
		.faults = take_count(json, "faults"),
		.kernel_faults = take_count(json, "kernel_faults"),
		.lost_events = take_count(json, "lost_events"),
		.events_complete = json_is_true(json_object_get(json, "events_complete")),
	};
	take_text(json, "comm", out->comm, sizeof(out->comm));
	for (size_t i = 0; i < WINDOWS; i++) {
		json_int_t n = json_integer_value(json_array_get(wws, i));

		out->wws_pages[i] = n > 0 ? (uint64_t)n : 0;
	}
	if (out->pid <= 0)
		return -EINVAL;
	err = parse_lists(json, out);
	if (err)
		process_sample_clear(out);
	return err;
}
