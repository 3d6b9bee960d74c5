// SPDX-License-Identifier: GPL-2.0
/*
 * epoll(7). A target is known to the kernel by its description and the number that it was added
 * under, which may be closed or be something else since. Targets are added by a process that has
 * both, as a stub: the kernel remembers whose signals a signalfd is about. What is ready then is
 * reported (again): an edge may be seen twice, never lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "state/fd_events.pb-c.h"
#include "state/fdkind.h"

#define PRIVATE_BITS (EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE)
#define ALL_EVENTS (EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP)

/* ---- dump ---- */

struct target_note {
	uint32_t fd, events, file;
	uint32_t nth; /* of those with this number, as the kernel lists them */
	uint64_t data, inode;
};

struct note {
	VEC(struct target_note) targets;
};

static void free_note(void *arg)
{
	struct note *note = arg;

	vec_free(&note->targets);
	free(note);
}

/* tfd:       21 events:       19 data:               15 pos:0 ino:c80 sdev:f */
static int parse(const char *fdinfo, struct note *note)
{
	for (const char *line = fdinfo; line; line = strchr(line, '\n')) {
		struct target_note t = {0}, *slot;

		line += *line == '\n';
		if (sscanf(line,
			   "tfd: %" SCNu32 " events: %" SCNx32 " data: %" SCNx64
			   " pos:%*d ino:%" SCNx64,
			   &t.fd, &t.events, &t.data, &t.inode) != 4)
			continue;
		/* all with the same number follow each other only by chance */
		vec_each (other, &note->targets)
			t.nth += other->fd == t.fd;
		slot = vec_push(&note->targets);
		if (!slot)
			return fail(-ENOMEM, "note an epoll instance");
		*slot = t;
	}
	return 0;
}

static int dump(struct state_process *p, struct file_jobs *jobs, struct description *d)
{
	struct note *note = d->note = calloc(1, sizeof(*note));

	return note ? parse(d->info.fdinfo, note) : fail(-ENOMEM, "note an epoll instance");
}

/* Is @t of the instance @epoll of @owner what @pid has as @fd? */
static bool is_target(pid_t owner, int epoll, const struct target_note *t, pid_t pid, int fd)
{
	struct kcmp_epoll_slot slot = {(uint32_t)epoll, t->fd, t->nth};

	return !syscall(SYS_kcmp, pid, owner, KCMP_EPOLL_TFD, fd, &slot);
}

static int refuse_outside(uint32_t pid, uint32_t fd, uint32_t target)
{
	return refuse(-EOPNOTSUPP,
		      "pid %u: descriptor %u is an epoll instance with a target (added as %u) "
		      "that no process of the job has open",
		      pid, fd, target);
}

/* ---- running ---- */

static bool has_target(const struct look *l, const struct seen_fd *epoll,
		       const struct target_note *t)
{
	struct seen_fd *const *same;
	size_t n;

	if (is_target(epoll->pid, epoll->f->fd, t, epoll->pid, (int)t->fd))
		return true;
	n = look_inode(l, t->inode, &same);
	for (size_t i = 0; i < n; i++)
		if (is_target(epoll->pid, epoll->f->fd, t, same[i]->pid, same[i]->f->fd))
			return true;
	return false;
}

static int check_one(struct look *l, const struct seen_fd *s)
{
	struct note note = {0};
	int err = parse(s->f->fdinfo, &note);

	vec_each (t, &note.targets)
		if (!err && !has_target(l, s, t))
			err = look_blame(
				l, s, t->fd,
				refuse_outside((uint32_t)s->pid, (uint32_t)s->f->fd, t->fd));
	vec_free(&note.targets);
	return err;
}

static int check_job(struct look *l)
{
	int err = 0;

	look_each(s, l, FILE_EPOLL) if (!err && !l->in_flight) err = check_one(l, s);
	return err;
}

/* ---- frozen ---- */

typedef VEC(struct description *) by_number;

/* Those first seen in process @pid, by the number there. */
static int index_numbers(struct file_jobs *jobs, pid_t pid, by_number *out)
{
	struct description *d;

	for (uint32_t id = 1; (d = file_jobs_get(jobs, id)); id++) {
		struct description **slot = NULL;

		if (d->pid != pid)
			continue;
		while (out->n <= (size_t)d->info.fd) {
			slot = vec_push(out);
			if (!slot)
				return fail(-ENOMEM, "note an epoll instance");
		}
		if (slot) /* numbers ascend */
			*slot = d;
	}
	return 0;
}

static void find_target(struct file_jobs *jobs, const struct description *epoll,
			const by_number *numbers, struct target_note *t)
{
	const struct description *d = t->fd < numbers->n ? numbers->data[t->fd] : NULL;

	if (d && is_target(epoll->pid, epoll->info.fd, t, d->pid, d->info.fd)) {
		t->file = d->id;
		return;
	}
	for (uint32_t id = 1; (d = file_jobs_get(jobs, id)); id++)
		if (is_target(epoll->pid, epoll->info.fd, t, d->pid, d->info.fd)) {
			t->file = id;
			return;
		}
}

static int dumped(struct state_process *p, struct file_jobs *jobs)
{
	by_number numbers = {0};
	struct description *d;
	int err = 0;

	for (uint32_t id = 1; (d = file_jobs_get(jobs, id)) && !err; id++) {
		struct note *note = d->note;

		if (d->info.kind != FILE_EPOLL || !note)
			continue;
		if (!numbers.n)
			err = index_numbers(jobs, p->target->pid, &numbers);
		vec_each (t, &note->targets)
			if (!err && !t->file)
				find_target(jobs, d, &numbers, t);
	}
	vec_free(&numbers);
	return err;
}

