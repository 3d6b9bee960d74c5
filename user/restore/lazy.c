// SPDX-License-Identifier: GPL-2.0
/*
 * A lazy restart: big private memory stays empty, under a userfaultfd that the new process made and
 * we took. A thread of ours brings the pages: those that the job waits for at once, all others in the
 * order of the files. Each is verified before it is put; one that is damaged kills the job.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/page.h"
#include "restore/internal.h"
#include "restore/lazy.h"

#define LAZY_MIN (256u << 10) /* bytes: below, bringing them costs more than waiting */
#define AROUND 16	      /* pages that come with one that is waited for */
#define EVENTS                                                                                 \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |      \
	 UFFD_FEATURE_EVENT_UNMAP)

struct source {
	uint32_t stream;
	struct ctl *ctl; /* NULL: not read yet */
	struct {
		struct pending *data;
		size_t n, cap;
	} areas; /* of the image */
};

struct lazy {
	struct spaces spaces;
	struct {
		struct source *data;
		size_t n, cap;
	} sources;
	struct guard *guard;
	struct repo *repo;
	struct reader *rd;
	char *dir;
	uint32_t version;
	uint8_t *buf;
	pthread_t thread;
	bool running;
	_Atomic bool stop; /* the restart failed: nothing has run */
	_Atomic uint64_t pages;
	int err;
	char text[400];
};

bool lazy_vma(const struct restore *r, const Icp__Vma *v)
{
	const uint64_t barred = (1ull << MADV_WIPEONFORK) | (1ull << MADV_DONTFORK);

	return r->config->lazy && restore_private(v) && !v->n_guards &&
	       (v->prot & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE) &&
	       !(v->flags & (MAP_GROWSDOWN | MAP_LOCKED)) && !(v->madvise & barred) &&
	       v->end - v->start >= LAZY_MIN && !shares_has(&r->job, v);
}

/*
 * With millions of pages already this structure would take longer than a program should have to wait:
 * the whole one is made when the job runs.
 */
int lazy_ctl(struct restore *r, struct restore_proc *p)
{
	const Icp__Process *image = p->state.image;
	_cleanup_free_ struct ctl_part *parts = calloc(image->n_vmas + 1, sizeof(*parts));
	size_t n = 0;

	if (!parts)
		return fail(-ENOMEM, "prepare the memory");
	for (size_t i = 0; i < image->n_vmas; i++)
		if (lazy_vma(r, image->vmas[i]))
			parts[n++] = (struct ctl_part){image->vmas[i]->start / page_size(),
						       image->vmas[i]->end / page_size()};
	return repo_ctl_rest(r->repo, r->result->version, p->stream, parts, n, &p->ctl);
}

int lazy_prepare(struct restore *r)
{
	struct lazy *l = r->lazy = calloc(1, sizeof(*l));
	int err;

	if (l)
		l->dir = strdup(r->config->dir);
	if (!l || !l->dir)
		return fail(-ENOMEM, "prepare a lazy restart");
	l->buf = malloc(AROUND * page_size());
	if (!l->buf)
		return fail(-ENOMEM, "prepare a lazy restart");
	err = guard_new(&l->guard);
	for (size_t i = 0; i < r->n && !err; i++)
		err = guard_add(l->guard, r->procs[i].pid);
	return err;
}

/* The process makes it, so that faults in the kernel count too, and we take it. */
static int take_uffd(struct restore *r, pid_t pid, int *out)
{
	_cleanup_fd_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), uffd = -1;
	struct uffdio_api api = {.api = UFFD_API, .features = EVENTS};
	long theirs;
	int err = batch_now_try(r->batch, SYS_userfaultfd, BATCH_ARGS(O_CLOEXEC | O_NONBLOCK),
				&theirs);

	if (err)
		return err;
	if (theirs < 0)
		return fail((int)theirs, "--lazy needs userfaultfd and CAP_SYS_PTRACE");
	uffd = (int)syscall(SYS_pidfd_getfd, pidfd, theirs, 0);
	if (uffd < 0)
		return fail(-errno, "take a userfaultfd");
	err = batch_call(r->batch, "close a userfaultfd", SYS_close,
			 BATCH_ARGS((uint64_t)theirs));
	if (!err)
		err = batch_run(r->batch);
	if (!err && ioctl(uffd, UFFDIO_API, &api))
		err = fail(-errno, "--lazy needs CAP_SYS_PTRACE and userfaultfd's events");
	if (!err)
		*out = take_fd(&uffd);
	return err;
}

