// SPDX-License-Identifier: GPL-2.0
#include "image/repo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "image/names.h"

#define RECORD_MAX (64u << 20)

static void version_free(struct version *v)
{
	if (!v)
		return;
	vec_free(&v->keep);
	free(v);
}

static void forget_all(struct repo *r)
{
	for (size_t i = 0; r->cache && i < r->n_numbers; i++)
		version_free(r->cache[i]);
	free(r->cache);
	free(r->numbers);
	r->cache = NULL;
	r->numbers = NULL;
	r->n_numbers = 0;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int repo_refresh(struct repo *r)
{
	_cleanup_list_ struct store_list list = {0};
	uint32_t *numbers;
	int err = store_list(r->store, "", &list);
	size_t n = 0;

	if (err)
		return err;
	numbers = calloc(list.n + 1, sizeof(*numbers));
	if (!numbers)
		return fail(-ENOMEM, "list versions");
	vec_each (item, &list) {
		uint32_t number = item->prefix ? name_parse_version(item->name) : 0;

		if (number)
			numbers[n++] = number;
	}
	qsort(numbers, n, sizeof(*numbers), compare_u32);
	forget_all(r);
	r->numbers = numbers;
	r->n_numbers = n;
	r->cache = calloc(n + 1, sizeof(*r->cache));
	return r->cache ? 0 : fail(-ENOMEM, "list versions");
}

static int load_decision(struct repo *r, struct version *v, const char *last,
			 struct icp_decision *out)
{
	_cleanup_free_ void *data = NULL;
	size_t len;
	int err = record_load(r->store, name_in(v->number, last).s, sizeof(*out), &data, &len);

	return err ? err : decision_parse(data, len, v->number, out);
}

static int load_keep(struct repo *r, struct version *v, uint32_t generation)
{
	_cleanup_free_ void *data = NULL;
	size_t len;
	int err = record_load(r->store, name_keep(v->number, generation).s, RECORD_MAX, &data,
			      &len);

	if (!err)
		err = keep_parse(data, len, v->number, &v->keep);
	if (!err && v->keep.generation != generation)
		err = refuse(-EBADMSG, "the record is another generation's");
	return err;
}

/* What the records say. Damage is a state, so that the other versions stay usable. */
static int load_version(struct repo *r, struct version *v)
{
	_cleanup_list_ struct store_list list = {0};
	struct icp_decision dropped;
	bool has_decision = false, has_dropped = false;
	uint32_t keep = 0;
	int err = store_list(r->store, name_version(v->number).s, &list);

	if (err)
		return err;
	vec_each (item, &list) {
		uint32_t generation = name_parse_keep(item->name);

		has_decision |= !strcmp(item->name, "decision");
		has_dropped |= !strcmp(item->name, "dropped");
		keep = generation > keep ? generation : keep;
	}
	v->state = VERSION_PENDING;
	if (has_decision) {
		err = load_decision(r, v, "decision", &v->decision);
		if (!err && v->decision.verdict == ICP_DROPPED)
			err = -EBADMSG;
		v->state = v->decision.verdict == ICP_ABORTED ? VERSION_ABORTED
							      : VERSION_COMMITTED;
	}
	if (!err && has_dropped) { /* also without a decision: it was being removed */
		v->state = VERSION_DROPPED;
		err = load_decision(r, v, "dropped", &dropped);
		if (!err && dropped.verdict != ICP_DROPPED)
			err = -EBADMSG;
		if (!err && keep)
			err = load_keep(r, v, keep);
	}
	if (err == -EBADMSG || err == -ENOENT) {
		v->state = VERSION_DAMAGED;
		err_clear();
		err = 0;
	}
	return err;
}

static size_t find(const struct repo *r, uint32_t number)
{
	const uint32_t *at = r->n_numbers ? bsearch(&number, r->numbers, r->n_numbers,
						    sizeof(number), compare_u32)
					  : NULL;

	return at ? (size_t)(at - r->numbers) : SIZE_MAX;
}

int repo_version(struct repo *r, uint32_t number, const struct version **out)
{
	size_t at = find(r, number);
	int err;

	if (at == SIZE_MAX)
		return -ENOENT;
	if (!r->cache[at]) {
		struct version *v = calloc(1, sizeof(*v));

		if (!v)
			return fail(-ENOMEM, "read version %u", number);
		v->number = number;
		err = load_version(r, v);
		if (err) {
			version_free(v);
			return err;
		}
		r->cache[at] = v;
	}
	*out = r->cache[at];
	return 0;
}

void repo_forget(struct repo *r, uint32_t version)
{
	size_t at = find(r, version);

	if (at == SIZE_MAX)
		return;
	version_free(r->cache[at]);
	r->cache[at] = NULL;
}

int repo_committed(struct repo *r, uint32_t **numbers, size_t *n)
{
	_cleanup_free_ uint32_t *list = calloc(r->n_numbers + 1, sizeof(*list));
	size_t used = 0;

	if (!list)
		return fail(-ENOMEM, "list versions");
	for (size_t i = 0; i < r->n_numbers; i++) {
		const struct version *v;
		int err = repo_version(r, r->numbers[i], &v);

		if (err == -ENOENT) /* removed by a prune meanwhile */
			continue;
		if (err)
			return err;
		if (v->state == VERSION_COMMITTED)
			list[used++] = v->number;
	}
	*numbers = take_ptr(list);
	*n = used;
	return 0;
}

int repo_latest(struct repo *r, uint32_t *number)
{
	*number = 0;
	for (size_t i = r->n_numbers; i--;) {
		const struct version *v;
		int err = repo_version(r, r->numbers[i], &v);

		if (err && err != -ENOENT)
			return err;
		if (err || v->state != VERSION_COMMITTED)
			continue;
		*number = v->number;
		break;
	}
	return 0;
}

static int visible(struct repo *r, uint32_t number, const struct version **out)
{
	static const char *const names[] = {"",	       "not decided yet", "",
					    "aborted", "dropped",	  "damaged"};
	int err = repo_version(r, number, out);

	if (err == -ENOENT)
		return refuse(-ENOENT, "there is no version %u", number);
	if (err)
		return err;
	if ((*out)->state == VERSION_DAMAGED)
		return refuse(-EBADMSG, "the decision record of version %u is damaged", number);
	if ((*out)->state != VERSION_COMMITTED)
		return refuse(-ENOENT, "version %u is %s", number, names[(*out)->state]);
	return 0;
}

/* Of a visible version, or a dropped one that was not compacted yet. */
int repo_manifest_of(struct repo *r, const struct version *v, Icp__Manifest **out)
{
	_cleanup_manifest_ Icp__Manifest *m = NULL;
	_cleanup_free_ void *data = NULL;
	struct icp_hash hash;
	size_t len;
	int err = store_load(r->store, name_manifest(v->number).s, MANIFEST_MAX, &data, &len);

	if (err == -ENOENT || err == -ENODATA || err == -EFBIG)
		return refuse(-EBADMSG, "version %u: the manifest is missing or cut",
			      v->number);
	if (err)
		return err;
	hash = page_hash(data, len);
	if (len != v->decision.manifest_size || !hash_equal(&hash, &v->decision.manifest))
		return refuse(-EBADMSG, "version %u: the manifest is damaged", v->number);
	err = manifest_parse(data, len, &m);
	if (!err && m->version != v->number)
		err = refuse(-EBADMSG, "the manifest belongs to version %u", m->version);
	if (err)
		return wrap(err, "version %u", v->number);
	*out = take_ptr(m);
	return 0;
}

int repo_manifest(struct repo *r, uint32_t version, Icp__Manifest **out)
{
	const struct version *v;
	int err = visible(r, version, &v);

	return err ? err : repo_manifest_of(r, v, out);
}

int repo_file(struct repo *r, enum icp_file_kind kind, uint32_t version, uint32_t stream,
	      struct name *out)
{
	const struct version *v;
	int err = repo_version(r, version, &v);

	*out = name_file(kind, version, stream, 0);
	if (!err && v->state == VERSION_COMMITTED)
		return 0;
	if (!err && v->state == VERSION_DROPPED && !v->keep.generation)
		return 0;
	for (size_t i = 0; !err && v->state == VERSION_DROPPED && i < v->keep.n; i++) {
		const struct icp_keep_file *f = &v->keep.data[i];

		if (f->kind != (uint32_t)kind || f->stream != stream)
			continue;
		*out = name_file(kind, version, stream, f->generation);
		return 0;
	}
	if (err && err != -ENOENT)
		return err;
	return refuse(-EBADMSG, "%s is referred to, but not there", out->s);
}

int repo_ctl_image(struct repo *r, uint32_t version, uint32_t stream, struct ctl_image *out)
{
	struct name name;
	void *data;
	size_t len;
	int err = repo_file(r, ICP_FILE_CTL, version, stream, &name);

	if (err)
		return err;
	err = store_load(r->store, name.s, SIZE_MAX / 2, &data, &len);
	if (err == -ENOENT)
		return refuse(-EBADMSG, "%s is missing", name.s);
	if (err)
		return err;
	err = ctl_parse(data, len, out);
	if (err)
		return wrap(err, "%s", name.s);
	if (out->header->version != version || out->header->stream != stream) {
		ctl_image_free(out);
		return refuse(-EBADMSG, "%s is another version's or process's", name.s);
	}
	return 0;
}

struct chain {
	struct ctl_image *data;
	size_t n, cap;
};

static void chain_free(struct chain *c)
{
	vec_each (i, c)
		ctl_image_free(i);
	vec_free(c);
}

int repo_ctl(struct repo *r, uint32_t version, uint32_t stream, struct ctl **out)
{
	return repo_ctl_rest(r, version, stream, NULL, 0, out);
}

int repo_ctl_rest(struct repo *r, uint32_t version, uint32_t stream,
		  const struct ctl_part *parts, size_t n, struct ctl **out)
{
	_cleanup_(chain_free) struct chain chain = {0};
	_cleanup_ctl_ struct ctl *c = NULL;
	const struct version *v;
	uint32_t at = version;
	int err = visible(r, version, &v);

	if (err)
		return err;
	/* bases only get smaller (ctl_parse() saw to that), so this ends */
	do {
		struct ctl_image *image = vec_push(&chain);

		if (!image)
			return fail(-ENOMEM, "read a control structure");
		err = repo_ctl_image(r, at, stream, image);
		if (err)
			return err;
		at = image->header->base;
	} while (at);
	err = ctl_new(stream, chain.data[0].header->page_size, &c);
	while (!err && chain.n) {
		struct ctl_image *image = &chain.data[--chain.n];

		err = ctl_apply_rest(c, image, parts, n);
		if (err)
			err = wrap(
				err, "%s",
				name_file(ICP_FILE_CTL, image->header->version, stream, 0).s);
		ctl_image_free(image);
	}
	if (!err)
		*out = take_ptr(c);
	return err;
}

static bool ours(const char *name)
{
	size_t len = strlen(name);

	if (!strcmp(name, "manifest.pb"))
		return true;
	return len > 4 && !strcmp(name + len - 4, ".bin") &&
	       (!strncmp(name, "task_mm_", 8) || !strncmp(name, "shm_", 4) ||
		!strncmp(name, "file_", 5) || !strncmp(name, "ctl_", 4));
}

/* Remove the files of a version that @spare does not name. */
int repo_wipe_files(struct repo *r, uint32_t version,
		    bool (*spare)(void *arg, const char *name), void *arg)
{
	_cleanup_list_ struct store_list list = {0};
	int err = store_list(r->store, name_rank(version).s, &list);

	if (err == -ENOENT)
		return 0;
	for (size_t i = 0; !err && i < list.n; i++) {
		char name[NAME_MAX_LEN + 2];

		snprintf(name, sizeof(name), "%06u/0/%.64s", version, list.data[i].name);
		if (ours(list.data[i].name) && !(spare && spare(arg, name)))
			err = store_remove(r->store, name);
	}
	return err;
}

/* A directory that still holds files of others stays. */
static int remove_prefix(struct repo *r, const char *name)
{
	int err = store_remove_prefix(r->store, name);

	if (err != -ENOTEMPTY && err != -EEXIST)
		return err;
	err_clear();
	return 0;
}

int repo_wipe(struct repo *r, uint32_t version, bool data_only)
{
	_cleanup_list_ struct store_list list = {0};
	int err = repo_wipe_files(r, version, NULL, NULL);

	if (!err)
		err = remove_prefix(r, name_rank(version).s);
	if (err || data_only)
		return err;
	err = store_list(r->store, name_version(version).s, &list);
	for (size_t i = 0; !err && i < list.n; i++) {
		if (name_parse_keep(list.data[i].name))
			err = store_remove(r->store, name_in(version, list.data[i].name).s);
	}
	/* `dropped` last: while it is there nobody takes the version for anything else */
	if (!err)
		err = store_remove(r->store, name_in(version, "decision").s);
	if (!err)
		err = store_remove(r->store, name_in(version, "dropped").s);
	return err ? err : remove_prefix(r, name_version(version).s);
}

static int resolve_version(struct repo *r, uint32_t number, bool last, bool *unsettled)
{
	const struct version *v;
	int err = repo_version(r, number, &v);

	if (err)
		return err;
	if (v->state == VERSION_PENDING) {
		struct icp_decision d;

		decision_make(&d, ICP_ABORTED, number, 0);
		decision_seal(&d);
		err = store_create(r->store, name_in(number, "decision").s, &d, sizeof(d));
		if (err && err != -EEXIST)
			return err;
		repo_forget(r, number);
		err = repo_version(r, number, &v);
		if (err)
			return err;
	}
	if (v->state == VERSION_ABORTED)
		/* the highest number stays taken for good, by its record */
		return repo_wipe(r, number, last);
	if (v->state != VERSION_DROPPED)
		return 0;
	if (v->keep.generation)
		return prune_sweep(r, number);
	*unsettled |= !last;
	return 0;
}

/* What a crash left: pending versions are aborted, removals that had begun are completed. */
static int resolve(struct repo *r)
{
	bool unsettled = false;
	int err = 0;

	for (size_t i = 0; !err && i < r->n_numbers; i++)
		err = resolve_version(r, r->numbers[i], i + 1 == r->n_numbers, &unsettled);
	if (!err)
		err = repo_refresh(r);
	if (!err && unsettled) {
		/* a damaged version elsewhere must not keep the repository from being used */
		struct prune_result ignored = {0};

		err = prune_settle(r, false, true, &ignored);
		if (err == -EBADMSG) {
			debug("prune goes on later: %s", err_text(err));
			err_clear();
			err = 0;
		}
	}
	return err;
}

static int read_record(struct repo *r, const char *path)
{
	_cleanup_free_ void *data = NULL;
	size_t len;
	int err = record_load(r->store, NAME_REPO, sizeof(r->record), &data, &len);

	if (err == -ENOENT)
		return err;
	if (!err)
		err = repo_record_parse(data, len, &r->record);
	return err ? wrap(err, "%s", path) : 0;
}

static int make_record(struct repo *r, const char *path)
{
	_cleanup_list_ struct store_list list = {0};
	int err = store_list(r->store, "", &list);

	if (err)
		return err;
	vec_each (item, &list) { /* our lock may be there; nothing else of ours would be,
				    without the record */
		if (strcmp(item->name, NAME_LOCK) && strcmp(item->name, "lost+found"))
			return refuse(-ENOTEMPTY,
				      "%s is not a repository of icp-bpf, and not empty", path);
	}
	repo_record_make(&r->record);
	err = store_create(r->store, NAME_REPO, &r->record, sizeof(r->record));
	return err == -EEXIST ? read_record(r, path) : err;
}

/* In this order, so that a directory of others does not even get a lock file. */
static int open_record(struct repo *r, const char *path)
{
	int err = read_record(r, path);

	if (err == -ENOENT && r->mode == REPO_CREATE)
		err = make_record(r, path);
	if (err == -ENOENT)
		return refuse(-ENOENT, "%s is not a repository of icp-bpf", path);
	if (!err && r->mode != REPO_READ) {
		err = store_lock(r->store, NAME_LOCK);
		if (err == -EBUSY)
			return refuse(-EBUSY, "%s is in use by another icp-bpf", path);
	}
	return err;
}

int repo_open_store(struct store *store, const char *path, enum repo_mode mode,
		    struct repo **out)
{
	_cleanup_repo_ struct repo *r = calloc(1, sizeof(*r));
	int err;

	if (!r) {
		store_close(store);
		return fail(-ENOMEM, "open %s", path);
	}
	r->store = store;
	r->mode = mode;
	err = open_record(r, path);
	if (!err)
		err = repo_refresh(r);
	if (!err && mode != REPO_READ)
		err = resolve(r);
	if (!err)
		*out = take_ptr(r);
	return err;
}

int repo_open(const char *path, enum repo_mode mode, struct repo **out)
{
	struct store *dir, *store;
	int err = store_dir_open(path, mode == REPO_CREATE, &dir);

	if (err)
		return err;
	err = store_fault_env(dir, &store);
	return err ? err : repo_open_store(store, path, mode, out);
}

void repo_close(struct repo *r)
{
	if (!r)
		return;
	forget_all(r);
	store_close(r->store);
	free(r);
}
