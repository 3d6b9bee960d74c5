// SPDX-License-Identifier: GPL-2.0
/* Events as they came, for who records them. */
#include "session/internal.h"

#include <errno.h>
#include <string.h>

static int keep(void **data, size_t *n, size_t *cap, const void *more, size_t n_more,
		size_t size)
{
	if (!n_more)
		return 0;
	if (vec_grow(data, cap, *n + n_more, size))
		return fail(-ENOMEM, "events");
	memcpy((char *)*data + *n * size, more, n_more * size);
	*n += n_more;
	return 0;
}

#define KEEP(to, from)                                                                         \
	keep((void **)&(to)->data, &(to)->n, &(to)->cap, (from)->data, (from)->n,              \
	     sizeof(*(from)->data))

int session_keep_raw(struct session *s)
{
	int err;

	if (!s->config.raw)
		return 0;
	err = KEEP(&s->raw.faults, &s->batch.faults);
	if (!err)
		err = KEEP(&s->raw.changes, &s->batch.changes);
	return err ? err : KEEP(&s->raw.stacks, &s->batch.stacks);
}

struct event_batch *session_raw(struct session *s)
{
	return &s->raw;
}
