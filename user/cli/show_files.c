// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cli/show.h"
#include "obs/view.h"

/* One piece of state. A kind whose message is known here can be shown decoded: this is where. */
static int show_blob(const char *owner, const Icp__StateBlob *b, json_t *list)
{
	char kind[64];

	if (!list) {
		printf("  %-16s  %-16s  %7u  %8s\n", owner,
		       cli_clean(b->kind, kind, sizeof(kind)), b->version,
		       human_bytes((double)b->data.len, (char[16]){0}));
		return 0;
	}
	return json_array_append_new(list, json_pack("{s:o, s:I, s:I}", "kind",
						     cli_json_string(b->kind), "version",
						     (json_int_t)b->version, "bytes",
						     (json_int_t)b->data.len))
		       ? fail(-ENOMEM, "make JSON")
		       : 0;
}

static int show_blobs(const char *owner, Icp__StateBlob *const *blobs, size_t n, json_t *to)
{
	json_t *list = to ? json_array() : NULL;
	int err = 0;

	/* entered first: @to owns it then, whatever comes */
	if (to && json_object_set_new(to, "state", list))
		return fail(-ENOMEM, "make JSON");
	for (size_t i = 0; !err && i < n; i++)
		err = show_blob(owner, blobs[i], list);
	return err;
}

static bool has_state(const Icp__Process *p)
{
	if (p->n_blobs)
		return true;
	for (size_t i = 0; i < p->n_threads; i++)
		if (p->threads[i]->n_blobs)
			return true;
	return false;
}

static void state_head(void)
{
	printf("  %-16s  %-16s  %7s  %8s\n", "of", "state", "version", "size");
}

int show_process_state(const Icp__Process *p, json_t *to)
{
	json_t *threads = to ? json_object_get(to, "threads") : NULL;
	int err;

	if (!to && has_state(p))
		state_head();
	err = show_blobs("process", p->blobs, p->n_blobs, to);
	for (size_t i = 0; !err && i < p->n_threads; i++) {
		const Icp__Thread *t = p->threads[i];
		char owner[32];

		snprintf(owner, sizeof(owner), "thread %u", t->tid);
		err = show_blobs(owner, t->blobs, t->n_blobs,
				 to ? json_array_get(threads, i) : NULL);
	}
	return err;
}

static int show_file(struct show *s, const Icp__File *f, json_t *list)
{
	char name[96], hash[33], of[32];
	struct icp_hash h;
	json_t *o;

	memcpy(&h, f->hash.data, sizeof(h)); /* manifest_parse() saw to the size */
	place_name(f->kind, s->version, f->stream, name);
	cli_hash(&h, hash);
	cli_stream(f->stream, of);
	if (!list) {
		printf("  %-40s  %8s  %-16s  %s\n", name,
		       human_bytes((double)f->size, (char[16]){0}), of, hash);
		return 0;
	}
	o = json_pack("{s:s, s:s, s:I, s:s, s:I}", "name", name, "kind",
		      f->kind == ICP_FILE_PAGES ? "pages" : "control", "bytes",
		      (json_int_t)f->size, "hash", hash, cli_stream_key(f->stream),
		      (json_int_t)icp_stream_id(f->stream));
	return json_array_append_new(list, o) ? fail(-ENOMEM, "make JSON") : 0;
}

int show_files(struct show *s, json_t *to)
{
	json_t *list = to ? json_array() : NULL;
	int err;

	if (to && json_object_set_new(to, "files", list))
		return fail(-ENOMEM, "make JSON");
	if (!to && s->m->n_blobs) {
		printf("\n");
		state_head();
	}
	err = show_blobs("job", s->m->blobs, s->m->n_blobs, to);
	if (!to)
		printf("\n  %-40s  %8s  %-16s  %s\n", "file", "size", "of", "hash");
	for (size_t i = 0; !err && i < s->m->n_files; i++)
		err = show_file(s, s->m->files[i], list);
	return err;
}
