// SPDX-License-Identifier: GPL-2.0
/*
 * Semaphores and message queues of a frozen job. Nothing is attached to them, so what belongs to the job is what one of its
 * processes used last, waits for, or holds a SEM_UNDO adjustment in, and what the parent version had.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proc/tasks.h"
#include "state/ipc.h"
#include "state/kinds.h"
#include "state/procfs.h"
#include "state/sysv.pb-c.h"
#include "track/undo.h"

#define MESSAGE_MAX (64u << 10) /* at first; grows */

struct sysv_dump {
	Icp__SysvObjects msg;
};

/* ---- /proc/sysvipc ---- */

struct row {
	uint32_t id, key, mode, uid, gid, cuid, cgid;
	uint64_t n; /* semaphores; messages */
	pid_t sender, receiver;
	int64_t used, ctime; /* the last operation, 0: none yet; creation or a change of it */
};
struct rows {
	struct row *data;
	size_t n, cap;
};

static void free_rows(struct rows *r)
{
	vec_free(r);
}

static bool parse_row(const char *line, enum sysv_kind kind, struct row *r)
{
	int32_t key;
	int64_t received = 0;
	int got = kind == SYSV_SEM
			  ? sscanf(line, "%d %u %o %lu %u %u %u %u %ld %ld", &key, &r->id,
				   &r->mode, &r->n, &r->uid, &r->gid, &r->cuid, &r->cgid,
				   &r->used, &r->ctime)
			  : sscanf(line, "%d %u %o %*u %lu %d %d %u %u %u %u %ld %ld %ld", &key,
				   &r->id, &r->mode, &r->n, &r->sender, &r->receiver, &r->uid,
				   &r->gid, &r->cuid, &r->cgid, &r->used, &received, &r->ctime);

	r->key = (uint32_t)key;
	r->used |= received;
	return got == (kind == SYSV_SEM ? 10 : 13);
}

static int read_rows(enum sysv_kind kind, struct rows *out)
{
	_cleanup_free_ char *text = NULL;
	char path[32];
	int err;

	snprintf(path, sizeof(path), "/proc/sysvipc/%s", sysv_names[kind]);
	err = io_read_file(AT_FDCWD, path, &text, NULL);
	if (err == -ENOENT)
		return 0;
	if (err)
		return fail(err, "read %s", path);
	for (const char *line = strchr(text, '\n'); line && line[1];
	     line = strchr(line + 1, '\n')) {
		struct row *r = vec_push(out);

		if (!r)
			return fail(-ENOMEM, "read %s", path);
		if (!parse_row(line + 1, kind, r))
			return fail(-EPROTO, "parse %s", path);
	}
	return 0;
}

/* ---- whose is it? ---- */

struct who {
	const pid_t *pids;
	size_t n;
	const Icp__SysvObjects *parent; /* or NULL */
	bool unused;			/* with what nobody has used yet */
	VEC(struct waiting {
		enum sysv_kind kind;
		uint32_t id;
	})
	waiting;
};

static bool of_job(const struct who *w, pid_t pid)
{
	for (size_t i = 0; i < w->n; i++)
		if (w->pids[i] == pid)
			return true;
	return false;
}

/* The call that a thread is in names its object. */
static int note_waiting(struct who *w, pid_t pid)
{
	char path[48];
	_cleanup_dir_ DIR *dir = NULL;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	for (struct dirent *e; dir && (e = readdir(dir));) {
		_cleanup_free_ char *text = NULL;
		struct waiting *slot;
		unsigned long id;
		long nr;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.12s/syscall", pid, e->d_name);
		if (io_read_file(AT_FDCWD, path, &text, NULL) ||
		    sscanf(text, "%ld %lx", &nr, &id) != 2 ||
		    (nr != SYS_semop && nr != SYS_semtimedop && nr != SYS_msgrcv &&
		     nr != SYS_msgsnd))
			continue;
		slot = vec_push(&w->waiting);
		if (!slot)
			return fail(-ENOMEM, "note who waits");
		slot->kind = nr == SYS_semop || nr == SYS_semtimedop ? SYSV_SEM : SYSV_MSG;
		slot->id = (uint32_t)id;
	}
	return 0;
}

