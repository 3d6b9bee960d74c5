// SPDX-License-Identifier: GPL-2.0
/*
 * The pages: read in the order of the files, verified, written into the new process many at a
 * time. A large one is filled by several threads, each with its own part.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "base/io.h"
#include "base/page.h"
#include "restore/internal.h"

#define BATCH 64 /* pages, as sweep_next() has */
#define WORKERS_MAX 4
#define PAGES_PER_WORKER 4096

struct fill {
	const struct restore *r;
	const struct restore_proc *p;
	const struct huge *huge;
	unsigned parts;
};

struct worker {
	const struct fill *fill;
	pthread_t thread;
	uint64_t pages;
	unsigned part;
	int err;
	char text[400]; /* messages are a thread's own */
};

static const Icp__Vma *vma_at(const Icp__Process *image, uint64_t addr)
{
	size_t low = 0, high = image->n_vmas;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (addr >= image->vmas[mid]->end)
			low = mid + 1;
		else
			high = mid;
	}
	return low < image->n_vmas && addr >= image->vmas[low]->start ? image->vmas[low] : NULL;
}

/* Lists for one process_vm_writev(): what lies in a row is one element. */
struct vecs {
	struct iovec local[BATCH], remote[BATCH];
	size_t n, bytes;
};

static void vecs_add(struct vecs *v, const uint8_t *data, uint64_t addr, size_t len)
{
	struct iovec *l = &v->local[v->n], *r = &v->remote[v->n];

	v->bytes += len;
	if (v->n && (uint8_t *)l[-1].iov_base + l[-1].iov_len == data &&
	    (uint64_t)r[-1].iov_base + r[-1].iov_len == addr) {
		l[-1].iov_len += len;
		r[-1].iov_len += len;
		return;
	}
	*l = (struct iovec){(void *)data, len};
	*r = (struct iovec){(void *)addr, len};
	v->n++;
}

static int vecs_write(struct vecs *v, pid_t pid)
{
	ssize_t got;

	if (!v->n)
		return 0;
	got = process_vm_writev(pid, v->local, v->n, v->remote, v->n, 0);
	if (got != (ssize_t)v->bytes)
		return fail(got < 0 ? -errno : -EFAULT, "fill its memory at %p",
			    v->remote[0].iov_base);
	return 0;
}

/* Write these pages, one after the other in @data. */
static int put_pages(const struct fill *f, const uint64_t *pages, const uint8_t *data, size_t n)
{
	const struct restore_proc *p = f->p;
	const Icp__Vma *vma = NULL;
	uint64_t page = page_size();
	struct vecs v = {0};

	for (size_t i = 0; i < n; i++) {
		uint64_t addr = pages[i] * page;

		if (!vma || addr < vma->start || addr >= vma->end)
			vma = vma_at(p->state.image, addr);
		if (!vma)
			return refuse(-EBADMSG, "page %#llx belongs to no mapping",
				      (unsigned long long)addr);
		if (restore_filled(vma) && !lazy_vma(f->r, vma))
			vecs_add(&v, data + i * page, huge_place(f->huge, addr), page);
	}
	return vecs_write(&v, p->pid);
}

static bool is_eager(void *arg, uint64_t page)
{
	const struct fill *f = arg;
	const Icp__Vma *vma = vma_at(f->p->state.image, page * page_size());

	return !vma || !lazy_vma(f->r, vma);
}

static int sweep_all(const struct worker *w, struct reader *rd, uint64_t *done)
{
	const struct restore_proc *p = w->fill->p;
	_cleanup_sweep_ struct sweep *s = NULL;
	int got = sweep_open(rd, p->ctl, &s);

	if (got)
		return got;
	if (w->fill->r->config->lazy)
		sweep_only(s, is_eager, (void *)w->fill);
	sweep_part(s, w->part, w->fill->parts);
	do {
		const uint64_t *pages;
		const uint8_t *data;
		int err = 0;

		got = sweep_next(s, &pages, &data);
		if (got > 0)
			err = put_pages(w->fill, pages, data, (size_t)got);
		if (err)
			return err;
		*done += got > 0 ? (uint64_t)got : 0;
		if (got > 0 && w->fill->r->config->progress)
			w->fill->r->config->progress->pages_done += (uint64_t)got;
	} while (got > 0);
	return got;
}

/* ---- as it was done before the control structure had an order: every page is looked up ---- */

struct lookup {
	const struct fill *fill;
	struct reader *rd;
	uint8_t *buf;
	uint64_t start, n; /* pages found in a row, in a row in their file as well */
	struct ctl_entry last;
	uint64_t done;
};

