// SPDX-License-Identifier: GPL-2.0
#include "session/checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "proc/sysvshm.h"
#include "proc/tasks.h"
#include "session/internal.h"

#define DEADLINE_MS 5000
#define DEADLINE_HOLD_MS 3600000 /* --kill, --leave-frozen: the job waits for the commit */
#define ATTEMPTS 40
/* Bytes of memory to copy in the pause; twice as much each time. */
#define TAKE_IN (16u << 20)
#define TAKE_IN_MAX (256u << 20)

/* The trees of @roots, complete as far as /proc shows it now; all of them are followed afterwards. */
static int follow_trees(struct session *s, const struct checkpoint_request *r, pid_list *out)
{
	out->n = 0;
	for (size_t i = 0; i < r->n_roots; i++) {
		_cleanup_(free_pids) pid_list tree = {0};
		int err = session_add(s, r->roots[i]);

		if (!err)
			err = tasks_descendants(r->roots[i], &tree);
		if (err)
			return err;
		for (size_t k = 0; k <= tree.n; k++) {
			bool young = k < tree.n && tasks_age_ns(tree.data[k]) < YOUNG_NS;
			pid_t *slot;

			if (k < tree.n && !young && session_add(s, tree.data[k])) {
				err_clear(); /* a zombie, or ended in this moment: the freeze tells */
				continue;
			}
			slot = vec_push(out);
			if (!slot)
				return fail(-ENOMEM, "processes of the job");
			*slot = k < tree.n ? tree.data[k] : r->roots[i];
		}
	}
	return 0;
}

static int add_to_dump(struct session *s, struct dump *d, const struct repo *repo, pid_t pid,
		       int (*add)(struct dump *d, const struct dump_source *source))
{
	struct tracked *p = session_find(s, pid);
	struct dump_source source;

	if (!p || p->ended || p->in_dump)
		return 0;
	if (!p->tracker)
		return target_executed(p->target);
	if (memcmp(p->since_repo, repo->record.id, sizeof(p->since_repo))) {
		p->since_version = 0;
		ctl_free(take_ptr(p->ctl));
	}
	source = (struct dump_source){
		.target = p->target,
		.tracker = p->tracker,
		.since = &p->since,
		.taken = &p->unsampled,
		.ctl = &p->ctl,
		.smaps = &p->smaps,
		.since_version = p->since_version,
	};
	p->in_dump = true;
	return add(d, &source);
}

static int add_all(struct session *s, struct dump *d, const struct repo *repo,
		   const pid_list *pids)
{
	int err = 0;

	for (size_t i = 0; !err && i < pids->n; i++)
		err = add_to_dump(s, d, repo, pids->data[i], dump_add);
	return err;
}

/* Attach to those that the freeze found; what stands in the way, if it lasts, goes to @why. */
static int add_strangers(struct session *s, struct dump *d, const struct repo *repo,
			 const pid_list *strangers, char *why, size_t len)
{
	vec_each (pid, strangers) {
		int err = session_add(s, *pid);

		if (err &&
		    err != -ESRCH) /* a child of vfork() can be attached as soon as it executes */
			snprintf(why, len, "%s", err_text(err));
		if (err)
			err_clear();
	}
	return add_all(s, d, repo, strangers);
}

/*
 * Those that the freeze found are attached to while they stand still, and copied in the pause: a job that starts
 * one process after the other would never be caught otherwise. -EAGAIN (bare): not all of them, they are
 * too large for that, or can't be attached to now.
 */
static int take_in(struct session *s, struct dump *d, const struct repo *repo,
		   const pid_list *strangers, uint64_t most)
{
	pid_list left = {0};
	int err = 0;

	vec_each (pid, strangers) {
		uint64_t bytes = tasks_resident(*pid);

		if (bytes > most)
			return -EAGAIN;
		most -= bytes;
	}
	for (size_t i = 0; i < strangers->n && !err; i++) {
		if (session_add(s, strangers->data[i])) {
			err_clear();
			return -EAGAIN;
		}
		err = add_to_dump(s, d, repo, strangers->data[i], dump_add_frozen);
	}
	if (!err)
		err = dump_go_on(d, &left);
	free_pids(&left);
	return err;
}

