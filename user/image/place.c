// SPDX-License-Identifier: GPL-2.0
#include "image/place.h"

#include <errno.h>
#include <stdlib.h>

#include "image/names.h"

struct places {
	struct repo *repo;
	struct page_file *file;
	struct name name;
};

int places_open(struct repo *r, struct places **out)
{
	struct places *p = calloc(1, sizeof(*p));

	if (!p)
		return fail(-ENOMEM, "look for pages");
	p->repo = r;
	*out = p;
	return 0;
}

void places_close(struct places *p)
{
	if (!p)
		return;
	page_file_close(p->file);
	free(p);
}

static int use_file(struct places *p, uint32_t version, uint32_t stream)
{
	int err;

	if (p->file && p->file->version == version && p->file->stream == stream)
		return 0;
	page_file_close(p->file);
	p->file = NULL;
	err = repo_file(p->repo, ICP_FILE_PAGES, version, stream, &p->name);
	if (err)
		return err;
	err = page_file_open(p->repo->store, p->name.s, &p->file);
	if (err == -ENOENT)
		return refuse(-EBADMSG, "%s is missing", p->name.s);
	if (err)
		return err;
	if (p->file->version == version && p->file->stream == stream)
		return 0;
	page_file_close(p->file);
	p->file = NULL;
	return refuse(-EBADMSG, "%s is another version's or process's", p->name.s);
}

int places_find(struct places *p, const struct ctl_entry *e, uint32_t page_size,
		struct place *out)
{
	int err = use_file(p, e->version, e->stream);
	const struct icp_chunk *chunk;
	int64_t at;

	if (err)
		return err;
	at = page_file_slot(p->file, e->slot);
	if (at < 0)
		return refuse(-EBADMSG, "%s: slot %u is not there", p->name.s, e->slot);
	*out = (struct place){.codec = p->file->codec};
	memcpy(out->file, p->name.s, sizeof(out->file));
	if (p->file->page_size != page_size)
		return refuse(-EBADMSG, "%s: page size %u instead of %u", p->name.s,
			      p->file->page_size, page_size);
	if (out->codec == ICP_CODEC_NONE) {
		out->offset = (uint64_t)(at + 1) * page_size;
		out->size = page_size;
		return 0;
	}
	/* page_file_open() has checked that there are chunks for all slots */
	chunk = &p->file->chunks[(uint64_t)at / p->file->chunk_pages];
	out->codec = chunk->codec;
	out->offset = chunk->offset;
	out->size = chunk->size;
	out->inside = (uint64_t)at % p->file->chunk_pages * page_size;
	return 0;
}

void place_name(enum icp_file_kind kind, uint32_t version, uint32_t stream, char out[96])
{
	struct name name = name_file(kind, version, stream, 0);

	memcpy(out, name.s, sizeof(name.s));
}
