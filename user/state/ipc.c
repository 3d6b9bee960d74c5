// SPDX-License-Identifier: GPL-2.0
/* System V segments: once per job. */
#include <errno.h>
#include <stdlib.h>
#include <sys/shm.h>

#include "proc/sysvshm.h"
#include "state/restore.h"

void state_fill_segment(const struct sysvshm_segment *s, Icp__Segment *out)
{
	out->shmid = (uint32_t)s->shmid;
	out->key = (uint32_t)s->key;
	out->size = s->size;
	out->mode = s->mode;
	out->uid = s->uid;
	out->gid = s->gid;
	out->cuid = s->cuid;
	out->cgid = s->cgid;
	out->removed = s->removed;
}

struct restore_segments {
	struct made {
		int id;
		void *memory;
	} * list; /* as in the manifest */
	size_t n;
	bool ended;
};

int ipc_restore_new(struct restore_job *job)
{
	const Icp__Manifest *m = job->manifest;
	struct restore_segments *s = job->segments = calloc(1, sizeof(*s));

	if (s)
		s->list = calloc(m->n_segments + 1, sizeof(*s->list));
	if (!s || !s->list)
		return fail(-ENOMEM, "prepare segments");
	for (size_t i = 0; i < m->n_segments; i++) {
		const Icp__Segment *seg = m->segments[i];
		/* a removed one has lost its key */
		key_t key = seg->removed ? IPC_PRIVATE : (key_t)seg->key;
		int id = shmget(key, seg->size, IPC_CREAT | IPC_EXCL | 0600);
		void *at;

		if (id < 0 && errno == EEXIST)
			return refuse(-EEXIST, "a System V segment with key %#x exists already",
				      seg->key);
		if (id < 0)
			return fail(-errno, "make a segment of %llu bytes with key %#x",
				    (unsigned long long)seg->size, seg->key);
		s->list[s->n].id = id;
		s->list[s->n++].memory = NULL;
		at = shmat(id, NULL, 0);
		if (at == (void *)-1)
			return fail(-errno, "attach the segment with key %#x", seg->key);
		s->list[i].memory = at;
	}
	return 0;
}

int ipc_restored(const struct restore_job *job, uint32_t shmid, uint64_t *size)
{
	for (size_t i = 0; job->segments && i < job->segments->n; i++) {
		if (job->manifest->segments[i]->shmid != shmid)
			continue;
		*size = job->manifest->segments[i]->size;
		return job->segments->list[i].id;
	}
	return -1;
}

void *ipc_restore_memory(const struct restore_job *job, size_t i)
{
	return job->segments->list[i].memory;
}

int ipc_restore_end(struct restore_job *job)
{
	for (size_t i = 0; i < job->segments->n; i++) {
		const Icp__Segment *seg = job->manifest->segments[i];
		int id = job->segments->list[i].id;
		struct shmid_ds ds;

		if (shmctl(id, IPC_STAT, &ds))
			return fail(-errno, "look at the segment with key %#x", seg->key);
		ds.shm_perm.uid = seg->uid;
		ds.shm_perm.gid = seg->gid;
		ds.shm_perm.mode = seg->mode & 0777;
		if (shmctl(id, IPC_SET, &ds) || (seg->removed && shmctl(id, IPC_RMID, NULL)))
			return fail(-errno, "set the owner of the segment with key %#x",
				    seg->key);
	}
	job->segments->ended = true;
	return 0;
}

void ipc_restore_free(struct restore_job *job)
{
	struct restore_segments *s = job->segments;

	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++) {
		if (s->list[i].memory)
			shmdt(s->list[i].memory);
		if (!s->ended)
			shmctl(s->list[i].id, IPC_RMID, NULL);
	}
	free(s->list);
	free(s);
	job->segments = NULL;
}