static bool in_parent(const struct who *w, enum sysv_kind kind, const struct row *r)
{
	const Icp__SysvObjects *p = w->parent;

	for (size_t i = 0; p && kind == SYSV_SEM && i < p->n_sets; i++)
		if (p->sets[i]->perm && p->sets[i]->perm->id == r->id)
			return true;
	for (size_t i = 0; p && kind == SYSV_MSG && i < p->n_queues; i++)
		if (p->queues[i]->perm && p->queues[i]->perm->id == r->id)
			return true;
	return false;
}

static bool waited_for(const struct who *w, enum sysv_kind kind, uint32_t id)
{
	vec_each (at, &w->waiting)
		if (at->kind == kind && at->id == id)
			return true;
	return false;
}

static bool has_id(const char *status, const char *key, uint32_t id)
{
	uint32_t ids[4];
	size_t n = procfs_numbers(status, key, ids, 4);

	for (size_t i = 0; i < n; i++)
		if (ids[i] == id)
			return true;
	return false;
}

/* The kernel does not say who made a set or queue: a process of this user and group, while @pid lived. */
static bool may_have_made(pid_t pid, const struct row *r)
{
	_cleanup_free_ char *status = NULL;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	return r->ctime >= tasks_began(tasks_start_time(pid)) - 2 &&
	       !io_read_file(AT_FDCWD, path, &status, NULL) && has_id(status, "Uid", r->cuid) &&
	       has_id(status, "Gid", r->cgid);
}

static bool unused_of_job(const struct who *w, const struct row *r)
{
	for (size_t i = 0; w->unused && !r->used && i < w->n; i++)
		if (may_have_made(w->pids[i], r))
			return true;
	return false;
}

/* ---- semaphores ---- */

static Icp__SysvPerm *new_perm(const struct row *r)
{
	Icp__SysvPerm *p = malloc(sizeof(*p));

	if (!p)
		return NULL;
	icp__sysv_perm__init(p);
	p->id = r->id;
	p->key = r->key;
	p->mode = r->mode & 0777;
	p->uid = r->uid;
	p->gid = r->gid;
	p->cuid = r->cuid;
	p->cgid = r->cgid;
	return p;
}

/* Grow a repeated field by one, which the message owns from then on. */
static void *add(void *list, size_t *n, size_t size)
{
	void **grown = reallocarray(*(void ***)list, *n + 1, sizeof(void *));
	void *one = calloc(1, size);

	if (grown)
		*(void ***)list = grown;
	if (!grown || !one) {
		free(one);
		return NULL;
	}
	grown[(*n)++] = one;
	return one;
}

static int fill_undo(Icp__SemSet *set, const undo_values *undo, const struct who *w)
{
	vec_each (u, undo) {
		Icp__SemUndo *one;

		if ((uint32_t)u->semid != set->perm->id || !of_job(w, u->pid))
			continue;
		one = add(&set->undo, &set->n_undo, sizeof(*one));
		if (!one)
			return -ENOMEM;
		icp__sem_undo__init(one);
		one->pid = (uint32_t)u->pid;
		one->number = u->num;
		one->adjust = u->adjust;
	}
	return 0;
}

