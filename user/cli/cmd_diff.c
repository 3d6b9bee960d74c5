// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "cli/diff.h"
#include "obs/view.h"

struct diff {
	const char *dir;
	long from, to, pid;
	bool pages, json;
	struct repo *repo;
	struct reader *reader;
	Icp__Manifest *a, *b;
};

static struct tally tally_all(const struct ctl_diffs *diffs)
{
	struct tally t = {0};

	vec_each (d, diffs)
		diff_tally_add(&t, d->what, d->n);
	return t;
}

/* ---- mappings ---- */

/* The first mapping that ends behind @address. */
static size_t vma_from(const Icp__Process *p, uint64_t address)
{
	size_t low = 0, high = p->n_vmas;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (p->vmas[mid]->end <= address)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

const Icp__Vma *diff_vma_at(const Icp__Process *p, uint64_t address)
{
	size_t at = p ? vma_from(p, address) : 0;

	return p && at < p->n_vmas && p->vmas[at]->start <= address ? p->vmas[at] : NULL;
}

/* Where, behind @address, another mapping begins or this one ends. */
static uint64_t border(const Icp__Process *p, uint64_t address)
{
	size_t at = p ? vma_from(p, address) : 0;

	if (!p || at == p->n_vmas)
		return UINT64_MAX;
	return p->vmas[at]->start > address ? p->vmas[at]->start : p->vmas[at]->end;
}

static bool same_mapping(const Icp__Vma *v, const Icp__Vma *w)
{
	return v->kind == w->kind && v->inode == w->inode && v->shmid == w->shmid &&
	       !strcmp(v->path, w->path);
}

/* Pages belong to the mapping of B; to that of A when they went with it. */
static int cut(const struct diff_pair *p, struct pieces *out)
{
	uint64_t size = p->page_size;

	vec_each (d, &p->diffs) {
		uint64_t at = d->page * size, end = (d->page + d->n) * size;

		while (at < end) {
			const Icp__Vma *va = diff_vma_at(p->a, at), *vb = diff_vma_at(p->b, at);
			uint64_t next = border(p->a, at), other = border(p->b, at);
			struct piece *piece = vec_push(out);

			if (!piece)
				return fail(-ENOMEM, "compare versions");
			next = next < other ? next : other;
			next = next < end ? next : end;
			piece->start = at;
			piece->n = (next - at) / size;
			piece->what = d->what;
			piece->of_a =
				d->what == CTL_GONE && va && !(vb && same_mapping(va, vb));
			piece->vma = piece->of_a ? va : vb;
			at = next;
		}
	}
	return 0;
}

static int by_vma(const void *x, const void *y)
{
	const struct piece *p = x, *q = y;

	if (p->of_a != q->of_a)
		return p->of_a ? 1 : -1;
	return p->start < q->start ? -1 : p->start > q->start;
}

/* ---- comparing ---- */

static int open_side(struct diff *d, const Icp__Manifest *m, uint32_t stream, struct ctl **out)
{
	if (manifest_file(m, ICP_FILE_CTL, stream))
		return repo_ctl(d->repo, m->version, stream, out);
	return ctl_new(stream, m->page_size, out);
}

static int compare_streams(struct diff *d, uint32_t stream, struct diff_pair *p)
{
	int err = open_side(d, d->a, stream, &p->ca);

	if (!err)
		err = open_side(d, d->b, stream, &p->cb);
	if (err)
		return err;
	p->page_size = ctl_page_size(p->ca);
	if (p->page_size != ctl_page_size(p->cb))
		return refuse(-EBADMSG, "versions %ld and %ld have pages of different size",
			      d->from, d->to);
	return ctl_compare(p->ca, p->cb, &p->diffs);
}

static void pair_free(struct diff_pair *p)
{
	vec_free(&p->diffs);
	ctl_free(p->ca);
	ctl_free(p->cb);
}

static void pieces_free(struct pieces *p)
{
	vec_free(p);
}

static int emit_text(struct diff *d, const struct diff_pair *p, struct pieces *list,
		     const struct changed_symbols *s)
{
	const Icp__Process *any = p->b ? p->b : p->a;
	struct tally t = tally_all(&p->diffs);
	char name[64];

	printf("process %u %s%s: ", any->pid, cli_clean(any->comm, name, sizeof(name)),
	       !p->a   ? " (new)"
	       : !p->b ? " (ended)"
		       : "");
	diff_print_tally(&t);
	if (d->pages)
		diff_print_pages(list, p->page_size);
	if (list->n)
		qsort(list->data, list->n, sizeof(*list->data), by_vma);
	diff_print_vmas(list);
	diff_print_symbols(s);
	return 0;
}

static int emit_json(struct diff *d, const struct diff_pair *p, struct pieces *list,
		     const struct changed_symbols *s, json_t *to)
{
	const Icp__Process *any = p->b ? p->b : p->a;
	struct tally t = tally_all(&p->diffs);
	json_t *o = json_pack("{s:I, s:o, s:b, s:b}", "pid", (json_int_t)any->pid, "comm",
			      cli_json_string(any->comm), "in_from", !!p->a, "in_to", !!p->b);
	int bad = json_array_append_new(to, o) || diff_json_tally(o, &t);

	if (!bad && d->pages)
		bad = diff_json_pages(o, list);
	if (list->n)
		qsort(list->data, list->n, sizeof(*list->data), by_vma);
	if (!bad)
		bad = diff_json_vmas(o, list) || diff_json_symbols(o, s);
	return bad ? fail(-ENOMEM, "make JSON") : 0;
}

static int diff_process(struct diff *d, const Icp__Process *a, const Icp__Process *b,
			json_t *to)
{
	_cleanup_(pair_free) struct diff_pair p = {.reader = d->reader, .a = a, .b = b};
	_cleanup_(changed_symbols_free) struct changed_symbols symbols = {0};
	_cleanup_(pieces_free) struct pieces list = {0};
	int err = compare_streams(d, (a ? a : b)->pid, &p);

	if (!err)
		err = cut(&p, &list);
	if (!err)
		err = diff_symbols(&p, &symbols);
	if (err)
		return err;
	return to ? emit_json(d, &p, &list, &symbols, to) : emit_text(d, &p, &list, &symbols);
}

static int diff_segment(struct diff *d, const Icp__Segment *g, json_t *to)
{
	_cleanup_(pair_free) struct diff_pair p = {0};
	_cleanup_(pieces_free) struct pieces list = {0};
	int err = compare_streams(d, g->shmid | ICP_STREAM_SHM, &p);
	struct tally t;
	json_t *o;

	if (!err && d->pages)
		err = cut(&p, &list);
	if (err)
		return err;
	t = tally_all(&p.diffs);
	if (!to) {
		printf("segment %u (key %#010x): ", g->shmid, g->key);
		diff_print_tally(&t);
		diff_print_pages(&list, p.page_size);
		return 0;
	}
	o = json_pack("{s:I, s:o}", "shmid", (json_int_t)g->shmid, "key", cli_json_hex(g->key));
	if (json_array_append_new(to, o) || diff_json_tally(o, &t) ||
	    (d->pages && diff_json_pages(o, &list)))
		return fail(-ENOMEM, "make JSON");
	return 0;
}

static const Icp__Process *process_of(const Icp__Manifest *m, uint32_t pid)
{
	for (size_t i = 0; i < m->n_processes; i++)
		if (m->processes[i]->pid == pid)
			return m->processes[i];
	return NULL;
}

static bool has_segment(const Icp__Manifest *m, uint32_t shmid)
{
	for (size_t i = 0; i < m->n_segments; i++)
		if (m->segments[i]->shmid == shmid)
			return true;
	return false;
}

/* The processes of B, then those that only A has. */
static int diff_processes(struct diff *d, json_t *to)
{
	bool any = false;
	int err = 0;

	for (size_t i = 0; !err && i < d->b->n_processes; i++) {
		const Icp__Process *p = d->b->processes[i];

		if (d->pid && p->pid != (uint32_t)d->pid)
			continue;
		any = true;
		err = diff_process(d, process_of(d->a, p->pid), p, to);
	}
	for (size_t i = 0; !err && i < d->a->n_processes; i++) {
		const Icp__Process *p = d->a->processes[i];

		if ((d->pid && p->pid != (uint32_t)d->pid) || process_of(d->b, p->pid))
			continue;
		any = true;
		err = diff_process(d, p, NULL, to);
	}
	if (!err && d->pid && !any)
		err = refuse(-ENOENT, "neither version %ld nor %ld has a process %ld", d->from,
			     d->to, d->pid);
	return err;
}

static int diff_segments(struct diff *d, json_t *to)
{
	int err = 0;

	for (size_t i = 0; !err && i < d->b->n_segments; i++)
		err = diff_segment(d, d->b->segments[i], to);
	for (size_t i = 0; !err && i < d->a->n_segments; i++)
		if (!has_segment(d->b, d->a->segments[i]->shmid))
			err = diff_segment(d, d->a->segments[i], to);
	return err;
}

static int run_diff(struct diff *d)
{
	json_t *processes = NULL, *segments = NULL, *all = NULL;
	int err = repo_open(d->dir, REPO_READ, &d->repo);

	if (!err)
		err = repo_manifest(d->repo, (uint32_t)d->from, &d->a);
	if (!err)
		err = repo_manifest(d->repo, (uint32_t)d->to, &d->b);
	if (!err)
		err = reader_open(d->repo, &d->reader);
	if (!err && d->json) {
		processes = json_array();
		segments = json_array();
		all = json_pack("{s:I, s:I, s:I, s:o, s:o}", "from", (json_int_t)d->from, "to",
				(json_int_t)d->to, "page_size", (json_int_t)d->b->page_size,
				"processes", processes, "segments", segments);
		err = all ? 0 : fail(-ENOMEM, "make JSON");
	}
	if (!err)
		err = diff_processes(d, processes);
	if (!err && !d->pid)
		err = diff_segments(d, segments);
	if (!err && d->json)
		return cli_print_json(all);
	json_decref(all);
	return err;
}

static int take_option(struct diff *d, int opt, char **argv)
{
	switch (opt) {
	case 'd':
		d->dir = optarg;
		return 0;
	case 'f':
		return cli_version_option(&verb_diff, "from", optarg, &d->from);
	case 't':
		return cli_version_option(&verb_diff, "to", optarg, &d->to);
	case 'p':
		if (cli_number(optarg, 1, INT32_MAX, &d->pid))
			return 0;
		return cli_usage(&verb_diff, "'%s' is not a process id", optarg);
	case 'g':
		d->pages = true;
		return 0;
	case 'j':
		d->json = true;
		return 0;
	default:
		return cli_bad_option(&verb_diff, argv);
	}
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{"dir", required_argument, NULL, 'd'},
		{"from", required_argument, NULL, 'f'},
		{"to", required_argument, NULL, 't'},
		{"pid", required_argument, NULL, 'p'},
		{"pages", no_argument, NULL, 'g'},
		{"json", no_argument, NULL, 'j'},
		{NULL, 0, NULL, 0},
	};
	struct diff d = {0};
	int opt, status = 0;

	opterr = 0;
	while (!status && (opt = getopt_long(argc, argv, "d:p:", options, NULL)) != -1)
		status = take_option(&d, opt, argv);
	if (!status)
		status = cli_need_dir(&verb_diff, d.dir, argc, argv);
	if (!status && (!d.from || !d.to))
		status = cli_usage(&verb_diff, "which versions? --from A --to B");
	if (!status)
		status = cli_finish(run_diff(&d));
	reader_close(d.reader);
	manifest_free(d.a);
	manifest_free(d.b);
	repo_close(d.repo);
	return status;
}

const struct verb verb_diff = {
	.name = "diff",
	.run = run,
	.line = "what changed between two versions",
	.help = "usage: icp-bpf diff --dir DIR --from A --to B [OPTIONS]\n"
		"\n"
		"Prints for each process and mapping how many pages changed, were added and "
		"are gone, and which variables\n"
		"of the program and its libraries have other values; names come from the ELF "
		"files, when those on disk are\n"
		"still the ones that were mapped (the build id tells).\n"
		"\n"
		"  -d, --dir DIR       the repository\n"
		"      --from A        the version to compare with\n"
		"      --to B          the version to look at\n"
		"  -p, --pid PID       only this process\n"
		"      --pages         also list the pages\n"
		"      --json          one JSON object, see docs/json-images.md\n"
		"\n"
		"example: icp-bpf diff --dir /var/lib/icp-bpf/redis --from 2 --to 3\n",
};
