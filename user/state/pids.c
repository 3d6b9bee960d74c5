// SPDX-License-Identifier: GPL-2.0
/*
 * The pids of an image are those that its processes had where icp-bpf ran. A job in a pid
 * namespace knows itself by others, which it must come back under.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "state/kinds.h"
#include "state/regs.pb-c.h"
#include "state/restore.h"
#include "state/timers.pb-c.h"

#define REGS_VERSION 1
#define TIMERS_VERSION 1

struct pair {
	uint32_t outer, inner;
};

struct pid_table {
	struct pair *data;
	size_t n, cap;
};

static void free_table(struct pid_table *t)
{
	vec_free(t);
}

/* 0: nobody of the job. */
static uint32_t inner(const struct pid_table *t, uint32_t outer)
{
	vec_each (p, t)
		if (p->outer == outer)
			return p->inner;
	return 0;
}

static int add(struct pid_table *t, uint32_t outer, const uint32_t *pids, size_t n)
{
	struct pair *p = vec_push(t);

	if (!p)
		return fail(-ENOMEM, "translate pids");
	if (!n || !pids[n - 1] || pids[n - 1] > INT32_MAX)
		return refuse(-EBADMSG, "the image does not say what pid %u knows itself by",
			      outer);
	*p = (struct pair){outer, pids[n - 1]};
	return 0;
}

static int add_threads(struct pid_table *t, const Icp__Process *p)
{
	int err = 0;

	for (size_t i = 0; i < p->n_threads && !err; i++) {
		const Icp__Thread *thread = p->threads[i];
		Icp__ThreadState *msg;

		if (thread->tid == p->pid)
			continue;
		err = restore_unpack(thread->blobs, thread->n_blobs, "regs", REGS_VERSION,
				     &icp__thread_state__descriptor, &msg);
		if (err)
			break;
		err = add(t, thread->tid, msg->nspids, msg->n_nspids);
		icp__thread_state__free_unpacked(msg, NULL);
	}
	return err;
}

/* The threads that timers signal. */
static int translate_timers(const struct pid_table *t, Icp__Process *p)
{
	Icp__StateBlob *blob = NULL;
	Icp__TimerState *msg;
	uint8_t *data;
	int err;

	for (size_t i = 0; i < p->n_blobs; i++)
		if (!strcmp(p->blobs[i]->kind, "timers"))
			blob = p->blobs[i];
	if (!blob)
		return 0;
	err = restore_unpack(p->blobs, p->n_blobs, "timers", TIMERS_VERSION,
			     &icp__timer_state__descriptor, &msg);
	if (err)
		return err;
	for (size_t i = 0; i < msg->n_timers; i++)
		if (msg->timers[i]->tid)
			msg->timers[i]->tid = inner(t, msg->timers[i]->tid);
	data = malloc(icp__timer_state__get_packed_size(msg) + 1);
	if (data) {
		free(blob->data.data);
		blob->data.data = data;
		blob->data.len = icp__timer_state__pack(msg, data);
	}
	icp__timer_state__free_unpacked(msg, NULL);
	return data ? 0 : fail(-ENOMEM, "translate pids");
}

static int translate(const struct pid_table *t, Icp__Process *p)
{
	int err = translate_timers(t, p);

	p->ppid = inner(t, p->ppid);
	p->pgid = inner(t, p->pgid);
	p->sid = inner(t, p->sid);
	for (size_t i = 0; i < p->n_threads; i++)
		p->threads[i]->tid = inner(t, p->threads[i]->tid);
	p->pid = inner(t, p->pid);
	return err;
}

static int check_depth(const Icp__Manifest *m, bool apart, bool *inside)
{
	*inside = m->n_processes && m->processes[0]->n_nspids > 1;
	for (size_t i = 0; i < m->n_processes; i++) {
		const Icp__Process *p = m->processes[i];

		if ((p->n_nspids > 1) != *inside)
			return refuse(-EOPNOTSUPP, "its processes are in different pid "
						   "namespaces, which can't be restarted");
	}
	if (*inside && !apart)
		return refuse(-EINVAL,
			      "it was in a pid namespace, and knows itself by the pids there: "
			      "restart it with --new-pid-namespace");
	return 0;
}

int pids_translate(Icp__Manifest *m, bool apart)
{
	_cleanup_(free_table) struct pid_table t = {0};
	bool inside = false;
	int err = check_depth(m, apart, &inside);

	for (size_t i = 0; inside && i < m->n_processes && !err; i++) {
		const Icp__Process *p = m->processes[i];

		err = add(&t, p->pid, p->nspids, p->n_nspids);
		if (!err)
			err = add_threads(&t, p);
	}
	for (size_t i = 0; inside && i < m->n_processes && !err; i++)
		err = translate(&t, m->processes[i]);
	for (size_t i = 0; apart && i < m->n_processes && !err; i++)
		if (m->processes[i]->pid == 1)
			err = refuse(-EOPNOTSUPP,
				     "the init of its pid namespace is part of it, "
				     "which can't be restarted: checkpoint what runs "
				     "under it");
	return err;
}

uint32_t pids_highest(const Icp__Manifest *m)
{
	uint32_t highest = 0;

	for (size_t i = 0; i < m->n_processes; i++) {
		const Icp__Process *p = m->processes[i];

		highest = p->pid > highest ? p->pid : highest;
		for (size_t k = 0; k < p->n_threads; k++)
			highest = p->threads[k]->tid > highest ? p->threads[k]->tid : highest;
	}
	return highest;
}
