// SPDX-License-Identifier: GPL-2.0
/* The bytes of the PT_LOADs: a megabyte at a time, holes where there are zeros. */
#include "export/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"

#define BUFFER (1u << 20)

static int put(struct core *c, const void *data, uint64_t len, uint64_t at)
{
	int err = io_pwrite_full(c->fd, data, len, (off_t)at);

	return err ? fail(err, "write %s", c->config->path) : 0;
}

/* [at, end) of the piece, in bytes from its mapping's start, from the mapped file. What lies behind the file's end is zero. */
static int put_file(struct core *c, const struct piece *p, int file, uint64_t at, uint64_t end,
		    uint8_t *buf)
{
	uint64_t base = p->vma->offset + (p->start - p->vma->start);

	while (at < end) {
		uint64_t want = end - at < BUFFER ? end - at : BUFFER;
		ssize_t got = pread(file, buf, want, (off_t)(base + at));
		int err;

		if (got < 0)
			return fail(-errno, "read %s", p->vma->path);
		if (!got)
			return 0;
		err = put(c, buf, (uint64_t)got, p->offset + at);
		if (err)
			return err;
		c->result->file_data += (uint64_t)got;
		at += (uint64_t)got;
	}
	return 0;
}

static int put_run(struct core *c, const struct piece *p, const struct ctl *ctl,
		   const struct ctl_run *run, uint64_t first, uint8_t *buf)
{
	uint64_t page_size = c->manifest->page_size;
	int err;

	if (run->first.flags & CTL_ZERO)
		return 0;
	err = reader_pages(c->reader, ctl, run->page, run->n, buf);
	if (!err)
		err = put(c, buf, run->n * page_size,
			  p->offset + (run->page - first) * page_size);
	c->result->image_data += run->n * page_size;
	return err;
}

static int put_piece(struct core *c, const struct piece *p, uint8_t *buf)
{
	uint64_t page_size = c->manifest->page_size, first, page, end, max = BUFFER / page_size;
	_cleanup_fd_ int file = -1;
	struct ctl_run run;
	struct ctl *ctl;
	int err = core_ctl_of(c, p->vma, &ctl, &first);

	if (err)
		return err;
	if (p->vdso)
		return put(c, core_vdso(c, p->vma), p->size, p->offset);
	if (p->fill) {
		file = mapped_file_open(p->vma);
		if (file < 0)
			return refuse(-ESTALE, "%s went away while it was read", p->vma->path);
	}
	first += (p->start - p->vma->start) / page_size;
	end = first + p->size / page_size;
	for (page = first; !err && page < end; page = run.page + run.n) {
		bool more =
			ctl &&
			ctl_next_run(ctl, page, end - page < max ? end - page : max, &run) &&
			run.page < end;

		if (!more)
			run = (struct ctl_run){.page = end};
		if (more && run.page + run.n > end)
			run.n = end - run.page;
		if (p->fill)
			err = put_file(c, p, file, (page - first) * page_size,
				       (run.page - first) * page_size, buf);
		if (!err && more)
			err = put_run(c, p, ctl, &run, first, buf);
	}
	return err;
}

int core_write_memory(struct core *c)
{
	_cleanup_free_ uint8_t *buf = aligned_alloc(65536, BUFFER);
	int err = buf ? 0 : fail(-ENOMEM, "write the core");

	for (size_t i = 0; !err && i < c->pieces.n; i++)
		if (c->pieces.data[i].stored)
			err = put_piece(c, &c->pieces.data[i], buf);
	return err;
}