static int dump_set(struct sysv_dump *d, const struct row *r, const uint32_t *pids,
		    const undo_values *undo, const struct who *w)
{
	_cleanup_free_ unsigned short *values = calloc(r->n + 1, sizeof(*values));
	Icp__SemSet *set = add(&d->msg.sets, &d->msg.n_sets, sizeof(*set));

	if (!set || !values)
		return -ENOMEM;
	icp__sem_set__init(set);
	set->perm = new_perm(r);
	set->values = calloc(r->n + 1, sizeof(uint32_t));
	set->pids = calloc(r->n + 1, sizeof(uint32_t));
	if (!set->perm || !set->values || !set->pids)
		return -ENOMEM;
	if (semctl((int)r->id, 0, GETALL, (union semun){.array = values}))
		return -errno;
	for (size_t i = 0; i < r->n; i++) {
		set->values[i] = values[i];
		set->pids[i] = pids[i];
	}
	set->n_values = set->n_pids = r->n;
	return fill_undo(set, undo, w);
}

/* Who changed each semaphore last; whether one of them is of the job. -ENOENT (bare): gone. */
static int last_pids(const struct row *r, const struct who *w, uint32_t **out, bool *ours)
{
	uint32_t *pids = *out = calloc(r->n + 1, sizeof(*pids));
	bool used = false;

	if (!pids)
		return -ENOMEM;
	for (size_t i = 0; i < r->n; i++) {
		int pid = semctl((int)r->id, (int)i, GETPID);

		if (pid < 0)
			return errno == EINVAL || errno == EIDRM || errno == EACCES ? -ENOENT
										    : -errno;
		pids[i] = (uint32_t)pid;
		used |= pid != 0;
		*ours |= pid && of_job(w, pid);
	}
	*ours |= !used && unused_of_job(w, r);
	return 0;
}

static int read_undo(struct sysv_dump *d, const struct rows *rows, undo_values *undo)
{
	struct undo *reader;
	_cleanup_free_ struct undo_set *sets = calloc(rows->n + 1, sizeof(*sets));
	int err;

	if (!sets)
		return fail(-ENOMEM, "semaphores");
	for (size_t i = 0; i < rows->n; i++)
		sets[i] = (struct undo_set){(int)rows->data[i].id, (uint32_t)rows->data[i].n};
	err = rows->n ? undo_get(&reader) : 0;
	return err || !rows->n ? err : undo_read(reader, sets, rows->n, undo);
}

static int dump_sets(struct sysv_dump *d, const struct who *w, bool lose_undo)
{
	_cleanup_(free_rows) struct rows rows = {0};
	undo_values undo = {0};
	int err = read_rows(SYSV_SEM, &rows), no_undo = 0;

	if (!err)
		no_undo = read_undo(d, &rows, &undo);
	for (size_t i = 0; i < rows.n && !err; i++) {
		const struct row *r = &rows.data[i];
		_cleanup_free_ uint32_t *pids = NULL;
		bool ours = waited_for(w, SYSV_SEM, r->id) || in_parent(w, SYSV_SEM, r);

		vec_each (u, &undo)
			ours |= (uint32_t)u->semid == r->id && of_job(w, u->pid);
		err = last_pids(r, w, &pids, &ours);
		if (err == -ENOENT || (!err && !ours)) {
			err = 0;
			continue;
		}
		if (!err && no_undo && !lose_undo)
			err = no_undo;
		else if (!err)
			err = dump_set(d, r, pids, &undo, w);
		if (err)
			err = wrap(err, "semaphore set %u (key %#x)", r->id, r->key);
	}
	vec_free(&undo);
	return err;
}

/* ---- message queues ---- */

/* Message @i of the queue, which stays in it (MSG_COPY: CONFIG_CHECKPOINT_RESTORE). -ENOMSG (bare): there are fewer. */
static int dump_message(Icp__MessageQueue *q, long i)
{
	size_t room = MESSAGE_MAX;

	for (;;) {
		struct msgbuf *buf = malloc(sizeof(long) + room);
		ssize_t got =
			buf ? msgrcv((int)q->perm->id, buf, room, i, MSG_COPY | IPC_NOWAIT)
			    : -1;
		Icp__QueuedMessage *m;
		int err = buf ? -errno : -ENOMEM;

		if (got < 0) {
			free(buf);
			if (err != -E2BIG || room > 1u << 30)
				return err;
			room *= 4;
			continue;
		}
		m = add(&q->messages, &q->n_messages, sizeof(*m));
		if (m) {
			icp__queued_message__init(m);
			m->type = buf->mtype;
			m->text.data = malloc((size_t)got + 1);
			m->text.len = m->text.data ? (size_t)got : 0;
			if (m->text.data)
				memcpy(m->text.data, buf->mtext, (size_t)got);
		}
		free(buf);
		return m && m->text.data ? 0 : -ENOMEM;
	}
}

