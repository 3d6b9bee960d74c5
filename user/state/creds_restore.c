// SPDX-License-Identifier: GPL-2.0
/*
 * Credentials, scheduling and seccomp of a thread that is rebuilt. Only what differs from
 * icp-bpf's own is set, so that the owner of a job needs no right to change to himself.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "state/creds.h"
#include "state/restore.h"

#define CAPS 64

struct creds_restore {
	const Icp__ProcessState *process;
	Icp__TaskState **tasks;
	size_t n;
	char *own; /* our /proc/self/status */
	uint32_t own_securebits;
};

/* What a thread shall have, from either of the two places where it may be. */
struct wanted {
	const uint32_t *uids, *gids, *groups;
	size_t n_groups;
	uint64_t inheritable, permitted, effective, bounding, ambient;
	uint32_t securebits;
	bool no_new_privs;
};

void creds_restore_free(struct creds_restore *c)
{
	if (!c)
		return;
	for (size_t i = 0; c->tasks && i < c->n; i++)
		if (c->tasks[i])
			protobuf_c_message_free_unpacked(&c->tasks[i]->base, NULL);
	free(c->tasks);
	free(c->own);
	free(c);
}

static struct wanted wanted(const struct state_restore *r, const struct creds_restore *c,
			    size_t i)
{
	const Icp__Credentials *own = c->tasks[i]->credentials;
	const Icp__Process *p = r->image;

	if (own)
		return (struct wanted){own->uids,	own->gids,	  own->groups,
				       own->n_groups,	own->inheritable, own->permitted,
				       own->effective,	own->bounding,	  own->ambient,
				       own->securebits, own->no_new_privs};
	return (struct wanted){p->uids,
			       p->gids,
			       p->groups,
			       p->n_groups,
			       p->cap_inheritable,
			       p->cap_permitted,
			       p->cap_effective,
			       p->cap_bounding,
			       p->cap_ambient,
			       c->process->securebits,
			       c->process->no_new_privs};
}

static int check_task(const struct state_restore *r, struct creds_restore *c, size_t i)
{
	const Icp__Thread *t = r->image->threads[i];
	const Icp__TaskState *task;
	struct wanted w;
	int err = restore_unpack(t->blobs, t->n_blobs, "ids", IDS_VERSION,
				 &icp__task_state__descriptor, &c->tasks[i]);

	if (err)
		return err;
	task = c->tasks[i];
	if (task->credentials &&
	    (task->credentials->n_uids != 4 || task->credentials->n_gids != 4))
		return refuse(-EBADMSG, "the credentials of thread %u make no sense", t->tid);
	for (size_t f = 0; f < task->n_filters; f++)
		if (task->filters[f] >= c->process->n_filters)
			return refuse(-EBADMSG,
				      "the seccomp filters of thread %u make no sense", t->tid);
	w = wanted(r, c, i);
	if (w.permitted & ~procfs_number(c->own, "CapPrm", 16))
		return refuse(-EPERM, "it has capabilities that icp-bpf hasn't (%#llx)",
			      (unsigned long long)(w.permitted &
						   ~procfs_number(c->own, "CapPrm", 16)));
	return 0;
}

int creds_restore_check(struct state_restore *r, const Icp__ProcessState *process,
			struct creds_restore **out)
{
	struct creds_restore *c = *out = calloc(1, sizeof(*c));
	int err = c ? io_read_file(AT_FDCWD, "/proc/self/status", &c->own, NULL) : -ENOMEM;

	if (!err)
		c->tasks = calloc(r->image->n_threads + 1, sizeof(Icp__TaskState *));
	if (err || !c->tasks)
		return fail(err ? err : -ENOMEM, "prepare credentials");
	c->process = process;
	c->n = r->image->n_threads;
	c->own_securebits = (uint32_t)prctl(PR_GET_SECUREBITS);
	for (size_t i = 0; i < c->n && !err; i++)
		err = check_task(r, c, i);
	return err;
}

