// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cli/show.h"
#include "obs/view.h"
#include "proc/maps.h"

static const char *kind_name(const Icp__Vma *v)
{
	static const char *const names[] = {
		"?",
		[VMA_ANON + 1] = "anonymous",
		[VMA_FILE_PRIVATE + 1] = "file",
		[VMA_FILE_SHARED + 1] = "shared",
		[VMA_SHM + 1] = "segment",
		[VMA_SPECIAL + 1] = "special",
	};

	return v->kind < sizeof(names) / sizeof(names[0]) ? names[v->kind] : "?";
}

static bool is_segment(const Icp__Vma *v)
{
	return v->kind == VMA_SHM + 1;
}

struct saved {
	uint64_t data, zero;
};

static struct saved count(const struct ctl *c, uint64_t start, uint64_t end)
{
	uint64_t page = start / ctl_page_size(c), stop = end / ctl_page_size(c);
	struct saved saved = {0};
	struct ctl_run run;

	while (page < stop && ctl_next_run(c, page, stop - page, &run) && run.page < stop) {
		uint64_t n = run.n < stop - run.page ? run.n : stop - run.page;

		if (run.first.flags & CTL_ZERO)
			saved.zero += n;
		else
			saved.data += n;
		page = run.page + n;
	}
	return saved;
}

/* What is saved of a mapping; of a System V segment the image is the segment's. */
static int count_vma(struct show *s, const Icp__Vma *v, const struct ctl *own,
		     struct saved *out)
{
	_cleanup_ctl_ struct ctl *c = NULL;
	uint32_t stream = v->shmid | ICP_STREAM_SHM;
	int err;

	*out = (struct saved){0};
	if (!is_segment(v)) {
		*out = count(own, v->start, v->end);
		return 0;
	}
	if (!manifest_file(s->m, ICP_FILE_CTL, stream) ||
	    v->offset > UINT64_MAX - (v->end - v->start))
		return 0;
	err = repo_ctl(s->repo, s->version, stream, &c);
	if (!err)
		*out = count(c, v->offset, v->offset + (v->end - v->start));
	return err;
}

static void print_vma(const Icp__Vma *v, const struct saved *n)
{
	char name[512];

	printf("  %012" PRIx64 "-%012" PRIx64 "  %s  %-9s  %8s  %9s  %9s  %8" PRIx64 "  %s%s\n",
	       v->start, v->end, cli_prot(v, (char[5]){0}), kind_name(v),
	       human_bytes((double)(v->end - v->start), (char[16]){0}),
	       human_count(n->data, (char[32]){0}), human_count(n->zero, (char[32]){0}),
	       v->offset, cli_clean(cli_vma_name(v), name, sizeof(name)),
	       v->deleted ? " (deleted)" : "");
}

static json_t *json_vma(const Icp__Vma *v, const struct saved *n)
{
	return json_pack("{s:o, s:o, s:s, s:s, s:I, s:I, s:I, s:o, s:b}", "start",
			 cli_json_hex(v->start), "end", cli_json_hex(v->end), "permissions",
			 cli_prot(v, (char[5]){0}), "kind", kind_name(v), "pages",
			 (json_int_t)n->data, "zero_pages", (json_int_t)n->zero, "offset",
			 (json_int_t)v->offset, "name", cli_json_string(cli_vma_name(v)),
			 "deleted", v->deleted);
}

int show_vmas(struct show *s, const Icp__Process *p, json_t *to)
{
	_cleanup_ctl_ struct ctl *c = NULL;
	json_t *list = to ? json_array() : NULL;
	int err = 0;

	if (to && json_object_set_new(to, "vmas", list))
		return fail(-ENOMEM, "make JSON");
	if (p->no_memory)
		return 0;
	err = repo_ctl(s->repo, s->version, p->pid, &c);
	if (!to && !err)
		printf("  %-25s  %-4s  %-9s  %8s  %9s  %9s  %8s  %s\n", "range", "prot", "kind",
		       "size", "pages", "zero", "offset", "name");
	for (size_t i = 0; !err && i < p->n_vmas; i++) {
		struct saved n;

		err = count_vma(s, p->vmas[i], c, &n);
		if (err)
			break;
		if (!to)
			print_vma(p->vmas[i], &n);
		else if (json_array_append_new(list, json_vma(p->vmas[i], &n)))
			err = fail(-ENOMEM, "make JSON");
	}
	return err;
}

