// SPDX-License-Identifier: GPL-2.0
#include "state/look.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "state/fdkind.h"

#define IN_A_ROW 2	  /* looks after which it is believed */
#define IN_A_ROW_AGAIN 50 /* of what may go away by itself */
#define LOOKS 100

struct table {
	pid_t pid;
	struct fd_list fds;
};

struct culprit {
	pid_t pid;
	int fd;
	uint64_t inode, other;
};

struct looks {
	VEC(struct table) tables;
	VEC(struct seen_fd *) by_inode;
	const pid_t *pids;
	size_t n_pids;
	bool fresh; /* all were looked at for this */
	struct culprit blamed, before;
	unsigned in_a_row, n;
};

int look_new(struct state_job *job)
{
	struct look *l = job->look = calloc(1, sizeof(*l));

	if (l)
		l->more = calloc(1, sizeof(*l->more));
	if (!l || !l->more)
		return -ENOMEM;
	l->job = job;
	return 0;
}

static void forget(struct look *l)
{
	vec_each (t, &l->more->tables)
		fd_list_free(&t->fds);
	l->more->tables.n = l->more->by_inode.n = l->seen.n = 0;
	l->in_flight = false;
}

void look_free(struct look *l)
{
	if (l && l->more) {
		forget(l);
		vec_free(&l->more->tables);
		vec_free(&l->more->by_inode);
		vec_free(&l->seen);
		free(l->more);
	}
	free(l);
}

int look_add(struct look *l, pid_t pid, struct fd_list *fds)
{
	struct table *t = vec_push(&l->more->tables);

	if (!t)
		return fail(-ENOMEM, "look at open files");
	*t = (struct table){pid, *fds};
	*fds = (struct fd_list){0};
	return 0;
}

/* One that ends meanwhile has nothing open. */
static int look_at_all(struct look *l)
{
	int err = 0;

	for (size_t i = 0; i < l->more->n_pids && !err; i++) {
		_cleanup_target_ struct target *t = NULL;
		_cleanup_fd_list_ struct fd_list fds = {0};

		if (target_open(l->more->pids[i], &t) || fd_list_read(t, &fds))
			err_clear();
		else
			err = look_add(l, l->more->pids[i], &fds);
	}
	return err;
}

static int by_inode(const void *a, const void *b)
{
	uint64_t x = (*(struct seen_fd *const *)a)->f->st.st_ino,
		 y = (*(struct seen_fd *const *)b)->f->st.st_ino;

	return (x > y) - (x < y);
}

static int sort(struct look *l)
{
	struct looks *m = l->more;

	vec_each (t, &m->tables)
		vec_each (f, &t->fds) {
			struct seen_fd *slot = vec_push(&l->seen);

			if (!slot)
				return fail(-ENOMEM, "look at open files");
			*slot = (struct seen_fd){t->pid, f};
			l->in_flight |=
				f->kind == FILE_UNIX && procfs_number(f->fdinfo, "scm_fds", 10);
		}
	if (vec_reserve(&m->by_inode, l->seen.n))
		return fail(-ENOMEM, "look at open files");
	vec_each (s, &l->seen)
		m->by_inode.data[m->by_inode.n++] = s;
	if (m->by_inode.n)
		qsort(m->by_inode.data, m->by_inode.n, sizeof(*m->by_inode.data), by_inode);
	return 0;
}

size_t look_inode(const struct look *l, uint64_t inode, struct seen_fd *const **out)
{
	struct seen_fd **data = l->more->by_inode.data;
	size_t low = 0, high = l->more->by_inode.n, n = 0;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (data[mid]->f->st.st_ino < inode)
			low = mid + 1;
		else
			high = mid;
	}
	*out = data + low;
	while (low + n < l->more->by_inode.n && data[low + n]->f->st.st_ino == inode)
		n++;
	return n;
}

bool look_has_pid(const struct look *l, pid_t pid)
{
	for (size_t i = 0; i < l->more->n_pids; i++)
		if (l->more->pids[i] == pid)
			return true;
	return false;
}

int look_borrow(const struct seen_fd *s)
{
	_cleanup_fd_ int pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);

	return pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, s->f->fd, 0);
}

int look_blame(struct look *l, const struct seen_fd *s, uint64_t other, int err)
{
	l->more->blamed = (struct culprit){s->pid, s->f->fd, s->f->st.st_ino, other};
	return err;
}

static bool is_same(const struct culprit *a, const struct culprit *b)
{
	return a->pid == b->pid && a->fd == b->fd && a->inode == b->inode &&
	       a->other == b->other;
}

/* Is it time to believe it? */
static bool is_sure(struct looks *m, int err)
{
	m->in_a_row = m->fresh && is_same(&m->blamed, &m->before) ? m->in_a_row + 1 : m->fresh;
	m->before = m->blamed;
	return m->in_a_row >= (err == -EAGAIN ? IN_A_ROW_AGAIN : IN_A_ROW);
}

static int check_kinds(struct look *l)
{
	int err = sort(l);

	for (uint32_t i = 0; i < FILE_KINDS && !err; i++)
		if (fd_kind(i)->check_job)
			err = fd_kind(i)->check_job(l);
	return err;
}

int look_check(struct look *l, const pid_t *pids, size_t n)
{
	struct looks *m = l->more;
	int err = 0;

	m->pids = pids;
	m->n_pids = n;
	if (m->fresh)
		err = look_at_all(l);
	if (!err && m->tables.n)
		err = check_kinds(l);
	forget(l);
	if ((err == -EAGAIN || err == -EOPNOTSUPP) && !is_sure(m, err)) {
		err_clear();
		m->fresh = true;
		if (++m->n < LOOKS)
			return STATE_LOOK_AGAIN;
		err = 0; /* hardly ever the same: the freeze tells */
	}
	m->fresh = false;
	m->in_a_row = m->n = 0;
	return err;
}
