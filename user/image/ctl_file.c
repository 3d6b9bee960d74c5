// SPDX-License-Identifier: GPL-2.0
/* Control files: the structure on disk, full or as changes. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <xxhash.h>

#include "image/ctl_impl.h"
#include "image/pages.h"

/*
 * When to write a full file: once the deltas since the last one cost as much to read as half of
 * it. Opening a file costs about what reading 8 KiB does. So reading any version costs at most
 * about 1.5 fulls, and all fulls together write no more than about twice what the deltas do
 * (plus 16 KiB a version).
 */
#define OPEN_COST (8u << 10)
#define FULL_EXTRA (64u << 10) /* small structures need not be full every time */

void ctl_image_free(struct ctl_image *i)
{
	free(i->data);
	*i = (struct ctl_image){0};
}

struct plan {
	uint64_t runs, hashes;
};

static size_t plan_size(const struct plan *p)
{
	return sizeof(struct icp_ctl_header) + p->runs * sizeof(struct icp_ctl_run) +
	       p->hashes * sizeof(struct icp_hash);
}

static struct plan count(const struct ctl *c, bool full)
{
	struct plan plan = {.runs = 0};
	struct ctl_run run = {0};

	if (!full) {
		for (size_t i = 0; i < c->removed.n; i++)
			plan.runs += (c->removed.data[i].n + UINT32_MAX - 1) / UINT32_MAX;
	}
	while (ctl_run_from(c, run.page + run.n, UINT32_MAX, !full, &run)) {
		plan.runs++;
		plan.hashes += run.first.flags & CTL_ZERO ? 0 : run.n;
	}
	return plan;
}

static void fill(const struct ctl *c, bool full, struct icp_ctl_run *to, struct icp_hash *hash)
{
	struct ctl_run run = {0};

	for (size_t i = 0; !full && i < c->removed.n; i++) {
		struct ctl_range left = c->removed.data[i];

		while (left.n) {
			uint32_t n = left.n < UINT32_MAX ? (uint32_t)left.n : UINT32_MAX;

			*to++ = (struct icp_ctl_run){left.page, n, ICP_RUN_REMOVED, 0, 0, 0, 0};
			left.page += n;
			left.n -= n;
		}
	}
	while (ctl_run_from(c, run.page + run.n, UINT32_MAX, !full, &run)) {
		bool zero = run.first.flags & CTL_ZERO;

		*to++ = (struct icp_ctl_run){run.page,
					     (uint32_t)run.n,
					     zero ? ICP_RUN_ZERO : ICP_RUN_DATA,
					     run.first.version,
					     run.first.stream,
					     run.first.slot,
					     0};
		for (uint64_t i = 0; !zero && i < run.n; i++)
			*hash++ = ctl_find(c, run.page + i, CTL_DIRECT)->hash;
	}
}

/* -E2BIG instead of a wrong file: no count in the header may overflow what ctl_parse() accepts.
 */
static int make(const struct ctl *c, uint32_t version, bool full, const struct plan *plan,
		struct ctl_image *out)
{
	struct icp_ctl_header *h;
	size_t size = plan_size(plan);

	out->data = calloc(1, size);
	if (!out->data)
		return fail(-ENOMEM, "encode a control structure");
	h = out->data;
	*h = (struct icp_ctl_header){
		.format = ICP_FORMAT,
		.page_size = c->page_size,
		.version = version,
		.stream = c->stream,
		.kind = full ? ICP_CTL_FULL : ICP_CTL_DELTA,
		.base = full ? 0 : c->version,
		.runs = plan->runs,
		.hashes = plan->hashes,
		.pages = c->pages,
		.zeros = c->zeros,
		.chain_cost = full ? 0 : c->chain_cost + size + OPEN_COST,
		.full_size = full ? size : c->full_size,
	};
	memcpy(h->magic, ICP_MAGIC_CTL, sizeof(h->magic));
	out->size = size;
	out->header = h;
	out->runs = (void *)(h + 1);
	out->hashes = (void *)(out->runs + plan->runs);
	fill(c, full, (struct icp_ctl_run *)out->runs, (struct icp_hash *)out->hashes);
	h->payload = page_hash(h + 1, size - sizeof(*h));
	h->check = XXH3_64bits(h, offsetof(struct icp_ctl_header, check));
	return 0;
}