/* Pre-copy and freeze, until nothing is in the freeze that must not be there. */
static int freeze_known(struct session *s, struct dump *d, const struct repo *repo)
{
	_cleanup_(free_pids) pid_list strangers = {0};
	char why[256] = "the job starts new processes faster than they can be attached to";
	uint64_t most = TAKE_IN;

	for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
		int err = dump_precopy(d);

		if (err)
			return err;
		err = dump_freeze(d, &strangers);
		if (err != -EAGAIN || !strangers.n)
			return err;
		err = take_in(s, d, repo, &strangers, most);
		if (err != -EAGAIN)
			return err;
		err = dump_thaw(d);
		if (!err)
			err = add_strangers(s, d, repo, &strangers, why, sizeof(why));
		if (err)
			return err;
		most = most < TAKE_IN_MAX ? 2 * most : most;
	}
	return refuse(-EBUSY, "%s", why);
}

static int run_phases(struct session *s, struct dump *d, const struct repo *repo,
		      const struct checkpoint_request *r, struct dump_result *out)
{
	int err = freeze_known(s, d, repo);

	if (!err)
		err = dump_collect(d);
	if (!err)
		err = dump_release(d, r->how);
	if (!err)
		err = dump_write(d);
	return err ? err : dump_commit(d, out);
}

/* A job goes on from its own last version, whatever others added; a prune may have removed that. */
static int choose_parent(struct session *s, const struct checkpoint_request *r,
			 struct repo *repo, uint32_t *parent)
{
	const struct tracked *p = r->n_roots ? session_find(s, r->roots[0]) : NULL;
	const struct version *v;
	uint32_t own = 0;
	int err = -ENOENT;

	if (p && p->since_version &&
	    !memcmp(p->since_repo, repo->record.id, sizeof(p->since_repo)))
		own = p->since_version;
	else if (!memcmp(s->base_repo, repo->record.id, sizeof(s->base_repo)))
		own = s->base_version;
	if (own)
		err = repo_version(repo, own, &v);
	if (err && err != -ENOENT)
		return err;
	if (err || v->state != VERSION_COMMITTED)
		return repo_latest(repo, parent);
	*parent = own;
	return 0;
}

/* They are of one version. */
static void check_segment_ctls(struct session *s, const struct repo *repo, uint32_t parent)
{
	if (!memcmp(s->base_repo, repo->record.id, sizeof(s->base_repo)) &&
	    s->base_version == parent)
		return;
	vec_each (c, &s->segment_ctls)
		ctl_free(c->ctl);
	s->segment_ctls.n = 0;
}

static int open_dump(struct session *s, const struct checkpoint_request *r, struct repo *repo,
		     size_t processes, struct dump **out)
{
	struct dump_config config = {
		.repo = repo,
		.warden = s->warden,
		.events = s->events,
		.batch = &s->batch,
		.roots = r->roots,
		.n_roots = r->n_roots,
		.dedup = processes > 1,
		.full = r->full,
		.no_restart = r->no_restart,
		.asker = r->asker,
		.kill = r->how == DUMP_KILL,
		.tcp_close = r->tcp_close,
		.paranoid = r->paranoid,
		.segment_ctls = &s->segment_ctls,
		.shm_detached = r->shm_detached,
		.ipc_unused = r->ipc_unused,
		.codec = r->codec,
		.label = r->label,
		.progress = &s->progress,
		.cancel_fd = s->config.cancel_fd,
		.deadline_ms = r->deadline_ms	     ? r->deadline_ms
			       : r->how == DUMP_THAW ? DEADLINE_MS
						     : DEADLINE_HOLD_MS,
	};
	int err = choose_parent(s, r, repo, &config.parent);

	check_segment_ctls(s, repo, config.parent);
	return err ? err : dump_open(&config, out);
}

static int check_now(const struct checkpoint_request *r, int cancel_fd)
{
	struct dump_config config = {.roots = r->roots,
				     .n_roots = r->n_roots,
				     .kill = r->how == DUMP_KILL,
				     .tcp_close = r->tcp_close,
				     .cancel_fd = cancel_fd};

	if (r->no_restart)
		return 0;
	sysvshm_join(r->roots, r->n_roots);
	return dump_check(&config);
}

