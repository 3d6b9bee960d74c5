// SPDX-License-Identifier: GPL-2.0
/* The phases of a checkpoint up to the freeze; collect.c has the pause, finish.c what follows it. */
#include "dump/internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/page.h"

#define ROUNDS_MAX 8
#define SPARE_PAGES 512 /* room for what is written up to the freeze */
#define FEW_PAGES 128	/* what is left to copy in the pause, at most, when the job lets us */

int dump_open(const struct dump_config *config, struct dump **out)
{
	_cleanup_dump_ struct dump *d = calloc(1, sizeof(*d));
	struct txn_config txn = {
		.parent = config->parent, .codec = config->codec, .dedup = config->dedup};
	int err = 0;

	if (!d)
		return fail(-ENOMEM, "checkpoint");
	d->config = *config;
	d->start_ns = now_ns();
	d->start_time = time(NULL);
	d->config.progress->phase = "begin";
	if (config->parent)
		err = repo_manifest(config->repo, config->parent, &d->parent);
	if (!err)
		err = state_job_new(&d->state);
	if (!err)
		err = txn_begin(config->repo, &txn, &d->txn);
	if (!err)
		err = describe_job(d);
	if (err)
		return err;
	state_job_set(d->state, &(struct state_job_how){.kill = config->kill,
							.tcp_close = config->tcp_close,
							.no_restart = config->no_restart,
							.ipc_unused = config->ipc_unused,

							.asker = config->asker});
	d->result.version = txn_version(d->txn);
	d->result.parent = config->parent;
	*out = take_ptr(d);
	return 0;
}

static int open_proc(struct dump *d, struct dump_proc *p)
{
	const Icp__Process *old = parent_process(d, p->src.target);
	int err = source_open(&p->source, p->src.target);

	if (!err)
		err = stream_open(d, &p->stream, (uint32_t)p->src.target->pid,
				  old ? old->pid : 0, p->src.ctl);
	if (!err)
		err = maps_read(p->src.target, &p->maps);
	if (err)
		return err;
	if (d->config.events && events_counters(d->config.events, p->src.target->pid, &p->seen))
		p->seen = (struct icp_counters){0}; /* not followed yet */
	d->result.incremental |= old && !d->config.full;
	p->stream.compare_all =
		d->config.full || !old || p->src.since_version != d->config.parent;
	return describe_begin(d, p);
}

int dump_add(struct dump *d, const struct dump_source *source)
{
	struct dump_proc *p, **slot = vec_push(&d->procs);
	int err;

	if (!slot)
		return fail(-ENOMEM, "pid %d", source->target->pid);
	p = *slot = calloc(1, sizeof(*p));
	if (!p) {
		d->procs.n--;
		return fail(-ENOMEM, "pid %d", source->target->pid);
	}
	p->src = *source;
	p->source.file_fd = p->source.mem_fd = -1;
	err = open_proc(d, p);
	if (err == -ESRCH && target_ended(source->target)) {
		err_clear();
		p->gone = true;
		return 0;
	}
	d->precopied = false;
	return err ? wrap(err, "dump pid %d", source->target->pid) : 0;
}

/* Before anything else is done with a set: whatever happens to this version, it is not forgotten. */
int proc_taken(struct dump_proc *p, const struct dirty *set)
{
	int err = dirty_join(p->src.since, set);

	return err || !p->src.taken ? err : dirty_join(p->src.taken, set);
}

/* A take that failed half-way has armed what it found: that is not forgotten either. */
static int taken(struct dump_proc *p, int err, const struct dirty *set)
{
	int joined = proc_taken(p, set);

	return err ? err : joined;
}

/*
 * Somebody who writes into the memory of another (process_vm_writev, ptrace, /proc/PID/mem) has the page marked first and writes then:
 * a take in between, and a copy, come too early. Did anybody hold the lock at the take, or have it since the one before?
 */
