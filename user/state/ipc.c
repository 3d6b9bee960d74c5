// SPDX-License-Identifier: GPL-2.0
/* System V segments: once per job. The first process that needs one has it made and filled, the others link to it. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#include "base/log.h"
#include "proc/sysvshm.h"
#include "proc/tasks.h"
#include "state/ipc.h"
#include "state/sysv.pb-c.h"

void state_fill_segment(const struct sysvshm_segment *s, Icp__Segment *out)
{
	out->shmid = (uint32_t)s->shmid;
	out->key = (uint32_t)s->key;
	out->size = s->size;
	out->mode = s->mode;
	out->uid = s->uid;
	out->gid = s->gid;
	out->cuid = s->cuid;
	out->cgid = s->cgid;
	out->removed = s->removed;
	out->locked = s->locked;
	out->cpid = (uint32_t)s->cpid;
}

enum how { MAKE, LINK, ADOPT, REPLACE };

/* One of the version: a segment, a semaphore set, a message queue. */
struct made {
	struct sysv_wanted w; /* as it was */
	uint32_t mode, uid, gid;
	uint64_t size; /* as in struct sysv_stat */
	bool removed;
	const Icp__Segment *segment; /* one of the three */
	const Icp__SemSet *set;
	const Icp__MessageQueue *queue;
	enum how how;
	int id;
	bool mine;    /* made by this restart; the keeper removes it if that fails */
	void *memory; /* of a segment; NULL: not to be filled */
};

struct restore_segments {
	struct made *list; /* the segments as in the manifest, the sets, the queues */
	size_t n;
	Icp__SysvObjects *sysv; /* NULL: none */
	struct ipc_note note;
};

static const char *name_of(const struct made *m, char text[64])
{
	snprintf(text, 64, "%s with key %#x", sysv_objects[m->w.kind], m->w.key);
	return text;
}

/* ---- one that is there already ---- */

static const char *who(pid_t pid, char text[64])
{
	char comm[16];

	if (tasks_comm(pid, comm))
		snprintf(text, 64, "pid %d (%s)", pid, comm);
	else
		snprintf(text, 64, "pid %d, which has ended", pid);
	return text;
}

static void list_attached(int id, char *text, size_t size)
{
	_cleanup_sysvshm_attachments_ struct sysvshm_attachments all = {0};
	const struct sysvshm_attachment *a;
	size_t n = 0, at = 0;

	snprintf(text, size, "attached by nobody");
	if (sysvshm_attachments(&all))
		err_clear();
	a = sysvshm_attachments_of(&all, id, &n);
	for (size_t i = 0; i < n && at + 80 < size; i++) {
		char name[64];

		if (!i || a[i].pid != a[i - 1].pid)
			at += (size_t)snprintf(text + at, size - at, "%s%s",
					       at ? ", " : "attached by ", who(a[i].pid, name));
	}
}

static int say_taken(const struct made *m, const struct sysv_stat *st, bool left)
{
	char name[64], maker[64], attached[240], by[320];

	if (m->w.kind == SYSV_SHM) {
		list_attached(m->id, attached, sizeof(attached));
		snprintf(by, sizeof(by), "made by %s, %s", who(st->cpid, maker), attached);
	} else {
		snprintf(by, sizeof(by), "of uid %u", st->uid);
	}
	return refuse(-EEXIST,
		      "a System V %s exists already (id %d, %s)%s: --shm-existing adopt takes "
		      "it with what is in it, replace removes it",
		      name_of(m, name), m->id, by,
		      left ? "; an earlier restart of this version left it" : "");
}

static int may_adopt(const struct made *m, const struct sysv_stat *st)
{
	char name[64];

	name_of(m, name);
	if (st->size != m->size)
		return refuse(-EEXIST,
			      "the %s (id %d) can't be adopted: it has %lu %s instead of %lu",
			      name, m->id, st->size,
			      m->w.kind == SYSV_SHM ? "bytes" : "semaphores", m->size);
	if (st->mode != m->mode)
		return refuse(-EEXIST,
			      "the %s (id %d) can't be adopted: its mode is %o instead of %o",
			      name, m->id, st->mode, m->mode);
	note("note: the %s (id %d) is adopted: what is in it stays, and is not what the "
	     "version "
	     "has",
	     name, m->id);
	return 0;
}

