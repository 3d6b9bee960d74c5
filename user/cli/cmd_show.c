// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "cli/show.h"
#include "obs/view.h"

enum { OPT_VMAS = 256, OPT_FILES, OPT_CONTROL, OPT_LOOKUP, OPT_JSON };

static const struct option long_options[] = {
	{"dir", required_argument, NULL, 'd'},
	{"version", required_argument, NULL, 'v'},
	{"pid", required_argument, NULL, 'p'},
	{"vmas", no_argument, NULL, OPT_VMAS},
	{"files", no_argument, NULL, OPT_FILES},
	{"control", optional_argument, NULL, OPT_CONTROL},
	{"lookup", required_argument, NULL, OPT_LOOKUP},
	{"json", no_argument, NULL, OPT_JSON},
	{NULL, 0, NULL, 0},
};

bool show_wants(const struct show *s, const Icp__Process *p)
{
	return !s->o.pid || p->pid == (uint32_t)s->o.pid;
}

/* The command line, or the name, fit for a terminal. */
static const char *command(const Icp__Process *p, char *buf, size_t size)
{
	size_t n = p->cmdline.len < size - 1 ? p->cmdline.len : size - 1;
	char text[256];

	if (n > sizeof(text) - 1)
		n = sizeof(text) - 1;
	if (!n)
		return cli_clean(p->comm, buf, size);
	for (size_t i = 0; i < n; i++)
		text[i] = p->cmdline.data[i] ? (char)p->cmdline.data[i] : ' ';
	while (n && text[n - 1] == ' ')
		n--;
	text[n] = 0;
	return cli_clean(text, buf, size);
}

static void print_job(const struct show *s)
{
	const Icp__Job *j = s->m->job;
	char a[32], b[32], c[32];

	if (!j)
		return;
	if (j->label[0])
		printf("  label    %s\n", cli_clean(j->label, (char[256]){0}, 256));
	printf("  job     ");
	for (size_t i = 0; i < j->n_roots; i++)
		printf(" %u", j->roots[i]);
	printf("%s, found by %s (tracker %s), %u pre-copy rounds\n", j->n_roots ? "" : " -",
	       j->found_by[0] ? cli_clean(j->found_by, a, sizeof(a)) : "-",
	       j->tracker[0] ? cli_clean(j->tracker, b, sizeof(b)) : "-", j->precopy_rounds);
	printf("  written  %s pages, %s zero pages, ", human_count(j->pages, a),
	       human_count(j->zero_pages, b));
	printf("%s, paused %s of ", human_bytes((double)j->bytes_written, a),
	       cli_duration(j->pause_ns, b));
	printf("%s\n", cli_duration(j->total_ns, c));
}

static void print_summary(const struct show *s)
{
	const Icp__Manifest *m = s->m;
	char arch[32], kernel[64], tool[32];

	printf("version %u: %s", m->version, cli_type(m));
	if (m->parent)
		printf(", parent %u", m->parent);
	printf("\n  time     %s\n", cli_time(m->time_ns, (char[32]){0}));
	print_job(s);
	printf("  machine  %s, Linux %s, pages of %s; icp-bpf %s; compression %s\n",
	       cli_clean(m->arch, arch, sizeof(arch)),
	       cli_clean(m->kernel_release, kernel, sizeof(kernel)),
	       human_bytes(m->page_size, (char[16]){0}),
	       cli_clean(m->tool_version, tool, sizeof(tool)), cli_codec(m->codec));
}

static int json_summary(const struct show *s, json_t *to)
{
	const Icp__Manifest *m = s->m;
	const Icp__Job *j = m->job;
	json_t *roots = json_array(), *job;
	json_t *own = json_pack(
		"{s:I, s:I, s:s, s:f, s:o, s:o, s:I, s:o, s:o, s:s}", "version",
		(json_int_t)m->version, "parent", (json_int_t)m->parent, "type", cli_type(m),
		"time", (double)m->time_ns / 1e9, "arch", cli_json_string(m->arch), "kernel",
		cli_json_string(m->kernel_release), "page_size", (json_int_t)m->page_size,
		"boot_id", cli_json_string(m->boot_id), "tool_version",
		cli_json_string(m->tool_version), "codec", cli_codec(m->codec));
	int bad = !own || json_object_update(to, own);

	for (size_t i = 0; j && i < j->n_roots; i++)
		bad |= json_array_append_new(roots, json_integer(j->roots[i]));
	json_decref(own);
	if (!j) {
		json_decref(roots);
		return bad ? fail(-ENOMEM, "make JSON") : 0;
	}
	job = json_pack("{s:o, s:o, s:o, s:o, s:f, s:f, s:I, s:I, s:I, s:I}", "label",
			cli_json_string(j->label), "roots", roots, "tracker",
			cli_json_string(j->tracker), "found_by", cli_json_string(j->found_by),
			"pause_seconds", (double)j->pause_ns / 1e9, "total_seconds",
			(double)j->total_ns / 1e9, "precopy_rounds",
			(json_int_t)j->precopy_rounds, "pages", (json_int_t)j->pages,
			"zero_pages", (json_int_t)j->zero_pages, "bytes_written",
			(json_int_t)j->bytes_written);
	bad |= json_object_set_new(to, "job", job);
	return bad ? fail(-ENOMEM, "make JSON") : 0;
}

