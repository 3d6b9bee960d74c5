// SPDX-License-Identifier: GPL-2.0
/*
 * Moving pages: from the target into a page file while it runs, or into staging memory while it is frozen. Reading is
 * process_vm_readv() with many runs a call; large copies have a reader thread and a writer, so that both processors work.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "base/io.h"
#include "base/page.h"
#include "dump/internal.h"

#define BATCH_BYTES (1u << 20)
#define BATCH_RUNS 512	     /* per process_vm_readv(); the kernel takes 1024 */
#define PIPE_BATCHES 6	     /* 6 MiB between reader and writer */
#define PIPE_FROM_PAGES 2048 /* below, a thread costs more than it brings */

int source_open(struct page_source *s, const struct target *t)
{
	*s = (struct page_source){.pid = t->pid, .file_fd = -1};
	s->mem_fd = openat(t->proc_fd, "mem", O_RDONLY | O_CLOEXEC);
	return s->mem_fd < 0 ? fail(-errno, "open the memory of pid %d", t->pid) : 0;
}

void source_close(struct page_source *s)
{
	cleanup_fd(&s->mem_fd);
	cleanup_fd(&s->file_fd);
}

/* Runs of pages that were, or are to be, read into consecutive memory. */
struct batch {
	uint8_t *data;
	struct {
		uint64_t start, bytes; /* address or offset */
	} run[BATCH_RUNS];
	size_t n;
	size_t bytes;
	struct icp_hash hash[BATCH_BYTES / 4096]; /* of each page, with `hashed` */
	bool hashed;
};

/* A position in a list of runs. */
struct cursor {
	const struct dirty *runs;
	size_t i;
	uint64_t done; /* bytes of run i that are behind us */
};

/* Fill @b with the next runs, without reading them. False: nothing left. */
static bool batch_fill(struct batch *b, struct cursor *c, size_t room)
{
	b->n = 0;
	b->bytes = 0;
	while (c->i < c->runs->n && b->n < BATCH_RUNS && b->bytes < room) {
		const struct dirty_run *r = &c->runs->data[c->i];
		uint64_t start = r->start + c->done, bytes = r->end - start;

		if (r->what == DIRTY_ZAPPED || !bytes) {
			c->i++;
			c->done = 0;
			continue;
		}
		if (bytes > room - b->bytes)
			bytes = room - b->bytes;
		b->run[b->n].start = start;
		b->run[b->n++].bytes = bytes;
		b->bytes += bytes;
		c->done += bytes;
	}
	return b->n;
}

/* Page by page through /proc/PID/mem, which also reads what is protected; pages that are not there any more are cut out. */
static int read_singly(const struct page_source *from, struct batch *b, size_t first, size_t at)
{
	struct batch *kept = calloc(1, sizeof(*kept));
	size_t to = at, page = page_size();
	int err = 0;

	if (!kept)
		return fail(-ENOMEM, "copy pages");
	memcpy(kept->run, b->run, first * sizeof(b->run[0]));
	kept->n = first;
	for (size_t i = first; i < b->n && !err; i++) {
		for (uint64_t off = 0; off < b->run[i].bytes && !err; off += page) {
			uint64_t addr = b->run[i].start + off;
			ssize_t got = pread(from->mem_fd, b->data + to, page, (off_t)addr);
			size_t last = kept->n - 1;

			if (got != (ssize_t)page) {
				if (got < 0 && errno != EIO && errno != EFAULT &&
				    errno != ENOMEM)
					err = fail(-errno, "read page %#lx", addr);
				continue;
			}
			if (kept->n && kept->run[last].start + kept->run[last].bytes == addr &&
			    kept->n > first) {
				kept->run[last].bytes += page;
			} else if (kept->n < BATCH_RUNS) {
				kept->run[kept->n].start = addr;
				kept->run[kept->n++].bytes = page;
			} else {
				err = fail(-E2BIG, "read page %#lx", addr);
			}
			to += page;
		}
	}
	memcpy(b->run, kept->run, sizeof(b->run));
	b->n = kept->n;
	b->bytes = to;
	free(kept);
	return err;
}

/* The page that holds the end of the file: memory behind the end can be used through mappings, but not be read with read(). */
static int read_last_page(int fd, uint8_t *to, uint64_t offset)
{
	uint8_t *page = mmap(NULL, page_size(), PROT_READ, MAP_SHARED, fd, (off_t)offset);

	if (page == MAP_FAILED)
		return -errno;
	memcpy(to, page, page_size());
	munmap(page, page_size());
	return 0;
}

