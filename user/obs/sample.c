// SPDX-License-Identifier: GPL-2.0
#include "obs/sample.h"

#include <stdlib.h>

const unsigned window_seconds[WINDOWS] = {1, 10, 60};

void sample_clear(struct sample *s)
{
	vec_each (p, &s->processes) {
		vec_each (segment, &p->segments)
			vec_free(&segment->pids);
		vec_free(&p->vmas);
		vec_free(&p->segments);
		vec_free(&p->writers);
	}
	vec_free(&s->processes);
}

void free_summary(struct summary *s)
{
	vec_free(&s->processes);
}