bool restore_under_seccomp(const Icp__Thread *t)
{
	Icp__TaskState *task;
	bool is;

	if (restore_unpack(t->blobs, t->n_blobs, "ids", IDS_VERSION,
			   &icp__task_state__descriptor, &task)) {
		err_clear();
		return false;
	}
	is = task->seccomp != SECCOMP_MODE_DISABLED;
	protobuf_c_message_free_unpacked(&task->base, NULL);
	return is;
}

static bool same_numbers(const char *own, const char *key, const uint32_t *list, size_t n)
{
	size_t have = procfs_numbers(own, key, NULL, 0);
	_cleanup_free_ uint32_t *ours = calloc(have + 1, sizeof(uint32_t));

	if (!ours || have != n)
		return false;
	procfs_numbers(own, key, ours, have);
	return !n || !memcmp(ours, list, n * sizeof(uint32_t));
}

static int set_ids(const struct creds_restore *c, const struct wanted *w, struct batch *b)
{
	bool uids = !same_numbers(c->own, "Uid", w->uids, 4);
	uint64_t at;
	int err = 0;

	if (!same_numbers(c->own, "Groups", w->groups, w->n_groups)) {
		err = batch_data(b, w->groups, w->n_groups * sizeof(uint32_t), &at);
		if (!err)
			err = batch_call(b, "set its groups", SYS_setgroups,
					 BATCH_ARGS(w->n_groups, at));
	}
	if (!err && !same_numbers(c->own, "Gid", w->gids, 4)) {
		err = batch_call(b, "set its group ids", SYS_setresgid,
				 BATCH_ARGS(w->gids[0], w->gids[1], w->gids[2]));
		if (!err)
			err = batch_call(b, "set its group ids", SYS_setfsgid,
					 BATCH_ARGS(w->gids[3]));
	}
	if (err || !uids)
		return err;
	/* the capabilities stay until we set them */
	err = batch_call(
		b, "set its securebits", SYS_prctl,
		BATCH_ARGS(PR_SET_SECUREBITS, c->own_securebits | SECBIT_NO_SETUID_FIXUP));
	if (!err)
		err = batch_call(b, "set its user ids", SYS_setresuid,
				 BATCH_ARGS(w->uids[0], w->uids[1], w->uids[2]));
	return err ? err
		   : batch_call(b, "set its user ids", SYS_setfsuid, BATCH_ARGS(w->uids[3]));
}

static int capset(uint64_t effective, uint64_t permitted, uint64_t inheritable, struct batch *b)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	uint64_t at_header, at_data;
	int err;

	for (int i = 0; i < 2; i++)
		data[i] = (struct __user_cap_data_struct){(uint32_t)(effective >> 32 * i),
							  (uint32_t)(permitted >> 32 * i),
							  (uint32_t)(inheritable >> 32 * i)};
	err = batch_data(b, &header, sizeof(header), &at_header);
	if (!err)
		err = batch_data(b, data, sizeof(data), &at_data);
	return err ? err
		   : batch_call(b, "set its capabilities", SYS_capset,
				BATCH_ARGS(at_header, at_data));
}

/* After set_ids(): with our capabilities still, to those of the image. */
static int set_caps(const struct creds_restore *c, const struct wanted *w, struct batch *b)
{
	uint64_t effective = procfs_number(c->own, "CapEff", 16),
		 permitted = procfs_number(c->own, "CapPrm", 16),
		 bounding = procfs_number(c->own, "CapBnd", 16);
	bool uids = !same_numbers(c->own, "Uid", w->uids, 4);
	int err = 0;

	if (!uids && w->effective == effective && w->permitted == permitted &&
	    w->bounding == bounding && w->securebits == c->own_securebits &&
	    w->inheritable == procfs_number(c->own, "CapInh", 16) &&
	    w->ambient == procfs_number(c->own, "CapAmb", 16))
		return 0;
	for (uint64_t cap = 0; cap < CAPS && !err; cap++)
		if ((bounding & ~w->bounding) >> cap & 1)
			err = batch_call(b, "drop a capability", SYS_prctl,
					 BATCH_ARGS(PR_CAPBSET_DROP, cap));
	if (!err)
		err = capset(effective, permitted, w->inheritable, b);
	if (!err)
		err = batch_call(b, "clear ambient capabilities", SYS_prctl,
				 BATCH_ARGS(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL));
	for (uint64_t cap = 0; cap < CAPS && !err; cap++)
		if (w->ambient >> cap & 1)
			err = batch_call(b, "raise an ambient capability", SYS_prctl,
					 BATCH_ARGS(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap));
	if (!err && (uids || w->securebits != c->own_securebits))
		err = batch_call(b, "set its securebits", SYS_prctl,
				 BATCH_ARGS(PR_SET_SECUREBITS, w->securebits));
	return err ? err : capset(w->effective, w->permitted, w->inheritable, b);
}

