// SPDX-License-Identifier: GPL-2.0
/*
 * What is in deleted files: nobody but the job's descriptors keeps it. Each is a stream, as a segment is. It is copied while
 * the job runs; in the pause it is read again only when its times say that it was written, or when they can't tell.
 *
 * A write sets the times first and writes then. So what was found before the copy counts if it is older than any granularity
 * of file times, and if whoever was writing had ended: looking for the data waits for that (tmpfs, ext4, btrfs lock the file
 * against writers there, xfs when it is read).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>

#include <linux/magic.h>

#include "base/page.h"
#include "dump/internal.h"

#define GRANULARITY_NS 100000000
#define XFS_MAGIC 0x58465342

static int64_t ns(struct timespec t)
{
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static const struct state_content *content_of(const struct dump *d,
					      const struct dump_content *c)
{
	return &state_contents(d->state)->data[c->index];
}

static const Icp__FileData *parent_content(const struct dump *d, const struct state_content *s)
{
	if (!d->parent || strcmp(d->parent->boot_id, d->manifest->boot_id))
		return NULL;
	for (size_t i = 0; i < d->parent->n_contents; i++) {
		const Icp__FileData *f = d->parent->contents[i];

		if (f->dev == s->dev && f->inode == s->inode)
			return f;
	}
	return NULL;
}

static uint32_t new_id(const struct dump *d)
{
	uint32_t id = 0;

	for (size_t i = 0; d->parent && i < d->parent->n_contents; i++)
		if (d->parent->contents[i]->id > id)
			id = d->parent->contents[i]->id;
	vec_each (c, &d->contents)
		if (*c && (*c)->id > id)
			id = (*c)->id;
	return (id + 1) % ICP_STREAM_FILE;
}

static int add(struct dump *d, size_t index)
{
	const struct state_content *s = &state_contents(d->state)->data[index];
	const Icp__FileData *parent = parent_content(d, s);
	struct dump_content *c = calloc(1, sizeof(*c)),
			    **slot = c ? vec_push(&d->contents) : NULL;

	if (!slot) {
		free(c);
		return fail(-ENOMEM, "note a deleted file");
	}
	c->id = parent ? parent->id : new_id(d);
	*slot = c;
	c->index = index;
	c->source = (struct page_source){.mem_fd = -1, .to_size = true};
	c->source.file_fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 0);
	if (c->source.file_fd < 0)
		return fail(-errno, "note a deleted file");
	c->stream.compare_all = true;
	return stream_open(d, &c->stream, c->id | ICP_STREAM_FILE,
			   parent ? parent->id | ICP_STREAM_FILE : 0, NULL);
}

static int find(struct dump *d)
{
	int err = 0;

	while (!err && d->contents.n < state_contents(d->state)->n)
		err = add(d, d->contents.n);
	return err;
}

static bool locks_on_write(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) &&
	       (fs.f_type == TMPFS_MAGIC || fs.f_type == EXT4_SUPER_MAGIC ||
		fs.f_type == BTRFS_SUPER_MAGIC || fs.f_type == XFS_MAGIC);
}

static int look(const struct dump_content *c, struct stat *st, bool *trusted)
{
	int64_t now, last;
	struct timespec t;

	if (fstat(c->source.file_fd, st))
		return fail(-errno, "look at a deleted file");
	clock_gettime(CLOCK_REALTIME_COARSE, &t);
	now = ns(t);
	last = ns(st->st_mtim) > ns(st->st_ctim) ? ns(st->st_mtim) : ns(st->st_ctim);
	*trusted = now - last > GRANULARITY_NS && locks_on_write(c->source.file_fd);
	return 0;
}

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_size == b->st_size && ns(a->st_mtim) == ns(b->st_mtim) &&
	       ns(a->st_ctim) == ns(b->st_ctim);
}

static bool as_in_parent(const struct dump *d, const struct dump_content *c)
{
	const Icp__FileData *p = parent_content(d, content_of(d, c));

	return p && !d->config.full && p->ctime_ns && p->ctime_ns == ns(c->copied.st_ctim) &&
	       p->mtime_ns == ns(c->copied.st_mtim) && p->size == (uint64_t)c->copied.st_size;
}

int contents_begin(struct dump *d)
{
	int err = find(d);

	for (size_t i = 0; !err && i < d->contents.n; i++) {
		struct dump_content *c = d->contents.data[i];

		err = look(c, &c->copied, &c->trusted);
		if (!err)
			err = populated_file(c->source.file_fd, (uint64_t)c->copied.st_size,
					     &c->stream.todo);
		if (!err && c->trusted && !content_of(d, c)->unseen && as_in_parent(d, c))
			c->stream.todo.n = 0;
	}
	return err;
}

int contents_settle(struct dump *d)
{
	int err = find(d);

	for (size_t i = 0; !err && i < d->contents.n; i++) {
		struct dump_content *c = d->contents.data[i];

		if (!content_of(d, c)->open)
			continue;
		if (fstat(c->source.file_fd, &c->now))
			return fail(-errno, "look at a deleted file");
		err = populated_file(c->source.file_fd, (uint64_t)c->now.st_size,
				     &c->stream.populated);
		if (!err &&
		    (!c->trusted || content_of(d, c)->unseen || !same(&c->now, &c->copied)))
			err = dirty_join(&c->stream.compare, &c->stream.populated);
	}
	return err;
}

int contents_finish(struct dump *d)
{
	int err = 0;

	for (size_t i = 0; !err && i < d->contents.n; i++) {
		struct dump_content *c = d->contents.data[i];

		err = content_of(d, c)->open ? finish_stream(d, &c->stream, &c->source, true)
					     : finish_gone(d, &c->stream);
	}
	return err;
}

int contents_ctl(struct dump *d)
{
	int err = 0;

	for (size_t i = 0; !err && i < d->contents.n; i++)
		if (content_of(d, d->contents.data[i])->open)
			err = txn_ctl(d->txn, d->contents.data[i]->stream.ctl, d->config.full);
	return err;
}

static int describe(const struct dump *d, const struct dump_content *c, Icp__FileData *out)
{
	const struct state_content *s = content_of(d, c);

	icp__file_data__init(out);
	out->id = c->id;
	out->dev = s->dev;
	out->inode = s->inode;
	out->size = (uint64_t)c->now.st_size;
	out->mode = c->now.st_mode;
	out->uid = c->now.st_uid;
	out->gid = c->now.st_gid;
	if (c->trusted && !s->unseen && same(&c->now, &c->copied)) {
		out->mtime_ns = ns(c->now.st_mtim);
		out->ctime_ns = ns(c->now.st_ctim);
	}
	out->pages = ctl_pages(c->stream.ctl);
	out->zero_pages = ctl_zeros(c->stream.ctl);
	out->path.data = (uint8_t *)strdup(s->path);
	out->path.len = out->path.data ? strlen(s->path) : 0;
	return out->path.data ? 0 : fail(-ENOMEM, "manifest");
}

int contents_describe(struct dump *d)
{
	Icp__Manifest *m = d->manifest;
	int err = 0;

	m->contents = calloc(d->contents.n + 1, sizeof(*m->contents));
	if (!m->contents)
		return fail(-ENOMEM, "manifest");
	for (size_t i = 0; !err && i < d->contents.n; i++) {
		Icp__FileData *f;

		if (!content_of(d, d->contents.data[i])->open)
			continue;
		f = malloc(sizeof(*f));
		if (!f)
			return fail(-ENOMEM, "manifest");
		m->contents[m->n_contents++] = f;
		err = describe(d, d->contents.data[i], f);
	}
	return err;
}

void contents_free(struct dump *d)
{
	vec_each (c, &d->contents) {
		stream_close(d, &(*c)->stream);
		source_close(&(*c)->source);
		free(*c);
	}
	vec_free(&d->contents);
}
