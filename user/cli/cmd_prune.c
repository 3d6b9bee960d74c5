// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "cli/cli_repo.h"
#include "obs/view.h"

struct prune_options {
	const char *dir;
	struct prune_config config;
	bool range, json;
};

struct numbers {
	uint32_t *data;
	size_t n;
};

static void numbers_free(struct numbers *l)
{
	free(l->data);
}

/* "3..7" or "3" */
static int take_range(struct prune_options *o, const char *text)
{
	char first[32];
	const char *dots = strstr(text, "..");
	size_t len = dots ? (size_t)(dots - text) : strlen(text);
	long from, to;

	snprintf(first, sizeof(first), "%.*s", len < sizeof(first) ? (int)len : 0, text);
	if (!cli_number(first, 1, UINT32_MAX - 1, &from) ||
	    !cli_number(dots ? dots + 2 : first, 1, UINT32_MAX - 1, &to) || to < from)
		return cli_usage(&verb_prune, "--drop takes versions, A..B, not '%s'", text);
	o->config.from = (uint32_t)from;
	o->config.to = (uint32_t)to;
	o->range = true;
	return 0;
}

static int take_keep(struct prune_options *o, const char *text)
{
	long keep;

	if (!cli_number(text, 1, UINT32_MAX - 1, &keep))
		return cli_usage(&verb_prune,
				 "--keep-last takes a number of versions, not '%s'", text);
	o->config.keep_last = (uint32_t)keep;
	return 0;
}

/* Which of @before are not in @after any more; both ascend. In place. */
static void subtract(struct numbers *before, const struct numbers *after)
{
	size_t kept = 0, k = 0;

	for (size_t i = 0; i < before->n; i++) {
		while (k < after->n && after->data[k] < before->data[i])
			k++;
		if (k == after->n || after->data[k] != before->data[i])
			before->data[kept++] = before->data[i];
	}
	before->n = kept;
}

static int print_json(const struct numbers *gone, size_t left, const struct prune_result *p)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < gone->n; i++) {
		if (json_array_append_new(list, json_integer(gone->data[i]))) {
			json_decref(list);
			list = NULL;
		}
	}
	return cli_print_json(
		json_pack("{s:o, s:I, s:I, s:I, s:I}", "dropped", list, "versions",
			  (json_int_t)left, "bytes_before", (json_int_t)p->bytes_before,
			  "bytes_after", (json_int_t)p->bytes_after, "bytes_returned",
			  (json_int_t)p->bytes_before - (json_int_t)p->bytes_after));
}

static void print_text(const struct numbers *gone, size_t left, const struct prune_result *p)
{
	double returned = (double)p->bytes_before - (double)p->bytes_after;
	char bytes[16], still[16];

	for (size_t i = 0; i < gone->n; i++)
		printf("dropped version %u\n", gone->data[i]);
	printf("%zu dropped, %zu left, %s returned", gone->n, left,
	       human_bytes(returned > 0 ? returned : 0, bytes));
	if (p->bytes_after)
		printf(" (%s of dropped versions are still needed)",
		       human_bytes((double)p->bytes_after, still));
	putchar('\n');
}

static int run_prune(const struct prune_options *o)
{
	_cleanup_(numbers_free) struct numbers before = {0}, after = {0};
	_cleanup_repo_ struct repo *r = NULL;
	struct prune_result result;
	int err = repo_open(o->dir, REPO_WRITE, &r);

	if (!err)
		err = repo_committed(r, &before.data, &before.n);
	if (!err)
		err = repo_prune(r, &o->config, &result);
	if (!err)
		err = repo_committed(r, &after.data, &after.n);
	if (err)
		return err;
	subtract(&before, &after);
	if (o->json)
		return print_json(&before, after.n, &result);
	print_text(&before, after.n, &result);
	return 0;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{"dir", required_argument, NULL, 'd'},
		{"keep-last", required_argument, NULL, 'k'},
		{"drop", required_argument, NULL, 'r'},
		{"json", no_argument, NULL, 'j'},
		{NULL, 0, NULL, 0},
	};
	struct prune_options o = {0};
	int opt, status = 0;

	opterr = 0;
	while (!status && (opt = getopt_long(argc, argv, "d:", options, NULL)) != -1) {
		if (opt == 'd')
			o.dir = optarg;
		else if (opt == 'k')
			status = take_keep(&o, optarg);
		else if (opt == 'r')
			status = take_range(&o, optarg);
		else if (opt == 'j')
			o.json = true;
		else
			status = cli_bad_option(&verb_prune, argv);
	}
	if (!status)
		status = cli_need_dir(&verb_prune, o.dir, argc, argv);
	if (!status && o.range == !!o.config.keep_last)
		status = cli_usage(&verb_prune,
				   "what goes? either --keep-last N or --drop A..B");
	return status ? status : cli_finish(run_prune(&o));
}

const struct verb verb_prune = {
	.name = "prune",
	.run = run,
	.line = "remove versions and return their space",
	.help = "usage: icp-bpf prune --dir DIR (--keep-last N | --drop A..B) [--json]\n"
		"\n"
		"Removes versions. Every other version stays whole: pages of a removed version "
		"that others refer to are\n"
		"kept, the rest is given back. May be interrupted at any point, and repeated. "
		"The last version can't be\n"
		"removed.\n"
		"\n"
		"  -d, --dir DIR       the repository\n"
		"      --keep-last N   keep the N newest versions\n"
		"      --drop A..B     remove the versions A to B (or one: --drop A)\n"
		"      --json          one JSON object, see docs/json-images.md\n"
		"\n"
		"example: icp-bpf prune --dir /var/lib/icp-bpf/redis --keep-last 10\n",
};
