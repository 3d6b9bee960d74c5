// SPDX-License-Identifier: GPL-2.0
#include "serve/versions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/repo.h"
#include "obs/json.h"
#include "serve/api.h"
#include "session/checkpoint.h"

#define DIRS_MAX 32
#define ROWS_MAX 2000 /* of a repository: the newest */

struct row {
	uint32_t number;
	json_t *json;
};

struct dir {
	char path[512];
	uint8_t id[16]; /* of the repository: another one may take its place */
	VEC(struct row) rows;
};

struct versions {
	struct dir *dirs[DIRS_MAX];
	size_t n;
};

int versions_new(struct versions **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : fail(-ENOMEM, "serve");
}

static void forget_rows(struct dir *d)
{
	vec_each (r, &d->rows)
		json_decref(r->json);
	vec_free(&d->rows);
}

void versions_free(struct versions *v)
{
	for (size_t i = 0; v && i < v->n; i++) {
		forget_rows(v->dirs[i]);
		free(v->dirs[i]);
	}
	free(v);
}

static void add_dir(struct versions *v, const char *path)
{
	struct dir *d;

	for (size_t i = 0; i < v->n; i++)
		if (!strcmp(v->dirs[i]->path, path))
			return;
	d = v->n < DIRS_MAX ? calloc(1, sizeof(*d)) : NULL;
	if (!d)
		return;
	snprintf(d->path, sizeof(d->path), "%s", path);
	v->dirs[v->n++] = d;
}

static json_t *row_json(const struct dir *d, const Icp__Manifest *m)
{
	const Icp__Job *job = m->job;
	const Icp__Process *root = m->n_processes ? m->processes[0] : NULL;
	uint64_t threads = 0;

	for (size_t i = 0; i < m->n_processes; i++)
		threads += m->processes[i]->n_threads;
	return json_pack(
		"{s:o, s:i, s:i, s:s, s:f, s:i, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:f, s:f, "
		"s:o, s:b}",
		"dir", json_name(d->path), "version", (int)m->version, "parent", (int)m->parent,
		"type", (job ? job->incremental : m->parent != 0) ? "incremental" : "full",
		"time", (double)m->time_ns / 1e9, "job",
		job && job->n_roots ? (int)job->roots[0]
		: root		    ? (int)root->pid
				    : 0,
		"comm", json_name(root && root->comm ? root->comm : ""), "label",
		json_name(job && job->label ? job->label : ""), "processes",
		(json_int_t)m->n_processes, "threads", (json_int_t)threads, "pages",
		(json_int_t)(job ? job->pages : 0), "zero_pages",
		(json_int_t)(job ? job->zero_pages : 0), "bytes",
		(json_int_t)(job ? job->bytes_written : 0), "pause_s",
		job ? (double)job->pause_ns / 1e9 : 0.0, "total_s",
		job ? (double)job->total_ns / 1e9 : 0.0, "found_by",
		json_name(job && job->found_by ? job->found_by : ""), "live", 0);
}

static json_t *known_row(const struct dir *d, uint32_t number)
{
	vec_each (r, &d->rows)
		if (r->number == number)
			return json_incref(r->json);
	return NULL;
}

/* What the directory holds now; of it only what is new is read. A repository that can't be read is left out. */
static void refresh(struct dir *d)
{
	_cleanup_repo_ struct repo *repo = NULL;
	_cleanup_free_ uint32_t *numbers = NULL;
	struct dir old = *d;
	size_t n = 0;

	if (repo_open(d->path, REPO_READ, &repo) || repo_committed(repo, &numbers, &n)) {
		err_clear();
		return;
	}
	if (memcmp(old.id, repo->record.id, sizeof(old.id))) {
		forget_rows(d);
		old = *d;
		memcpy(d->id, repo->record.id, sizeof(d->id));
	}
	memset(&d->rows, 0, sizeof(d->rows));
	for (size_t i = n > ROWS_MAX ? n - ROWS_MAX : 0; i < n; i++) {
		_cleanup_manifest_ Icp__Manifest *m = NULL;
		json_t *json = known_row(&old, numbers[i]);
		struct row *slot;

		if (!json && repo_manifest(repo, numbers[i], &m)) {
			err_clear(); /* damaged, or pruned in this moment */
			continue;
		}
		if (!json)
			json = row_json(d, m);
		slot = json ? vec_push(&d->rows) : NULL;
		if (slot)
			*slot = (struct row){numbers[i], json};
		else
			json_decref(json);
	}
	forget_rows(&old);
}

static const char *string_of(const json_t *row, const char *key)
{
	const char *text = json_string_value(json_object_get(row, key));

	return text ? text : "";
}

static bool has_version(const json_t *list, size_t n, const json_t *row)
{
	for (size_t i = 0; i < n; i++) {
		const json_t *have = json_array_get(list, i);

		if (json_integer_value(json_object_get(have, "version")) ==
			    json_integer_value(json_object_get(row, "version")) &&
		    !strcmp(string_of(have, "dir"), string_of(row, "dir")))
			return true;
	}
	return false;
}

static int by_time(const void *a, const void *b)
{
	double x = json_real_value(json_object_get(*(json_t *const *)a, "time")),
	       y = json_real_value(json_object_get(*(json_t *const *)b, "time"));

	return (x > y) - (x < y);
}

/* The newest @limit, oldest first; @list is given away. */
static json_t *sorted(json_t *list, size_t limit)
{
	size_t n = json_array_size(list);
	json_t **rows = calloc(n + 1, sizeof(*rows)), *out = json_array();

	for (size_t i = 0; rows && i < n; i++)
		rows[i] = json_array_get(list, i);
	if (rows && n)
		qsort(rows, n, sizeof(*rows), by_time);
	for (size_t i = n > limit ? n - limit : 0; rows && i < n; i++)
		json_array_append(out, rows[i]);
	free(rows);
	json_decref(list);
	return out;
}

static json_t *running(struct session *s)
{
	const struct dump_progress *progress = session_progress(s);
	pid_t job = session_cutting(s);
	const char *phase = progress->phase;

	return job ? json_pack("{s:i, s:s, s:I, s:I}", "job", (int)job, "phase",
			       phase ? phase : "", "pages_done",
			       (json_int_t)progress->pages_done, "pages_to_do",
			       (json_int_t)progress->pages_to_do)
		   : NULL;
}

json_t *versions_json(struct versions *v, struct model *m, struct session *s, size_t limit)
{
	json_t *list = json_array(), *failures = json_array();
	size_t live;

	pthread_mutex_lock(&m->lock);
	for (size_t i = 0; i < m->n_dirs; i++)
		add_dir(v, m->dirs[i]);
	vec_each (cut, &m->cuts) {
		json_array_append_new(cut->err ? failures : list, api_cut(cut));
		if (!cut->err)
			add_dir(v, cut->dir);
	}
	pthread_mutex_unlock(&m->lock);
	live = json_array_size(list);
	for (size_t i = 0; i < v->n; i++) {
		refresh(v->dirs[i]);
		vec_each (r, &v->dirs[i]->rows)
			if (!has_version(list, live, r->json))
				json_array_append(list, r->json);
	}
	return json_pack("{s:o, s:o, s:o?}", "versions", sorted(list, limit), "failures",
			 failures, "running", running(s));
}