int ctl_encode(const struct ctl *c, uint32_t version, bool full, struct ctl_image *out)
{
	struct plan plan;

	*out = (struct ctl_image){0};
	if (c->version >= version)
		return refuse(-EINVAL, "control structure of version %u written as version %u",
			      c->version, version);
	full = full || !c->version;
	plan = count(c, full);
	if (!full &&
	    c->chain_cost + plan_size(&plan) + OPEN_COST > c->full_size / 2 + FULL_EXTRA) {
		full = true;
		plan = count(c, full);
	}
	return make(c, version, full, &plan, out);
}

static int check_header(const struct icp_ctl_header *h, size_t size)
{
	uint64_t left = size - sizeof(*h);

	if (memcmp(h->magic, ICP_MAGIC_CTL, sizeof(h->magic)))
		return refuse(-EBADMSG, "not a control file");
	if (h->check != XXH3_64bits(h, offsetof(struct icp_ctl_header, check)))
		return refuse(-EBADMSG, "the header is damaged");
	if (h->format != ICP_FORMAT)
		return refuse(-EBADMSG, "format %u, this program knows %u", h->format,
			      ICP_FORMAT);
	if (!icp_page_size_valid(h->page_size) || h->pad[0] || h->pad[1] || h->pad[2])
		return refuse(-EBADMSG, "the header makes no sense");
	if (h->kind != ICP_CTL_FULL && h->kind != ICP_CTL_DELTA)
		return refuse(-EBADMSG, "unknown kind %u", h->kind);
	if (!h->version || (h->kind == ICP_CTL_FULL ? h->base : !h->base) ||
	    h->base >= h->version)
		return refuse(-EBADMSG, "version %u based on %u", h->version, h->base);
	if (h->runs > left / sizeof(struct icp_ctl_run) ||
	    h->hashes > left / sizeof(struct icp_hash) ||
	    h->runs * sizeof(struct icp_ctl_run) + h->hashes * sizeof(struct icp_hash) != left)
		return refuse(-EBADMSG, "%zu bytes do not fit %llu runs and %llu hashes", size,
			      (unsigned long long)h->runs, (unsigned long long)h->hashes);
	if (h->pages > CTL_PAGES_MAX || h->zeros > CTL_PAGES_MAX)
		return refuse(-EBADMSG, "the header makes no sense");
	return 0;
}

static int check_runs(const struct ctl_image *image)
{
	const struct icp_ctl_header *h = image->header;
	uint64_t end = 0, hashes = 0;
	bool removing = true;

	for (uint64_t i = 0; i < h->runs; i++) {
		const struct icp_ctl_run *r = &image->runs[i];

		if (!r->count || r->pad || r->page >= CTL_PAGES_MAX ||
		    r->count > CTL_PAGES_MAX - r->page)
			return refuse(-EBADMSG, "run %llu is out of range",
				      (unsigned long long)i);
		if (r->kind == ICP_RUN_REMOVED) {
			if (h->kind != ICP_CTL_DELTA || !removing || r->version || r->stream ||
			    r->slot)
				return refuse(-EBADMSG, "run %llu makes no sense",
					      (unsigned long long)i);
			continue;
		}
		removing = false;
		if (r->page < end)
			return refuse(-EBADMSG, "run %llu overlaps the one before",
				      (unsigned long long)i);
		end = r->page + r->count;
		if (r->kind == ICP_RUN_DATA) {
			hashes += r->count;
			if (!r->version || r->version > h->version ||
			    r->count - 1 > UINT32_MAX - r->slot)
				return refuse(-EBADMSG,
					      "run %llu refers to version %u, slot %u",
					      (unsigned long long)i, r->version, r->slot);
		} else if (r->kind != ICP_RUN_ZERO || r->version || r->stream || r->slot) {
			return refuse(-EBADMSG, "run %llu makes no sense",
				      (unsigned long long)i);
		}
	}
	if (hashes != h->hashes)
		return refuse(-EBADMSG, "%llu hashes for %llu pages",
			      (unsigned long long)h->hashes, (unsigned long long)hashes);
	return 0;
}

