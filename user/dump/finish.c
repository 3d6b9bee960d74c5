// SPDX-License-Identifier: GPL-2.0
/* After the pause: the staged pages, the control structures, the manifest, the decision. */
#include "dump/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/page.h"

/*
 * Every page with content of its own must have an entry now. One that hasn't would come back as zeros: then there is no
 * version. (Pages that nobody can read, such as guard pages, hold nothing.)
 */
static int check_complete(const struct stream *s, const struct page_source *source)
{
	uint64_t page = page_size();

	vec_each (r, &s->populated) {
		if (r->what == DIRTY_ZAPPED)
			continue;
		for (uint64_t at = r->start; at < r->end;) {
			struct ctl_run run;
			uint64_t missing_end = r->end;
			bool found = ctl_next_run(s->ctl, at / page, UINT64_MAX, &run);
			char byte;

			if (found && run.page <= at / page) {
				at = (run.page + run.n) * page;
				continue;
			}
			if (found && run.page * page < missing_end)
				missing_end = run.page * page;
			for (; at < missing_end; at += page)
				if (source->file_fd < 0 &&
				    pread(source->mem_fd, &byte, 1, (off_t)at) == 1)
					return refuse(
						-EUCLEAN,
						"page %#lx was not copied: please report this",
						at);
		}
	}
	return 0;
}

int finish_stream(struct dump *d, struct stream *s, const struct page_source *source,
		  bool killed)
{
	const struct page_stats *stats;
	int err = stream_remove_others(s, &s->populated, &s->last);

	if (!err && !killed)
		err = check_complete(s, source);
	if (err)
		return err;
	stats = page_writer_stats(s->writer);
	d->result.pages += stats->stored + stats->shared + stats->zero;
	d->result.zero_pages += stats->zero;
	d->result.stale_pages += stats->stale;
	return txn_pages_end(d->txn, take_ptr(s->writer), false);
}

/* It ended and is no part of the version, but others may share pages that it was the first to have. */
int finish_gone(struct dump *d, struct stream *s)
{
	bool unused = s->writer && !page_writer_stats(s->writer)->stored;

	if (!s->writer)
		return 0;
	return txn_pages_end(d->txn, take_ptr(s->writer), unused);
}

int dump_write(struct dump *d)
{
	int err;

	d->config.progress->phase = "write";
	err = staging_store(d);
	for (size_t i = 0; !err && i < d->procs.n; i++) {
		struct dump_proc *p = d->procs.data[i];

		err = p->gone ? finish_gone(d, &p->stream)
			      : finish_stream(d, &p->stream, &p->source,
					      !target_alive(p->src.target));
		if (err)
			return wrap(err, "dump pid %d", p->src.target->pid);
	}
	for (size_t i = 0; !err && i < d->segments.n; i++)
		err = finish_stream(d, &d->segments.data[i]->stream,
				    &d->segments.data[i]->source, true);
	if (!err)
		err = contents_finish(d);
	/* after all page files: an entry may refer to another process's */
	for (size_t i = 0; !err && i < d->procs.n; i++)
		if (!d->procs.data[i]->gone)
			err = txn_ctl(d->txn, d->procs.data[i]->stream.ctl, d->config.full);
	for (size_t i = 0; !err && i < d->segments.n; i++)
		err = txn_ctl(d->txn, d->segments.data[i]->stream.ctl, d->config.full);
	return err ? err : contents_ctl(d);
}

static void fill_result(struct dump *d)
{
	bool compared = false;

	for (size_t i = 0; i < d->procs.n; i++) {
		struct dump_proc *p = d->procs.data[i];

		if (p->gone)
			continue;
		d->result.processes++;
		d->result.tracker = p->src.tracker->ops->name;
		compared |= p->stream.compare_all;
	}
	for (size_t i = 0; i < d->segments.n; i++)
		compared |= d->segments.data[i]->stream.compare_all;
	if (compared && d->result.incremental)
		d->result.found_by = "hash";
	d->result.total_ns = now_ns() - d->start_ns;
	d->result.bytes_written = txn_bytes(d->txn);
}

int dump_commit(struct dump *d, struct dump_result *out)
{
	bool durable;
	int err = 0;

	d->config.progress->phase = "commit";
	if (d->frozen) /* the job waits for us, and will not run on */
		d->result.pause_ns = now_ns() - d->frozen_ns;
	fill_result(d);
	err = describe_end(d);
	if (!err)
		err = txn_commit(take_ptr(d->txn), d->manifest);
	durable = err != -EUCLEAN;
	if (err && durable)
		return err;
	vec_each (p, &d->procs) {
		dirty_clear((*p)->src.since); /* it is in the version now */
		if ((*p)->src.smaps) /* what we did to it ourselves left the layout as it was */
			(*p)->src.smaps->write_locks += (*p)->state_locks;
		if ((*p)->src.ctl && !(*p)->gone) {
			ctl_free(*(*p)->src.ctl);
			*(*p)->src.ctl = take_ptr((*p)->stream.ctl);
		}
	}
	vec_each (s, &d->segments) {
		struct dump_segment_ctl *owned = segment_ctl(d, (*s)->shmid);

		if (owned) {
			ctl_free(owned->ctl);
			owned->ctl = take_ptr((*s)->stream.ctl);
			owned->times = segment_times(&(*s)->info);
		}
	}
	d->result.total_ns = now_ns() - d->start_ns;
	if (d->config.kill && state_held(d->state))
		snprintf(d->result.held, sizeof(d->result.held), "%s", state_held(d->state));
	*out = d->result;
	return durable ? 0
		       : fail(-EIO,
			      "version %u is written, but may not survive a power failure",
			      d->result.version);
}

int dump_end_job(struct dump *d, enum dump_release_how how)
{
	int err;

	if (!d->frozen || how == DUMP_THAW)
		return 0;
	d->frozen = false;
	err = how == DUMP_KILL ? warden_kill(d->config.warden)
			       : warden_leave_stopped(d->config.warden);
	if (!err && how == DUMP_KILL)
		state_job_killed(d->state);
	return err ? wrap(err, how == DUMP_KILL ? "end the job" : "leave the job stopped") : 0;
}
