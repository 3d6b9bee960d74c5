// SPDX-License-Identifier: GPL-2.0
/*
 * Removing versions. First each gets a record `dropped`: it is hidden from then on, its files
 * are all still there. Then every dropped version is compacted to what the visible ones refer
 * to, each for itself: new page files beside the old, then the record keep.<generation> that
 * names what counts, then the old are removed. Visible versions are never touched. A crash at
 * any point leaves either more than needed, or a sweep to be done; both are found at the next
 * opening for writing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/names.h"

#define BUCKETS 4096

/* What visible versions need of one stream of a dropped one. */
struct live {
	struct live *next;
	uint32_t version, stream;
	bool ctl;
	uint64_t *bits; /* by logical slot */
	uint64_t n_bits, count;
};

struct live_set {
	struct live *bucket[BUCKETS];
};

static void live_free(struct live_set *set)
{
	for (int i = 0; i < BUCKETS; i++) {
		for (struct live *l = set->bucket[i], *next; l; l = next) {
			next = l->next;
			free(l->bits);
			free(l);
		}
	}
}

static struct live *live_get(struct live_set *set, uint32_t version, uint32_t stream, bool make)
{
	struct live **at = &set->bucket[(version * 31u + stream * 2654435761u) % BUCKETS];
	struct live *l;

	for (l = *at; l; l = l->next) {
		if (l->version == version && l->stream == stream)
			return l;
	}
	l = make ? calloc(1, sizeof(*l)) : NULL;
	if (l) {
		l->version = version;
		l->stream = stream;
		l->next = *at;
		*at = l;
	}
	return l;
}

static int live_mark(struct live *l, uint64_t slot, uint64_t n)
{
	uint64_t need = slot + n;

	if (!l->bits || need > l->n_bits) {
		uint64_t words = (need + need / 2) / 64 + 1;
		uint64_t *bits = reallocarray(l->bits, words, sizeof(*bits));

		if (!bits)
			return fail(-ENOMEM, "collect the pages in use");
		memset(bits + l->n_bits / 64, 0, (words - l->n_bits / 64) * sizeof(*bits));
		l->bits = bits;
		l->n_bits = words * 64;
	}
	for (; n; slot++, n--) {
		uint64_t bit = 1ull << (slot % 64), *word = &l->bits[slot / 64];

		l->count += !(*word & bit);
		*word |= bit;
	}
	return 0;
}

static bool live_has(const struct live *l, uint64_t slot)
{
	return slot < l->n_bits && l->bits[slot / 64] >> (slot % 64) & 1;
}

static int is_dropped(struct repo *r, uint32_t version, bool *out)
{
	const struct version *v;
	int err = repo_version(r, version, &v);

	if (err == -ENOENT)
		return refuse(-EBADMSG, "version %u is referred to, but not there", version);
	*out = !err && v->state == VERSION_DROPPED;
	return err;
}

static int mark_run(struct repo *r, struct live_set *set, uint32_t version, uint32_t stream,
		    uint64_t slot, uint64_t n)
{
	struct live *l;
	bool dropped = false;
	int err = is_dropped(r, version, &dropped);

	if (err || !dropped)
		return err;
	l = live_get(set, version, stream, true);
	return l ? live_mark(l, slot, n) : fail(-ENOMEM, "collect the pages in use");
}

/* Every entry of a visible version whose delta stands on a dropped one, and the control files
 * down to the first that isn't. */
static int mark_whole(struct repo *r, struct live_set *set, uint32_t version, uint32_t stream,
		      uint32_t base)
{
	_cleanup_ctl_ struct ctl *c = NULL;
	struct ctl_run run = {0};
	int err = repo_ctl(r, version, stream, &c);

	while (!err && ctl_next_run(c, run.page + run.n, UINT32_MAX, &run)) {
		if (!(run.first.flags & CTL_ZERO))
			err = mark_run(r, set, run.first.version, run.first.stream,
				       run.first.slot, run.n);
	}
	while (!err && base) {
		_cleanup_ctl_image_ struct ctl_image image = {0};
		struct live *l;
		bool dropped = false;

		err = is_dropped(r, base, &dropped);
		if (err || !dropped)
			break;
		l = live_get(set, base, stream, true);
		if (!l)
			return fail(-ENOMEM, "collect the pages in use");
		l->ctl = true;
		err = repo_ctl_image(r, base, stream, &image);
		if (!err)
			base = image.header->base;
	}
	return err;
}

