// SPDX-License-Identifier: GPL-2.0
#include "image/manifest.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/*
 * An empty sub-message takes two bytes in the file and two hundred in memory: bound what a
 * parse may take, in proportion to the size, so that a small file can not fill the machine.
 */
struct budget {
	size_t left;
};

#define PARSE_FACTOR 24
#define PARSE_EXTRA (4u << 20)

static void *budget_alloc(void *arg, size_t size)
{
	struct budget *b = arg;

	if (size > b->left)
		return NULL;
	b->left -= size;
	return malloc(size ? size : 1);
}

static void budget_free(void *arg, void *ptr)
{
	free(ptr);
}

static bool utf8(const char *s)
{
	const unsigned char *p = (const unsigned char *)s;

	while (*p) {
		int more = *p < 0x80   ? 0
			   : *p < 0xc2 ? -1
			   : *p < 0xe0 ? 1
			   : *p < 0xf0 ? 2
			   : *p < 0xf5 ? 3
				       : -1;

		if (more < 0)
			return false;
		for (p++; more; more--, p++) {
			if ((*p & 0xc0) != 0x80)
				return false;
		}
	}
	return true;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Sorts @ids. */
static bool unique(uint32_t *ids, size_t n)
{
	if (n)
		qsort(ids, n, sizeof(*ids), compare_u32);
	for (size_t i = 1; i < n; i++) {
		if (ids[i] == ids[i - 1])
			return false;
	}
	return true;
}

static int check_blobs(Icp__StateBlob *const *blobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!blobs[i]->kind[0] || strlen(blobs[i]->kind) > 32 || !utf8(blobs[i]->kind))
			return refuse(-EBADMSG, "state without a proper kind");
		for (size_t j = 0; j < i && n <= 64; j++) {
			if (!strcmp(blobs[i]->kind, blobs[j]->kind))
				return refuse(-EBADMSG, "state %s is there twice",
					      blobs[i]->kind);
		}
	}
	return 0;
}

static int check_vmas(const Icp__Process *p, uint32_t page_size)
{
	uint64_t end = 0;

	for (size_t i = 0; i < p->n_vmas; i++) {
		const Icp__Vma *v = p->vmas[i];

		if (v->start < end || v->end <= v->start || (v->start | v->end) % page_size)
			return refuse(-EBADMSG,
				      "mapping %#llx-%#llx is out of order or not whole pages",
				      (unsigned long long)v->start, (unsigned long long)v->end);
		if (!utf8(v->path) || !utf8(v->name) || !utf8(v->vmflags))
			return refuse(-EBADMSG, "mapping %#llx has a name that is not UTF-8",
				      (unsigned long long)v->start);
		end = v->end;
	}
	return 0;
}

static int check_threads(const Icp__Process *p)
{
	_cleanup_free_ uint32_t *ids = calloc(p->n_threads + 1, sizeof(*ids));

	if (!ids)
		return fail(-ENOMEM, "check threads");
	for (size_t i = 0; i < p->n_threads; i++) {
		const Icp__Thread *t = p->threads[i];
		int err = check_blobs(t->blobs, t->n_blobs);

		if (err)
			return wrap(err, "thread %u", t->tid);
		if (!t->tid || t->tid > INT32_MAX || !utf8(t->name))
			return refuse(-EBADMSG, "thread %u makes no sense", t->tid);
		ids[i] = t->tid;
	}
	return unique(ids, p->n_threads) ? 0 : refuse(-EBADMSG, "a thread is there twice");
}

static int check_process(const Icp__Process *p, uint32_t page_size)
{
	int err;

	if (!p->pid || p->pid >= ICP_STREAM_FILE || p->ppid > INT32_MAX ||
	    p->pgid > INT32_MAX || p->sid > INT32_MAX)
		return refuse(-EBADMSG, "ids are out of range");
	if ((p->n_uids && p->n_uids != 4) || (p->n_gids && p->n_gids != 4) ||
	    p->n_groups > 65536)
		return refuse(-EBADMSG, "credentials make no sense");
	if (!utf8(p->comm) || !utf8(p->exe) || !utf8(p->cwd) || !utf8(p->root))
		return refuse(-EBADMSG, "a name is not UTF-8");
	err = check_vmas(p, page_size);
	if (!err)
		err = check_threads(p);
	return err ? err : check_blobs(p->blobs, p->n_blobs);
}

static int check_streams(const Icp__Manifest *m, uint32_t *ids)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_processes; i++) {
		int err = check_process(m->processes[i], m->page_size);

		if (err)
			return wrap(err, "process %u", m->processes[i]->pid);
		ids[n++] = m->processes[i]->pid;
	}
	for (size_t i = 0; i < m->n_segments; i++) {
		int err = check_blobs(m->segments[i]->blobs, m->segments[i]->n_blobs);

		if (err || m->segments[i]->shmid > INT32_MAX)
			return err ? err
				   : refuse(-EBADMSG, "segment id %u", m->segments[i]->shmid);
		ids[n++] = m->segments[i]->shmid | ICP_STREAM_SHM;
	}
	for (size_t i = 0; i < m->n_contents; i++) {
		const Icp__FileData *c = m->contents[i];

		if (c->id >= ICP_STREAM_FILE || c->size > INT64_MAX)
			return refuse(-EBADMSG, "the content of file %u makes no sense", c->id);
		ids[n++] = c->id | ICP_STREAM_FILE;
	}
	return unique(ids, n) ? 0 : refuse(-EBADMSG, "a process or segment is there twice");
}

