// SPDX-License-Identifier: GPL-2.0
/* What a restart could not bring back, looked for before anything is done to the job. */
#include "dump/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define LOOK_AGAIN_US 5000

static int list_once(pid_list *out, pid_t pid)
{
	pid_t *slot;

	vec_each (known, out)
		if (*known == pid)
			return 0;
	slot = vec_push(out);
	if (!slot)
		return fail(-ENOMEM, "list the job");
	*slot = pid;
	return 1;
}

/* @pids and all that descend from them by now. */
static int list_trees(const pid_list *pids, pid_list *out)
{
	_cleanup_(free_pids) pid_list some = {0};
	int err = 0;

	out->n = 0;
	for (size_t i = 0; err >= 0 && i < pids->n; i++) {
		err = list_once(out, pids->data[i]);
		if (err <= 0) /* with its parent's */
			continue;
		err = tasks_descendants(pids->data[i], &some);
		for (size_t k = 0; err >= 0 && k < some.n; k++)
			err = list_once(out, some.data[k]);
	}
	return err < 0 ? err : 0;
}

int check_trees(struct state_job *job, const pid_list *pids, int cancel_fd)
{
	_cleanup_(free_pids) pid_list all = {0};
	int err = 0;

	do {
		if (err)
			usleep(LOOK_AGAIN_US);
		err = cancelled(cancel_fd);
		if (!err)
			err = list_trees(pids, &all);
		if (!err)
			err = state_check_job(job, all.data, all.n);
	} while (err == STATE_LOOK_AGAIN);
	return err;
}

/* Whatever else goes wrong is told when it is really done. */
static int only_refusals(int err)
{
	if (err == -EOPNOTSUPP || err == -EAGAIN || err == -E2BIG || err == -EINTR)
		return err;
	err_clear();
	return 0;
}

static int check_process(struct state_job *job, pid_t pid)
{
	_cleanup_target_ struct target *t = NULL;
	struct state_process p = {.job = job};
	int err = target_open(pid, &t);

	p.target = t;
	if (!err)
		err = maps_read(t, &p.maps);
	if (!err)
		err = state_check(&p);
	maps_free(&p.maps);
	return only_refusals(err);
}

int dump_check(const struct dump_config *c)
{
	_cleanup_state_job_ struct state_job *job = NULL;
	_cleanup_(free_pids) pid_list all = {0};
	const pid_list roots = {(pid_t *)c->roots, c->n_roots, 0};
	int err = state_job_new(&job);

	if (err)
		return err;
	state_job_set(job, &(struct state_job_how){.kill = c->kill, .tcp_close = c->tcp_close});
	err = only_refusals(list_trees(&roots, &all));
	for (size_t i = 0; i < all.n && !err; i++)
		err = check_process(job, all.data[i]);
	return err ? err : only_refusals(check_trees(job, &roots, c->cancel_fd));
}
