// SPDX-License-Identifier: GPL-2.0
/* Look at everything, believe nothing, name what is wrong. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "image/names.h"

#define LISTED 1000

struct check {
	struct repo *repo;
	struct problems *out;
	struct reader *reader;
	uint8_t *buf;
	uint32_t version, stream;
	char file[96];
};

void problems_free(struct problems *p)
{
	vec_free(p);
}

static struct problem *add(struct check *c)
{
	struct problem *p = c->out->n < LISTED ? vec_push(c->out) : NULL;

	if (!p) {
		c->out->more++;
		return NULL;
	}
	p->version = c->version;
	p->stream = c->stream;
	snprintf(p->file, sizeof(p->file), "%s", c->file);
	return p;
}

/* Turn the failure @err into a problem; -ENOMEM and the like stay errors of our own. */
static int found(struct check *c, int err)
{
	struct problem *p;

	if (!err || err == -ENOMEM || err == -EMFILE || err == -ENFILE || err == -EACCES)
		return err;
	p = add(c);
	if (p)
		snprintf(p->what, sizeof(p->what), "%s", err_text(err));
	err_clear();
	return 0;
}

static void __attribute__((format(printf, 2, 3))) say(struct check *c, const char *fmt, ...)
{
	struct problem *p = add(c);
	va_list args;

	va_start(args, fmt);
	if (p)
		vsnprintf(p->what, sizeof(p->what), fmt, args);
	va_end(args);
}

/* A file against what the list says. */
static int check_file(struct check *c, const struct icp_keep_file *f)
{
	struct name name = name_file(f->kind, c->version, f->stream, f->generation);
	_cleanup_page_file_ struct page_file *pages = NULL;
	_cleanup_free_ void *data = NULL;
	struct icp_hash hash;
	size_t len;
	int err;

	snprintf(c->file, sizeof(c->file), "%s", name.s);
	c->stream = f->stream;
	if (f->kind == ICP_FILE_PAGES) {
		err = page_file_open(c->repo->store, name.s, &pages);
		len = err ? 0 : pages->obj->size;
		if (!err && (pages->version != c->version || pages->stream != f->stream ||
			     pages->generation != f->generation))
			err = refuse(-EBADMSG, "it is another version's or process's");
		if (!err)
			err = page_file_hash(pages, &hash, NULL, NULL);
	} else {
		err = store_load(c->repo->store, name.s, SIZE_MAX / 2, &data, &len);
		if (!err)
			hash = page_hash(data, len);
	}
	c->out->bytes += len;
	if (err == -ENOENT) {
		say(c, "the file is missing");
		return 0;
	}
	if (err)
		return found(c, err);
	if (len != f->size)
		say(c, "%zu bytes instead of %llu", len, (unsigned long long)f->size);
	else if (!hash_equal(&hash, &f->hash))
		say(c, "the content is not what the list of files says");
	return 0;
}

/* One page of a run that could not be read whole. */
static int check_page(struct check *c, const struct ctl *ctl, uint64_t page)
{
	const struct ctl_entry *e = ctl_find(ctl, page, CTL_DIRECT);
	int err = reader_page(c->reader, e, ctl_page_size(ctl), c->buf);
	struct problem *p;

	if (!err || err == -ENOMEM)
		return err;
	snprintf(c->file, sizeof(c->file), "%s",
		 name_file(ICP_FILE_PAGES, e->version, e->stream, 0).s);
	p = add(c);
	if (p) {
		p->has_page = true;
		p->address = page * ctl_page_size(ctl);
		snprintf(p->what, sizeof(p->what), "slot %u: %s", e->slot, err_text(err));
	}
	err_clear();
	return 0;
}

/* Every page that the control structure names, wherever it is. */
static int check_stream(struct check *c, uint32_t stream)
{
	_cleanup_ctl_ struct ctl *ctl = NULL;
	uint64_t max = ICP_CHUNK_BYTES / ICP_PAGE_SIZE_MAX;
	struct ctl_run run = {0};
	int err = repo_ctl(c->repo, c->version, stream, &ctl);

	c->stream = stream;
	snprintf(c->file, sizeof(c->file), "%s",
		 name_file(ICP_FILE_CTL, c->version, stream, 0).s);
	if (err)
		return found(c, err);
	max = ICP_CHUNK_BYTES / ctl_page_size(ctl);
	while (!err && ctl_next_run(ctl, run.page + run.n, max, &run)) {
		c->out->pages += run.n;
		if (run.first.flags & CTL_ZERO)
			continue;
		if (!reader_pages(c->reader, ctl, run.page, run.n, c->buf))
			continue;
		err_clear();
		for (uint64_t i = 0; i < run.n && !err; i++)
			err = check_page(c, ctl, run.page + i);
	}
	return err;
}