static int mark_stream(struct repo *r, struct live_set *set, uint32_t version, uint32_t stream)
{
	_cleanup_ctl_image_ struct ctl_image image = {0};
	bool dropped = false;
	int err = repo_ctl_image(r, version, stream, &image);

	if (!err && image.header->base)
		err = is_dropped(r, image.header->base, &dropped);
	if (err)
		return err;
	if (dropped)
		return mark_whole(r, set, version, stream, image.header->base);
	/* a visible base is marked for itself, or this is a full one: what is in the file is
	 * all there is to add */
	for (uint64_t i = 0; !err && i < image.header->runs; i++) {
		const struct icp_ctl_run *run = &image.runs[i];

		if (run->kind == ICP_RUN_DATA)
			err = mark_run(r, set, run->version, run->stream, run->slot,
				       run->count);
	}
	return err;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* @skip: versions that are as good as dropped. */
static int collect(struct repo *r, struct live_set *set, const uint32_t *skip, size_t n_skip)
{
	for (size_t i = 0; i < r->n_numbers; i++) {
		_cleanup_manifest_ Icp__Manifest *m = NULL;
		const struct version *v;
		int err = 0;

		if (n_skip && bsearch(&r->numbers[i], skip, n_skip, sizeof(*skip), compare_u32))
			continue;
		err = repo_version(r, r->numbers[i], &v);
		if (!err && v->state == VERSION_DAMAGED)
			err = refuse(-EBADMSG,
				     "version %u is damaged: what it needs is not known",
				     v->number);
		if (err)
			return err;
		if (v->state != VERSION_COMMITTED)
			continue;
		err = repo_manifest(r, v->number, &m);
		for (size_t f = 0; !err && f < m->n_files; f++) {
			if (m->files[f]->kind == ICP_FILE_CTL)
				err = mark_stream(r, set, v->number, m->files[f]->stream);
		}
		if (err)
			return err;
	}
	return 0;
}

/* The files a dropped version has now. */
static int current_files(struct repo *r, const struct version *v, struct keep_list *out)
{
	_cleanup_manifest_ Icp__Manifest *m = NULL;
	int err;

	if (v->keep.generation) {
		for (size_t i = 0; i < v->keep.n; i++) {
			struct icp_keep_file *f = vec_push(out);

			if (!f)
				return fail(-ENOMEM, "list files");
			*f = v->keep.data[i];
		}
		return 0;
	}
	err = repo_manifest_of(r, v, &m);
	for (size_t i = 0; !err && i < m->n_files; i++) {
		struct icp_keep_file *f = vec_push(out);

		if (!f)
			return fail(-ENOMEM, "list files");
		f->kind = m->files[i]->kind;
		f->stream = m->files[i]->stream;
		f->size = m->files[i]->size;
		memcpy(&f->hash, m->files[i]->hash.data, sizeof(f->hash));
	}
	return err;
}

/* Copy the pages in use of @from to a file of a new generation; each must still be what it was
 * when it was written. */
static int copy_live(struct repo *r, struct page_file *from, const struct live *l,
		     uint32_t generation, struct icp_keep_file *out)
{
	struct page_writer_config config = {
		.version = from->version,
		.stream = from->stream,
		.page_size = from->page_size,
		.generation = generation,
		.codec = from->codec,
	};
	_cleanup_page_writer_ struct page_writer *w = NULL;
	_cleanup_free_ uint8_t *buf = aligned_alloc(4096, ICP_CHUNK_BYTES);
	int err;

	if (!buf)
		return fail(-ENOMEM, "compact");
	err = page_writer_open(
		r->store, name_file(ICP_FILE_PAGES, from->version, from->stream, generation).s,
		&config, &w);
	for (uint64_t at = 0; !err && at < from->slots; at += from->chunk_pages) {
		uint64_t n = from->slots - at < from->chunk_pages ? from->slots - at
								  : from->chunk_pages;
		bool read = false;

		for (uint64_t i = 0; !err && i < n; i++) {
			uint32_t slot = from->map ? from->map[at + i] : (uint32_t)(at + i);

			if (!live_has(l, slot))
				continue;
			if (!read)
				err = page_file_read(from, at, n, buf);
			read = true;
			if (!err)
				err = page_writer_put_slot(w, buf + i * from->page_size, slot);
		}
	}
	return err ? err : page_writer_finish(take_ptr(w), &out->size, &out->hash);
}

/* Whether @f stays, and as what. */
static int shrink(struct repo *r, const struct version *v, struct live_set *set, bool tight,
		  struct keep_list *keep, const struct icp_keep_file *f)
{
	struct live *l = live_get(set, v->number, f->stream, false);
	_cleanup_page_file_ struct page_file *from = NULL;
	struct icp_keep_file out = *f, *to;
	uint64_t waste;
	int err;

	if (!l || (f->kind == ICP_FILE_CTL ? !l->ctl : !l->count))
		return 0;
	if (f->kind == ICP_FILE_PAGES) {
		err = page_file_open(
			r->store,
			name_file(ICP_FILE_PAGES, v->number, f->stream, f->generation).s,
			&from);
		if (err)
			return err == -ENOENT ? refuse(-EBADMSG,
						       "a page file of version %u is missing",
						       v->number)
					      : err;
		if (from->slots < l->count)
			return refuse(-EBADMSG, "a page file of version %u lacks pages",
				      v->number);
		waste = from->slots - l->count;
		if (waste && (tight || waste * 4 > from->slots)) {
			out.generation = keep->generation;
			err = copy_live(r, from, l, keep->generation, &out);
			if (err)
				return err;
		}
	}
	to = vec_push(keep);
	if (!to)
		return fail(-ENOMEM, "list files");
	*to = out;
	return 0;
}

static uint64_t total(const struct keep_list *list)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < list->n; i++)
		sum += list->data[i].size;
	return sum;
}

