// SPDX-License-Identifier: GPL-2.0
/* /api/processes/PID and what is below it. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "obs/json.h"
#include "serve/api_priv.h"

#define COUNT(n) ((json_int_t)(n))
#define WRITERS_SHOWN 100

static const char *kind_name(enum vma_kind kind)
{
	static const char *const names[] = {
		[VMA_ANON] = "anon",	      [VMA_FILE_PRIVATE] = "file",
		[VMA_FILE_SHARED] = "shared", [VMA_SHM] = "segment",
		[VMA_SPECIAL] = "special",
	};

	return names[kind];
}

static json_t *areas(const struct model *m, const struct proc *p)
{
	json_t *list = json_array();
	double interval = p->last.interval_s;

	vec_each (a, &p->areas) {
		char prot[5];

		snprintf(prot, sizeof(prot), "%c%c%c%c", a->prot & PROT_READ ? 'r' : '-',
			 a->prot & PROT_WRITE ? 'w' : '-', a->prot & PROT_EXEC ? 'x' : '-',
			 a->shared ? 's' : 'p');
		json_array_append_new(
			list,
			json_pack(
				"{s:o, s:o, s:o, s:s, s:s, s:I, s:f, s:{s:I, s:I, s:I}}",
				"start", json_address(a->start), "end", json_address(a->end),
				"name", json_name(a->name), "kind", kind_name(a->kind), "prot",
				prot, "dirty_pages", COUNT(a->dirty), "dirty_bytes_per_s",
				interval > 0 ? (double)(a->dirty * m->info.page_size) / interval
					     : 0.0,
				"wws_pages", "1", COUNT(a->wws[0]), "10", COUNT(a->wws[1]),
				"60", COUNT(a->wws[2])));
	}
	return list;
}

static json_t *attached(const struct model *m, const struct proc *p)
{
	json_t *list = json_array();
	double interval = p->last.interval_s;

	vec_each (s, &p->last.segments) {
		json_t *pids = json_array();

		vec_each (pid, &s->pids)
			json_array_append_new(pids, json_integer(*pid));
		json_array_append_new(
			list,
			json_pack("{s:o, s:i, s:I, s:I, s:I, s:f, s:I, s:o}", "key",
				  json_key(s->key), "id", s->id, "size_bytes", COUNT(s->size),
				  "dirty_pages", COUNT(s->dirty_pages), "dirty_pages_all",
				  COUNT(s->dirty_pages_all), "dirty_bytes_per_s",
				  interval > 0
					  ? (double)(s->dirty_pages_all * m->info.page_size) /
						    interval
					  : 0.0,
				  "attach_count", COUNT(s->attach_count), "pids", pids));
	}
	return list;
}

static int more_faults_first(const void *a, const void *b)
{
	const struct writer_stat *x = a, *y = b;

	return (x->faults < y->faults) - (x->faults > y->faults);
}

/* This minute's and the one before, joined. */
static json_t *writers(const struct proc *p)
{
	size_t n = p->writers[0].n + p->writers[1].n, used = 0;
	struct writer_stat *all = calloc(n + 1, sizeof(*all));
	json_t *list = json_array();

	for (int i = 0; all && i < 2; i++)
		vec_each (w, &p->writers[i]) {
			size_t k = 0;

			while (k < used &&
			       (all[k].tid != w->tid || strcmp(all[k].function, w->function)))
				k++;
			if (k == used)
				all[used++] = *w;
			else
				all[k].faults += w->faults,
					all[k].kernel_faults += w->kernel_faults;
		}
	if (used)
		qsort(all, used, sizeof(*all), more_faults_first);
	for (size_t i = 0; i < used && i < WRITERS_SHOWN; i++)
		json_array_append_new(list,
				      json_pack("{s:i, s:o, s:o, s:I, s:I}", "tid",
						(int)all[i].tid, "comm", json_name(all[i].comm),
						"function", json_name(all[i].function),
						"faults", COUNT(all[i].faults), "kernel_faults",
						COUNT(all[i].kernel_faults)));
	free(all);
	return list;
}

/* How long the writers and stacks that are shown have been collected. */
static double generations_s(const struct model *m, const struct proc *p)
{
	double from = m->generation_time[1] ? m->generation_time[1] : m->generation_time[0];

	return m->time - (p->since > from ? p->since : from);
}

static json_t *history(const struct proc *p, size_t limit)
{
	size_t have = p->points < HISTORY ? p->points : HISTORY,
	       n = have < limit ? have : limit;
	json_t *time = json_array(), *rate = json_array(), *dirty = json_array(),
	       *faults = json_array(), *wws[WINDOWS];

	for (int i = 0; i < WINDOWS; i++)
		wws[i] = json_array();
	for (size_t i = p->points - n; i < p->points; i++) {
		const struct point *q = &p->ring[i % HISTORY];

		json_array_append_new(time, json_real(q->time));
		json_array_append_new(rate, json_real(q->bytes_per_s));
		json_array_append_new(dirty, json_integer(COUNT(q->dirty)));
		json_array_append_new(faults, json_integer(COUNT(q->faults)));
		for (int k = 0; k < WINDOWS; k++)
			json_array_append_new(wws[k], json_integer(COUNT(q->wws[k])));
	}
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "time", time,
			 "dirty_bytes_per_s", rate, "dirty_pages", dirty, "wws_1", wws[0],
			 "wws_10", wws[1], "wws_60", wws[2], "faults", faults);
}

json_t *api_process(const struct model *m, const struct proc *p, size_t limit)
{
	json_t *json = api_with_totals(m, p);

	json_object_set_new(json, "history", history(p, limit));
	json_object_set_new(json, "vmas", areas(m, p));
	json_object_set_new(json, "segments", attached(m, p));
	json_object_set_new(json, "writers", writers(p));
	json_object_set_new(json, "writers_s", json_real(generations_s(m, p)));
	return json;
}

static json_t *tree(const struct flame *f, uint32_t at, const char *name)
{
	const struct flame_node *node = &f->nodes.data[at];
	json_t *children = json_array();

	for (uint32_t i = node->first; i; i = f->nodes.data[i].next)
		json_array_append_new(children, tree(f, i, flame_name(f, &f->nodes.data[i])));
	return json_pack("{s:o, s:I, s:o}", "name", json_name(name), "value",
			 COUNT(node->value), "children", children);
}

/* Without stacks: the writing functions alone. */
static int from_writers(const struct proc *p, struct flame *out)
{
	int err = 0;

	for (int i = 0; i < 2; i++)
		vec_each (w, &p->writers[i]) {
			const char *name = w->function;

			if (!err)
				err = flame_add(out, &name, 1, w->faults);
		}
	return err;
}

json_t *api_flamegraph(const struct model *m, const struct proc *p)
{
	struct flame both = {0};
	bool stacks = p->flames[0].stacks + p->flames[1].stacks > 0;
	int err = stacks ? flame_join(&both, &p->flames[0]) : from_writers(p, &both);
	json_t *json = NULL;

	if (!err && stacks)
		err = flame_join(&both, &p->flames[1]);
	if (!err)
		json = json_pack("{s:i, s:f, s:I, s:b, s:o}", "pid", (int)p->pid, "seconds",
				 generations_s(m, p), "samples",
				 COUNT(p->flames[0].stacks + p->flames[1].stacks), "stacks",
				 stacks, "tree",
				 both.nodes.n ? tree(&both, 0, p->comm)
					      : json_pack("{s:o, s:i, s:[]}", "name",
							  json_name(p->comm), "value", 0,
							  "children"));
	flame_clear(&both);
	return json;
}