static bool written_meanwhile(const struct dump *d, const struct dump_proc *p,
			      const struct icp_counters *before)
{
	struct icp_counters now;

	if (!d->config.events || events_missing(d->config.events) & EVENTS_NO_GUARD ||
	    events_counters(d->config.events, p->src.target->pid, &now))
		return false;
	return now.hard_locks != before->hard_locks ||
	       p->seen.readers_in != p->seen.readers_out;
}

/* The set of one round, into `since` before anything else. */
static int take_running(struct dump *d, struct dump_proc *p)
{
	_cleanup_(dirty_free) struct dirty fresh = {0};
	struct icp_counters before = {0};
	int err = 0;

	if (d->config.events) {
		err = events_drain(d->config.events, d->config.batch);
		p->batch_mark = d->config.batch->faults.n;
		p->change_mark = d->config.batch->changes.n;
		p->in_flight.n = 0;
		if (!err)
			err = events_last_faults(d->config.events, p->src.target->pid,
						 &p->in_flight);
		before = p->seen;
		if (!err && events_counters(d->config.events, p->src.target->pid, &p->seen))
			memset(&p->seen, 0xff, sizeof(p->seen)); /* not followed: never exact */
	}
	maps_free(&p->maps);
	if (!err)
		err = maps_read(p->src.target, &p->maps);
	if (!err)
		err = taken(p, tracker_take(p->src.tracker, &p->maps, &fresh), &fresh);
	if (!err && written_meanwhile(d, p, &before))
		err = dirty_join(&p->suspect, &fresh);
	if (!err)
		err = segments_find(d);
	return err ? err : route_dirty(d, p, &fresh, false);
}

/* Ended: it is not part of the version. Another memory (execve): the caller starts again with a new tracker. */
static int lost(struct dump_proc *p, int err)
{
	if (err != -ESRCH)
		return err;
	if (!target_ended(p->src.target))
		return target_executed(p->src.target);
	err_clear();
	p->gone = true;
	return 0;
}

/* What the first round copies beside the fresh set: everything, or what was dirty since the parent version. */
static int first_round(struct dump *d, struct dump_proc *p)
{
	_cleanup_(dirty_free) struct dirty all = {0};
	int err;

	if (p->stream.compare_all) {
		err = populated_private(p, &all, NULL);
		return err ? err : dirty_join(&p->stream.todo, &all);
	}
	err = dirty_join(&all, p->src.since);
	p->stream.todo.n = 0;
	return err ? err : route_dirty(d, p, &all, false);
}

/* Memory that others may write unseen, and that is saved with the process: all of it is compared. */
static int add_shared(struct dump_proc *p)
{
	_cleanup_(dirty_free) struct dirty shared = {0};
	int err = 0;

	vec_each (v, &p->maps) {
		if (!err && vma_by_file(p, v))
			err = populated_shared(p, v, &shared);
	}
	return err ? err : dirty_join(&p->stream.todo, &shared);
}

static int first_rounds_of(struct dump *d, struct dump_proc *p)
{
	int err;

	p->stream.put_off.n = 0; /* of an attempt that ended with a thaw: `since` has it */
	err = take_running(d, p);
	if (!err)
		err = first_round(d, p);
	if (!err)
		err = add_shared(p);
	return lost(p, err);
}

static int first_rounds(struct dump *d)
{
	int err = 0;

	for (size_t i = 0; !err && i < d->procs.n; i++)
		if (!d->procs.data[i]->gone)
			err = first_rounds_of(d, d->procs.data[i]);
	if (!err)
		err = segments_find_detached(d);
	if (!err)
		err = segments_known(d);
	for (size_t i = 0; !err && i < d->segments.n; i++) {
		struct dump_segment *s = d->segments.data[i];

		if (s->stream.compare_all)
			err = populated_segment(s, &s->stream.todo);
		s->fresh = false;
	}
	return err ? err : contents_begin(d);
}

static uint64_t todo_pages(const struct dump *d)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < d->procs.n; i++)
		pages += dirty_pages(&d->procs.data[i]->stream.todo);
	for (size_t i = 0; i < d->segments.n; i++)
		pages += dirty_pages(&d->segments.data[i]->stream.todo);
	vec_each (c, &d->contents)
		pages += dirty_pages(&(*c)->stream.todo);
	return pages;
}

