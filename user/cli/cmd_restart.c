// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "cli/background.h"
#include "cli/cli.h"
#include "cli/foreground.h"
#include "cli/ticker.h"
#include "obs/view.h"
#include "restore/restore.h"

struct options {
	const char *dir;
	long version; /* 0: the newest */
	bool detach, json, keep, apart, rewind, tcp_close, time_namespace;
	enum ctl_lookup lookup;
	pid_list pids;
	enum ipc_existing shm_existing;
	bool new_ipc, lazy;
};

enum {
	OPT_DIR = 256,
	OPT_VERSION,
	OPT_DETACH,
	OPT_LOOKUP,
	OPT_KEEP,
	OPT_APART,
	OPT_FILES,
	OPT_TCP_CLOSE,
	OPT_TIME,
	OPT_JSON,
	OPT_EXISTING,
	OPT_NEW_IPC,
	OPT_LAZY,
};

static const struct option long_options[] = {
	{"dir", required_argument, NULL, OPT_DIR},
	{"version", required_argument, NULL, OPT_VERSION},
	{"detach", no_argument, NULL, OPT_DETACH},
	{"tcp-close", no_argument, NULL, OPT_TCP_CLOSE},
	{"time-namespace", no_argument, NULL, OPT_TIME},
	{"lookup", required_argument, NULL, OPT_LOOKUP},
	{"keep-tracking", no_argument, NULL, OPT_KEEP},
	{"new-pid-namespace", no_argument, NULL, OPT_APART},
	{"files", required_argument, NULL, OPT_FILES},
	{"json", no_argument, NULL, OPT_JSON},
	{"pid", required_argument, NULL, 'p'},
	{"shm-existing", required_argument, NULL, OPT_EXISTING},
	{"new-ipc-namespace", no_argument, NULL, OPT_NEW_IPC},
	{"lazy", no_argument, NULL, OPT_LAZY},
	{NULL, 0, NULL, 0},
};

static int take_existing(struct options *o, const char *word)
{
	static const char *const words[] = {"refuse", "adopt",
					    "replace"}; /* enum ipc_existing */

	int which = cli_word(word, words, 3);

	if (which >= 0) {
		o->shm_existing = (enum ipc_existing)which;
		return 0;
	}
	return cli_usage(&verb_restart,
			 "--shm-existing takes refuse, adopt or replace, not '%s'", word);
}

static int take_option(struct options *o, int opt, char **argv)
{
	switch (opt) {
	case OPT_DIR:
		o->dir = optarg;
		return 0;
	case OPT_VERSION:
		if (cli_number(optarg, 1, UINT32_MAX, &o->version))
			return 0;
		return cli_usage(&verb_restart, "'%s' is not a version", optarg);
	case OPT_DETACH:
		o->detach = true;
		return 0;
	case OPT_TCP_CLOSE:
		o->tcp_close = true;
		return 0;
	case OPT_TIME:
		o->time_namespace = true;
		return 0;
	case OPT_LOOKUP:
		o->lookup = !strcmp(optarg, "rbtree") ? CTL_RBTREE : CTL_DIRECT;
		if (o->lookup == CTL_RBTREE || !strcmp(optarg, "direct"))
			return 0;
		return cli_usage(&verb_restart, "--lookup takes direct or rbtree, not '%s'",
				 optarg);
	case OPT_KEEP:
		o->keep = true;
		return 0;
	case OPT_APART:
		o->apart = true;
		return 0;
	case OPT_FILES:
		o->rewind = !strcmp(optarg, "rewind");
		if (o->rewind || !strcmp(optarg, "check"))
			return 0;
		return cli_usage(&verb_restart, "--files takes check or rewind, not '%s'",
				 optarg);
	case OPT_JSON:
		o->json = true;
		return 0;
	case 'p':
		return cli_add_pid(&verb_restart, &o->pids, optarg);
	case OPT_EXISTING:
		return take_existing(o, optarg);
	case OPT_NEW_IPC:
		o->new_ipc = true;
		return 0;
	case OPT_LAZY:
		o->lazy = true;
		return 0;
	default:
		return cli_bad_option(&verb_restart, argv);
	}
}