static int may_replace(const struct made *m, const struct sysv_stat *st)
{
	char name[64], attached[240] = "waited for";

	if (!st->users)
		return 0;
	if (m->w.kind == SYSV_SHM)
		list_attached(m->id, attached, sizeof(attached));
	return refuse(-EBUSY, "the %s (id %d) can't be replaced: it is %s (%lu times)",
		      name_of(m, name), m->id, attached, st->users);
}

/* Made by an earlier restart of this version, of which somebody lives? Then it is the job's. */
static bool link_to(const struct restore_job *job, pid_t alive, struct made *m)
{
	const struct ipc_object *o = ipc_note_find(&job->segments->note, m->w.kind, m->w.id);
	struct sysv_stat st;
	char name[64];

	if (!o || !alive || job->segments->note.ns != ipc_namespace() ||
	    sysv_stat(m->w.kind, o->id, &st) || st.size != m->size ||
	    (!m->removed && st.key != m->w.key))
		return false;
	m->how = LINK;
	m->id = o->id;
	note("note: the %s (id %d) is there since pid %d was restarted: linked, what is in it "
	     "stays",
	     name_of(m, name), o->id, alive);
	return true;
}

/* Only looks: a refusal comes before anything is changed. */
static int decide(const struct restore_job *job, pid_t alive, struct made *m)
{
	struct sysv_stat st;
	char name[64];
	int err;

	if (link_to(job, alive, m) || m->removed || !m->w.key)
		return 0;
	m->id = sysv_find(m->w.kind, m->w.key);
	if (m->id < 0)
		return 0;
	err = sysv_stat(m->w.kind, m->id, &st);
	if (err)
		return fail(err, "look at the %s (id %d)", name_of(m, name), m->id);
	switch (job->ipc.existing) {
	case IPC_ADOPT:
		m->how = ADOPT;
		return may_adopt(m, &st);
	case IPC_REPLACE:
		m->how = REPLACE;
		return may_replace(m, &st);
	default:
		return say_taken(m, &st,
				 ipc_note_find(&job->segments->note, m->w.kind, m->w.id));
	}
}

/* ---- a new one ---- */

/* Those that attach a segment are the ones that may know its id; of the others nobody knows. */
static void tell_id(const struct restore_job *job, const struct made *m)
{
	char text[240] = "";
	size_t at = 0;

	for (size_t p = 0; p < job->manifest->n_processes; p++) {
		const Icp__Process *image = job->manifest->processes[p];
		bool has = m->w.kind != SYSV_SHM;

		for (size_t i = 0; i < image->n_vmas; i++)
			has |= image->vmas[i]->kind == VMA_SHM + 1 &&
			       image->vmas[i]->shmid == m->w.id;
		if (has && at + 64 < sizeof(text))
			at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s (pid %u)",
					       at ? ", " : "", image->comm, image->pid);
	}
	sysv_other_id(&m->w, m->id, text);
}

/* What it has before any process is there. */
static int fill_new(struct made *m)
{
	struct msqid_ds ds;
	int err;

	if (m->segment) {
		m->memory = shmat(m->id, NULL, 0);
		if (m->memory != (void *)-1)
			return 0;
		m->memory = NULL;
		return fail(-errno, "attach it");
	}
	if (m->set) /* the processes work on it already, as themselves */
		return sysv_set_owner(SYSV_SEM, m->id, m->uid, m->gid, m->mode);
	if (msgctl(m->id, IPC_STAT, &ds))
		return fail(-errno, "look at it");
	if (ds.msg_qbytes != m->queue->max_bytes) {
		ds.msg_qbytes = m->queue->max_bytes;
		if (msgctl(m->id, IPC_SET, &ds))
			return fail(-errno, "let it have %lu bytes", ds.msg_qbytes);
	}
	err = sysv_send_all(m->id, m->queue);
	return err ? err : sysv_set_owner(SYSV_MSG, m->id, m->uid, m->gid, m->mode);
}