static void round_over(struct stream *s)
{
	struct dirty copied = s->todo;

	s->todo = s->round;
	s->todo.n = 0;
	s->round = copied;
}

/* Copy what is to do and forget it. */
static int copy_todo(struct dump *d)
{
	int err = 0;

	d->config.progress->pages_to_do += todo_pages(d);
	for (size_t i = 0; !err && i < d->procs.n; i++) {
		struct dump_proc *p = d->procs.data[i];

		if (!p->gone)
			err = lost(p, copy_runs(d, &p->source, &p->stream, &p->stream.todo));
		round_over(&p->stream);
	}
	for (size_t i = 0; !err && i < d->segments.n; i++) {
		struct dump_segment *s = d->segments.data[i];

		err = copy_runs(d, &s->source, &s->stream, &s->stream.todo);
		round_over(&s->stream);
	}
	for (size_t i = 0; !err && i < d->contents.n; i++) {
		struct dump_content *c = d->contents.data[i];

		err = copy_runs(d, &c->source, &c->stream, &c->stream.todo);
		c->stream.todo.n = 0;
	}
	return err;
}

static int next_round(struct dump *d)
{
	int err = 0;

	for (size_t i = 0; !err && i < d->procs.n; i++)
		if (!d->procs.data[i]->gone)
			err = lost(d->procs.data[i], take_running(d, d->procs.data[i]));
	return err ? err : segments_new(d);
}

static int look_ahead(struct dump *d, struct dump_proc *p)
{
	int err = populated_of(p, &p->stream.populated, &p->stream.compare);

	/* without events the pause would not believe it */
	return err || !d->config.events ? err : state_look_ahead(&p->state, &p->maps);
}

/* What is populated now, and which pages are guards; the pause looks again only where events don't explain everything since the last take. */
static int note_populated(struct dump *d)
{
	int err = 0;

	for (size_t i = 0; !err && i < d->procs.n; i++) {
		struct dump_proc *p = d->procs.data[i];

		if (!p->gone)
			err = lost(p, look_ahead(d, p));
	}
	if (!err && d->config.events)
		err = events_drain(d->config.events, d->config.batch);
	d->populated_mark = d->config.batch->faults.n;
	return err ? err : segments_populated(d);
}

int cancelled(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (p.fd < 0 || poll(&p, 1, 0) <= 0)
		return 0;
	return refuse(-EINTR, "interrupted: there is no new version, the job runs on");
}

/* What no process of the job can tell for itself. */
static int check_job(struct dump *d)
{
	_cleanup_(free_pids) pid_list pids = {0};

	vec_each (p, &d->procs) {
		pid_t *slot = vec_push(&pids);

		if (!slot)
			return fail(-ENOMEM, "list the job");
		*slot = (*p)->src.target->pid;
	}
	return d->config.no_restart ? 0 : check_trees(d->state, &pids, d->config.cancel_fd);
}

/* What is to do that was copied just now: how much, all streams together. */
static uint64_t again_pages(const struct dump *d)
{
	uint64_t pages = 0;

	for (size_t i = 0; i < d->procs.n; i++)
		pages += dirty_common(&d->procs.data[i]->stream.todo,
				      &d->procs.data[i]->stream.round);
	for (size_t i = 0; i < d->segments.n; i++)
		pages += dirty_common(&d->segments.data[i]->stream.todo,
				      &d->segments.data[i]->stream.round);
	return pages;
}

/* @pages: counts those that stay for the pause. */
static int put_off_stream(struct stream *s, uint64_t *pages)
{
	_cleanup_(dirty_free) struct dirty others = {0};
	int err = dirty_join(&others, &s->todo);

	if (!err)
		err = dirty_subtract(&others, &s->round);
	if (!err)
		err = dirty_subtract(&s->todo, &others);
	if (!err)
		err = dirty_join(&s->put_off, &s->todo);
	*pages += dirty_pages(&s->put_off);
	s->todo.n = 0;
	return err ? err : dirty_join(&s->todo, &others);
}

