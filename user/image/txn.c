// SPDX-License-Identifier: GPL-2.0
/* Writing a version: files, then the manifest, then the decision. */
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "image/names.h"

struct written {
	enum icp_file_kind kind;
	uint32_t stream;
	uint64_t size;
	struct icp_hash hash;
};

struct pending_ctl {
	struct ctl *ctl;
	struct icp_ctl_header header;
};

struct txn {
	struct repo *repo;
	struct txn_config config;
	uint32_t version;
	struct dedup *dedup;
	pthread_mutex_t lock; /* files, bytes */
	VEC(struct written) files;
	VEC(struct pending_ctl) ctls;
	uint64_t bytes;
};

static void txn_free(struct txn *t)
{
	if (!t)
		return;
	dedup_free(t->dedup);
	pthread_mutex_destroy(&t->lock);
	vec_free(&t->files);
	vec_free(&t->ctls);
	free(t);
}

static void cleanup_txn_free(struct txn **t)
{
	txn_free(*t);
}

static int check_begin(struct repo *r, const struct txn_config *config)
{
	const struct version *v;
	int err;

	if (r->mode == REPO_READ)
		return refuse(-EBADF, "the repository was opened for reading");
	if (config->rank)
		return refuse(-EOPNOTSUPP, "jobs over several machines are not supported yet");
	if (!config->parent)
		return 0;
	err = repo_version(r, config->parent, &v);
	if (err == -ENOENT || (!err && v->state != VERSION_COMMITTED))
		return refuse(-ENOENT, "the parent, version %u, is not there (any more)",
			      config->parent);
	return err;
}

/* The number is taken from here on, whatever comes of it. */
static int take_number(struct repo *r, uint32_t *out)
{
	uint32_t number = r->n_numbers ? r->numbers[r->n_numbers - 1] + 1 : 1;
	uint32_t *numbers = reallocarray(r->numbers, r->n_numbers + 1, sizeof(*numbers));
	struct version **cache;

	if (!number || number == UINT32_MAX)
		return refuse(-ENOSPC, "the repository has had all the versions it can have");
	if (!numbers)
		return fail(-ENOMEM, "begin a version");
	r->numbers = numbers;
	cache = reallocarray(r->cache, r->n_numbers + 1, sizeof(*cache));
	if (!cache)
		return fail(-ENOMEM, "begin a version");
	r->cache = cache;
	r->numbers[r->n_numbers] = number;
	r->cache[r->n_numbers++] = NULL;
	*out = number;
	return 0;
}

int txn_begin(struct repo *r, const struct txn_config *config, struct txn **out)
{
	_cleanup_(cleanup_txn_free) struct txn *t = NULL;
	int err = check_begin(r, config);

	if (err)
		return err;
	t = calloc(1, sizeof(*t));
	if (!t)
		return fail(-ENOMEM, "begin a version");
	pthread_mutex_init(&t->lock, NULL);
	t->repo = r;
	t->config = *config;
	if (!t->config.page_size)
		t->config.page_size = (uint32_t)sysconf(_SC_PAGESIZE);
	if (config->dedup)
		err = dedup_new(0, &t->dedup);
	if (!err)
		err = take_number(r, &t->version);
	if (!err)
		err = store_make_prefix(r->store, name_version(t->version).s);
	if (!err)
		err = store_make_prefix(r->store, name_rank(t->version).s);
	if (err)
		return wrap(err, "begin a version");
	*out = take_ptr(t);
	return 0;
}

uint32_t txn_version(const struct txn *t)
{
	return t->version;
}

uint64_t txn_bytes(const struct txn *t)
{
	return t->bytes;
}

int txn_pages(struct txn *t, uint32_t stream, struct page_writer **out)
{
	struct page_writer_config config = {
		.version = t->version,
		.stream = stream,
		.page_size = t->config.page_size,
		.codec = t->config.codec,
		.level = t->config.level,
		.dedup = t->dedup,
	};
	struct name name = name_file(ICP_FILE_PAGES, t->version, stream, 0);
	int err = page_writer_open(t->repo->store, name.s, &config, out);

	return err == -EEXIST ? refuse(err, "%s is there already", name.s) : err;
}

static int add_file(struct txn *t, enum icp_file_kind kind, uint32_t stream, uint64_t size,
		    const struct icp_hash *hash)
{
	struct written *w;

	pthread_mutex_lock(&t->lock);
	w = vec_push(&t->files);
	if (w)
		*w = (struct written){kind, stream, size, *hash};
	t->bytes += size;
	pthread_mutex_unlock(&t->lock);
	return w ? 0 : fail(-ENOMEM, "remember a file");
}

int txn_pages_end(struct txn *t, struct page_writer *w, bool failed)
{
	uint32_t stream = page_writer_stream(w);
	struct icp_hash hash;
	uint64_t size;
	int err;

	if (failed) {
		page_writer_cancel(w);
		return 0;
	}
	err = page_writer_finish(w, &size, &hash);
	return err ? err : add_file(t, ICP_FILE_PAGES, stream, size, &hash);
}

static int put_all(struct store *s, const char *name, const void *data, size_t size)
{
	_cleanup_put_ struct store_put *put = NULL;
	int err = store_put_open(s, name, &put);

	if (err)
		return err == -EEXIST ? refuse(err, "%s is there already", name) : err;
	for (size_t at = 0; at < size && !err;) {
		size_t len = size - at < ICP_CHUNK_BYTES ? size - at : ICP_CHUNK_BYTES;
		struct iovec iov = {(char *)data + at, len};

		err = store_put_write(put, &iov, 1);
		at += len;
	}
	return err ? err : store_put_finish(take_ptr(put));
}

