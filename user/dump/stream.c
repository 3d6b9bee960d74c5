// SPDX-License-Identifier: GPL-2.0
#include "base/page.h"
#include "dump/internal.h"

/* The control structure of the parent version, or an empty one, and a page file for what is new. */
int stream_open(struct dump *d, struct stream *s, uint32_t id, uint32_t parent_id,
		struct ctl **owned)
{
	int err = 0;

	s->id = id;
	if (parent_id == id && !d->config.full && owned && *owned &&
	    ctl_version(*owned) == d->config.parent)
		s->ctl = take_ptr(*owned);
	else if (parent_id && !d->config.full)
		err = repo_ctl(d->config.repo, d->config.parent, parent_id, &s->ctl);
	else
		err = ctl_new(id, (uint32_t)page_size(), &s->ctl);
	if (!err && ctl_stream(s->ctl) != id)
		ctl_move(s->ctl, id);
	return err ? err : txn_pages(d->txn, id, &s->writer);
}

void stream_close(struct dump *d, struct stream *s)
{
	if (s->writer)
		ignore_failure(txn_pages_end(d->txn, s->writer, true));
	s->writer = NULL;
	ctl_free(s->ctl);
	dirty_free(&s->todo);
	dirty_free(&s->round);
	dirty_free(&s->put_off);
	dirty_free(&s->populated);
	dirty_free(&s->last);
	dirty_free(&s->compare);
}