static int check_files(const Icp__Manifest *m, const uint32_t *ids, size_t n)
{
	_cleanup_free_ uint32_t *list = calloc(2 * m->n_files + 1, sizeof(*list));
	uint32_t *seen[3] = {NULL}; /* by kind */
	size_t used[3] = {0};

	if (!list)
		return fail(-ENOMEM, "check the list of files");
	seen[ICP_FILE_PAGES] = list;
	seen[ICP_FILE_CTL] = list + m->n_files;
	for (size_t i = 0; i < m->n_files; i++) {
		const Icp__File *f = m->files[i];

		if ((f->kind != ICP_FILE_PAGES && f->kind != ICP_FILE_CTL) ||
		    f->hash.len != sizeof(struct icp_hash) || f->size > INT64_MAX)
			return refuse(-EBADMSG, "file %zu makes no sense", i);
		/* pages of a process that ended while it was saved may be shared by others */
		if (f->kind != ICP_FILE_PAGES &&
		    !bsearch(&f->stream, ids, n, sizeof(*ids), compare_u32))
			return refuse(-EBADMSG, "a file belongs to no process or segment: %#x",
				      f->stream);
		seen[f->kind][used[f->kind]++] = f->stream;
	}
	if (!unique(seen[ICP_FILE_PAGES], used[ICP_FILE_PAGES]) ||
	    !unique(seen[ICP_FILE_CTL], used[ICP_FILE_CTL]))
		return refuse(-EBADMSG, "a file is there twice");
	for (size_t i = 0; i < m->n_processes; i++) {
		const Icp__Process *p = m->processes[i];

		if (!p->no_memory && !bsearch(&p->pid, seen[ICP_FILE_CTL], used[ICP_FILE_CTL],
					      sizeof(*ids), compare_u32))
			return refuse(-EBADMSG, "process %u has no control structure", p->pid);
	}
	return 0;
}

int manifest_check(const Icp__Manifest *m)
{
	size_t n = m->n_processes + m->n_segments + m->n_contents;
	_cleanup_free_ uint32_t *ids = calloc(n + 1, sizeof(*ids));
	int err;

	if (!ids)
		return fail(-ENOMEM, "check a manifest");
	if (m->format != ICP_FORMAT)
		return refuse(-EBADMSG, "manifest of format %u, this program knows %u",
			      m->format, ICP_FORMAT);
	if (!m->version || m->parent >= m->version)
		return refuse(-EBADMSG, "manifest of version %u with parent %u", m->version,
			      m->parent);
	if (!icp_page_size_valid(m->page_size) || m->codec > ICP_CODEC_LZ4 || m->rank)
		return refuse(-EBADMSG, "page size %u, codec %u, rank %u", m->page_size,
			      m->codec, m->rank);
	if (!utf8(m->arch) || !utf8(m->kernel_release) || !utf8(m->boot_id) ||
	    !utf8(m->tool_version) ||
	    (m->job &&
	     (!utf8(m->job->label) || !utf8(m->job->tracker) || !utf8(m->job->found_by))))
		return refuse(-EBADMSG, "a name is not UTF-8");
	err = check_blobs(m->blobs, m->n_blobs);
	if (!err)
		err = check_streams(m, ids);
	return err ? err : check_files(m, ids, n);
}

int manifest_parse(const void *data, size_t size, Icp__Manifest **out)
{
	struct budget budget = {.left = size * PARSE_FACTOR + PARSE_EXTRA};
	ProtobufCAllocator alloc = {budget_alloc, budget_free, &budget};
	_cleanup_manifest_ Icp__Manifest *m = NULL;
	int err;

	if (size > MANIFEST_MAX)
		return refuse(-EBADMSG, "manifest of %zu bytes", size);
	m = icp__manifest__unpack(&alloc, size, data);
	if (!m)
		return refuse(-EBADMSG, "the manifest does not parse");
	err = manifest_check(m);
	if (!err)
		*out = take_ptr(m);
	return err;
}

void manifest_free(Icp__Manifest *m)
{
	/* budget_alloc() took it from malloc(), as the default one does */
	if (m)
		icp__manifest__free_unpacked(m, NULL);
}

int manifest_pack(const Icp__Manifest *m, void **data, size_t *size)
{
	size_t len = icp__manifest__get_packed_size(m);

	if (len > MANIFEST_MAX)
		return refuse(-EFBIG, "manifest of %zu bytes", len);
	*data = malloc(len + 1);
	if (!*data)
		return fail(-ENOMEM, "encode a manifest");
	*size = icp__manifest__pack(m, *data);
	return 0;
}

const Icp__File *manifest_file(const Icp__Manifest *m, enum icp_file_kind kind, uint32_t stream)
{
	for (size_t i = 0; i < m->n_files; i++) {
		if (m->files[i]->kind == (uint32_t)kind && m->files[i]->stream == stream)
			return m->files[i];
	}
	return NULL;
}
