// SPDX-License-Identifier: GPL-2.0
#include "obs/sample.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const unsigned window_seconds[WINDOWS] = {1, 10, 60};

void process_sample_clear(struct process_sample *p)
{
	vec_each (segment, &p->segments)
		vec_free(&segment->pids);
	vec_free(&p->vmas);
	vec_free(&p->segments);
	vec_free(&p->writers);
}

void sample_clear(struct sample *s)
{
	vec_each (p, &s->processes)
		process_sample_clear(p);
	vec_free(&s->processes);
}

int process_sample_copy(const struct process_sample *from, struct process_sample *out)
{
	*out = *from;
	memset(&out->vmas, 0, sizeof(out->vmas));
	memset(&out->segments, 0, sizeof(out->segments));
	memset(&out->writers, 0, sizeof(out->writers));
	if (vec_reserve(&out->vmas, from->vmas.n) ||
	    vec_reserve(&out->segments, from->segments.n) ||
	    vec_reserve(&out->writers, from->writers.n)) {
		process_sample_clear(out);
		return fail(-ENOMEM, "sample");
	}
	vec_each (v, &from->vmas)
		out->vmas.data[out->vmas.n++] = *v;
	vec_each (w, &from->writers)
		out->writers.data[out->writers.n++] = *w;
	vec_each (s, &from->segments) {
		struct segment_stat *copy = &out->segments.data[out->segments.n++];

		*copy = *s;
		memset(&copy->pids, 0, sizeof(copy->pids));
	}
	return 0;
}

void free_summary(struct summary *s)
{
	vec_free(&s->processes);
}
