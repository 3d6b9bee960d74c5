// SPDX-License-Identifier: GPL-2.0
/* What other sessions of this machine see: their last samples, over their control sockets. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "obs/json.h"
#include "obs/sample_json.h"
#include "session/checkpoint.h"
#include "session/control_priv.h"
#include "session/look.h"

/* A session that is cutting a checkpoint answers no one: it is left alone for a while. */
#define LOOK_MS 400
#define PAUSE_NS 3000000000u

static bool is_sampled(const struct session *s, pid_t pid)
{
	vec_each (p, &s->last.processes)
		if (p->pid == pid)
			return true;
	return false;
}

int session_note_sample(struct session *s, const struct sample *sample)
{
	if (!s->control)
		return 0;
	sample_clear(&s->last);
	s->last.index = sample->index;
	s->last.time = sample->time;
	vec_each (p, &sample->processes) {
		struct process_sample *copy = vec_push(&s->last.processes);

		if (!copy)
			return fail(-ENOMEM, "sample");
		if (process_sample_copy(p, copy))
			return -ENOMEM;
	}
	return 0;
}

json_t *control_answer_look(const struct session *s, const json_t *request)
{
	pid_t wanted = (pid_t)json_integer_value(json_object_get(request, "pid"));
	json_t *list = json_array();

	vec_each (p, &s->last.processes)
		json_array_append_new(list, process_sample_json(p, p->pid == wanted));
	/* those that no sample has seen yet, or that only checkpoints follow */
	vec_each (p, &s->processes) {
		pid_t pid = (*p)->target->pid;

		if (!(*p)->ended && !is_sampled(s, pid))
			json_array_append_new(list, json_pack("{s:i, s:o}", "pid", pid, "comm",
							      json_name((*p)->target->comm)));
	}
	return json_pack("{s:b, s:b, s:i, s:f, s:I, s:o}", "ok", 1, "checkpoints",
			 s->config.checkpoints, "index", (int)s->last.index, "time",
			 s->last.time, "page_size", (json_int_t)s->info.page_size, "processes",
			 list);
}

/* ---- the other side ---- */

static int take_process(struct looks *l, json_t *json, pid_t session, unsigned index)
{
	struct look_process *p = vec_push(&l->processes);
	int err;

	if (!p)
		return fail(-ENOMEM, "sessions");
	err = process_sample_parse(json, &p->sample);
	p->session = session;
	p->index = p->sample.interval_s > 0 ? index : 0;
	if (err == -EINVAL) {
		l->processes.n--;
		return 0;
	}
	return err ? fail(err, "sessions") : 0;
}

static struct look_pause *pause_of(struct looks *l, pid_t session)
{
	struct look_pause *free_slot = NULL;

	vec_each (p, &l->pauses) {
		if (p->session == session)
			return p;
		if (p->until_ns < now_ns())
			free_slot = p;
	}
	if (!free_slot)
		free_slot = vec_push(&l->pauses);
	if (free_slot)
		*free_slot = (struct look_pause){.session = session};
	return free_slot;
}

static int look_at(struct looks *l, const char *name, pid_t detail)
{
	pid_t session = (pid_t)atoi(name);
	struct look_pause *pause = pause_of(l, session);
	json_t *said, *each;
	int err = 0;
	size_t i;

	if (!pause)
		return fail(-ENOMEM, "sessions");
	if (session == getpid() || pause->until_ns > now_ns())
		return 0;
	said = control_ask(name, json_pack("{s:s, s:i}", "op", "look", "pid", (int)detail),
			   LOOK_MS);
	pause->until_ns = said ? 0 : now_ns() + PAUSE_NS;
	l->sessions += said != NULL;
	json_array_foreach(json_object_get(said, "processes"), i, each)
	{
		if (!err)
			err = take_process(
				l, each, session,
				(unsigned)json_integer_value(json_object_get(said, "index")));
	}
	json_decref(said);
	return err;
}

static void forget(struct looks *l)
{
	vec_each (p, &l->processes)
		process_sample_clear(&p->sample);
	l->processes.n = 0;
	l->sessions = 0;
}

int control_look(struct looks *l, pid_t detail)
{
	_cleanup_dir_ DIR *dir = opendir(RUN_DIR);
	int err = 0;

	forget(l);
	for (struct dirent *entry; dir && !err && (entry = readdir(dir));)
		if (control_is_socket(entry->d_name))
			err = look_at(l, entry->d_name, detail);
	return err;
}

void looks_free(struct looks *l)
{
	forget(l);
	vec_free(&l->processes);
	vec_free(&l->pauses);
}