static void print_process(const Icp__Process *p)
{
	char name[200];

	printf("\nprocess %u: %s\n", p->pid, command(p, name, sizeof(name)));
	printf("  parent %u, group %u, session %u; %zu threads, %zu mappings, ", p->ppid,
	       p->pgid, p->sid, p->n_threads, p->n_vmas);
	printf("%s pages", human_count(p->pages, (char[32]){0}));
	printf(", %s zero pages%s\n", human_count(p->zero_pages, (char[32]){0}),
	       p->no_memory ? ", a zombie" : "");
	if (p->exe[0])
		printf("  program  %s\n", cli_clean(p->exe, name, sizeof(name)));
	for (size_t i = 0; i < p->n_threads; i++)
		printf("  thread   %u %s%s\n", p->threads[i]->tid,
		       cli_clean(p->threads[i]->name, name, sizeof(name)),
		       p->threads[i]->stopped ? " (stopped)" : "");
}

/* The arguments; each ends with a NUL, the last one perhaps not. */
static json_t *json_cmdline(const Icp__Process *p)
{
	const char *text = (const char *)p->cmdline.data;
	json_t *list = json_array();

	for (size_t at = 0, len; list && at < p->cmdline.len; at += len + 1) {
		len = strnlen(text + at, p->cmdline.len - at);
		if (json_array_append_new(list, cli_json_text(text + at, len))) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static int json_process(const Icp__Process *p, json_t *o)
{
	json_t *threads = json_array();
	json_t *own = json_pack("{s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:I, s:I, s:b, s:O}",
				"pid", (json_int_t)p->pid, "ppid", (json_int_t)p->ppid, "pgid",
				(json_int_t)p->pgid, "sid", (json_int_t)p->sid, "comm",
				cli_json_string(p->comm), "exe", cli_json_string(p->exe),
				"cmdline", json_cmdline(p), "pages", (json_int_t)p->pages,
				"zero_pages", (json_int_t)p->zero_pages, "no_memory",
				p->no_memory, "threads", threads);
	int bad = !own || json_object_update(o, own);

	for (size_t i = 0; i < p->n_threads; i++)
		bad |= json_array_append_new(threads,
					     json_pack("{s:I, s:o, s:b}", "tid",
						       (json_int_t)p->threads[i]->tid, "name",
						       cli_json_string(p->threads[i]->name),
						       "stopped", p->threads[i]->stopped));
	json_decref(own);
	json_decref(threads);
	return bad ? fail(-ENOMEM, "make JSON") : 0;
}

/* @list NULL: text. */
static int show_process(struct show *s, const Icp__Process *p, json_t *list)
{
	json_t *o = list ? json_object() : NULL;
	int err = 0;

	if (list && json_array_append_new(list, o))
		return fail(-ENOMEM, "make JSON");
	if (list)
		err = json_process(p, o);
	else
		print_process(p);
	if (!err && s->o.vmas)
		err = show_vmas(s, p, o);
	if (!err && s->o.files)
		err = show_process_state(p, o);
	if (!err && s->o.control && !p->no_memory)
		err = show_control(s, p->pid, o);
	return err;
}

static int show_segment(struct show *s, const Icp__Segment *g, json_t *list)
{
	uint32_t stream = g->shmid | ICP_STREAM_SHM;
	json_t *o;

	if (list) {
		o = json_pack("{s:I, s:o, s:I, s:I, s:I, s:I, s:b}", "shmid",
			      (json_int_t)g->shmid, "key", cli_json_hex(g->key), "size",
			      (json_int_t)g->size, "mode", (json_int_t)g->mode, "pages",
			      (json_int_t)g->pages, "zero_pages", (json_int_t)g->zero_pages,
			      "removed", g->removed);
		if (json_array_append_new(list, o))
			return fail(-ENOMEM, "make JSON");
	} else {
		o = NULL;
		printf("\nsegment %u: key %#010x, %s, mode %03o%s; ", g->shmid, g->key,
		       human_bytes((double)g->size, (char[16]){0}), g->mode & 0777,
		       g->removed ? ", removed" : "");
		printf("%s pages, ", human_count(g->pages, (char[32]){0}));
		printf("%s zero pages\n", human_count(g->zero_pages, (char[32]){0}));
	}
	if (s->o.control && manifest_file(s->m, ICP_FILE_CTL, stream))
		return show_control(s, stream, o);
	return 0;
}

static int show_all(struct show *s, json_t *to)
{
	json_t *processes = to ? json_array() : NULL, *segments = to ? json_array() : NULL;
	bool any = false;
	int err = 0;

	if (to && (json_object_set_new(to, "processes", processes) ||
		   json_object_set_new(to, "segments", segments)))
		return fail(-ENOMEM, "make JSON");
	for (size_t i = 0; i < s->m->n_processes; i++)
		any |= show_wants(s, s->m->processes[i]);
	if (s->o.pid && !any)
		return refuse(-ENOENT, "version %u has no process %ld", s->version, s->o.pid);
	if (s->o.has_address)
		return 0;
	if (to)
		err = json_summary(s, to);
	else
		print_summary(s);
	for (size_t i = 0; !err && i < s->m->n_processes; i++)
		if (show_wants(s, s->m->processes[i]))
			err = show_process(s, s->m->processes[i], processes);
	for (size_t i = 0; !err && i < s->m->n_segments && !s->o.pid; i++)
		err = show_segment(s, s->m->segments[i], segments);
	if (!err && s->o.files)
		err = show_files(s, to);
	return err;
}

static int json_address(struct show *s, json_t **out)
{
	json_t *found = json_array();

	*out = json_pack("{s:I, s:o, s:s, s:o}", "version", (json_int_t)s->version, "address",
			 cli_json_hex(s->o.address), "lookup",
			 s->o.lookup == CTL_RBTREE ? "rbtree" : "direct", "found", found);
	return *out ? show_address(s, found) : fail(-ENOMEM, "make JSON");
}

static int run_show(struct show *s)
{
	json_t *all = NULL;
	int err = repo_open(s->o.dir, REPO_READ, &s->repo);

	if (!err)
		err = places_open(s->repo, &s->places);
	if (!err)
		err = cli_pick_version(s->repo, s->o.dir, s->o.version, &s->version);
	if (!err)
		err = repo_manifest(s->repo, s->version, &s->m);
	if (!err && s->o.json && !s->o.has_address && !(all = json_object()))
		err = fail(-ENOMEM, "make JSON");
	if (!err)
		err = show_all(s, all);
	if (!err && s->o.has_address)
		err = s->o.json ? json_address(s, &all) : show_address(s, NULL);
	if (!err && s->o.json)
		return cli_print_json(all);
	json_decref(all);
	return err;
}

static int take_control(struct show_options *o, int argc, char **argv)
{
	const char *text = optarg;

	o->control = true;
	if (!text && optind < argc && argv[optind][0] != '-')
		text = argv[optind++]; /* --control ADDR as well as --control=ADDR */
	if (!text)
		return 0;
	o->has_address = true;
	if (cli_address(text, &o->address))
		return 0;
	return cli_usage(&verb_show, "--control takes an address (7f12..), not '%s'", text);
}

static int take_lookup(struct show_options *o, const char *text)
{
	o->lookup = !strcmp(text, "rbtree") ? CTL_RBTREE : CTL_DIRECT;
	if (o->lookup == CTL_RBTREE || !strcmp(text, "direct"))
		return 0;
	return cli_usage(&verb_show, "--lookup takes direct or rbtree, not '%s'", text);
}

static int take_option(struct show_options *o, int opt, int argc, char **argv)
{
	switch (opt) {
	case 'd':
		o->dir = optarg;
		return 0;
	case 'v':
		return cli_version_option(&verb_show, "version", optarg, &o->version);
	case 'p':
		if (cli_number(optarg, 1, INT32_MAX, &o->pid))
			return 0;
		return cli_usage(&verb_show, "'%s' is not a process id", optarg);
	case OPT_VMAS:
		o->vmas = true;
		return 0;
	case OPT_FILES:
		o->files = true;
		return 0;
	case OPT_CONTROL:
		return take_control(o, argc, argv);
	case OPT_LOOKUP:
		return take_lookup(o, optarg);
	case OPT_JSON:
		o->json = true;
		return 0;
	default:
		return cli_bad_option(&verb_show, argv);
	}
}

static int run(int argc, char **argv)
{
	struct show s = {0};
	int opt, status = 0;

	opterr = 0;
	while (!status && (opt = getopt_long(argc, argv, "d:v:p:", long_options, NULL)) != -1)
		status = take_option(&s.o, opt, argc, argv);
	if (!status)
		status = cli_need_dir(&verb_show, s.o.dir, argc, argv);
	if (!status)
		status = cli_finish(run_show(&s));
	manifest_free(s.m);
	places_close(s.places);
	repo_close(s.repo);
	return status;
}

const struct verb verb_show = {
	.name = "show",
	.run = run,
	.line = "what a version holds",
	.help = "usage: icp-bpf show --dir DIR [OPTIONS]\n"
		"\n"
		"Prints what a version holds: the job, its processes and threads, System V "
		"segments; in more detail with:\n"
		"\n"
		"  -d, --dir DIR       the repository\n"
		"  -v, --version N     the version (the newest)\n"
		"  -p, --pid PID       only this process\n"
		"      --vmas          the mappings of each process, with the pages that are "
		"saved of each\n"
		"      --files         the files of the version, and the kinds of state in it\n"
		"      --control       the control structure: for each run of pages the "
		"version, file and offset they are at\n"
		"      --control ADDR  the same for the page at one address (hexadecimal), "
		"with slot and hash\n"
		"      --lookup HOW    how ADDR is looked up: direct (the default) or rbtree\n"
		"      --json          one JSON object, see docs/json-images.md\n"
		"\n"
		"example: icp-bpf show --dir /var/lib/icp-bpf/redis --version 3 --control "
		"7f1200341000\n",
};
