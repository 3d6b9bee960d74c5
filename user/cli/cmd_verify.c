// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "cli/cli_repo.h"
#include "obs/view.h"

struct verify_options {
	const char *dir;
	long version; /* 0: everything */
	bool json;
};

static void print_problem(const struct problem *p)
{
	char what[256], file[128];

	if (p->version)
		printf("version %u", p->version);
	else
		printf("repository");
	if (p->stream)
		printf(", %s", cli_stream(p->stream, (char[32]){0}));
	if (p->has_page)
		printf(", page %#" PRIx64, p->address);
	cli_clean(p->file, file, sizeof(file));
	printf(", %s: %s\n", file, cli_clean(p->what, what, sizeof(what)));
}

static json_t *json_problem(const struct problem *p)
{
	json_t *o = json_pack("{s:I, s:o, s:o}", "version", (json_int_t)p->version, "file",
			      cli_json_string(p->file), "what", cli_json_string(p->what));
	int bad = !o;

	if (p->stream)
		bad |= json_object_set_new(o, cli_stream_key(p->stream),
					   json_integer(icp_stream_id(p->stream)));
	if (p->has_page)
		bad |= json_object_set_new(o, "page", cli_json_hex(p->address));
	if (!bad)
		return o;
	json_decref(o);
	return NULL;
}

static json_t *json_report(const struct verify_options *o, const struct problems *p,
			   size_t versions)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < p->n; i++) {
		if (json_array_append_new(list, json_problem(&p->data[i]))) {
			json_decref(list);
			return NULL;
		}
	}
	return json_pack("{s:I, s:I, s:b, s:I, s:I, s:I, s:o}", "version",
			 (json_int_t)o->version, "versions", (json_int_t)versions, "sound",
			 !p->n, "pages", (json_int_t)p->pages, "bytes", (json_int_t)p->bytes,
			 "problems_found", (json_int_t)p->n + (json_int_t)p->more, "problems",
			 list);
}

static void print_report(const char *what, const struct problems *p)
{
	char pages[32], bytes[16];

	vec_each (problem, p)
		print_problem(problem);
	if (p->more)
		printf("and %" PRIu64 " more\n", p->more);
	printf("%s: %" PRIu64 " pages, %s, ", what, p->pages,
	       human_bytes((double)p->bytes, bytes));
	if (p->n)
		printf("%s problem%s\n", human_count(p->n + p->more, pages),
		       p->n + p->more == 1 ? "" : "s");
	else
		printf("sound\n");
}

static int report(const struct verify_options *o, struct repo *r, const struct problems *p)
{
	_cleanup_free_ uint32_t *numbers = NULL;
	char what[48];
	size_t n;
	int err = repo_committed(r, &numbers, &n);

	if (err)
		return err;
	if (o->version)
		snprintf(what, sizeof(what), "version %ld", o->version);
	else
		snprintf(what, sizeof(what), "%zu version%s", n, n == 1 ? "" : "s");
	if (o->json)
		err = cli_print_json(json_report(o, p, o->version ? 1 : n));
	else
		print_report(what, p);
	if (!err && p->n)
		err = refuse(-EBADMSG, "%s: damage was found", o->dir);
	return err;
}

static int run_verify(const struct verify_options *o)
{
	_cleanup_repo_ struct repo *r = NULL;
	struct problems problems = {0};
	int err = repo_open(o->dir, REPO_READ, &r);

	if (!err)
		err = repo_verify(r, (uint32_t)o->version, &problems);
	if (!err)
		err = report(o, r, &problems);
	problems_free(&problems);
	return err;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{"dir", required_argument, NULL, 'd'},
		{"version", required_argument, NULL, 'v'},
		{"json", no_argument, NULL, 'j'},
		{NULL, 0, NULL, 0},
	};
	struct verify_options o = {0};
	int opt, status = 0;

	opterr = 0;
	while (!status && (opt = getopt_long(argc, argv, "d:v:", options, NULL)) != -1) {
		if (opt == 'd')
			o.dir = optarg;
		else if (opt == 'v')
			status =
				cli_version_option(&verb_verify, "version", optarg, &o.version);
		else if (opt == 'j')
			o.json = true;
		else
			status = cli_bad_option(&verb_verify, argv);
	}
	if (!status)
		status = cli_need_dir(&verb_verify, o.dir, argc, argv);
	return status ? status : cli_finish(run_verify(&o));
}

const struct verb verb_verify = {
	.name = "verify",
	.run = run,
	.line = "check every hash and reference of a version",
	.help = "usage: icp-bpf verify --dir DIR [--version N] [--json]\n"
		"\n"
		"Reads everything of a version, or of the whole repository, and checks all "
		"hashes and references. Each\n"
		"problem is a line that names version, process, page and file. Exit status 0: "
		"sound, 1: not.\n"
		"\n"
		"  -d, --dir DIR       the repository\n"
		"  -v, --version N     one version with all it refers to; without it "
		"everything in the repository\n"
		"      --json          one JSON object, see docs/json-images.md\n"
		"\n"
		"example: icp-bpf verify --dir /var/lib/icp-bpf/redis --version 3\n",
};