static void keep_list_free(struct keep_list *l)
{
	vec_free(l);
}

static bool needed(struct live_set *set, uint32_t version)
{
	for (int i = 0; i < BUCKETS; i++) {
		for (struct live *l = set->bucket[i]; l; l = l->next) {
			if (l->version == version && (l->ctl || l->count))
				return true;
		}
	}
	return false;
}

static int compact(struct repo *r, const struct version *v, struct live_set *set, bool tight,
		   struct prune_result *out)
{
	_cleanup_(keep_list_free) struct keep_list files = {0}, keep = {0};
	uint32_t number = v->number;
	int err = current_files(r, v, &files);

	if (!needed(set,
		    number)) { /* even if its manifest is gone: a removal that was cut short */
		err_clear();
		out->bytes_before += total(&files);
		err = repo_wipe(r, number, number == r->numbers[r->n_numbers - 1]);
		repo_forget(r, number);
		return err;
	}
	if (!err)
		err = prune_sweep(
			r, number); /* a crash may have left files of the generation to come */
	if (err)
		return err;
	keep.generation = v->keep.generation + 1;
	for (size_t i = 0; !err && i < files.n; i++)
		err = shrink(r, v, set, tight, &keep, &files.data[i]);
	if (err)
		return err;
	out->bytes_before += total(&files);
	out->bytes_after += total(&keep);
	if (v->keep.generation && files.n == keep.n && total(&files) == total(&keep))
		return 0;
	err = store_sync(r->store, name_rank(number).s);
	if (!err)
		err = keep_create(r->store, number, &keep);
	repo_forget(r, number);
	return err ? err : prune_sweep(r, number);
}

