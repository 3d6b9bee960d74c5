// SPDX-License-Identifier: GPL-2.0
/* System V segments: once per job. The first process that needs one has it made and filled, the others link to it. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>

#include "base/log.h"
#include "base/page.h"
#include "proc/sysvshm.h"
#include "proc/tasks.h"
#include "state/ipc.h"

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

struct restore_segments {
	struct made {
		enum how how;
		int id;
		bool mine;    /* to be removed if this restart fails */
		void *memory; /* NULL: not to be filled */
	} * list;	      /* as in the manifest */
	size_t n;
	bool ended;
	struct ipc_note note;
};

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

static int say_taken(const Icp__Segment *seg, const struct shmid_ds *ds, int id, bool left)
{
	char maker[64], attached[240];

	list_attached(id, attached, sizeof(attached));
	return refuse(
		-EEXIST,
		"a System V segment with key %#x exists already (id %d, made by %s, %s)%s: "
		"--shm-existing adopt takes it with what is in it, replace removes it",
		seg->key, id, who(ds->shm_cpid, maker), attached,
		left ? "; an earlier restart of this version left it" : "");
}

static int may_adopt(const Icp__Segment *seg, const struct shmid_ds *ds, int id)
{
	if (ds->shm_segsz != seg->size)
		return refuse(-EEXIST,
			      "the segment with key %#x (id %d) can't be adopted: it has %zu "
			      "bytes instead of %llu",
			      seg->key, id, ds->shm_segsz, (unsigned long long)seg->size);
	if ((ds->shm_perm.mode & 0777) != (seg->mode & 0777))
		return refuse(-EEXIST,
			      "the segment with key %#x (id %d) can't be adopted: its mode is "
			      "%o instead of %o",
			      seg->key, id, ds->shm_perm.mode & 0777, seg->mode & 0777);
	note("note: the segment with key %#x (id %d) is adopted: what is in it stays, and is "
	     "not what the version has",
	     seg->key, id);
	return 0;
}

static int may_replace(const Icp__Segment *seg, const struct shmid_ds *ds, int id)
{
	char attached[240];

	if (!ds->shm_nattch)
		return 0;
	list_attached(id, attached, sizeof(attached));
	return refuse(-EBUSY,
		      "the segment with key %#x (id %d) can't be replaced: it is %s (%lu "
		      "attachments)",
		      seg->key, id, attached, (unsigned long)ds->shm_nattch);
}

/* Made by an earlier restart of this version, of which somebody lives? Then it is the job's. */
static bool link_to(const struct restore_job *job, const Icp__Segment *seg, pid_t alive,
		    struct made *m)
{
	const struct ipc_object *o = ipc_note_find(&job->segments->note, SYSV_SHM, seg->shmid);
	struct shmid_ds ds;

	if (!o || !alive || job->segments->note.ns != ipc_namespace() ||
	    shmctl(o->id, IPC_STAT, &ds) || ds.shm_segsz != seg->size ||
	    (!seg->removed && (uint32_t)ds.shm_perm.__key != seg->key))
		return false;
	*m = (struct made){.how = LINK, .id = o->id};
	note("note: the segment with key %#x (id %d) is there since pid %d was restarted: "
	     "linked, what is in it stays",
	     seg->key, o->id, alive);
	return true;
}

/* Only looks: a refusal comes before anything is changed. */
static int decide(const struct restore_job *job, const Icp__Segment *seg, pid_t alive,
		  struct made *m)
{
	struct shmid_ds ds;
	int id;

	*m = (struct made){.how = MAKE, .id = -1};
	if (link_to(job, seg, alive, m) || seg->removed || !seg->key)
		return 0;
	id = shmget((key_t)seg->key, 0, 0);
	if (id < 0)
		return 0;
	if (shmctl(id, IPC_STAT, &ds))
		return fail(-errno, "look at the segment with key %#x (id %d)", seg->key, id);
	m->id = id;
	switch (job->ipc.existing) {
	case IPC_ADOPT:
		m->how = ADOPT;
		return may_adopt(seg, &ds, id);
	case IPC_REPLACE:
		m->how = REPLACE;
		return may_replace(seg, &ds, id);
	default:
		return say_taken(seg, &ds, id,
				 ipc_note_find(&job->segments->note, SYSV_SHM, seg->shmid) !=
					 NULL);
	}
}

/* ---- a new one ---- */

static int get_segment(void *arg)
{
	const Icp__Segment *seg = arg;

	return shmget(seg->removed ? IPC_PRIVATE : (key_t)seg->key, seg->size,
		      IPC_CREAT | IPC_EXCL | 0600);
}

/* Those that attach it are the ones that may know its id. */
static void tell_id(const struct restore_job *job, const struct sysv_wanted *w, int id)
{
	char text[240] = "";
	size_t at = 0;

	for (size_t p = 0; p < job->manifest->n_processes; p++) {
		const Icp__Process *image = job->manifest->processes[p];
		bool has = false;

		for (size_t i = 0; i < image->n_vmas; i++)
			has |= image->vmas[i]->kind == VMA_SHM + 1 &&
			       image->vmas[i]->shmid == w->id;
		if (has && at + 64 < sizeof(text))
			at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s (pid %u)",
					       at ? ", " : "", image->comm, image->pid);
	}
	sysv_other_id(w, id, text);
}