static int parse(struct options *o, int argc, char **argv)
{
	int opt, status;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "p:", long_options, NULL)) != -1) {
		status = take_option(o, opt, argv);
		if (status)
			return status;
	}
	if (optind < argc)
		return cli_usage(&verb_restart, "'%s' is not an option", argv[optind]);
	if (o->lazy && o->keep)
		return cli_usage(
			&verb_restart,
			"--lazy and --keep-tracking both need userfaultfd: one of them");
	return o->dir ? 0 : cli_usage(&verb_restart, "which job? --dir DIR");
}

static double seconds(const struct restart_result *r)
{
	uint64_t ns = 0;

	for (int i = 0; i < PHASES; i++)
		ns += r->phase_ns[i];
	return (double)ns / 1e9;
}

static int print_json(const struct restart_result *r)
{
	json_t *pids = json_array(), *phases = json_object(), *line;
	int err;

	for (size_t i = 0; i < r->n_pids; i++)
		json_array_append_new(pids, json_integer(r->pids[i]));
	for (int i = 0; i < PHASES; i++)
		json_object_set_new(phases, restart_phase_names[i],
				    json_real((double)r->phase_ns[i] / 1e9));
	line = json_pack("{s:I,s:o,s:I,s:I,s:I,s:b,s:f,s:o}", "version", (json_int_t)r->version,
			 "pids", pids, "threads", (json_int_t)r->threads, "pages",
			 (json_int_t)r->pages, "bytes", (json_int_t)r->bytes, "lazy",
			 r->pages_fd >= 0, "seconds", seconds(r), "phases", phases);
	if (r->init)
		json_object_set_new(line, "init", json_integer(r->init));
	err = !line || json_dumpf(line, stdout, JSON_COMPACT);
	json_decref(line);
	putchar('\n');
	return err || fflush(stdout) ? fail(-EIO, "write the result") : 0;
}

/* In the foreground stdout is the job's, so what is said for people goes to stderr. */
static void print_text(const struct restart_result *r)
{
	char pages[32], bytes[16];

	fprintf(stderr,
		"restarted version %u: %zu process%s, %lu thread%s, %s pages (%s), %.3f s\n",
		r->version, r->n_pids, r->n_pids == 1 ? "" : "es", r->threads,
		r->threads == 1 ? "" : "s", human_count(r->pages, pages),
		human_bytes((double)r->bytes, bytes), seconds(r));
}

/* ---- --keep-tracking ---- */

struct tracking {
	const struct options *o;
	const struct restart_result *r;
};

/* What it wrote before the session is there nobody saw: the first checkpoint compares all of its memory. */
static int track(const void *arg, int report_fd)
{
	const struct tracking *t = arg;
	_cleanup_session_ struct session *s = NULL;
	_cleanup_fd_ int signals = session_signals();
	struct session_config config = {
		.tree = true,
		.interval_s = 1,
		.checkpoints = true,
		.cancel_fd = signals,
		.background = true,
	};
	int err = signals < 0 ? fail(-errno, "signalfd")
			      : session_open(&config, t->r->roots, t->r->n_roots, &s);

	if (!err)
		err = session_set_base(s, t->o->dir, t->r->version);
	if (!err)
		err = background_listen(s, true);
	if (err)
		return wrap(err, "the job runs, but is not tracked");
	return background_go_on(s, signals, report_fd);
}

/* Before anything is made. */
static int check_tracking(const struct options *o)
{
	const struct tracker_ops *ops;

	return o->keep ? tracker_choose(NULL, &ops) : 0;
}

/* ---- progress, on a terminal ---- */

struct watch {
	struct ticker ticker;
	struct restart_progress *progress; /* which the builder counts */
};

static void start_watch(void *arg)
{
	struct watch *w = arg;

	ticker_start(&w->ticker, &w->progress->pages_done, &w->progress->pages_to_do);
}

static int watched(const struct restart_config *how, struct restart_result *result)
{
	struct restart_config config = *how;
	struct watch w = {.progress = mmap(NULL, sizeof(*w.progress), PROT_READ | PROT_WRITE,
					   MAP_SHARED | MAP_ANONYMOUS, -1, 0)};
	int err;

	if (w.progress == MAP_FAILED)
		return fail(-errno, "show the progress");
	config.progress = w.progress;
	config.begun = start_watch;
	config.begun_arg = &w;
	err = restart(&config, result);
	ticker_end(&w.ticker);
	munmap(w.progress, sizeof(*w.progress));
	return err;
}

