// SPDX-License-Identifier: GPL-2.0
/*
 * The pause:
 *
 *     freeze -> registers and other state -> last dirty sets -> copy those pages to staging memory -> release
 *
 * Nothing here writes to storage. With events that explain everything since the last take only the pages that they name are
 * looked at; otherwise all page tables are scanned.
 */
#include "dump/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/page.h"

#define HUGE (2u << 20)

static struct dump_proc *find_proc(struct dump *d, pid_t pid)
{
	vec_each (p, &d->procs)
		if ((*p)->src.target->pid == pid && !(*p)->gone)
			return *p;
	return NULL;
}

/* Sort the frozen threads to their processes; those of strangers are listed. */
static int sort_threads(struct dump *d, const struct warden_thread *threads, size_t n,
			pid_list *strangers)
{
	for (size_t i = 0; i < d->procs.n; i++)
		d->procs.data[i]->state.n_threads = 0;
	d->result.threads = n;
	for (size_t i = 0; i < n; i++) {
		struct dump_proc *p = find_proc(d, threads[i].pid);
		struct warden_thread *grown;
		pid_t *slot;

		if (!p) {
			if (strangers->n && strangers->data[strangers->n - 1] == threads[i].pid)
				continue;
			slot = vec_push(strangers);
			if (!slot)
				return fail(-ENOMEM, "frozen threads");
			*slot = threads[i].pid;
			continue;
		}
		grown = reallocarray(p->state.threads, p->state.n_threads + 1, sizeof(*grown));
		if (!grown)
			return fail(-ENOMEM, "frozen threads");
		p->state.threads = grown;
		grown[p->state.n_threads++] = threads[i];
		if (threads[i].tid == threads[i].pid &&
		    p->state.n_threads > 1) { /* the main thread first */
			struct warden_thread first = grown[0];

			grown[0] = threads[i];
			grown[p->state.n_threads - 1] = first;
		}
	}
	for (size_t i = 0; i < d->procs.n; i++)
		d->procs.data[i]->gone |= !d->procs.data[i]->state.n_threads;
	return 0;
}

static int freeze_list(const struct dump *d, pid_list *out)
{
	out->n = 0;
	vec_each (p, &d->procs) {
		pid_t *slot;

		if ((*p)->gone || !target_alive((*p)->src.target))
			continue;
		slot = vec_push(out);
		if (!slot)
			return fail(-ENOMEM, "freeze");
		*slot = (*p)->src.target->pid;
	}
	return out->n ? 0 : refuse(-ESRCH, "the job ended before it could be frozen");
}

int dump_freeze(struct dump *d, pid_list *strangers)
{
	_cleanup_(free_pids) pid_list pids = {0};
	uint64_t start;
	int err = 0;

	d->config.progress->phase = "freeze";
	start = now_ns();
	for (int attempt = 0; attempt < 5; attempt++) { /* one of them may end in this moment */
		err = freeze_list(d, &pids);
		if (err)
			return err;
		err = warden_freeze(d->config.warden, pids.data, pids.n, true,
				    d->config.deadline_ms, &start);
		if (err != -ESRCH && err != -EBUSY)
			break;
		if (err == -EBUSY) /* a thread that waits for a disk */
			usleep(10000u << attempt);
	}
	if (err)
		return err;
	d->frozen = true;
	d->frozen_ns = start;
	return dump_go_on(d, strangers);
}

int dump_go_on(struct dump *d, pid_list *strangers)
{
	_cleanup_free_ struct warden_thread *threads = NULL;
	size_t n;
	int err = warden_threads(d->config.warden, &threads, &n);

	strangers->n = 0;
	if (!err)
		err = sort_threads(d, threads, n, strangers);
	d->result.phase.freeze_ns = now_ns() - d->frozen_ns;
	return err || !strangers->n ? err : -EAGAIN;
}

int dump_thaw(struct dump *d)
{
	d->frozen = false;
	for (size_t i = 0; i < d->procs.n; i++)
		d->procs.data[i]->stream.last.n = 0;
	return warden_thaw(d->config.warden, NULL);
}