static int add_area(struct source *src, struct space *s, const Icp__Vma *v)
{
	struct uffdio_register reg = {.range = {v->start, v->end - v->start},
				      .mode = UFFDIO_REGISTER_MODE_MISSING};
	struct pending *area = vec_push(&src->areas);

	if (!area)
		return fail(-ENOMEM, "note pages to come");
	*area = (struct pending){v->start, v->end, v->start};
	if (ioctl(s->uffd, UFFDIO_REGISTER, &reg))
		return fail(-errno, "watch for page faults at %#llx",
			    (unsigned long long)v->start);
	return space_add(s, v->start, v->end);
}

int lazy_register(struct restore *r, struct restore_proc *p)
{
	const Icp__Process *image = p->state.image;
	struct source *src;
	struct space *s = NULL;
	struct lazy *l = r->lazy;
	int err = 0, uffd = -1;

	src = vec_push(&l->sources);
	if (!src)
		return fail(-ENOMEM, "prepare a lazy restart");
	src->stream = p->stream;
	l->version = r->result->version;
	for (size_t i = 0; i < image->n_vmas && !err; i++) {
		const Icp__Vma *v = image->vmas[i];

		if (!lazy_vma(r, v))
			continue;
		if (!s) {
			err = take_uffd(r, p->pid, &uffd);
			s = err ? NULL : space_new(&l->spaces, uffd, l->sources.n - 1);
			if (!s)
				return err ? err : fail(-ENOMEM, "prepare a lazy restart");
		}
		err = add_area(src, s, v);
	}
	return err;
}

/* ---- the thread ---- */

static int need_ctl(struct lazy *l, struct source *src)
{
	return src->ctl ? 0 : repo_ctl(l->repo, l->version, src->stream, &src->ctl);
}

static int bring(struct lazy *l, struct space *s, uint64_t addr)
{
	int need = need_ctl(l, &l->sources.data[s->image]);

	if (need)
		return need;
	for (;;) {
		const struct pending *p = space_find(s, addr);
		const struct source *src = &l->sources.data[s->image];
		uint64_t page = page_size();
		struct ctl_run run;
		int err;

		if (p) {
			uint64_t from = (p->from + (addr - p->start)) / page;

			if (ctl_next_run(src->ctl, from, AROUND, &run) && run.page == from &&
			    !(run.first.flags & CTL_ZERO)) {
				err = reader_pages(l->rd, src->ctl, from, run.n, l->buf);
				return err ? err
					   : space_put(&l->spaces, s, from * page, l->buf,
						       run.n * page);
			}
		}
		err = space_zero(s, addr);
		if (err != -EAGAIN)
			return err;
		err = space_events(&l->spaces, s);
		if (err)
			return err;
		usleep(10);
	}
}

/* All that is waited for, in all of them. */
static int attend(struct lazy *l)
{
	bool again = true;
	int err = 0;

	while (again && !err) {
		again = false;
		for (size_t i = 0; i < l->spaces.n && !err; i++) {
			struct space *s = l->spaces.data[i];

			err = space_events(&l->spaces, s);
			while (!err && s->uffd >= 0 && s->faults.n) {
				again = true;
				err = bring(l, s, s->faults.data[--s->faults.n]);
			}
		}
		if (!err && l->spaces.forked) {
			l->spaces.forked = false;
			err = guard_look(l->guard);
			again = true;
		}
	}
	return err;
}

