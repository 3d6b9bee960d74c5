// SPDX-License-Identifier: GPL-2.0
/* What a job that is over has left in the IPC namespace. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>

#include "proc/sysvshm.h"
#include "proc/target.h"
#include "proc/tasks.h"
#include "state/ipc.h"
#include "state/ipc_remove.h"
#include "state/sysv.pb-c.h"

/* The pids of a version are those of a restart of any version of the job, too. */
static int check_over(const Icp__Manifest *m, const struct ipc_note *n, bool same_boot)
{
	pid_t alive = ipc_note_alive(n);
	char comm[16];

	if (alive)
		return refuse(-EBUSY, "pid %d, restarted from this version, lives", alive);
	for (size_t i = 0; i < m->n_processes; i++) {
		const Icp__Process *p = m->processes[i];
		uint64_t start = tasks_start_time((pid_t)p->pid);

		if (!start || !tasks_comm((pid_t)p->pid, comm))
			continue;
		if ((same_boot && start == p->start_time) || !strcmp(comm, p->comm))
			return refuse(-EBUSY, "pid %u (%s) lives: the job is not over", p->pid,
				      comm);
	}
	return 0;
}

/* Only one that is what the version has, as far as can be seen. */
static int add(struct ipc_removed_list *out, enum sysv_kind kind, uint32_t key, int id,
	       uint64_t size, bool removed)
{
	struct ipc_removed *slot;
	struct sysv_stat st;

	if (sysv_stat(kind, id, &st) || (!removed && st.key != key) ||
	    (size && st.size != size))
		return 0;
	vec_each (known, out)
		if (known->kind == (int)kind && known->id == id)
			return 0;
	slot = vec_push(out);
	if (!slot)
		return fail(-ENOMEM, "list what the job has left");
	*slot = (struct ipc_removed){kind, key, id};
	return 0;
}

static int add_saved(const Icp__Manifest *m, struct ipc_removed_list *out)
{
	Icp__SysvObjects *o;
	int err = sysv_load(m, &o);

	for (size_t i = 0; i < m->n_segments && !err; i++)
		err = add(out, SYSV_SHM, m->segments[i]->key, (int)m->segments[i]->shmid,
			  m->segments[i]->size, m->segments[i]->removed);
	for (size_t i = 0; o && i < o->n_sets && !err; i++)
		err = add(out, SYSV_SEM, o->sets[i]->perm->key, (int)o->sets[i]->perm->id,
			  o->sets[i]->n_values, false);
	for (size_t i = 0; o && i < o->n_queues && !err; i++)
		err = add(out, SYSV_MSG, o->queues[i]->perm->key, (int)o->queues[i]->perm->id,
			  0, false);
	if (o)
		icp__sysv_objects__free_unpacked(o, NULL);
	return err;
}

static int add_noted(const struct ipc_note *n, struct ipc_removed_list *out)
{
	int err = 0;

	vec_each (o, &n->objects)
		if (!err && n->ns == ipc_namespace())
			err = add(out, o->kind, o->key, o->id, 0, false);
	return err;
}

/* A living process that used it last, 0 for none. */
static pid_t last_user(const struct ipc_removed *r, uint64_t semaphores)
{
	struct msqid_ds ds;

	if (r->kind == SYSV_MSG && !msgctl(r->id, IPC_STAT, &ds))
		return tasks_start_time(ds.msg_lspid)	? ds.msg_lspid
		       : tasks_start_time(ds.msg_lrpid) ? ds.msg_lrpid
							: 0;
	for (uint64_t i = 0; r->kind == SYSV_SEM && i < semaphores; i++) {
		pid_t pid = semctl(r->id, (int)i, GETPID);

		if (tasks_start_time(pid))
			return pid;
	}
	return 0;
}

static int check_unused(const struct ipc_removed *r)
{
	_cleanup_sysvshm_attachments_ struct sysvshm_attachments all = {0};
	const struct sysvshm_attachment *a;
	struct sysv_stat st;
	char comm[16] = "";
	pid_t user;
	size_t n = 0;

	if (sysv_stat(r->kind, r->id, &st))
		return 0; /* gone meanwhile */
	user = last_user(r, st.size);
	if (!user && !st.users)
		return 0;
	if (!user && r->kind == SYSV_SHM && !sysvshm_attachments(&all)) {
		a = sysvshm_attachments_of(&all, r->id, &n);
		user = n ? a[0].pid : 0;
	}
	tasks_comm(user, comm);
	return refuse(-EBUSY, "the %s with key %#x (id %d) is in use by pid %d (%s)",
		      sysv_objects[r->kind], r->key, r->id, user, comm);
}

int ipc_remove_left(const Icp__Manifest *m, const char *note_path, struct ipc_removed_list *out)
{
	_cleanup_ipc_note_ struct ipc_note n = {0};
	char boot[37];
	int err = boot_id(boot);
	bool same_boot = !err && !strcmp(boot, m->boot_id);

	if (!err)
		err = ipc_note_read(note_path, &n);
	if (!err)
		err = check_over(m, &n, same_boot);
	if (!err && same_boot)
		err = add_saved(m, out);
	if (!err)
		err = add_noted(&n, out);
	for (size_t i = 0; i < out->n && !err; i++)
		err = check_unused(&out->data[i]);
	if (err)
		return err;
	vec_each (r, out) {
		err = sysv_remove(r->kind, r->id);
		if (err && err != -EINVAL && err != -EIDRM)
			return fail(err, "remove the %s with key %#x (id %d)",
				    sysv_objects[r->kind], r->key, r->id);
	}
	unlink(note_path);
	return 0;
}

const char *ipc_removed_kind(const struct ipc_removed *r)
{
	return sysv_objects[r->kind];
}