static int make(struct restore_job *job, struct made *m)
{
	struct sysv_wanted w = m->w;
	char name[64];
	int id, err = m->how == REPLACE ? sysv_remove(m->w.kind, m->id) : 0;

	name_of(m, name);
	if (err)
		return fail(err, "remove the %s", name);
	w.size = m->size;
	if (m->removed)
		w.key = IPC_PRIVATE;
	id = ipc_keeper_make(job->ipc.keeper, &w);
	if (id == -EEXIST)
		return refuse(id, "somebody has just made a %s", name);
	if (id < 0)
		return fail(id, "make a %s, of size %lu", name, m->size);
	m->id = id;
	m->mine = true;
	err = fill_new(m);
	if (err)
		return wrap(err, "%s", name);
	if ((uint32_t)id != m->w.id)
		tell_id(job, m);
	return 0;
}

/* ---- all of them ---- */

static struct made of_perm(enum sysv_kind kind, const Icp__SysvPerm *p)
{
	return (struct made){
		.w = {kind, p->id, p->key, p->cuid, p->cgid},
		.mode = p->mode & 0777,
		.uid = p->uid,
		.gid = p->gid,
		.id = -1,
	};
}

static int list_objects(struct restore_job *job)
{
	const Icp__Manifest *m = job->manifest;
	struct restore_segments *s = job->segments;
	int err = sysv_load(m, &s->sysv);
	size_t sets = s->sysv ? s->sysv->n_sets : 0, queues = s->sysv ? s->sysv->n_queues : 0;

	if (err)
		return err;
	s->list = calloc(m->n_segments + sets + queues + 1, sizeof(*s->list));
	if (!s->list)
		return fail(-ENOMEM, "prepare segments");
	for (size_t i = 0; i < m->n_segments; i++) {
		const Icp__Segment *seg = m->segments[i];

		s->list[s->n++] = (struct made){
			.w = {SYSV_SHM, seg->shmid, seg->key, seg->cuid, seg->cgid},
			.mode = seg->mode & 0777,
			.uid = seg->uid,
			.gid = seg->gid,
			.size = seg->size,
			.removed = seg->removed,
			.segment = seg,
			.id = -1,
		};
	}
	for (size_t i = 0; i < sets; i++) {
		s->list[s->n] = of_perm(SYSV_SEM, s->sysv->sets[i]->perm);
		s->list[s->n].size = s->sysv->sets[i]->n_values;
		s->list[s->n++].set = s->sysv->sets[i];
	}
	for (size_t i = 0; i < queues; i++) {
		s->list[s->n] = of_perm(SYSV_MSG, s->sysv->queues[i]->perm);
		s->list[s->n++].queue = s->sysv->queues[i];
	}
	return 0;
}

/* A namespace of the job's own: that of its other processes, if an earlier restart made one. */
static int enter_namespace(const struct ipc_note *n)
{
	pid_t alive = ipc_note_alive(n);
	_cleanup_fd_ int fd = -1;
	char path[40];

	if (alive && n->ns != ipc_namespace()) {
		snprintf(path, sizeof(path), "/proc/%d/ns/ipc", alive);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || setns(fd, CLONE_NEWIPC))
			return fail(-errno, "join the IPC namespace of pid %d", alive);
		return 0;
	}
	return unshare(CLONE_NEWIPC) ? fail(-errno, "make a new IPC namespace") : 0;
}

int ipc_restore_new(struct restore_job *job)
{
	struct restore_segments *s = job->segments = calloc(1, sizeof(*s));
	pid_t alive;
	int err = s ? list_objects(job) : fail(-ENOMEM, "prepare segments");

	if (!err)
		err = ipc_note_read(job->ipc.note, &s->note);
	if (!err && job->ipc.new_namespace)
		err = enter_namespace(&s->note);
	if (!err && job->ipc.new_namespace)
		err = ipc_keeper_enter(job->ipc.keeper);
	if (err)
		return err;
	alive = ipc_note_alive(&s->note);
	for (size_t i = 0; i < s->n && !err; i++)
		err = decide(job, alive, &s->list[i]);
	for (size_t i = 0; i < s->n && !err; i++)
		if (s->list[i].how == MAKE || s->list[i].how == REPLACE)
			err = make(job, &s->list[i]);
	return err;
}

