// SPDX-License-Identifier: GPL-2.0
/*
 * Some processes of a version only: those that were asked for, with their descendants. The others are taken out of the
 * manifest before anything else looks at it. What ties both together and would come back as a copy of its own is refused:
 * only System V segments are found again by a later restart.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "restore/internal.h"
#include "state/files.h"

static size_t index_of(const Icp__Manifest *m, uint32_t pid)
{
	for (size_t i = 0; i < m->n_processes; i++)
		if (m->processes[i]->pid == pid)
			return i;
	return SIZE_MAX;
}

static bool is_below(const Icp__Manifest *m, size_t i, uint32_t pid)
{
	/* as many steps as there are processes: an image may claim a ring */
	for (size_t steps = 0; i != SIZE_MAX && steps <= m->n_processes; steps++) {
		if (m->processes[i]->pid == pid)
			return true;
		i = index_of(m, m->processes[i]->ppid);
	}
	return false;
}

static int mark(const struct restore *r, bool *kept)
{
	const Icp__Manifest *m = r->manifest;

	for (size_t k = 0; k < r->config->n_pids; k++) {
		uint32_t pid = (uint32_t)r->config->pids[k];

		if (index_of(m, pid) == SIZE_MAX)
			return refuse(-ESRCH, "pid %u is not in version %u", pid,
				      r->result->version);
		for (size_t i = 0; i < m->n_processes; i++)
			kept[i] |= is_below(m, i, pid);
	}
	return 0;
}

static bool same_memory(const Icp__Vma *a, const Icp__Vma *b)
{
	return a->inode == b->inode && a->dev_major == b->dev_major &&
	       a->dev_minor == b->dev_minor;
}

static int check_memory(const Icp__Process *p, const Icp__Process *other)
{
	for (size_t i = 0; i < p->n_vmas; i++) {
		const Icp__Vma *v = p->vmas[i];

		for (size_t k = 0; restore_is_object(v) && k < other->n_vmas; k++)
			if (restore_is_object(other->vmas[k]) && same_memory(v, other->vmas[k]))
				return refuse(
					-EOPNOTSUPP,
					"pid %u shares memory (%s at %#llx) with pid %u: they "
					"can only be restarted together",
					p->pid, v->path, (unsigned long long)v->start,
					other->pid);
	}
	return 0;
}

static int check_ties(const Icp__Manifest *m, const bool *kept)
{
	int err = 0;

	for (size_t i = 0; i < m->n_processes; i++)
		for (size_t k = 0; kept[i] && k < m->n_processes && !err; k++)
			if (!kept[k])
				err = check_memory(m->processes[i], m->processes[k]);
	return err ? err : files_check_shared(m, kept);
}

static bool attaches(const Icp__Process *p, uint32_t shmid)
{
	for (size_t i = 0; i < p->n_vmas; i++)
		if (p->vmas[i]->kind == VMA_SHM + 1 && p->vmas[i]->shmid == shmid)
			return true;
	return false;
}

/* Those that only others attach. One that nobody attaches may be anybody's. */
static void drop_segments(Icp__Manifest *m, const bool *kept)
{
	size_t n = 0;

	for (size_t s = 0; s < m->n_segments; s++) {
		Icp__Segment *seg = m->segments[s];
		bool ours = false, others = false;

		for (size_t i = 0; i < m->n_processes; i++)
			if (attaches(m->processes[i], seg->shmid)) {
				ours |= kept[i];
				others |= !kept[i];
			}
		if (ours || !others)
			m->segments[n++] = seg;
		else
			icp__segment__free_unpacked(seg, NULL);
	}
	m->n_segments = n;
}

static void drop_processes(Icp__Manifest *m, const bool *kept)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_processes; i++) {
		if (kept[i])
			m->processes[n++] = m->processes[i];
		else
			icp__process__free_unpacked(m->processes[i], NULL);
	}
	m->n_processes = n;
}

int choose_processes(struct restore *r)
{
	Icp__Manifest *m = r->manifest;
	_cleanup_free_ bool *kept = calloc(m->n_processes + 1, sizeof(*kept));
	int err;

	if (!r->config->n_pids)
		return 0;
	if (!kept)
		return fail(-ENOMEM, "choose processes");
	err = mark(r, kept);
	if (!err)
		err = check_ties(m, kept);
	if (err)
		return err;
	drop_segments(m, kept);
	drop_processes(m, kept);
	return 0;
}