/* ---- the control structure ---- */

static json_t *json_place(const struct place *at)
{
	json_t *o = json_pack("{s:s, s:I, s:I, s:s}", "file", at->file, "offset",
			      (json_int_t)at->offset, "size", (json_int_t)at->size, "codec",
			      cli_codec(at->codec));

	if (o && at->codec != ICP_CODEC_NONE &&
	    json_object_set_new(o, "inside", json_integer((json_int_t)at->inside))) {
		json_decref(o);
		o = NULL;
	}
	return o;
}

/* "FILE at OFFSET", or for a compressed page "FILE at OFFSET+SIZE (zstd), from byte N on" */
static void print_place(const struct place *at)
{
	printf("%s at %#" PRIx64, at->file, at->offset);
	if (at->codec != ICP_CODEC_NONE)
		printf("+%#" PRIx64 " (%s), from byte %#" PRIx64 " on", at->size,
		       cli_codec(at->codec), at->inside);
}

static int show_run(struct show *s, const struct ctl *c, const struct ctl_run *run,
		    json_t *list)
{
	uint64_t size = ctl_page_size(c);
	bool zero = run->first.flags & CTL_ZERO;
	struct place at = {0};
	json_t *o;
	int err = zero ? 0 : places_find(s->places, &run->first, (uint32_t)size, &at);

	if (err)
		return err;
	if (!list) {
		printf("  %012" PRIx64 "-%012" PRIx64 "  %9" PRIu64 "  ", run->page * size,
		       (run->page + run->n) * size, run->n);
		if (zero) {
			printf("%7s  zeros\n", "-");
			return 0;
		}
		printf("%7u  ", run->first.version);
		print_place(&at);
		putchar('\n');
		return 0;
	}
	o = json_pack("{s:o, s:I, s:b}", "start", cli_json_hex(run->page * size), "pages",
		      (json_int_t)run->n, "zero", zero);
	if (o && !zero &&
	    (json_object_set_new(o, "version", json_integer(run->first.version)) ||
	     json_object_set_new(o, "at", json_place(&at)))) {
		json_decref(o);
		o = NULL;
	}
	return json_array_append_new(list, o) ? fail(-ENOMEM, "make JSON") : 0;
}

int show_control(struct show *s, uint32_t stream, json_t *to)
{
	_cleanup_ctl_ struct ctl *c = NULL;
	json_t *list = to ? json_array() : NULL;
	struct ctl_run run = {0};
	int err;

	if (to && json_object_set_new(to, "control", list))
		return fail(-ENOMEM, "make JSON");
	err = repo_ctl(s->repo, s->version, stream, &c);
	if (!err && !to)
		printf("  %-25s  %9s  %7s  %s\n", "range", "pages", "version",
		       "place of the first");
	while (!err && ctl_next_run(c, run.page + run.n, UINT64_MAX, &run))
		err = show_run(s, c, &run, list);
	return err;
}

/* ---- one address ---- */

struct found {
	uint32_t pid;
	const Icp__Vma *vma;
	uint32_t stream;
	uint64_t address; /* of the page, in that stream */
	bool saved;
	struct ctl_entry entry;
	struct place at;
};

static const Icp__Vma *vma_at(const Icp__Process *p, uint64_t address)
{
	for (size_t i = 0; i < p->n_vmas; i++)
		if (address >= p->vmas[i]->start && address < p->vmas[i]->end)
			return p->vmas[i];
	return NULL;
}