static int make(struct restore_job *job, size_t i)
{
	Icp__Segment *seg = job->manifest->segments[i];
	struct made *m = &job->segments->list[i];
	struct sysv_wanted w = {.kind = SYSV_SHM,
				.id = seg->shmid,
				.key = seg->key,
				.cuid = seg->cuid,
				.cgid = seg->cgid};
	int id;

	if (m->how == REPLACE && shmctl(m->id, IPC_RMID, NULL))
		return fail(-errno, "remove the segment with key %#x", seg->key);
	id = sysv_make(&w, get_segment, seg);
	if (id == -EEXIST)
		return refuse(id, "somebody has just made a segment with key %#x", seg->key);
	if (id < 0)
		return fail(id, "make a segment of %llu bytes with key %#x",
			    (unsigned long long)seg->size, seg->key);
	m->id = id;
	m->mine = true;
	m->memory = shmat(id, NULL, 0);
	if (m->memory == (void *)-1) {
		m->memory = NULL;
		return fail(-errno, "attach the segment with key %#x", seg->key);
	}
	if ((uint32_t)id != seg->shmid)
		tell_id(job, &w, id);
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
	const Icp__Manifest *m = job->manifest;
	struct restore_segments *s = job->segments = calloc(1, sizeof(*s));
	pid_t alive;
	int err;

	if (s)
		s->list = calloc(m->n_segments + 1, sizeof(*s->list));
	if (!s || !s->list)
		return fail(-ENOMEM, "prepare segments");
	err = ipc_note_read(job->ipc.note, &s->note);
	if (!err && job->ipc.new_namespace)
		err = enter_namespace(&s->note);
	alive = ipc_note_alive(&s->note);
	for (size_t i = 0; i < m->n_segments && !err; i++)
		err = decide(job, m->segments[i], alive, &s->list[i]);
	for (; s->n < m->n_segments && !err; s->n++)
		if (s->list[s->n].how == MAKE || s->list[s->n].how == REPLACE)
			err = make(job, s->n);
	return err;
}

int ipc_restored(const struct restore_job *job, uint32_t shmid)
{
	for (size_t i = 0; job->segments && i < job->segments->n; i++)
		if (job->manifest->segments[i]->shmid == shmid)
			return job->segments->list[i].id;
	return -1;
}

void *ipc_restore_memory(const struct restore_job *job, size_t i)
{
	return job->segments->list[i].memory;
}

static int end_segment(const Icp__Segment *seg, int id)
{
	struct shmid_ds ds;

	if (shmctl(id, IPC_STAT, &ds))
		return fail(-errno, "look at the segment with key %#x", seg->key);
	ds.shm_perm.uid = seg->uid;
	ds.shm_perm.gid = seg->gid;
	ds.shm_perm.mode = seg->mode & 0777;
	if (shmctl(id, IPC_SET, &ds))
		return fail(-errno, "set the owner of the segment with key %#x", seg->key);
	if (seg->locked && shmctl(id, SHM_LOCK, NULL))
		return fail(-errno, "lock the segment with key %#x in memory", seg->key);
	if (seg->removed && shmctl(id, IPC_RMID, NULL))
		return fail(-errno, "remove the segment with id %d", id);
	return 0;
}

/* What this restart did, for the next one of this version. Objects of an older one may be gone. */
static int write_note(struct restore_job *job)
{
	const Icp__Manifest *m = job->manifest;
	struct restore_segments *s = job->segments;
	struct ipc_note *n = &s->note;

	if (!*job->ipc.note || !m->n_segments)
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
			*o = (struct ipc_object){SYSV_SHM, m->segments[i]->key,
						 m->segments[i]->shmid, s->list[i].id};
	}
	return ipc_note_write(job->ipc.note, n);
}

int ipc_restore_end(struct restore_job *job)
{
	int err = 0;

	for (size_t i = 0; i < job->segments->n && !err; i++)
		if (job->segments->list[i].mine)
			err = end_segment(job->manifest->segments[i],
					  job->segments->list[i].id);
	if (err)
		return err;
	if (write_note(
		    job)) { /* a later restart of its other processes will not know it again */
		debug("%s", err_text(-EIO));
		err_clear();
	}
	job->segments->ended = true;
	return 0;
}

void ipc_restore_free(struct restore_job *job)
{
	struct restore_segments *s = job->segments;

	if (!s)
		return;
	for (size_t i = 0; s->list && i < job->manifest->n_segments; i++) {
		if (s->list[i].memory)
			shmdt(s->list[i].memory);
		if (s->list[i].mine && !s->ended)
			shmctl(s->list[i].id, IPC_RMID, NULL);
	}
	ipc_note_free(&s->note);
	free(s->list);
	free(s);
	job->segments = NULL;
}
