// SPDX-License-Identifier: GPL-2.0
/* Pages of a version, wherever they are. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/names.h"

/*
 * Open files, each at the one place its name hashes to: bounded, and two that collide merely take turns. A long chain has
 * its pages in many files; compressed ones hold up to half a MiB of buffers each, so fewer of those are kept.
 */
#define HANDLES 2048
#define HANDLES_COMPRESSED 128

struct reader {
	struct repo *repo;
	struct page_file *files[HANDLES];
	bool compressed; /* one of them is */
};

static void close_all(struct reader *rd)
{
	for (int i = 0; i < HANDLES; i++)
		page_file_close(take_ptr(rd->files[i]));
}

int reader_open(struct repo *r, struct reader **out)
{
	struct reader *rd = calloc(1, sizeof(*rd));

	if (!rd)
		return fail(-ENOMEM, "make a reader");
	rd->repo = r;
	*out = rd;
	return 0;
}

void reader_close(struct reader *rd)
{
	if (!rd)
		return;
	close_all(rd);
	free(rd);
}

static int open_file(struct repo *r, uint32_t version, uint32_t stream, struct page_file **out)
{
	struct name name;
	int err;

	for (int again = 0;; again++) {
		err = repo_file(r, ICP_FILE_PAGES, version, stream, &name);
		if (!err)
			err = page_file_open(r->store, name.s, out);
		if (err != -ENOENT || again)
			break;
		repo_forget(r, version); /* prune has put another file in its place */
	}
	if (err == -ENOENT)
		return refuse(-EBADMSG, "%s is missing", name.s);
	if (err)
		return err;
	if ((*out)->version == version && (*out)->stream == stream)
		return 0;
	page_file_close(*out);
	*out = NULL;
	return refuse(-EBADMSG, "%s is another version's or process's", name.s);
}

static int handle(struct reader *rd, const struct ctl_entry *e, struct page_file **out)
{
	uint32_t name = e->version + e->stream * 2654435761u;
	struct page_file **at =
		&rd->files[name % (rd->compressed ? HANDLES_COMPRESSED : HANDLES)];
	struct page_file *fresh;
	int err;

	*out = *at;
	if (*at && (*at)->version == e->version && (*at)->stream == e->stream)
		return 0;
	err = open_file(rd->repo, e->version, e->stream, &fresh);
	if (err == -EMFILE || err == -ENFILE) { /* fewer descriptors than places */
		close_all(rd);
		err = open_file(rd->repo, e->version, e->stream, &fresh);
	}
	if (err)
		return err;
	if (fresh->codec != ICP_CODEC_NONE && !rd->compressed) {
		close_all(rd);
		rd->compressed = true;
		at = &rd->files[name % HANDLES_COMPRESSED];
	}
	page_file_close(*at);
	*at = *out = fresh;
	return 0;
}

/* @n pages whose slots follow one another. */
int reader_slots(struct reader *rd, const struct ctl_entry *first, uint64_t n,
		 uint32_t page_size, uint8_t *buf)
{
	struct page_file *f;
	int err = handle(rd, first, &f);
	uint64_t done = 0;

	if (err)
		return err;
	if (f->page_size != page_size)
		return refuse(-EBADMSG, "page size %u instead of %u", f->page_size, page_size);
	while (done < n) {
		int64_t at = page_file_slot(f, first->slot + (uint32_t)done);
		uint64_t take = n - done;

		if (at < 0)
			return refuse(-EBADMSG, "slot %u is not there",
				      first->slot + (uint32_t)done);
		/* in a sparse file what follows need not be next */
		for (uint64_t i = 1; f->map && i < take; i++) {
			if ((uint64_t)at + i >= f->slots ||
			    f->map[(uint64_t)at + i] != f->map[at] + i)
				take = i;
		}
		err = page_file_read(f, (uint64_t)at, take, buf + done * page_size);
		if (err)
			return err;
		done += take;
	}
	return 0;
}

int reader_wrong(const struct ctl_entry *e, uint64_t address, int err)
{
	struct name name = name_file(ICP_FILE_PAGES, e->version, e->stream, 0);

	if (!err)
		err = refuse(-EBADMSG, "its content is not what its hash says");
	return wrap(err, "page %#llx in %s, slot %u", (unsigned long long)address, name.s,
		    e->slot);
}

int reader_page(struct reader *rd, const struct ctl_entry *e, uint32_t page_size, void *buf)
{
	struct icp_hash hash;
	int err;

	if (!e || e->flags & CTL_ZERO) {
		memset(buf, 0, page_size);
		return 0;
	}
	err = reader_slots(rd, e, 1, page_size, buf);
	if (err)
		return err;
	hash = page_hash(buf, page_size);
	return hash_equal(&hash, &e->hash)
		       ? 0
		       : refuse(-EBADMSG, "the page's content is not what its hash says");
}

static int read_run(struct reader *rd, const struct ctl *c, const struct ctl_run *run,
		    uint8_t *buf)
{
	uint32_t page_size = ctl_page_size(c);
	int err;

	if (run->first.flags & CTL_ZERO) {
		memset(buf, 0, run->n * page_size);
		return 0;
	}
	err = reader_slots(rd, &run->first, run->n, page_size, buf);
	if (err)
		return reader_wrong(&run->first, run->page * page_size, err);
	for (uint64_t i = 0; i < run->n; i++) {
		const struct ctl_entry *e = ctl_find(c, run->page + i, CTL_DIRECT);
		struct icp_hash hash = page_hash(buf + i * page_size, page_size);

		if (!e || !hash_equal(&hash, &e->hash))
			return reader_wrong(e ? e : &run->first, (run->page + i) * page_size,
					    0);
	}
	return 0;
}

int reader_pages(struct reader *rd, const struct ctl *c, uint64_t page, uint64_t n, void *buf)
{
	uint64_t end = page + n, page_size = ctl_page_size(c);
	uint8_t *to = buf;
	struct ctl_run run;

	while (page < end && ctl_next_run(c, page, end - page, &run) && run.page < end) {
		int err;

		if (run.n > end - run.page)
			run.n = end - run.page;
		memset(to, 0, (run.page - page) * page_size);
		to += (run.page - page) * page_size;
		err = read_run(rd, c, &run, to);
		if (err)
			return err;
		to += run.n * page_size;
		page = run.page + run.n;
	}
	memset(to, 0, (end - page) * page_size);
	return 0;
}
