// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "cli/cli_repo.h"
#include "obs/view.h"

struct list_options {
	const char *dir;
	bool all, verify, json;
};

struct list {
	struct list_options o;
	struct repo *repo;
	json_t *rows;
	size_t rows_seen;
	size_t bad;	 /* versions that are damaged */
	char first[320]; /* what is wrong with the first of them */
};

/* What is known of one version; without a manifest only the first three. */
struct row {
	uint32_t number, parent;
	const char *state;
	const Icp__Manifest *m;
	const char *label;
	uint64_t bytes;
	int sound; /* -1: not looked at */
};

static const char *state_name(enum version_state state)
{
	static const char *const names[] = {
		[VERSION_PENDING] = "pending", [VERSION_COMMITTED] = "committed",
		[VERSION_ABORTED] = "aborted", [VERSION_DROPPED] = "dropped",
		[VERSION_DAMAGED] = "damaged",
	};

	return names[state];
}

static void note_bad(struct list *l, uint32_t number, const char *what)
{
	if (!l->bad++)
		snprintf(l->first, sizeof(l->first), "version %u: %s", number, what);
}

static uint64_t file_bytes(const Icp__Manifest *m)
{
	uint64_t bytes = icp__manifest__get_packed_size(m);

	for (size_t i = 0; i < m->n_files; i++)
		bytes += m->files[i]->size;
	return bytes;
}

static void print_head(const struct list *l)
{
	printf("%7s  %6s  %-19s  %-11s  %5s  %11s  %8s  %8s  %-8s  %s\n", "version", "parent",
	       "time", "type", "procs", "pages", "bytes", "pause", "verified", "label");
}

static void print_row(const struct row *row)
{
	const Icp__Job *job = row->m ? row->m->job : NULL;
	char parent[16] = "-", procs[16] = "-", pages[32] = "-", bytes[16] = "-",
	     pause[16] = "-";
	char when[32] = "-", label[256] = "";
	const char *sound = row->sound < 0 ? "-" : row->sound ? "yes" : "NO";

	if (row->parent)
		snprintf(parent, sizeof(parent), "%u", row->parent);
	if (row->m) {
		snprintf(procs, sizeof(procs), "%zu", row->m->n_processes);
		human_bytes((double)row->bytes, bytes);
		cli_time(row->m->time_ns, when);
	}
	if (job) {
		human_count(job->pages, pages);
		cli_duration(job->pause_ns, pause);
	}
	cli_clean(row->label, label, sizeof(label));
	printf("%7u  %6s  %-19s  %-11s  %5s  %11s  %8s  %8s  %-8s%s%s\n", row->number, parent,
	       when, row->m ? cli_type(row->m) : row->state, procs, pages, bytes, pause, sound,
	       label[0] ? "  " : "", label);
}

static int json_row(struct list *l, const struct row *row)
{
	const Icp__Job *job = row->m ? row->m->job : NULL;
	json_t *o = json_pack("{s:I, s:s, s:I}", "version", (json_int_t)row->number, "state",
			      row->state, "parent", (json_int_t)row->parent);
	int bad = !o;

	if (row->sound >= 0)
		bad |= json_object_set_new(o, "verified", json_boolean(row->sound));
	else
		bad |= json_object_set_new(o, "verified", json_null());
	if (row->m) {
		bad |= json_object_set_new(o, "time", json_real((double)row->m->time_ns / 1e9));
		bad |= json_object_set_new(o, "type", json_string(cli_type(row->m)));
		bad |= json_object_set_new(o, "processes",
					   json_integer((json_int_t)row->m->n_processes));
		bad |= json_object_set_new(o, "bytes", json_integer((json_int_t)row->bytes));
		bad |= json_object_set_new(o, "label", cli_json_string(row->label));
	}
	if (job) {
		bad |= json_object_set_new(o, "pages", json_integer((json_int_t)job->pages));
		bad |= json_object_set_new(o, "zero_pages",
					   json_integer((json_int_t)job->zero_pages));
		bad |= json_object_set_new(o, "pause_seconds",
					   json_real((double)job->pause_ns / 1e9));
	}
	return bad || json_array_append_new(l->rows, o) ? fail(-ENOMEM, "make JSON") : 0;
}