int ctl_parse(void *data, size_t size, struct ctl_image *out)
{
	const struct icp_ctl_header *h = data;
	struct icp_hash payload;
	int err;

	*out = (struct ctl_image){.data = data, .size = size, .header = h};
	err = size < sizeof(*h) ? refuse(-EBADMSG, "only %zu bytes", size)
				: check_header(h, size);
	if (err)
		goto bad;
	out->runs = (const void *)(h + 1);
	out->hashes = (const void *)(out->runs + h->runs);
	payload = page_hash(h + 1, size - sizeof(*h));
	err = hash_equal(&payload, &h->payload) ? check_runs(out)
						: refuse(-EBADMSG, "the content is damaged");
	if (!err)
		return 0;
bad:
	ctl_image_free(out);
	return err;
}

static size_t memory_limit(void)
{
	return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE) / 2;
}

/* Pages [from, to) of a run. */
static int apply_piece(struct ctl *c, const struct icp_ctl_run *r, const struct icp_hash *hash,
		       uint64_t from, uint64_t to)
{
	struct ctl_entry e = {
		.version = r->version,
		.stream = r->stream,
		.slot = r->slot + (uint32_t)from,
		.flags = r->kind == ICP_RUN_ZERO ? CTL_ZERO : 0,
	};

	for (uint64_t i = from; i < to; i++, e.slot++) {
		int err;

		if (r->kind == ICP_RUN_DATA)
			e.hash = hash[i];
		err = ctl_put(c, r->page + i, &e, false);
		if (err)
			return err;
	}
	return 0;
}

static int apply_run(struct ctl *c, const struct icp_ctl_run *r, const struct icp_hash *hash,
		     const struct ctl_part *parts, size_t n)
{
	uint64_t at = 0;
	int err = 0;

	if (r->kind == ICP_RUN_REMOVED)
		return ctl_take_out(c, r->page, r->count, false);
	for (size_t i = 0; i < n && !err && at < r->count; i++) {
		if (parts[i].end <= r->page + at)
			continue;
		if (parts[i].page >= r->page + r->count)
			break;
		if (parts[i].page > r->page + at)
			err = apply_piece(c, r, hash, at, parts[i].page - r->page);
		at = parts[i].end - r->page;
	}
	return err || at >= r->count ? err : apply_piece(c, r, hash, at, r->count);
}

static int apply(struct ctl *c, const struct ctl_image *image, size_t max_memory,
		 const struct ctl_part *parts, size_t n)
{
	const struct icp_ctl_header *h = image->header;
	const struct icp_hash *hash = image->hashes;

	if (h->stream != c->stream || h->page_size != c->page_size)
		return refuse(-EBADMSG,
			      "it belongs to another stream or has another page size");
	if (h->base != c->version || (h->kind == ICP_CTL_FULL && c->root))
		return refuse(-EBADMSG, "it changes version %u, not %u", h->base, c->version);
	c->max_memory = max_memory ? max_memory : memory_limit();
	for (uint64_t i = 0; i < h->runs; i++) {
		const struct icp_ctl_run *r = &image->runs[i];
		int err = apply_run(c, r, hash, parts, n);

		if (err)
			return err;
		if (r->kind == ICP_RUN_DATA)
			hash += r->count;
	}
	c->max_memory = SIZE_MAX;
	if (!n && (c->pages != h->pages || c->zeros != h->zeros))
		return refuse(-EBADMSG,
			      "%llu pages and %llu zero pages instead of %llu and %llu",
			      (unsigned long long)c->pages, (unsigned long long)c->zeros,
			      (unsigned long long)h->pages, (unsigned long long)h->zeros);
	c->version = h->version;
	c->chain_cost = h->chain_cost;
	c->full_size = h->full_size;
	return 0;
}

int ctl_apply(struct ctl *c, const struct ctl_image *image, size_t max_memory)
{
	return apply(c, image, max_memory, NULL, 0);
}

int ctl_apply_rest(struct ctl *c, const struct ctl_image *image, const struct ctl_part *parts,
		   size_t n)
{
	return apply(c, image, 0, parts, n);
}