int ipc_restored(const struct restore_job *job, uint32_t shmid)
{
	for (size_t i = 0; job->segments && i < job->segments->n; i++)
		if (job->segments->list[i].segment && job->segments->list[i].w.id == shmid)
			return job->segments->list[i].id;
	return -1;
}

const Icp__SysvObjects *ipc_sysv(const struct restore_job *job)
{
	return job->segments ? job->segments->sysv : NULL;
}

int ipc_restored_sysv(const struct restore_job *job, enum sysv_kind kind, size_t i)
{
	size_t at = job->manifest->n_segments + i +
		    (kind == SYSV_MSG ? job->segments->sysv->n_sets : 0);

	return job->segments->list[at].id;
}

void *ipc_restore_memory(const struct restore_job *job, size_t i)
{
	return job->segments->list[i].memory;
}

int ipc_restore_values(struct restore_job *job)
{
	int err = 0;

	for (size_t i = 0; i < job->segments->n && !err; i++) {
		const struct made *m = &job->segments->list[i];

		if (m->mine && m->set)
			err = sysv_set_values(m->id, m->set);
	}
	return err;
}

static int end_segment(const struct made *m)
{
	int err = sysv_set_owner(SYSV_SHM, m->id, m->uid, m->gid, m->mode);

	if (err)
		return fail(err, "set the owner of the segment with key %#x", m->w.key);
	if (m->segment->locked && shmctl(m->id, SHM_LOCK, NULL))
		return fail(-errno, "lock the segment with key %#x in memory", m->w.key);
	if (m->removed && shmctl(m->id, IPC_RMID, NULL))
		return fail(-errno, "remove the segment with id %d", m->id);
	return 0;
}

/* What this restart did, for the next one of this version. Objects of an older one may be gone. */
static int write_note(struct restore_job *job)
{
	const Icp__Manifest *m = job->manifest;
	struct restore_segments *s = job->segments;
	struct ipc_note *n = &s->note;

	if (!*job->ipc.note || !s->n)
		return 0;
	if (!ipc_note_alive(n))
		n->objects.n = n->processes.n = 0;
	n->ns = ipc_namespace();
	for (size_t i = 0; i < m->n_processes; i++) {
		struct ipc_process *p = vec_push(&n->processes);

		if (!p)
			return fail(-ENOMEM, "note the restart");
		p->pid = (pid_t)m->processes[i]->pid;
		p->start_time = tasks_start_time(p->pid);
	}
	for (size_t i = 0; i < s->n; i++) {
		struct ipc_object *o = s->list[i].how == LINK ? NULL : vec_push(&n->objects);

		if (!o && s->list[i].how != LINK)
			return fail(-ENOMEM, "note the restart");
		if (o)
			*o = (struct ipc_object){s->list[i].w.kind, s->list[i].w.key,
						 s->list[i].w.id, s->list[i].id};
	}
	return ipc_note_write(job->ipc.note, n);
}

int ipc_restore_end(struct restore_job *job)
{
	int err = 0;

	for (size_t i = 0; i < job->segments->n && !err; i++)
		if (job->segments->list[i].mine && job->segments->list[i].segment)
			err = end_segment(&job->segments->list[i]);
	if (err)
		return err;
	if (write_note(
		    job)) { /* a later restart of its other processes will not know it again */
		debug("%s", err_text(-EIO));
		err_clear();
	}
	return 0;
}

void ipc_restore_free(struct restore_job *job)
{
	struct restore_segments *s = job->segments;

	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++)
		if (s->list[i].memory)
			shmdt(s->list[i].memory);
	if (s->sysv)
		icp__sysv_objects__free_unpacked(s->sysv, NULL);
	ipc_note_free(&s->note);
	free(s->list);
	free(s);
	job->segments = NULL;
}
