// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>

#include "base/log.h"
#include "cli/cli.h"
#include "export/core.h"

struct export_options {
	const char *dir;
	struct core_config core;
	bool json;
};

enum { OPT_DIR = 256, OPT_VERSION, OPT_CORE, OPT_FORCE, OPT_JSON };

static const struct option long_options[] = {
	{"dir", required_argument, NULL, OPT_DIR},
	{"version", required_argument, NULL, OPT_VERSION},
	{"pid", required_argument, NULL, 'p'},
	{"core", required_argument, NULL, OPT_CORE},
	{"force", no_argument, NULL, OPT_FORCE},
	{"json", no_argument, NULL, OPT_JSON},
	{NULL, 0, NULL, 0},
};

/* 0, or the exit status. */
static int take_option(struct export_options *o, int opt, char **argv)
{
	long number;

	switch (opt) {
	case OPT_DIR:
		o->dir = optarg;
		return 0;
	case OPT_CORE:
		o->core.path = optarg;
		return 0;
	case OPT_FORCE:
		o->core.force = true;
		return 0;
	case OPT_JSON:
		o->json = true;
		return 0;
	case OPT_VERSION:
		if (!cli_number(optarg, 1, UINT32_MAX, &number))
			return cli_usage(&verb_export, "'%s' is not a version", optarg);
		o->core.version = (uint32_t)number;
		return 0;
	case 'p':
		if (!cli_number(optarg, 1, INT32_MAX, &number))
			return cli_usage(&verb_export, "'%s' is not a process id", optarg);
		o->core.pid = (uint32_t)number;
		return 0;
	default:
		return cli_bad_option(&verb_export, argv);
	}
}

static int parse(struct export_options *o, int argc, char **argv)
{
	int opt, status;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "p:", long_options, NULL)) != -1) {
		status = take_option(o, opt, argv);
		if (status)
			return status;
	}
	if (optind < argc)
		return cli_usage(&verb_export, "'%s' is not an option", argv[optind]);
	if (!o->dir)
		return cli_usage(&verb_export, "which repository? --dir DIR");
	if (!o->core.version)
		return cli_usage(&verb_export, "which version? --version N");
	if (!o->core.path || !*o->core.path)
		return cli_usage(&verb_export, "where to? --core FILE");
	return 0;
}

static int print_json(const struct export_options *o, const struct core_result *r)
{
	json_t *changed = json_array(), *line;
	int err;

	vec_each (name, &r->changed) {
		json_array_append_new(changed, json_string(*name));
	}
	line = json_pack("{s:I s:I s:s s:I s:I s:I s:I s:I s:I s:b s:o}", "version",
			 (json_int_t)o->core.version, "pid", (json_int_t)r->pid, "core",
			 o->core.path, "threads", (json_int_t)r->threads, "segments",
			 (json_int_t)r->segments, "memory_bytes", (json_int_t)r->memory,
			 "image_bytes", (json_int_t)r->image_data, "file_bytes",
			 (json_int_t)r->file_data, "size", (json_int_t)r->size, "auxv",
			 !r->no_auxv, "changed_files", changed);
	if (!line)
		return fail(-ENOMEM, "print the result");
	err = json_dumpf(line, stdout, JSON_COMPACT) || putchar('\n') == EOF || fflush(stdout);
	json_decref(line);
	return err ? -EPIPE : 0;
}

static void print_text(const struct export_options *o, const struct core_result *r)
{
	vec_each (name, &r->changed) {
		note("%s is not what it was in version %u: gdb can't show what was mapped from "
		     "it, and may take the "
		     "wrong symbols",
		     *name, o->core.version);
	}
	if (r->no_auxv)
		note("the image has no auxiliary vector: gdb can't place position-independent "
		     "programs");
	printf("%s: process %u of version %u, %zu thread%s, %.1f MiB of pages in %.1f MiB of "
	       "memory\n",
	       o->core.path, r->pid, o->core.version, r->threads, r->threads == 1 ? "" : "s",
	       (double)(r->image_data + r->file_data) / (1 << 20),
	       (double)r->memory / (1 << 20));
}

static int run_export(const struct export_options *o)
{
	_cleanup_core_result_ struct core_result result = {0};
	_cleanup_repo_ struct repo *repo = NULL;
	int err = repo_open(o->dir, REPO_READ, &repo);

	if (!err)
		err = core_export(repo, &o->core, &result);
	if (err)
		return err;
	if (o->json)
		return print_json(o, &result);
	print_text(o, &result);
	return 0;
}

static int run(int argc, char **argv)
{
	struct export_options o = {0};
	int status = parse(&o, argc, argv);

	if (!status) {
		int err = run_export(&o);

		status = err && err != -EPIPE ? cli_failed(err) : EXIT_DONE;
	}
	return status;
}

const struct verb verb_export = {
	.name = "export",
	.run = run,
	.line = "make a process of a version an ELF core for gdb",
	.help = "usage: icp-bpf export --dir DIR --version N [--pid PID] --core FILE "
		"[OPTIONS]\n"
		"\n"
		"Writes a process as it was in a version as an ELF core file: all threads with "
		"all their registers, and its\n"
		"memory. gdb opens it together with the program. The process need not run any "
		"more. FILE appears when it is\n"
		"complete, or not at all; it holds the memory of the process, so only its "
		"owner may read it.\n"
		"\n"
		"      --dir DIR       the repository\n"
		"      --version N     the version\n"
		"  -p, --pid PID       the process; needed when the version has several\n"
		"      --core FILE     the core file to write; an existing file is refused\n"
		"      --force         replace an existing file\n"
		"      --json          the result as JSON, see docs/json.md\n"
		"\n"
		"example: icp-bpf export --dir /var/tmp/job --version 3 --core core.3 && gdb "
		"./program core.3\n",
};
