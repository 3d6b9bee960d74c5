// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <getopt.h>

#include "cli/cli_repo.h"
#include "state/ipc_remove.h"

struct rm_options {
	const char *dir;
	long version; /* 0: the newest */
	bool ipc, json;
};

static int print_json(uint32_t version, const struct ipc_removed_list *list)
{
	json_t *removed = json_array();

	vec_each (r, list) {
		char key[16];

		snprintf(key, sizeof(key), "0x%08x", r->key);
		json_array_append_new(removed,
				      json_pack("{s:s, s:s, s:i}", "kind", ipc_removed_kind(r),
						"key", key, "id", r->id));
	}
	return cli_print_json(
		json_pack("{s:I, s:o}", "version", (json_int_t)version, "removed", removed));
}

static int run_rm(const struct rm_options *o)
{
	_cleanup_repo_ struct repo *repo = NULL;
	struct ipc_removed_list list = {0};
	Icp__Manifest *m = NULL;
	uint32_t version;
	char note[128];
	int err = repo_open(o->dir, REPO_READ, &repo);

	if (!err)
		err = cli_pick_version(repo, o->dir, o->version, &version);
	if (!err)
		err = repo_manifest(repo, version, &m);
	if (!err) {
		ipc_note_path(repo->record.id, version, note);
		err = ipc_remove_left(m, note, &list);
	}
	if (!err && o->json)
		err = print_json(version, &list);
	else if (!err)
		vec_each (r, &list)
			printf("removed: %s with key 0x%08x, id %d\n", ipc_removed_kind(r),
			       r->key, r->id);
	vec_free(&list);
	manifest_free(m);
	return err;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{"dir", required_argument, NULL, 'd'},
		{"version", required_argument, NULL, 'v'},
		{"ipc", no_argument, NULL, 'i'},
		{"json", no_argument, NULL, 'j'},
		{NULL, 0, NULL, 0},
	};
	struct rm_options o = {0};
	int opt, status = 0;

	opterr = 0;
	while (!status && (opt = getopt_long(argc, argv, "d:", options, NULL)) != -1) {
		if (opt == 'd')
			o.dir = optarg;
		else if (opt == 'v')
			status = cli_version_option(&verb_rm, "--version", optarg, &o.version);
		else if (opt == 'i')
			o.ipc = true;
		else if (opt == 'j')
			o.json = true;
		else
			status = cli_bad_option(&verb_rm, argv);
	}
	if (!status)
		status = cli_need_dir(&verb_rm, o.dir, argc, argv);
	if (!status && !o.ipc)
		status = cli_usage(&verb_rm, "what goes? --ipc (versions: icp-bpf prune)");
	return status ? status : cli_finish(run_rm(&o));
}

const struct verb verb_rm = {
	.name = "rm",
	.run = run,
	.line = "remove what a job that is over left in the system",
	.help = "usage: icp-bpf rm --dir DIR --ipc [--version N] [--json]\n"
		"\n"
		"Removes the System V segments, semaphores and message queues that a version "
		"has, and those that restarts of it\n"
		"made. Refused while a process of the job may live, or somebody attaches or "
		"uses one of them: nothing is removed then.\n"
		"\n"
		"  -d, --dir DIR       the repository\n"
		"      --version N     the newest version by default\n"
		"      --ipc           System V objects\n"
		"      --json          one JSON object, see docs/json.md\n"
		"\n"
		"example: icp-bpf rm --dir /var/lib/icp-bpf/pair --ipc\n",
};