/* Did the process do that since the last take? */
static bool happened(const struct dump *d, const struct dump_proc *p, uint32_t type,
		     uint32_t op)
{
	for (size_t i = p->change_mark; i < d->config.batch->changes.n; i++) {
		const struct icp_change *c = &d->config.batch->changes.data[i];

		if (c->type == type && c->op == op && (pid_t)c->pid == p->src.target->pid)
			return true;
	}
	return false;
}

/* Every lock of the mm's lock is ours or a kernel-mode write fault's, nothing was lost, no vfork child runs in this memory. */
static bool is_exact(struct dump *d, struct dump_proc *p)
{
	struct icp_counters now, *then = &p->seen;
	uint64_t faults;

	if (!d->config.events || events_missing(d->config.events) & EVENTS_NO_GUARD ||
	    events_counters(d->config.events, p->src.target->pid, &now))
		return false;
	if (happened(d, p, ICP_EV_FORK, ICP_FORK_SHARED_MM))
		return false;
	debug("pid %d since the last take: lost %lu + %lu, write locks %lu, read locks %lu, of "
	      "these own %lu, kernel faults %lu",
	      p->src.target->pid, now.lost_faults - then->lost_faults,
	      now.lost_changes - then->lost_changes, now.write_locks - then->write_locks,
	      now.read_locks - then->read_locks, now.own_locks - then->own_locks,
	      now.faults_kernel - then->faults_kernel);
	if (then->readers_in != then->readers_out || now.hard_locks != then->hard_locks)
		return false; /* it may have done its work after the take */
	faults = p->direct_io ? 0 : now.faults_kernel - then->faults_kernel;
	/* one that was not told may be under way still: last_faults does not know it */
	return !now.untold && now.lost_faults == then->lost_faults &&
	       now.lost_changes == then->lost_changes && now.write_locks == then->write_locks &&
	       now.read_locks - then->read_locks <= now.own_locks - then->own_locks + faults;
}

static bool huge_pages_possible(void)
{
	_cleanup_free_ char *text = NULL;
	bool never = !io_read_file(AT_FDCWD, "/sys/kernel/mm/transparent_hugepage/enabled",
				   &text, NULL) &&
		     strstr(text, "[never]");

	return !never;
}