/* It may be cut while it is read: what is behind its end is zeros, as it would be if it grew again. */
static int read_to_size(const struct page_source *from, struct batch *b)
{
	uint8_t *to = b->data;

	for (size_t i = 0; i < b->n; to += b->run[i++].bytes) {
		size_t done = 0;

		while (done < b->run[i].bytes) {
			ssize_t got = pread(from->file_fd, to + done, b->run[i].bytes - done,
					    (off_t)(b->run[i].start + done));

			if (got < 0 && errno != EINTR)
				return fail(-errno, "read a deleted file");
			if (!got)
				break;
			done += got > 0 ? (size_t)got : 0;
		}
		memset(to + done, 0, b->run[i].bytes - done);
	}
	return 0;
}

static int read_file(const struct page_source *from, struct batch *b)
{
	size_t at = 0;

	if (from->to_size)
		return read_to_size(from, b);

	for (size_t i = 0; i < b->n; i++) {
		uint64_t last = b->run[i].bytes - page_size();
		int err = io_pread_full(from->file_fd, b->data + at, b->run[i].bytes,
					(off_t)b->run[i].start);

		if (err == -ENODATA)
			err = last ? io_pread_full(from->file_fd, b->data + at, last,
						   (off_t)b->run[i].start)
				   : 0;
		if (!err && b->run[i].start + b->run[i].bytes > from->file_size)
			err = read_last_page(from->file_fd, b->data + at + last,
					     b->run[i].start + last);

		if (err)
			return fail(err, "read a segment at %#lx", b->run[i].start);
		at += b->run[i].bytes;
	}
	return 0;
}

/* Read what the runs of @b say. -ESRCH (bare): the process is gone. */
static int batch_read(const struct page_source *from, struct batch *b)
{
	struct iovec local = {b->data, b->bytes}, remote[BATCH_RUNS];
	size_t i = 0, at = 0;
	ssize_t got;

	if (from->file_fd >= 0)
		return read_file(from, b);
	for (size_t k = 0; k < b->n; k++)
		remote[k] = (struct iovec){(void *)b->run[k].start, b->run[k].bytes};
	got = process_vm_readv(from->pid, &local, 1, remote, b->n, 0);
	if (got == (ssize_t)b->bytes)
		return 0;
	if (got < 0 && errno == ESRCH)
		return -ESRCH;
	if (got < 0 && errno != EFAULT && errno != EPERM)
		return fail(-errno, "read the memory of pid %d", from->pid);
	for (; got > 0 && i < b->n && at + b->run[i].bytes <= (size_t)got; i++)
		at += b->run[i].bytes;
	return read_singly(from, b, i, at);
}

/* The reader's part of the work on the pages, so that both threads have about as much to do. */
static void batch_hash(struct batch *b)
{
	size_t page = page_size();

	for (size_t i = 0; i < b->bytes / page; i++)
		b->hash[i] = page_digest(b->data + i * page, page);
	b->hashed = true;
}

static int batch_store(struct stream *stream, const struct batch *b)
{
	struct page_src src[BATCH_BYTES / 4096];
	size_t n = 0, page = page_size();
	const uint8_t *data = b->data;

	for (size_t i = 0; i < b->n; i++)
		for (uint64_t off = 0; off < b->run[i].bytes; off += page, data += page, n++)
			src[n] = (struct page_src){
				.page = (b->run[i].start + off) / page,
				.data = data,
				.hash = b->hashed ? &b->hash[n] : NULL,
			};
	return page_writer_put(stream->writer, src, n, stream->ctl);
}

/* Between the reader thread and the writer: a ring of batches. */
struct pipe {
	pthread_mutex_t lock;
	pthread_cond_t moved;
	struct batch batch[PIPE_BATCHES];
	unsigned filled, stored; /* counts of batches */
	bool end;
	int err;
	char why[512];
	const struct page_source *from;
	const struct dirty *runs;
};