static void check_counts(struct check *c, const Icp__Manifest *m)
{
	const struct version *v;

	if (repo_version(c->repo, c->version, &v))
		return;
	if (m->parent != v->decision.parent)
		say(c, "the manifest says parent %u, the decision %u", m->parent,
		    v->decision.parent);
}

static int check_committed(struct check *c, uint32_t number)
{
	_cleanup_manifest_ Icp__Manifest *m = NULL;
	int err;

	c->version = number;
	c->stream = 0;
	snprintf(c->file, sizeof(c->file), "%s", name_manifest(number).s);
	err = repo_manifest(c->repo, number, &m);
	if (err)
		return found(c, err);
	c->out->bytes += icp__manifest__get_packed_size(m);
	check_counts(c, m);
	for (size_t i = 0; !err && i < m->n_files; i++) {
		struct icp_keep_file f = {
			.kind = m->files[i]->kind,
			.stream = m->files[i]->stream,
			.size = m->files[i]->size,
		};

		memcpy(&f.hash, m->files[i]->hash.data, sizeof(f.hash));
		err = check_file(c, &f);
	}
	for (size_t i = 0; !err && i < m->n_files; i++) {
		if (m->files[i]->kind == ICP_FILE_CTL)
			err = check_stream(c, m->files[i]->stream);
	}
	return err;
}

static int check_dropped(struct check *c, const struct version *v)
{
	int err = 0;

	for (size_t i = 0; !err && i < v->keep.n; i++)
		err = check_file(c, &v->keep.data[i]);
	return err;
}

static int check_version(struct check *c, uint32_t number)
{
	const struct version *v;
	int err = repo_version(c->repo, number, &v);

	c->version = number;
	c->stream = 0;
	snprintf(c->file, sizeof(c->file), "%s", name_in(number, "decision").s);
	if (err)
		return err == -ENOENT ? 0 : found(c, err);
	switch (v->state) {
	case VERSION_DAMAGED:
		say(c, "a record of the version (decision, dropped or keep) is damaged");
		return 0;
	case VERSION_COMMITTED:
		return check_committed(c, number);
	case VERSION_DROPPED:
		return check_dropped(c, v);
	default:
		return 0;
	}
}

static int check_record(struct check *c)
{
	_cleanup_free_ void *data = NULL;
	struct icp_repo record;
	size_t len;
	int err = record_load(c->repo->store, NAME_REPO, sizeof(record), &data, &len);

	snprintf(c->file, sizeof(c->file), NAME_REPO);
	if (err == -ENOENT)
		err = refuse(-EBADMSG, "the record is missing");
	if (!err)
		err = repo_record_parse(data, len, &record);
	return found(c, err);
}

int repo_verify(struct repo *r, uint32_t version, struct problems *out)
{
	_cleanup_free_ uint8_t *buf = aligned_alloc(4096, ICP_CHUNK_BYTES);
	_cleanup_reader_ struct reader *reader = NULL;
	struct check c = {.repo = r, .out = out, .buf = buf};
	int err = buf ? reader_open(r, &reader) : fail(-ENOMEM, "verify");

	*out = (struct problems){0};
	c.reader = reader;
	if (!err && version) {
		const struct version *v;

		err = repo_version(r, version, &v);
		if (err == -ENOENT ||
		    (!err && v->state != VERSION_COMMITTED && v->state != VERSION_DAMAGED))
			return refuse(-ENOENT, "there is no version %u", version);
		return err ? err : check_version(&c, version);
	}
	if (!err)
		err = check_record(&c);
	for (size_t i = 0; !err && i < r->n_numbers; i++)
		err = check_version(&c, r->numbers[i]);
	return err;
}