static struct restart_config config_of(const struct options *o)
{
	return (struct restart_config){.dir = o->dir,
				       .version = (uint32_t)o->version,
				       .detach = o->detach,
				       .new_pid_namespace = o->apart,
				       .rewind = o->rewind,
				       .tcp_close = o->tcp_close,
				       .time_namespace = o->time_namespace,
				       .lookup = o->lookup,
				       .pids = o->pids.data,
				       .n_pids = o->pids.n,
				       .shm_existing = o->shm_existing,
				       .new_ipc_namespace = o->new_ipc,
				       .lazy = o->lazy};
}

/* It runs. */
static int attend(struct restart_result *r, const sigset_t *set, bool given)
{
	int status = foreground(r, set, given), err = restart_finish(r);

	return err ? cli_failed(err) : status;
}

static int run(int argc, char **argv)
{
	struct options o = {0};
	struct restart_config config;
	struct restart_result result;
	int status = parse(&o, argc, argv), err;
	bool given = false;
	sigset_t set;

	if (status)
		return status;
	config = config_of(&o);
	config.ready = o.detach ? NULL : foreground_ready;
	config.ready_arg = &given;
	/* the new processes begin with all signals blocked and get their own mask at the end */
	foreground_signals(&set);
	signal(SIGPIPE, SIG_IGN);
	err = check_tracking(&o);
	if (!err)
		err = watched(&config, &result);
	vec_free(&o.pids);
	if (err)
		foreground_back(given);
	if (err)
		return cli_failed(err);
	/* first: who reads of the restart may ask the session for a checkpoint at once */
	if (o.keep)
		status = background(track, &(struct tracking){&o, &result});
	if (o.json)
		err = print_json(&result);
	else
		print_text(&result);
	if (err) /* the job runs all the same */
		cli_failed(err);
	if (!o.detach)
		status = attend(&result, &set, given);
	restart_result_free(&result);
	return status;
}

const struct verb verb_restart = {
	.name = "restart",
	.run = run,
	.line = "bring a version of a job back to life",
	.help = "usage: icp-bpf restart --dir DIR [OPTIONS]\n"
		"\n"
		"Rebuilds the processes of a version under the pids that they had and lets "
		"them "
		"run on. Everything is verified as\n"
		"it is read; on any failure whatever was made is removed and nothing has run. "
		"In the foreground icp-bpf stays as\n"
		"their parent, passes signals on, and ends with the job's exit status. The "
		"job's "
		"terminal becomes that of icp-bpf.\n"
		"\n"
		"      --dir DIR        the repository\n"
		"      --version N      the newest version by default\n"
		"  -p, --pid PID        only this process of the version, with its "
		"descendants; "
		"may be repeated. Others may follow\n"
		"                       in a later restart, which links to the System V "
		"segments "
		"that are there\n"
		"      --shm-existing HOW  where the key of a segment is taken: refuse (the "
		"default); adopt: use the segment with what\n"
		"                       is in it; replace: remove it first\n"
		"      --new-ipc-namespace  System V objects apart from the host's, with the "
		"ids "
		"that they had\n"
		"      --detach         leave the job to itself once it runs\n"
		"      --tcp-close      TCP connections come back closed, as after a network "
		"error\n"
		"      --time-namespace monotonic and boot time go on from where they were\n"
		"      --lookup HOW     direct: pages in the order of the files (the default); "
		"rbtree: look each of them up\n"
		"      --new-pid-namespace\n"
		"                       in a pid namespace of its own, so that it does not "
		"matter who has its pids here\n"
		"      --keep-tracking  leave a session in the background: the next checkpoint "
		"is "
		"an increment of this version\n"
		"      --files WHAT     check: refuse if a file that it had open no longer "
		"fits "
		"(the default); rewind: cut\n"
		"                       files that it was writing back to what they were\n"
		"      --lazy           run at once; the pages of big memory come on demand "
		"and in the "
		"background\n"
		"      --json           one JSON object once it runs, see docs/json.md\n"
		"\n"
		"example: icp-bpf restart --dir /var/lib/icp/redis --detach\n",
};