int txn_ctl(struct txn *t, struct ctl *c, bool full)
{
	_cleanup_ctl_image_ struct ctl_image image = {0};
	struct pending_ctl *pending;
	struct icp_hash hash;
	int err;

	if (ctl_version(c) && ctl_version(c) != t->config.parent)
		return refuse(-EINVAL,
			      "a control structure of version %u, not of the parent %u",
			      ctl_version(c), t->config.parent);
	err = ctl_encode(c, t->version, full, &image);
	if (!err)
		err = put_all(t->repo->store,
			      name_file(ICP_FILE_CTL, t->version, ctl_stream(c), 0).s,
			      image.data, image.size);
	if (err)
		return err;
	pending = vec_push(&t->ctls);
	if (!pending)
		return fail(-ENOMEM, "remember a control structure");
	*pending = (struct pending_ctl){c, *image.header};
	hash = page_hash(image.data, image.size);
	return add_file(t, ICP_FILE_CTL, ctl_stream(c), image.size, &hash);
}

/* The list of files for the manifest, as protobuf-c wants it. */
static int list_files(struct txn *t, Icp__Manifest *m, Icp__File ***files, void **storage)
{
	Icp__File *list = calloc(t->files.n + 1, sizeof(*list));
	Icp__File **ptrs = calloc(t->files.n + 1, sizeof(*ptrs));

	if (!list || !ptrs) {
		free(list);
		free(ptrs);
		return fail(-ENOMEM, "list files");
	}
	for (size_t i = 0; i < t->files.n; i++) {
		struct written *w = &t->files.data[i];

		icp__file__init(&list[i]);
		list[i].kind = w->kind;
		list[i].stream = w->stream;
		list[i].size = w->size;
		list[i].hash = (ProtobufCBinaryData){sizeof(w->hash), (uint8_t *)&w->hash};
		ptrs[i] = &list[i];
	}
	m->files = *files = ptrs;
	m->n_files = t->files.n;
	*storage = list;
	return 0;
}

static int write_manifest(struct txn *t, Icp__Manifest *m, struct icp_decision *d)
{
	_cleanup_free_ void *data = NULL, *storage = NULL;
	_cleanup_free_ Icp__File **files = NULL;
	size_t size;
	int err;

	m->format = ICP_FORMAT;
	m->version = t->version;
	m->parent = t->config.parent;
	m->time_ns = d->time_ns;
	m->page_size = t->config.page_size;
	m->codec = t->config.codec;
	m->rank = 0;
	err = list_files(t, m, &files, &storage);
	if (err)
		return err;
	err = manifest_check(m);
	if (!err)
		err = manifest_pack(m, &data, &size);
	m->files = NULL;
	m->n_files = 0;
	if (err)
		return err;
	d->manifest_size = size;
	d->manifest = page_hash(data, size);
	t->bytes += size;
	return put_all(t->repo->store, name_manifest(t->version).s, data, size);
}

/* What the register says, when our own attempt to write it has failed. */
static int settled(struct txn *t, const struct icp_decision *ours)
{
	const struct version *v;
	int err;

	repo_forget(t->repo, t->version);
	err = repo_version(t->repo, t->version, &v);
	if (err || v->state != VERSION_COMMITTED || memcmp(&v->decision, ours, sizeof(*ours)))
		return err ? err : -EAGAIN;
	return store_sync(t->repo->store, name_version(t->version).s) ? -EUCLEAN : 0;
}

static int decide(struct txn *t, const struct icp_decision *d)
{
	struct store *s = t->repo->store;
	int err = store_sync(s, name_rank(t->version).s), seen;

	if (!err)
		err = store_sync(s, name_version(t->version).s);
	if (!err)
		err = store_sync(s, "");
	if (err)
		return err;
	err = store_create(s, name_in(t->version, "decision").s, d, sizeof(*d));
	if (!err)
		return 0;
	if (err == -EEXIST)
		err = refuse(-ECANCELED, "somebody else has decided about version %u",
			     t->version);
	seen = settled(t, d);
	if (!seen)
		err_clear();
	return seen == 0 || seen == -EUCLEAN ? seen : err;
}

int txn_commit(struct txn *t, Icp__Manifest *m)
{
	struct icp_decision d;
	int err;

	decision_make(&d, ICP_COMMITTED, t->version, t->config.parent);
	err = write_manifest(t, m, &d);
	decision_seal(&d);
	if (!err)
		err = decide(t, &d);
	if (err && err != -EUCLEAN) {
		char text[512];

		snprintf(text, sizeof(text), "%s", err_text(err)); /* the abort may fail, too */
		txn_abort(t);
		return refuse(err, "%s", text);
	}
	vec_each (p, &t->ctls) {
		struct ctl_image image = {.header = &p->header};

		ctl_clean(p->ctl, t->version, &image);
	}
	repo_forget(t->repo, t->version);
	txn_free(t);
	return err;
}

void txn_abort(struct txn *t)
{
	struct icp_decision d;
	int err;

	if (!t)
		return;
	decision_make(&d, ICP_ABORTED, t->version, t->config.parent);
	decision_seal(&d);
	err = store_create(t->repo->store, name_in(t->version, "decision").s, &d, sizeof(d));
	/* only what is surely aborted may be removed; the next writer resolves the rest */
	if (!err)
		err = repo_wipe(t->repo, t->version, true);
	if (err)
		debug("abort version %u: %s", t->version, err_text(err));
	repo_forget(t->repo, t->version);
	txn_free(t);
}