/* The job writes its pages again as fast as they are copied: these are copied once, in the pause. */
static int put_off(struct dump *d, uint64_t *pages)
{
	int err = 0;

	for (size_t i = 0; !err && i < d->procs.n; i++)
		err = put_off_stream(&d->procs.data[i]->stream, pages);
	for (size_t i = 0; !err && i < d->segments.n; i++)
		err = put_off_stream(&d->segments.data[i]->stream, pages);
	return err;
}

/* Copies until little is left or most of what was copied is written again; @left: about how many pages are for the pause. */
static int copy_rounds(struct dump *d, uint64_t *left)
{
	bool test = getenv("ICP_PUT_OFF"); /* put off all that was written again */
	uint64_t few = test ? 0 : FEW_PAGES, put = 0;
	int err = 0;

	for (unsigned round = 0; !err && !put && round < ROUNDS_MAX; round++) {
		uint64_t copied = todo_pages(d), again;

		err = copy_todo(d);
		d->result.precopy_rounds += copied > 0;
		if (!err)
			err = next_round(d);
		if (err || copied <= few)
			break;
		again = again_pages(d);
		if (again > few && (test || again > copied - copied / 4))
			err = put_off(d, &put);
	}
	*left = put + todo_pages(d);
	return err ? err : copy_todo(d);
}

int dump_precopy(struct dump *d)
{
	uint64_t pages = 0;
	int err;

	d->config.progress->phase = "copy";
	err = check_job(d);
	if (!err)
		err = first_rounds(d);
	if (!err)
		err = copy_rounds(d, &pages);
	if (!err)
		err = note_populated(d);
	if (!err)
		err = staging_prepare(d, SPARE_PAGES + 2 * pages);
	for (size_t i = 0; !err && i < d->procs.n; i++)
		d->procs.data[i]->direct_io =
			!d->procs.data[i]->gone && proc_uses_direct_io(d->procs.data[i]);
	d->precopied = !err;
	return err;
}

int dump_add_frozen(struct dump *d, const struct dump_source *source)
{
	struct dump_proc *p;
	int err = dump_add(d, source);

	p = err ? NULL : d->procs.data[d->procs.n - 1];
	if (err || p->gone)
		return err;
	err = first_rounds_of(d, p);
	if (!err && !p->gone) /* into memory, with what the others wrote last */
		err = dirty_join(&p->stream.last, &p->stream.todo);
	p->stream.todo.n = 0;
	if (!err && !p->gone)
		err = populated_of(p, &p->stream.populated, &p->stream.compare);
	return err ? wrap(err, "dump pid %d", source->target->pid) : 0;
}

void dump_close(struct dump *d)
{
	if (!d)
		return;
	if (d->frozen)
		ignore_failure(warden_thaw(d->config.warden, NULL));
	for (size_t i = 0; i < d->procs.n; i++) {
		struct dump_proc *p = d->procs.data[i];

		stream_close(d, &p->stream);
		source_close(&p->source);
		maps_free(&p->maps);
		state_free_notes(&p->state);
		maps_free(&p->state.maps);
		free(p->state.threads);
		vec_free(&p->in_flight);
		dirty_free(&p->suspect);
		free(p);
	}
	for (size_t i = 0; i < d->segments.n; i++) {
		stream_close(d, &d->segments.data[i]->stream);
		source_close(&d->segments.data[i]->source);
		free(d->segments.data[i]);
	}
	contents_free(d);
	vec_free(&d->procs);
	vec_free(&d->segments);
	vec_free(&d->staging.list);
	if (d->staging.data)
		munmap(d->staging.data, d->staging.size);
	if (d->txn)
		txn_abort(d->txn);
	manifest_free(d->manifest);
	manifest_free(d->parent);
	state_job_free(d->state);
	free(d);
}