static int lookup_flush(struct lookup *l)
{
	uint64_t pages[BATCH];
	int err;

	if (!l->n)
		return 0;
	err = reader_pages(l->rd, l->fill->p->ctl, l->start, l->n, l->buf);
	for (uint64_t i = 0; i < l->n; i++)
		pages[i] = l->start + i;
	if (!err)
		err = put_pages(l->fill, pages, l->buf, l->n);
	l->done += l->n;
	if (l->fill->r->config->progress)
		l->fill->r->config->progress->pages_done += l->n;
	l->n = 0;
	return err;
}

static int lookup_page(struct lookup *l, uint64_t page)
{
	const struct ctl_entry *e = ctl_find(l->fill->p->ctl, page, CTL_RBTREE);
	int err = 0;

	if (!e || e->flags & CTL_ZERO)
		return lookup_flush(l);
	if (l->n && (l->n == BATCH || e->version != l->last.version ||
		     e->stream != l->last.stream || e->slot != l->last.slot + 1))
		err = lookup_flush(l);
	if (!l->n)
		l->start = page;
	l->last = *e;
	l->n++;
	return err;
}

static int lookup_all(const struct worker *w, struct reader *rd, uint64_t *done)
{
	const Icp__Process *image = w->fill->p->state.image;
	uint64_t page = page_size();
	_cleanup_free_ uint8_t *buf = malloc(BATCH * page);
	struct lookup l = {.fill = w->fill, .rd = rd, .buf = buf};
	int err = buf ? 0 : fail(-ENOMEM, "read pages");

	for (size_t i = 0; i < image->n_vmas && !err; i++) {
		const Icp__Vma *v = image->vmas[i];

		if (i % w->fill->parts != w->part || !restore_filled(v) ||
		    lazy_vma(w->fill->r, v))
			continue;
		for (uint64_t at = v->start / page; at < v->end / page && !err; at++)
			err = lookup_page(&l, at);
		if (!err)
			err = lookup_flush(&l);
	}
	*done = l.done;
	return err;
}

/* ---- both ---- */

/* A private file page that became zeros; elsewhere new memory is zeros already. */
static int put_zeros(const struct fill *f)
{
	const struct restore_proc *p = f->p;
	uint64_t page = page_size();
	_cleanup_free_ uint8_t *zeros = calloc(BATCH, page);
	struct ctl_run run;

	if (!zeros)
		return fail(-ENOMEM, "fill its memory");
	for (uint64_t next = 0; ctl_next_run(p->ctl, next, BATCH, &run);
	     next = run.page + run.n) {
		uint64_t pages[BATCH];
		size_t n = 0;
		int err;

		if (!(run.first.flags & CTL_ZERO))
			continue;
		for (uint64_t i = 0; i < run.n; i++) {
			const Icp__Vma *v = vma_at(p->state.image, (run.page + i) * page);

			if (v && restore_zeros_count(v))
				pages[n++] = run.page + i;
		}
		err = put_pages(f, pages, zeros, n);
		if (err)
			return err;
	}
	return 0;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	const struct restore *r = w->fill->r;
	_cleanup_repo_ struct repo *repo = NULL;
	_cleanup_reader_ struct reader *rd = NULL;

	/* a repository remembers what it looked at: one for each thread */
	w->err = repo_open(r->config->dir, REPO_READ, &repo);
	if (!w->err)
		w->err = reader_open(repo, &rd);
	if (!w->err)
		w->err = r->config->lookup == CTL_RBTREE ? lookup_all(w, rd, &w->pages)
							 : sweep_all(w, rd, &w->pages);
	if (w->err)
		snprintf(w->text, sizeof(w->text), "%s", err_text(w->err));
	return NULL;
}

static unsigned how_many(const struct restore_proc *p)
{
	uint64_t want = ctl_pages(p->ctl) / PAGES_PER_WORKER + 1;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (want > WORKERS_MAX)
		want = WORKERS_MAX;
	return want > (uint64_t)cpus ? (unsigned)cpus : (unsigned)want;
}

static void free_huge(struct huge *h)
{
	vec_free(h);
}