/* While we may: they are suspended as long as the thread is traced. */
static int set_seccomp(const struct creds_restore *c, size_t i, struct batch *b)
{
	const Icp__TaskState *task = c->tasks[i];
	int err = 0;

	if (task->seccomp == SECCOMP_MODE_STRICT)
		return batch_call(b, "strict seccomp", SYS_prctl,
				  BATCH_ARGS(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
	for (size_t f = 0; f < task->n_filters && !err; f++) {
		uint32_t which = task->filters[f];
		const ProtobufCBinaryData *code = &c->process->filters[which];
		struct sock_fprog prog = {
			.len = (unsigned short)(code->len / sizeof(struct sock_filter))};
		uint64_t flags = which < c->process->n_filter_flags
					 ? c->process->filter_flags[which]
					 : 0,
			 at_code, at;

		err = batch_data(b, code->data, code->len, &at_code);
		prog.filter = (void *)at_code;
		if (!err)
			err = batch_data(b, &prog, sizeof(prog), &at);
		if (!err)
			err = batch_call(b, "install a seccomp filter", SYS_seccomp,
					 BATCH_ARGS(SECCOMP_SET_MODE_FILTER,
						    flags & SECCOMP_FILTER_FLAG_LOG, at));
	}
	return err;
}

static int set_sched(const Icp__TaskState *t, struct batch *b)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr = {sizeof(attr), t->policy,   t->sched_flags & 7 /* not the clamps */,
		  t->nice,	t->priority, t->runtime,
		  t->deadline,	t->period};
	uint64_t at;
	int err = 0;

	if (t->policy || t->sched_flags || t->nice != getpriority(PRIO_PROCESS, 0)) {
		err = batch_data(b, &attr, sizeof(attr), &at);
		if (!err)
			err = batch_call(b, "set its scheduling", SYS_sched_setattr,
					 BATCH_ARGS(0, at, 0));
	}
	/* a CPU may be gone */
	if (!err)
		err = batch_data(b, t->affinity.data, t->affinity.len, &at);
	if (!err)
		err = batch_try(b, SYS_sched_setaffinity, BATCH_ARGS(0, t->affinity.len, at));
	if (!err && t->io_priority)
		err = batch_try(b, SYS_ioprio_set, BATCH_ARGS(1, 0, t->io_priority));
	if (!err && t->timer_slack_ns)
		err = batch_call(b, "set its timer slack", SYS_prctl,
				 BATCH_ARGS(PR_SET_TIMERSLACK, t->timer_slack_ns));
	return err;
}

int creds_restore_thread(struct state_restore *r, const struct creds_restore *c, size_t i,
			 struct batch *b)
{
	const Icp__TaskState *task = c->tasks[i];
	struct wanted w = wanted(r, c, i);
	/* Who would be its parent is gone. */
	uint64_t death = r->is_root && r->job->detach ? 0 : task->parent_death_signal;
	int err = set_sched(task, b);

	if (!err && w.no_new_privs)
		err = batch_call(b, "no_new_privs", SYS_prctl,
				 BATCH_ARGS(PR_SET_NO_NEW_PRIVS, 1));
	if (!err)
		err = set_seccomp(c, i, b);
	if (!err)
		err = set_ids(c, &w, b);
	if (!err)
		err = set_caps(c, &w, b);
	/* a change of credentials resets it; our stubs have one of their own */
	return err ? err
		   : batch_call(b, "set its parent-death signal", SYS_prctl,
				BATCH_ARGS(PR_SET_PDEATHSIG, death));
}