static int by_address(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

#define WHOLE 1u /* beside an address: all 2 MiB from there on are looked at */

static int add_page(struct fault_addresses *pages, uint64_t addr, bool whole)
{
	uint64_t *slot = vec_push(pages);

	if (!slot)
		return fail(-ENOMEM, "faults");
	*slot = whole ? (addr & ~(uint64_t)(HUGE - 1)) | WHOLE : page_down(addr);
	return 0;
}

/*
 * The pages that faulted since the last take, or were about to at it. A fault in a place that was not populated may have brought a huge page, and
 * with some trackers any fault may have been that of a huge page: then the whole 2 MiB around it is looked at. So it is for a fault
 * between that take and the look at what is populated, which may have seen what the fault brought.
 */
static int candidates(struct dump *d, struct dump_proc *p, bool huge, struct dirty *out)
{
	struct fault_addresses pages = {0};
	bool whole = huge && p->src.tracker->ops->whole_huge_pages;
	uint64_t end = 0;
	int err = 0;

	for (size_t i = p->batch_mark; !err && i < d->config.batch->faults.n; i++) {
		const struct icp_fault *f = &d->config.batch->faults.data[i];

		if ((pid_t)f->pid == p->src.target->pid)
			err = add_page(&pages, f->addr,
				       whole || (huge && i < d->populated_mark));
	}
	vec_each (addr, &p->in_flight)
		if (!err)
			err = add_page(&pages, *addr, huge);
	if (!err && pages.n)
		qsort(pages.data, pages.n, sizeof(uint64_t), by_address);
	for (size_t i = 0; !err && i < pages.n; i++) {
		uint64_t from = page_down(pages.data[i]), to = from + page_size();

		if (pages.data[i] & WHOLE ||
		    (huge && !dirty_pages_in(&p->stream.populated, from, to))) {
			from &= ~(uint64_t)(HUGE - 1);
			to = from + HUGE;
		}
		from = from < end ? end : from;
		if (from >= to)
			continue;
		err = dirty_append(out, from, to, DIRTY_WRITTEN);
		end = to;
	}
	vec_free(&pages);
	return err;
}

static bool covers(const struct dirty *set, const struct dirty_run *run)
{
	return dirty_pages_in(set, run->start, run->end) ==
	       (run->end - run->start) / page_size();
}

/* Both ways: the scan must not find a page that the events missed. */
static int check_paranoid(struct dump_proc *p, struct dirty *set)
{
	_cleanup_(dirty_free) struct dirty missed = {0};
	int err = tracker_take(p->src.tracker, &p->maps, &missed), joined;

	vec_each (r, &missed) {
		if (!err && r->what != DIRTY_ZAPPED && r->what != DIRTY_UNKNOWN &&
		    !covers(set, r))
			err = refuse(-EUCLEAN,
				     "pid %d: page %#lx was written without an event: please "
				     "report this",
				     p->src.target->pid, r->start);
	}
	joined =
		dirty_join(set, &missed); /* they are armed again: the next version must know */
	return err ? err : joined;
}

static int last_set(struct dump *d, struct dump_proc *p, bool huge, struct dirty *out)
{
	_cleanup_(dirty_free) struct dirty where = {0};
	int err;

	if (p->exact) {
		err = candidates(d, p, huge, &where);
		if (!err)
			err = tracker_take_ranges(p->src.tracker, &p->maps, &where, out);
		return err || !d->config.paranoid ? err : check_paranoid(p, out);
	}
	return tracker_take(p->src.tracker, &p->maps, out);
}

/*
 * Do the events explain everything up to the freeze? Asked before the state is read, which takes the target's locks, too. The maps
 * as they are now: arming new mappings may have merged some since the last look.
 */
static int look_at_freeze(struct dump *d)
{
	int err = d->config.events ? events_drain(d->config.events, d->config.batch) : 0;

	for (size_t i = 0; !err && i < d->procs.n; i++) {
		struct dump_proc *p = d->procs.data[i];

		if (p->gone)
			continue;
		p->exact = is_exact(d, p);
		p->state.guards_good = p->exact && !happened(d, p, ICP_EV_MAP, ICP_MAP_MADVISE);
		/* or its state would be the new program's, and the pages nobody's */
		if (target_memory_gone(p->src.target) && !target_ended(p->src.target))
			return target_executed(p->src.target);
		maps_free(&p->maps);
		err = maps_read(p->src.target, &p->maps);
	}
	return err;
}

/* Look at the pages of @set again; pages of segments make segments_settle() compare those (see direct.c). */
static int compare_taken(struct dump *d, struct dump_proc *p, const struct dirty *set)
{
	int err;

	if (!set->n)
		return 0;
	p->stream.todo.n = 0;
	err = route_dirty(d, p, set, false);
	return err ? err : dirty_join(&p->stream.compare, &p->stream.todo);
}

static int collect_dirty(struct dump *d)
{
	bool huge = huge_pages_possible(), all_exact = true;
	int err = d->config.events ? events_drain(d->config.events, d->config.batch) : 0;

	for (size_t i = 0; !err && i < d->procs.n; i++) {
		_cleanup_(dirty_free) struct dirty set = {0};
		struct dump_proc *p = d->procs.data[i];
		int joined;

		if (p->gone)
			continue;
		err = last_set(d, p, huge, &set);
		joined = proc_taken(p, &set); /* also of a take that failed half-way */
		err = err ? err : joined;
		if (!err)
			err = segments_find(d);
		if (!err)
			err = route_dirty(d, p, &set, true);
		if (!err)
			err = populated_again(p, !p->exact);
		if (!err) /* since the last freeze, or some */
			err = compare_taken(d, p, p->direct_io ? p->src.since : &p->suspect);
		if (!err) /* by then the mappings may be others */
			err = compare_taken(d, p, &p->stream.put_off);
		all_exact &= p->exact;
	}
	if (!err)
		err = segments_settle(d, all_exact);
	if (!err)
		err = contents_settle(d);
	d->result.found_by = all_exact ? "events" : "scan";
	return err;
}

static int stage_stream(struct dump *d, const struct page_source *from, struct stream *s)
{
	int err = stage_runs(d, from, s, &s->last);

	if (!err)
		err = dirty_subtract(&s->compare, &s->last);
	return err ? err : stage_changed(d, from, s, &s->compare);
}

static int collect_pages(struct dump *d)
{
	int err = 0;

	for (size_t i = 0; !err && i < d->procs.n; i++)
		if (!d->procs.data[i]->gone)
			err = stage_stream(d, &d->procs.data[i]->source,
					   &d->procs.data[i]->stream);
	for (size_t i = 0; !err && i < d->segments.n; i++)
		err = stage_stream(d, &d->segments.data[i]->source,
				   &d->segments.data[i]->stream);
	for (size_t i = 0; !err && i < d->contents.n; i++)
		err = stage_stream(d, &d->contents.data[i]->source,
				   &d->contents.data[i]->stream);
	return err;
}

static int collect_job(struct dump *d)
{
	_cleanup_(free_pids) pid_list pids = {0};
	const Icp__Manifest *parent = d->parent;

	vec_each (p, &d->procs) {
		pid_t *slot = (*p)->gone ? NULL : vec_push(&pids);

		if (!slot && !(*p)->gone)
			return fail(-ENOMEM, "processes of the job");
		if (slot)
			*slot = (*p)->src.target->pid;
	}
	if (parent && strcmp(parent->boot_id, d->manifest->boot_id))
		parent = NULL;
	return state_job_dump(d->state, parent, pids.data, pids.n, d->config.no_restart);
}

/* It is frozen: nobody but us changes that. */
static uint64_t write_locks(const struct dump *d, const struct dump_proc *p)
{
	struct icp_counters now;

	return !d->config.events || events_counters(d->config.events, p->src.target->pid, &now)
		       ? 0
		       : now.write_locks;
}

static int collect_state(struct dump *d)
{
	int err = 0;

	for (size_t i = 0; !err && i < d->procs.n; i++) {
		struct dump_proc *p = d->procs.data[i];

		if (p->gone)
			continue;
		p->state.maps = p->maps; /* shared for the time of the pause */
		p->state_locks = write_locks(d, p);
		err = state_dump(&p->state);
		p->state_locks = write_locks(d, p) - p->state_locks;
		p->state.maps = (struct maps){0};
		if (err)
			return wrap(err, "dump pid %d", p->src.target->pid);
	}
	return err ? err : collect_job(d);
}

int dump_collect(struct dump *d)
{
	uint64_t t0 = now_ns(), t1, t2;
	int err;

	d->config.progress->phase = "collect";
	err = look_at_freeze(d);
	if (!err)
		err = describe_zombies(d);
	if (!err) /* before the pages: an injected call lets the kernel write to the target's memory (rseq) */
		err = collect_state(d);
	t1 = now_ns();
	if (!err)
		err = collect_dirty(d);
	t2 = now_ns();
	if (!err)
		err = collect_pages(d);
	d->result.phase.state_ns = t1 - t0;
	d->result.phase.dirty_ns = t2 - t1;
	d->result.phase.copy_ns = now_ns() - t2;
	return err;
}

int dump_release(struct dump *d, enum dump_release_how how)
{
	int err;

	/* stays frozen until the version is committed: only then may the job be lost or left */
	if (how != DUMP_THAW)
		return 0;
	d->frozen = false;
	err = warden_thaw(d->config.warden, &d->result.pause_ns);
	if (err == -ETIMEDOUT)
		return refuse(err,
			      "the pause took longer than %u ms: the job was thawed, there is "
			      "no new version",
			      d->config.deadline_ms);
	return err;
}