int checkpoint_check(const struct checkpoint_request *r, int cancel_fd)
{
	int err = check_now(r, cancel_fd);

	return err ? wrap(err, "checkpoint") : 0;
}

/* Those that are followed have been stopped for it before. */
static int check_first(struct session *s, const struct checkpoint_request *r)
{
	for (size_t i = 0; i < r->n_roots; i++)
		if (!session_find(s, r->roots[i]))
			return check_now(r, s->config.cancel_fd);
	return 0;
}

int session_set_base(struct session *s, const char *dir, uint32_t version)
{
	_cleanup_repo_ struct repo *repo = NULL;
	int err = repo_open(dir, REPO_READ, &repo);

	if (err)
		return err;
	memcpy(s->base_repo, repo->record.id, sizeof(s->base_repo));
	s->base_version = version;
	return 0;
}

/* What every process has written since is known from here on, relative to the new version. */
static void rebase(struct session *s, const struct repo *repo, uint32_t version)
{
	memcpy(s->base_repo, repo->record.id, sizeof(s->base_repo));
	s->base_version = version;
	vec_each (p, &s->processes) {
		if (!(*p)->in_dump)
			continue; /* another job's: it goes on from its own version */
		(*p)->since_version = version;
		memcpy((*p)->since_repo, repo->record.id, sizeof((*p)->since_repo));
	}
}

/* The job, and what shares its segments; @r names the roots that came in with that. */
static int follow_job(struct session *s, struct checkpoint_request *r, pid_list *roots,
		      pid_list *pids, struct dump_result *out)
{
	size_t before;
	int err;

	do { /* who comes in may attach other segments */
		before = roots->n;
		err = follow_trees(s, r, pids);
		if (!err)
			err = peers_look(s, r, pids, roots, out);
		r->roots = roots->data;
		r->n_roots = roots->n;
	} while (!err && roots->n > before);
	return err;
}

static int try_checkpoint(struct session *s, const struct checkpoint_request *request,
			  struct repo *repo, struct dump_result *out)
{
	struct checkpoint_request copy = *request, *r = &copy;
	_cleanup_(free_pids) pid_list pids = {0}, roots = {0};
	_cleanup_dump_ struct dump *d = NULL;
	struct dump_result seen = {0};
	int err, end;

	vec_each (p, &s->processes)
		(*p)->in_dump = false;
	for (size_t i = 0; i < r->n_roots; i++) {
		pid_t *slot = vec_push(&roots);

		if (!slot)
			return fail(-ENOMEM, "processes of the job");
		*slot = request->roots[i];
	}
	err = check_first(s, request);
	if (!err)
		err = follow_job(s, r, &roots, &pids, &seen);
	if (!err)
		err = open_dump(s, r, repo, pids.n, &d);
	if (!err)
		err = add_all(s, d, repo, &pids);
	if (!err)
		err = run_phases(s, d, repo, r, out);
	if (err && err != -EIO)
		return err;
	memcpy(out->peers, seen.peers, sizeof(out->peers));
	out->n_peers = seen.n_peers;
	if (out->version)
		rebase(s, repo, out->version);
	end = err ? 0 : dump_end_job(d, r->how);
	return err ? err : end;
}

static int cut(struct session *s, const struct checkpoint_request *r, struct dump_result *out)
{
	_cleanup_repo_ struct repo *repo = NULL;
	int err = repo_open(r->dir, REPO_CREATE, &repo);

	if (err)
		return err;
	for (int attempt = 0; attempt < 3; attempt++) {
		memset(out, 0, sizeof(*out));
		s->progress.pages_done = s->progress.pages_to_do = 0;
		err = session_catch_up(s);
		if (!err)
			err = try_checkpoint(s, r, repo, out);
		if (err != -EAGAIN)
			break;
	}
	return err ? wrap(err, "checkpoint") : 0;
}

int session_checkpoint(struct session *s, const struct checkpoint_request *r,
		       struct dump_result *out)
{
	int err;

	s->cutting = r->n_roots ? r->roots[0] : 0;
	err = cut(s, r, out);
	s->cutting = 0;
	if (s->config.daemon)
		session_note_cut(s, r, err, out);
	return err;
}

const struct dump_progress *session_progress(const struct session *s)
{
	return &s->progress;
}