static int check(struct list *l, struct row *row)
{
	struct problems problems;
	int err = repo_verify(l->repo, row->number, &problems);

	if (!err) {
		row->sound = !problems.n;
		if (problems.n)
			note_bad(l, row->number, problems.data[0].what);
	}
	problems_free(&problems);
	return err;
}

static int emit(struct list *l, struct row *row)
{
	if (l->o.json)
		return json_row(l, row);
	if (!l->rows_seen++)
		print_head(l);
	print_row(row);
	return 0;
}

static int add_version(struct list *l, uint32_t number)
{
	_cleanup_manifest_ Icp__Manifest *m = NULL;
	struct row row = {.number = number, .label = "", .sound = -1};
	const struct version *v;
	int err = repo_version(l->repo, number, &v);

	if (err == -ENOENT) /* pruned meanwhile */
		return 0;
	if (err)
		return err;
	if (v->state != VERSION_COMMITTED && v->state != VERSION_DAMAGED && !l->o.all)
		return 0;
	row.state = state_name(v->state);
	if (v->state == VERSION_DAMAGED)
		note_bad(l, number, "a record of it is damaged");
	if (v->state == VERSION_COMMITTED) {
		row.parent = v->decision.parent;
		err = repo_manifest(l->repo, number, &m);
		if (err == -EBADMSG) { /* the others can be listed all the same */
			row.state = "damaged";
			note_bad(l, number, err_text(err));
			err_clear();
			err = 0;
		}
	}
	if (m) {
		row.m = m;
		row.bytes = file_bytes(m);
		row.label = m->job ? m->job->label : "";
	}
	if (!err && m && l->o.verify)
		err = check(l, &row);
	return err ? err : emit(l, &row);
}

static int run_list(struct list *l)
{
	int err = repo_open(l->o.dir, REPO_READ, &l->repo);

	if (!err && l->o.json && !(l->rows = json_array()))
		err = fail(-ENOMEM, "make JSON");
	for (size_t i = 0; !err && i < l->repo->n_numbers; i++)
		err = add_version(l, l->repo->numbers[i]);
	if (err)
		return err;
	if (l->o.json)
		err = cli_print_json(json_pack("{s:O}", "versions", l->rows));
	else if (!l->rows_seen)
		printf("no versions\n");
	if (!err && l->bad == 1)
		err = refuse(-EBADMSG, "%s", l->first);
	else if (!err && l->bad)
		err = refuse(-EBADMSG, "%zu versions are damaged; %s", l->bad, l->first);
	return err;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{"dir", required_argument, NULL, 'd'},
		{"all", no_argument, NULL, 'a'},
		{"verify", no_argument, NULL, 'v'},
		{"json", no_argument, NULL, 'j'},
		{NULL, 0, NULL, 0},
	};
	struct list l = {0};
	int opt, status;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "d:", options, NULL)) != -1) {
		if (opt == 'd')
			l.o.dir = optarg;
		else if (opt == 'a')
			l.o.all = true;
		else if (opt == 'v')
			l.o.verify = true;
		else if (opt == 'j')
			l.o.json = true;
		else
			return cli_bad_option(&verb_list, argv);
	}
	status = cli_need_dir(&verb_list, l.o.dir, argc, argv);
	if (!status)
		status = cli_finish(run_list(&l));
	json_decref(l.rows);
	repo_close(l.repo);
	return status;
}

const struct verb verb_list = {
	.name = "list",
	.run = run,
	.line = "the versions in a repository",
	.help = "usage: icp-bpf list --dir DIR [OPTIONS]\n"
		"\n"
		"Prints the versions of a repository: number, parent, time, type, processes, "
		"pages found changed and\n"
		"written, bytes on disk, how long the job was paused, and the label. A damaged "
		"version is listed as such,\n"
		"and the exit status is 1 then.\n"
		"\n"
		"  -d, --dir DIR       the repository\n"
		"      --all           also versions that are pending, were aborted, or were "
		"dropped by prune\n"
		"      --verify        check each version now (reads all of its pages); "
		"without it `verified` is -\n"
		"      --json          one JSON object, see docs/json-images.md\n"
		"\n"
		"example: icp-bpf list --dir /var/lib/icp-bpf/redis\n",
};