int fill_process(struct restore *r, struct restore_proc *p)
{
	_cleanup_(free_huge) struct huge huge = {.n = 0};
	struct fill fill = {.r = r, .p = p, .huge = &huge, .parts = how_many(p)};
	struct worker workers[WORKERS_MAX] = {0};
	unsigned running = 1;
	int err = 0;

	if (r->config->progress)
		r->config->progress->pages_to_do += ctl_pages(p->ctl);

	if (r->config->lookup == CTL_RBTREE)
		err = ctl_index(p->ctl);
	if (!err)
		err = huge_plan(r, p, &huge);
	if (err)
		return err;
	for (unsigned i = 0; i < WORKERS_MAX; i++)
		workers[i] = (struct worker){.fill = &fill, .part = i};
	while (running < fill.parts &&
	       !pthread_create(&workers[running].thread, NULL, worker_main, &workers[running]))
		running++;
	worker_main(&workers[0]);
	for (unsigned i = running; i < fill.parts; i++)
		worker_main(&workers[i]); /* no thread for it */
	for (unsigned i = 1; i < running; i++)
		pthread_join(workers[i].thread, NULL);
	for (unsigned i = 0; i < fill.parts; i++) {
		r->result->pages += workers[i].pages;
		if (workers[i].err && !err)
			err = refuse(workers[i].err, "%s", workers[i].text);
	}
	r->result->bytes = r->result->pages * page_size();
	if (!err)
		err = put_zeros(&fill);
	return err ? err : huge_move(r, &huge);
}

static int fill_segment(struct restore *r, struct reader *rd, size_t i)
{
	const Icp__Segment *seg = r->manifest->segments[i];
	_cleanup_ctl_ struct ctl *ctl = NULL;
	uint64_t page = page_size();
	uint8_t *memory = ipc_restore_memory(&r->job, i);
	struct ctl_run run;
	int err = repo_ctl(r->repo, r->result->version, ICP_STREAM_SHM | seg->shmid, &ctl);

	for (uint64_t next = 0; !err && ctl_next_run(ctl, next, BATCH, &run);
	     next = run.page + run.n) {
		if ((run.page + run.n) * page > ((seg->size + page - 1) & ~(page - 1)))
			return refuse(-EBADMSG, "a page beyond its end");
		if (run.first.flags & CTL_ZERO)
			continue;
		err = reader_pages(rd, ctl, run.page, run.n, memory + run.page * page);
		r->result->pages += run.n;
	}
	r->result->bytes = r->result->pages * page;
	return err;
}

int fill_segments(struct restore *r)
{
	_cleanup_reader_ struct reader *rd = NULL;
	int err = reader_open(r->repo, &rd);

	for (size_t i = 0; i < r->manifest->n_segments && !err; i++) {
		if (!ipc_restore_memory(&r->job, i))
			continue; /* not ours to fill */
		err = fill_segment(r, rd, i);
		if (err)
			return wrap(err, "segment with key %#x", r->manifest->segments[i]->key);
	}
	return err;
}

/* One run, from @data; the last page may reach beyond the end. */
static int put_content(int fd, const Icp__FileData *c, uint64_t at, uint64_t len,
		       const uint8_t *data)
{
	int err;

	if (at >= c->size)
		return 0;
	err = io_pwrite_full(fd, data, len > c->size - at ? c->size - at : len, (off_t)at);
	return err ? fail(err, "write it again") : 0;
}

static int fill_content(struct restore *r, struct reader *rd, const Icp__FileData *c,
			uint8_t *buf)
{
	int fd = objects_find(r->job.objects, c->dev, c->inode);
	_cleanup_ctl_ struct ctl *ctl = NULL;
	uint64_t page = page_size();
	struct ctl_run run;
	int err = repo_ctl(r->repo, r->result->version, ICP_STREAM_FILE | c->id, &ctl);

	for (uint64_t next = 0; !err && ctl_next_run(ctl, next, BATCH, &run);
	     next = run.page + run.n) {
		if (run.page > INT64_MAX / page - BATCH)
			return refuse(-EBADMSG, "a page beyond its end");
		if (run.first.flags & CTL_ZERO)
			continue;
		err = reader_pages(rd, ctl, run.page, run.n, buf);
		if (!err)
			err = put_content(fd, c, run.page * page, run.n * page, buf);
		r->result->pages += run.n;
	}
	r->result->bytes = r->result->pages * page;
	return err;
}

int fill_contents(struct restore *r)
{
	_cleanup_reader_ struct reader *rd = NULL;
	_cleanup_free_ uint8_t *buf = malloc(BATCH * page_size());
	const Icp__Manifest *m = r->manifest;
	int err = buf ? reader_open(r->repo, &rd) : fail(-ENOMEM, "fill deleted files");

	for (size_t i = 0; i < m->n_contents && !err; i++) {
		err = fill_content(r, rd, m->contents[i], buf);
		if (err)
			return wrap(err, "the deleted file %.*s", (int)m->contents[i]->path.len,
				    (const char *)m->contents[i]->path.data);
	}
	return err;
}