static void *reader_main(void *arg)
{
	struct pipe *p = arg;
	struct cursor c = {.runs = p->runs};
	int err = 0;
	bool more = true;

	while (more && !err) {
		struct batch *b;

		pthread_mutex_lock(&p->lock);
		while (p->filled - p->stored == PIPE_BATCHES && !p->end)
			pthread_cond_wait(&p->moved, &p->lock);
		more = !p->end;
		pthread_mutex_unlock(&p->lock);
		b = &p->batch[p->filled % PIPE_BATCHES];
		more = more && batch_fill(b, &c, BATCH_BYTES);
		if (more)
			err = batch_read(p->from, b);
		if (more && !err)
			batch_hash(b);
		pthread_mutex_lock(&p->lock);
		if (more && !err)
			p->filled++;
		if (err) {
			p->err = err;
			snprintf(p->why, sizeof(p->why), "%s",
				 err == -ESRCH ? "" : err_text(err));
		}
		p->end |= !more || err;
		pthread_cond_broadcast(&p->moved);
		pthread_mutex_unlock(&p->lock);
	}
	return NULL;
}

static int store_from(struct dump *d, struct pipe *p, struct stream *stream)
{
	int err = 0;

	for (;;) {
		struct batch *b;

		pthread_mutex_lock(&p->lock);
		while (p->filled == p->stored && !p->end)
			pthread_cond_wait(&p->moved, &p->lock);
		b = p->filled != p->stored ? &p->batch[p->stored % PIPE_BATCHES] : NULL;
		pthread_mutex_unlock(&p->lock);
		if (!b)
			break;
		err = cancelled(d->config.cancel_fd);
		if (!err)
			err = batch_store(stream, b);
		d->config.progress->pages_done += b->bytes / page_size();
		pthread_mutex_lock(&p->lock);
		p->stored++;
		p->end |= err != 0;
		pthread_cond_broadcast(&p->moved);
		pthread_mutex_unlock(&p->lock);
		if (err)
			break;
	}
	return err;
}

static int copy_piped(struct dump *d, const struct page_source *from, struct stream *stream,
		      const struct dirty *runs, uint8_t *memory)
{
	_cleanup_free_ struct pipe *p = calloc(1, sizeof(*p));
	pthread_t thread;
	int err;

	if (!p)
		return fail(-ENOMEM, "copy pages");
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->moved, NULL);
	p->from = from;
	p->runs = runs;
	for (size_t i = 0; i < PIPE_BATCHES; i++)
		p->batch[i].data = memory + i * BATCH_BYTES;
	err = -pthread_create(&thread, NULL, reader_main, p);
	if (err)
		return fail(err, "start a thread");
	err = store_from(d, p, stream);
	pthread_join(thread, NULL);
	if (!err && p->err)
		err = p->err == -ESRCH ? -ESRCH : refuse(p->err, "%s", p->why);
	pthread_cond_destroy(&p->moved);
	pthread_mutex_destroy(&p->lock);
	return err;
}

static int copy_simply(struct dump *d, const struct page_source *from, struct stream *stream,
		       const struct dirty *runs, uint8_t *memory)
{
	_cleanup_free_ struct batch *b = calloc(1, sizeof(*b));
	struct cursor c = {.runs = runs};
	int err = b ? 0 : fail(-ENOMEM, "copy pages");

	if (b)
		b->data = memory;
	while (!err && batch_fill(b, &c, BATCH_BYTES)) {
		err = cancelled(d->config.cancel_fd);
		if (!err)
			err = batch_read(from, b);
		if (!err)
			err = batch_store(stream, b);
		d->config.progress->pages_done += b->bytes / page_size();
	}
	return err;
}

int copy_runs(struct dump *d, const struct page_source *from, struct stream *stream,
	      const struct dirty *runs)
{
	bool large = dirty_pages(runs) >= PIPE_FROM_PAGES;
	int err;

	if (!runs->n)
		return 0;
	/* the staging memory is idle while the job runs, and warm */
	err = staging_prepare(d, (size_t)PIPE_BATCHES * BATCH_BYTES / page_size());
	if (err)
		return err;
	return large ? copy_piped(d, from, stream, runs, d->staging.data)
		     : copy_simply(d, from, stream, runs, d->staging.data);
}

