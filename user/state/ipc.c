// SPDX-License-Identifier: GPL-2.0
/* System V segments: once per job. */
#include "proc/sysvshm.h"
#include "state/state.h"

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