static bool is_wanted(void *arg, uint64_t page)
{
	const struct source *src = arg;
	uint64_t addr = page * page_size();

	vec_each (a, &src->areas)
		if (addr >= a->start && addr < a->end)
			return true;
	return false;
}

static bool alive(const struct lazy *l, size_t source)
{
	vec_each (s, &l->spaces)
		if ((*s)->uffd >= 0 && (*s)->image == source)
			return true;
	return false;
}

/* Pages in a row in memory go in one piece. */
static int put_batch(struct lazy *l, size_t source, const uint64_t *pages, const uint8_t *data,
		     size_t n)
{
	uint64_t page = page_size();
	int err = 0;

	for (size_t at = 0, len; at < n && !err; at += len) {
		for (len = 1; at + len < n && pages[at + len] == pages[at] + len;)
			len++;
		for (size_t i = 0; i < l->spaces.n && !err; i++)
			if (l->spaces.data[i]->image == source)
				err = space_put(&l->spaces, l->spaces.data[i], pages[at] * page,
						data + at * page, len * page);
	}
	l->pages += n;
	return err;
}

static int guard_lives(const struct lazy *l)
{
	struct pollfd p = {.fd = guard_fd(l->guard), .events = POLLIN};

	return poll(&p, 1, 0) == 1 ? refuse(-EPIPE, "its guard was killed") : 0;
}

static int serve_source(struct lazy *l, size_t i)
{
	struct source *src = &l->sources.data[i];
	_cleanup_sweep_ struct sweep *sweep = NULL;
	int err = need_ctl(l, src), got = 1;

	if (!err)
		err = sweep_open(l->rd, src->ctl, &sweep);
	if (err)
		return err;
	sweep_only(sweep, is_wanted, src);
	while (got > 0 && !l->stop && alive(l, i)) {
		const uint64_t *pages;
		const uint8_t *data;

		err = attend(l);
		if (!err)
			err = guard_lives(l);
		if (err)
			return err;
		got = sweep_next(sweep, &pages, &data);
		if (got > 0)
			err = put_batch(l, i, pages, data, (size_t)got);
		if (err)
			return err;
	}
	return got < 0 ? got : 0;
}

static int serve(struct lazy *l)
{
	int err = repo_open(l->dir, REPO_READ, &l->repo);

	if (!err)
		err = reader_open(l->repo, &l->rd);
	for (size_t i = 0; i < l->sources.n && !err; i++)
		err = serve_source(l, i);
	return err ? err : attend(l);
}

static void lazy_release(struct lazy *l)
{
	/* with their end the mappings are ordinary ones */
	spaces_free(&l->spaces);
	guard_free(take_ptr(l->guard));
	vec_each (s, &l->sources) {
		ctl_free(s->ctl);
		vec_free(&s->areas);
	}
	vec_free(&l->sources);
	reader_close(take_ptr(l->rd));
	repo_close(take_ptr(l->repo));
	free(take_ptr(l->dir));
	free(take_ptr(l->buf));
}

static void *thread_main(void *arg)
{
	struct lazy *l = arg;

	l->err = serve(l);
	if (l->err) {
		snprintf(l->text, sizeof(l->text), "%s", err_text(l->err));
		guard_kill(l->guard);
		/* holes are not to be seen: it may still run for a moment */
		while (!l->stop && guard_alive(l->guard))
			usleep(1000);
	}
	lazy_release(l);
	return NULL;
}

int lazy_start(struct restore *r)
{
	struct lazy *l = r->lazy;
	int err = pthread_create(&l->thread, NULL, thread_main, l);

	if (err)
		return fail(-err, "start the thread that brings pages");
	l->running = true;
	return 0;
}

void lazy_cancel(struct lazy *l)
{
	if (l)
		l->stop = true;
}

int lazy_end(struct lazy *l)
{
	int err;

	if (!l)
		return 0;
	if (l->running)
		pthread_join(l->thread, NULL);
	err = l->err ? refuse(l->err, "the job was killed: a page could not be brought: %s",
			      l->text)
		     : 0;
	lazy_release(l);
	free(l);
	return err;
}