static bool spare(void *arg, const char *name)
{
	const struct version *v = arg;

	if (!v->keep.generation) /* as committed, that is without a generation in the name */
		return !strstr(name, ".g");
	for (size_t i = 0; i < v->keep.n; i++) {
		const struct icp_keep_file *f = &v->keep.data[i];

		if (!strcmp(name_file(f->kind, v->number, f->stream, f->generation).s, name))
			return true;
	}
	return false;
}

int prune_sweep(struct repo *r, uint32_t version)
{
	_cleanup_list_ struct store_list list = {0};
	const struct version *v;
	int err = repo_version(r, version, &v);

	if (!err)
		err = repo_wipe_files(r, version, spare, (void *)v);
	if (!err)
		err = store_list(r->store, name_version(version).s, &list);
	for (size_t i = 0; !err && i < list.n; i++) {
		uint32_t generation = name_parse_keep(list.data[i].name);

		if (generation && generation < v->keep.generation)
			err = store_remove(r->store, name_keep(version, generation).s);
	}
	return err;
}

int prune_settle(struct repo *r, bool tight, bool missing_only, struct prune_result *out)
{
	_cleanup_(live_free) struct live_set set = {0};
	int err = collect(r, &set, NULL, 0);

	for (size_t i = 0; !err && i < r->n_numbers; i++) {
		const struct version *v;

		err = repo_version(r, r->numbers[i], &v);
		if (!err && v->state == VERSION_DROPPED &&
		    !(missing_only && v->keep.generation))
			err = compact(r, v, &set, tight, out);
	}
	return err ? err : repo_refresh(r);
}

/* The versions to drop, in order. */
static int choose(struct repo *r, const struct prune_config *config, uint32_t *list, size_t *n)
{
	_cleanup_free_ uint32_t *visible = NULL;
	size_t n_visible, kept = 0;
	int err = repo_committed(r, &visible, &n_visible);

	if (err)
		return err;
	*n = 0;
	if (!config->keep_last && (!config->from || config->to < config->from))
		return refuse(-EINVAL, "versions %u..%u are not a range", config->from,
			      config->to);
	for (size_t i = 0; i < n_visible; i++) {
		bool drop = config->keep_last
				    ? i + config->keep_last < n_visible
				    : visible[i] >= config->from && visible[i] <= config->to;

		if (drop)
			list[(*n)++] = visible[i];
		kept += !drop;
	}
	if (*n && !kept)
		return refuse(-EINVAL, "that would drop every version");
	return 0;
}

int repo_prune(struct repo *r, const struct prune_config *config, struct prune_result *out)
{
	_cleanup_free_ uint32_t *list = calloc(r->n_numbers + 1, sizeof(*list));
	size_t n;
	int err;

	*out = (struct prune_result){0};
	if (!list)
		return fail(-ENOMEM, "prune");
	if (r->mode == REPO_READ)
		return refuse(-EBADF, "the repository was opened for reading");
	err = choose(r, config, list, &n);
	if (!err) { /* what can't be understood can't be pruned: find out before anything is
		       hidden */
		struct live_set *set = calloc(1, sizeof(*set));

		err = set ? collect(r, set, list, n) : fail(-ENOMEM, "prune");
		if (set)
			live_free(set);
		free(set);
	}
	for (size_t i = 0; !err && i < n; i++) {
		struct icp_decision d;

		decision_make(&d, ICP_DROPPED, list[i], 0);
		decision_seal(&d);
		err = store_create(r->store, name_in(list[i], "dropped").s, &d, sizeof(d));
		if (err == -EEXIST)
			err = refuse(-EBADMSG,
				     "version %u has a record of being dropped already",
				     list[i]);
		repo_forget(r, list[i]);
		out->dropped += !err;
	}
	return err ? err : prune_settle(r, config->tight, false, out);
}