int staging_prepare(struct dump *d, uint64_t pages)
{
	size_t size = pages * page_size();
	uint8_t *data;

	if (size <= d->staging.size)
		return 0;
	size = (size + (2u << 20) - 1) & ~(size_t)((2u << 20) - 1);
	data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (data == MAP_FAILED)
		return fail(-errno, "staging memory of %zu MiB", size >> 20);
	/* what can't be had of this now comes by faults */
	madvise(data, size, MADV_HUGEPAGE);
	madvise(data, size, MADV_POPULATE_WRITE);
	if (d->staging.used)
		memcpy(data, d->staging.data, d->staging.used);
	if (d->staging.data)
		munmap(d->staging.data, d->staging.size);
	d->staging.data = data;
	d->staging.size = size;
	return 0;
}

int stage_runs(struct dump *d, const struct page_source *from, struct stream *stream,
	       const struct dirty *runs)
{
	struct batch b; /* 12 KiB */
	struct cursor c = {.runs = runs};
	int err = staging_prepare(d, d->staging.used / page_size() + dirty_pages(runs));

	while (!err) {
		uint8_t *base = d->staging.data;

		b.data = base + d->staging.used;
		if (!batch_fill(&b, &c, d->staging.size - d->staging.used))
			break;
		err = batch_read(from, &b);
		for (size_t i = 0, at = d->staging.used; !err && i < b.n;
		     at += b.run[i].bytes, i++) {
			struct staged *s = vec_push(&d->staging.list);

			if (!s)
				return fail(-ENOMEM, "stage pages");
			*s = (struct staged){stream, b.run[i].start / page_size(),
					     b.run[i].bytes / page_size(), at};
		}
		d->staging.used += b.bytes;
	}
	return err;
}

static bool is_in_ctl(const struct stream *s, uint64_t page, const uint8_t *data)
{
	const struct ctl_entry *e = ctl_find(s->ctl, page, CTL_DIRECT);
	struct icp_hash hash;

	if (!e)
		return false;
	if (e->flags & CTL_ZERO)
		return page_is_zero(data, page_size());
	hash = page_hash(data, page_size());
	return hash_equal(&hash, &e->hash);
}

/* Of the pages just read behind what is staged: keep those that differ. */
static int keep_changed(struct dump *d, struct stream *stream, const struct batch *b)
{
	const uint8_t *data = b->data;
	size_t page = page_size();

	for (size_t i = 0; i < b->n; i++) {
		for (uint64_t off = 0; off < b->run[i].bytes; off += page, data += page) {
			uint64_t number = (b->run[i].start + off) / page;
			struct staged *s;

			if (is_in_ctl(stream, number, data))
				continue;
			memmove(d->staging.data + d->staging.used, data, page);
			d->staging.used += page;
			s = d->staging.list.n ? &d->staging.list.data[d->staging.list.n - 1]
					      : NULL;
			if (s && s->stream == stream && s->page + s->n == number) {
				s->n++; /* its bytes follow on, too */
				continue;
			}
			s = vec_push(&d->staging.list);
			if (!s)
				return fail(-ENOMEM, "stage pages");
			*s = (struct staged){stream, number, 1, d->staging.used - page};
		}
	}
	return 0;
}

int stage_changed(struct dump *d, const struct page_source *from, struct stream *stream,
		  const struct dirty *runs)
{
	struct batch b; /* 8 KiB */
	struct cursor c = {.runs = runs};
	int err = 0;

	while (!err && c.i < runs->n) {
		if (d->staging.size - d->staging.used < BATCH_BYTES)
			err = staging_prepare(
				d, (d->staging.used + d->staging.used / 2 + BATCH_BYTES) /
					   page_size());
		if (err)
			return err;
		b.data = (uint8_t *)d->staging.data + d->staging.used;
		if (!batch_fill(&b, &c, BATCH_BYTES))
			break;
		err = batch_read(from, &b);
		if (!err)
			err = keep_changed(d, stream, &b);
	}
	return err;
}

int staging_store(struct dump *d)
{
	size_t page = page_size();

	vec_each (s, &d->staging.list) {
		for (uint64_t i = 0; i < s->n;) {
			struct page_src src[256];
			size_t n = 0;
			int err;

			for (; n < 256 && i < s->n; i++, n++)
				src[n] = (struct page_src){.page = s->page + i,
							   .data = d->staging.data + s->offset +
								   i * page};
			err = page_writer_put(s->stream->writer, src, n, s->stream->ctl);
			if (err)
				return err;
		}
	}
	d->staging.list.n = 0;
	d->staging.used = 0;
	return 0;
}