static int dump_queue(struct sysv_dump *d, const struct row *r)
{
	Icp__MessageQueue *q = add(&d->msg.queues, &d->msg.n_queues, sizeof(*q));
	struct msqid_ds ds;
	int err = 0;

	if (!q)
		return -ENOMEM;
	icp__message_queue__init(q);
	q->perm = new_perm(r);
	if (!q->perm)
		return -ENOMEM;
	if (msgctl((int)r->id, IPC_STAT, &ds))
		return -errno;
	q->max_bytes = ds.msg_qbytes;
	for (long i = 0; !err; i++)
		err = dump_message(q, i);
	return err == -ENOMSG ? 0 : err;
}

static int dump_queues(struct sysv_dump *d, const struct who *w)
{
	_cleanup_(free_rows) struct rows rows = {0};
	int err = read_rows(SYSV_MSG, &rows);

	for (size_t i = 0; i < rows.n && !err; i++) {
		const struct row *r = &rows.data[i];

		if (!of_job(w, r->sender) && !of_job(w, r->receiver) &&
		    !waited_for(w, SYSV_MSG, r->id) && !in_parent(w, SYSV_MSG, r) &&
		    !unused_of_job(w, r))
			continue;
		err = dump_queue(d, r);
		if (err)
			err = fail(err, "read the messages of queue %u (key %#x)", r->id,
				   r->key);
	}
	return err;
}

/* ---- the job ---- */

int sysv_dump_new(struct sysv_dump **out)
{
	struct undo *undo;
	_cleanup_(free_rows) struct rows rows = {0};
	struct sysv_dump *d = *out = calloc(1, sizeof(*d));
	int err = d ? read_rows(SYSV_SEM, &rows) : -ENOMEM;

	if (err)
		return err;
	icp__sysv_objects__init(&d->msg);
	/* while the job runs: it takes a while. Why it can't be is said where it is missed. */
	if (rows.n && undo_get(&undo))
		err_clear();
	return 0;
}

void sysv_dump_free(struct sysv_dump *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < d->msg.n_sets; i++)
		icp__sem_set__free_unpacked(d->msg.sets[i], NULL);
	for (size_t i = 0; i < d->msg.n_queues; i++)
		icp__message_queue__free_unpacked(d->msg.queues[i], NULL);
	free(d->msg.sets);
	free(d->msg.queues);
	free(d);
}

int state_job_dump(struct state_job *job, const Icp__Manifest *parent, const pid_t *pids,
		   size_t n, bool lose_undo)
{
	struct sysv_dump *d = job->sysv;
	struct who w = {.pids = pids, .n = n, .unused = job->how.ipc_unused};
	Icp__SysvObjects *before = NULL;
	int err = 0;

	if (parent)
		before = sysv_unpack(parent);
	w.parent = before;
	for (size_t i = 0; i < n && !err; i++)
		err = note_waiting(&w, pids[i]);
	if (!err)
		err = dump_sets(d, &w, lose_undo);
	if (!err)
		err = dump_queues(d, &w);
	vec_free(&w.waiting);
	if (before)
		icp__sysv_objects__free_unpacked(before, NULL);
	return err;
}

int sysv_dump_finish(struct sysv_dump *d, Icp__Manifest *m)
{
	if (!d->msg.n_sets && !d->msg.n_queues)
		return 0;
	return state_pack_blob(&m->blobs, &m->n_blobs, "sysv", SYSV_VERSION, &d->msg.base);
}
