// SPDX-License-Identifier: GPL-2.0
/* The small records: repository, decision, dropped, keep. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <xxhash.h>

#include "image/names.h"

uint64_t record_check(const void *data, size_t len)
{
	return XXH3_64bits(data, len);
}

uint64_t realtime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* -ENOENT is bare; everything that a damaged file can cause becomes -EBADMSG. */
int record_load(struct store *s, const char *name, size_t max, void **data, size_t *len)
{
	int err = store_load(s, name, max, data, len);

	return err == -EFBIG || err == -ENODATA ? -EBADMSG : err;
}

void decision_make(struct icp_decision *d, enum icp_verdict verdict, uint32_t version,
		   uint32_t parent)
{
	*d = (struct icp_decision){
		.format = ICP_FORMAT,
		.verdict = verdict,
		.version = version,
		.parent = parent,
		.time_ns = realtime_ns(),
	};
	memcpy(d->magic, ICP_MAGIC_DECISION, sizeof(d->magic));
}

void decision_seal(struct icp_decision *d)
{
	d->check = record_check(d, offsetof(struct icp_decision, check));
}

int decision_parse(const void *data, size_t len, uint32_t version, struct icp_decision *out)
{
	if (len != sizeof(*out))
		return refuse(-EBADMSG, "the record has %zu bytes instead of %zu", len,
			      sizeof(*out));
	memcpy(out, data, sizeof(*out));
	if (memcmp(out->magic, ICP_MAGIC_DECISION, sizeof(out->magic)) ||
	    out->check != record_check(out, offsetof(struct icp_decision, check)))
		return refuse(-EBADMSG, "the record is damaged");
	if (out->format != ICP_FORMAT)
		return refuse(-EBADMSG, "the record has format %u, this program knows %u",
			      out->format, ICP_FORMAT);
	if (out->version != version)
		return refuse(-EBADMSG, "the record belongs to version %u", out->version);
	if (out->verdict < ICP_COMMITTED || out->verdict > ICP_DROPPED ||
	    out->parent >= version ||
	    (out->verdict == ICP_COMMITTED && out->manifest_size > MANIFEST_MAX))
		return refuse(-EBADMSG, "the record makes no sense");
	return 0;
}

int keep_parse(const void *data, size_t len, uint32_t version, struct keep_list *out)
{
	const struct icp_keep_file *files =
		(const void *)((const char *)data + sizeof(struct icp_keep));
	struct icp_keep head;

	if (len < sizeof(head))
		return refuse(-EBADMSG, "the record is too short");
	memcpy(&head, data, sizeof(head));
	if (memcmp(head.magic, ICP_MAGIC_KEEP, sizeof(head.magic)) ||
	    head.format != ICP_FORMAT || head.version != version || !head.generation ||
	    head.pad)
		return refuse(-EBADMSG, "the record is damaged");
	if ((len - sizeof(head)) / sizeof(*files) != head.count ||
	    (len - sizeof(head)) % sizeof(*files))
		return refuse(-EBADMSG, "the record has not the size it should have");
	if (head.check != (record_check(&head, offsetof(struct icp_keep, check)) ^
			   record_check(files, head.count * sizeof(*files))))
		return refuse(-EBADMSG, "the record is damaged");
	for (uint32_t i = 0; i < head.count; i++) {
		struct icp_keep_file file, *to;

		memcpy(&file, &files[i], sizeof(file));
		if ((file.kind != ICP_FILE_PAGES && file.kind != ICP_FILE_CTL) || file.pad ||
		    file.generation > head.generation)
			return refuse(-EBADMSG, "the record makes no sense");
		to = vec_push(out);
		if (!to)
			return fail(-ENOMEM, "read a record");
		*to = file;
	}
	out->generation = head.generation;
	return 0;
}

int keep_create(struct store *s, uint32_t version, const struct keep_list *files)
{
	size_t body = files->n * sizeof(*files->data), len = sizeof(struct icp_keep) + body;
	_cleanup_free_ struct icp_keep *head = calloc(1, len);

	if (!head)
		return fail(-ENOMEM, "write a record");
	memcpy(head->magic, ICP_MAGIC_KEEP, sizeof(head->magic));
	head->format = ICP_FORMAT;
	head->version = version;
	head->generation = files->generation;
	head->count = (uint32_t)files->n;
	if (body)
		memcpy(head + 1, files->data, body);
	head->check = record_check(head, offsetof(struct icp_keep, check)) ^
		      record_check(head + 1, body);
	return store_create(s, name_keep(version, files->generation).s, head, len);
}

int repo_record_parse(const void *data, size_t len, struct icp_repo *out)
{
	if (len != sizeof(*out))
		return refuse(-EBADMSG, "the record " NAME_REPO " has %zu bytes", len);
	memcpy(out, data, sizeof(*out));
	if (memcmp(out->magic, ICP_MAGIC_REPO, sizeof(out->magic)) ||
	    out->check != record_check(out, offsetof(struct icp_repo, check)))
		return refuse(-EBADMSG,
			      "the record " NAME_REPO " is damaged or not one of icp-bpf's");
	if (out->format != ICP_FORMAT)
		return refuse(-EPROTONOSUPPORT,
			      "the repository has format %u, this program knows %u",
			      out->format, ICP_FORMAT);
	return 0;
}

void repo_record_make(struct icp_repo *r)
{
	*r = (struct icp_repo){.format = ICP_FORMAT, .created_ns = realtime_ns()};
	memcpy(r->magic, ICP_MAGIC_REPO, sizeof(r->magic));
	if (getrandom(r->id, sizeof(r->id), 0) < 0)
		memcpy(r->id, &r->created_ns, sizeof(r->created_ns));
	r->check = record_check(r, offsetof(struct icp_repo, check));
}