static int look_up(struct show *s, struct found *f)
{
	_cleanup_ctl_ struct ctl *c = NULL;
	const struct ctl_entry *e;
	int err;

	if (!manifest_file(s->m, ICP_FILE_CTL, f->stream))
		return 0;
	err = repo_ctl(s->repo, s->version, f->stream, &c);
	if (!err && s->o.lookup == CTL_RBTREE)
		err = ctl_index(c);
	if (err)
		return err;
	e = ctl_find(c, f->address / ctl_page_size(c), s->o.lookup);
	if (!e)
		return 0;
	f->saved = true;
	f->entry = *e;
	return e->flags & CTL_ZERO ? 0 : places_find(s->places, e, ctl_page_size(c), &f->at);
}

static const char *absent(const struct found *f)
{
	if (!f->vma)
		return "not mapped";
	if (f->vma->kind == VMA_SPECIAL + 1)
		return "not saved: special mapping";
	if (f->vma->path[0] && !is_segment(f->vma))
		return "not saved: clean content of the file";
	return "not saved: never touched";
}

static void print_found(const struct found *f)
{
	char name[512];

	printf("process %u: ", f->pid);
	if (f->stream & ICP_STREAM_SHM)
		printf("segment %u, byte %#" PRIx64 ": ", f->stream & ~ICP_STREAM_SHM,
		       f->address);
	if (!f->saved) {
		printf("%s", absent(f));
	} else if (f->entry.flags & CTL_ZERO) {
		printf("zero page");
	} else {
		printf("version %u, ", f->entry.version);
		print_place(&f->at);
		printf(", slot %u, hash %s", f->entry.slot,
		       cli_hash(&f->entry.hash, (char[33]){0}));
	}
	if (f->vma && cli_vma_name(f->vma)[0])
		printf("  (%s)", cli_clean(cli_vma_name(f->vma), name, sizeof(name)));
	putchar('\n');
}

static json_t *json_found(const struct found *f)
{
	bool zero = f->saved && f->entry.flags & CTL_ZERO;
	json_t *o = json_pack("{s:I, s:b, s:b, s:b}", "pid", (json_int_t)f->pid, "mapped",
			      !!f->vma, "saved", f->saved, "zero", zero);
	int bad = !o;

	if (f->vma)
		bad |= json_object_set_new(o, "vma", cli_json_hex(f->vma->start)) ||
		       json_object_set_new(o, "name", cli_json_string(cli_vma_name(f->vma)));
	if (f->stream & ICP_STREAM_SHM)
		bad |= json_object_set_new(o, "shmid",
					   json_integer(f->stream & ~ICP_STREAM_SHM)) ||
		       json_object_set_new(o, "segment_offset",
					   json_integer((json_int_t)f->address));
	if (f->saved && !zero)
		bad |= json_object_set_new(o, "version", json_integer(f->entry.version)) ||
		       json_object_set_new(o, "slot", json_integer(f->entry.slot)) ||
		       json_object_set_new(o, "at", json_place(&f->at)) ||
		       json_object_set_new(o, "hash", cli_json_hash(&f->entry.hash));
	if (!bad)
		return o;
	json_decref(o);
	return NULL;
}

int show_address(struct show *s, json_t *to)
{
	uint64_t address = s->o.address - s->o.address % s->m->page_size;
	bool any = false;
	int err = 0;

	for (size_t i = 0; !err && i < s->m->n_processes; i++) {
		const Icp__Process *p = s->m->processes[i];
		struct found f = {.pid = p->pid, .stream = p->pid, .address = address};

		if (!show_wants(s, p))
			continue;
		f.vma = vma_at(p, address);
		if (f.vma && is_segment(f.vma)) {
			f.stream = f.vma->shmid | ICP_STREAM_SHM;
			f.address = address - f.vma->start + f.vma->offset;
		}
		err = look_up(s, &f);
		any |= f.vma || f.saved;
		if (err)
			break;
		if (!to)
			print_found(&f);
		else if (json_array_append_new(to, json_found(&f)))
			err = fail(-ENOMEM, "make JSON");
	}
	if (!err && !any)
		err = refuse(-ENOENT, "version %u has no memory at %#" PRIx64, s->version,
			     s->o.address);
	return err;
}