static int finish(const struct description *d, Icp__OpenFile *out)
{
	const struct note *note = d->note;
	size_t n = note->targets.n;
	_cleanup_free_ Icp__EpollTarget *msgs = calloc(n + 1, sizeof(*msgs));
	_cleanup_free_ Icp__EpollTarget **list = calloc(n + 1, sizeof(*list));
	Icp__EpollSet set = ICP__EPOLL_SET__INIT;

	if (!msgs || !list)
		return fail(-ENOMEM, "note an epoll instance");
	for (size_t i = 0; i < n; i++) {
		const struct target_note *t = &note->targets.data[i];

		icp__epoll_target__init(&msgs[i]);
		msgs[i].fd = t->fd;
		msgs[i].file = t->file;
		msgs[i].events = t->events;
		msgs[i].data = t->data;
		list[i] = &msgs[i];
	}
	set.targets = list;
	set.n_targets = n;
	return fd_pack_detail(out, &set.base);
}

/* ---- restart ---- */

static int verify(struct restore_job *job, const Icp__OpenFile *f)
{
	uint32_t pid = 0, fd = files_number(job, f->id, &pid);
	Icp__EpollSet *set = NULL;
	int err = fd_unpack_detail(f, &icp__epoll_set__descriptor, &set);

	for (size_t i = 0; !err && i < set->n_targets; i++) {
		const Icp__EpollTarget *t = set->targets[i];

		if (t->fd >= FD_NUMBER_MAX)
			err = refuse(-EBADMSG, "a target of epoll makes no sense");
		else if (files_number(job, t->file, &(uint32_t){0}) == UINT32_MAX)
			err = refuse_outside(pid, fd, t->fd);
		else if ((int)t->fd >= job->first_fd) /* the number is used for a moment */
			job->first_fd = (int)t->fd + 1;
	}
	if (set)
		protobuf_c_message_free_unpacked(&set->base, NULL);
	return err;
}

static int open_epoll(struct restore_job *job, const Icp__OpenFile *f)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd >= 0 && fcntl(fd, F_SETFL, (int)(f->flags & FD_KEPT_FLAGS))) {
		close(fd);
		fd = -1;
	}
	return fd < 0 ? fail(-errno, "make an epoll instance") : fd;
}

/* The process that has the instance and most of its targets: it adds all. */
static size_t adder(const struct restore_job *job, uint32_t id, const Icp__EpollSet *set)
{
	size_t best = SIZE_MAX, most = 0;

	for (size_t p = 0; p < job->manifest->n_processes; p++) {
		size_t n = 1;

		if (!files_has(job, p, id))
			continue;
		for (size_t i = 0; i < set->n_targets; i++)
			n += files_at(job, p, set->targets[i]->fd) == set->targets[i]->file;
		if (n > most) {
			best = p;
			most = n;
		}
	}
	return best;
}

static int add(int epoll, const Icp__EpollTarget *t)
{
	struct epoll_event event = {.events = t->events, .data.u64 = t->data}, got;

	if (t->events & ~(uint32_t)PRIVATE_BITS || !(t->events & EPOLLONESHOT))
		return epoll_ctl(epoll, EPOLL_CTL_ADD, (int)t->fd, &event);
	/* A one-shot that has fired is such by firing: whatever is ready. Nothing else is in the
	 * instance that could be reported: those come first. */
	event.events |= ALL_EVENTS;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, (int)t->fd, &event))
		return -1;
	if (epoll_wait(epoll, &got, 1, 0) == 1)
		return 0;
	event.events = t->events;
	return epoll_ctl(epoll, EPOLL_CTL_MOD, (int)t->fd, &event);
}

/* Under its number, whatever has that now. */
static int add_as(const struct state_restore *r, int epoll, const Icp__EpollTarget *t)
{
	int number = (int)t->fd, target = files_restore_here(r, t->file), flags, saved, err;

	if (target < 0)
		return target;
	flags = fcntl(number, F_GETFD);
	saved = flags < 0 ? -1 : fcntl(number, F_DUPFD_CLOEXEC, r->job->first_fd);
	if ((flags >= 0 && saved < 0) || dup2(target, number) < 0)
		return fail(-errno, "use descriptor %d", number);
	err = add(epoll, t) ? -errno : 0;
	if (saved < 0)
		close(number);
	else if (dup3(saved, number, flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
		err = -errno;
	if (saved >= 0)
		close(saved);
	return err ? fail(err, "add descriptor %d to an epoll instance", number) : 0;
}

static bool has_fired(const Icp__EpollTarget *t)
{
	return t->events & EPOLLONESHOT && !(t->events & ~(uint32_t)PRIVATE_BITS);
}

static int stub(const struct state_restore *r, const Icp__OpenFile *f, int fd)
{
	Icp__EpollSet *set;
	int err = fd_unpack_detail(f, &icp__epoll_set__descriptor, &set);
	size_t p;

	if (err)
		return err;
	p = adder(r->job, f->id, set);
	if (p != SIZE_MAX && r->job->manifest->processes[p] == r->image)
		for (int fired = 1; fired >= 0; fired--)
			for (size_t i = 0; i < set->n_targets && !err; i++)
				if (has_fired(set->targets[i]) == fired)
					err = add_as(r, fd, set->targets[i]);
	protobuf_c_message_free_unpacked(&set->base, NULL);
	return err;
}

const struct fd_kind fd_epoll = {.kind = FILE_EPOLL,
				 .text = "an epoll instance",
				 .check_job = check_job,
				 .dump = dump,
				 .dumped = dumped,
				 .finish = finish,
				 .free_note = free_note,
				 .verify = verify,
				 .open = open_epoll,
				 .stub = stub};
