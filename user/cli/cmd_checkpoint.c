// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/background.h"
#include "cli/cli.h"
#include "cli/ticker.h"
#include "obs/view.h"
#include "session/checkpoint.h"
#include "session/result.h"

struct options {
	pid_list pids;
	const char *dir, *label, *tracker;
	double every_s; /* 0: once */
	long count;	/* 0: unlimited */
	bool keep, stop, full, paranoid, no_restart, tcp_close, json;
	bool shm_detached;
	enum shm_peers shm_peers;
	enum dump_release_how how;
	enum icp_codec codec;
	char path[PATH_MAX]; /* dir, absolute */
};

enum {
	OPT_DIR = 256,
	OPT_EVERY,
	OPT_COUNT,
	OPT_KEEP,
	OPT_STOP,
	OPT_KILL,
	OPT_FROZEN,
	OPT_LABEL,
	OPT_FULL,
	OPT_TRACKER,
	OPT_JSON,
	OPT_COMPRESS,
	OPT_PARANOID,
	OPT_NO_RESTART,
	OPT_TCP_CLOSE,
	OPT_SHM_PEERS,
	OPT_SHM_DETACHED,
};

static const struct option long_options[] = {
	{"pid", required_argument, NULL, 'p'},
	{"dir", required_argument, NULL, OPT_DIR},
	{"every", required_argument, NULL, OPT_EVERY},
	{"count", required_argument, NULL, OPT_COUNT},
	{"keep-tracking", no_argument, NULL, OPT_KEEP},
	{"stop-tracking", no_argument, NULL, OPT_STOP},
	{"kill", no_argument, NULL, OPT_KILL},
	{"leave-frozen", no_argument, NULL, OPT_FROZEN},
	{"label", required_argument, NULL, OPT_LABEL},
	{"full", no_argument, NULL, OPT_FULL},
	{"tracker", required_argument, NULL, OPT_TRACKER},
	{"json", no_argument, NULL, OPT_JSON},
	{"compress", required_argument, NULL, OPT_COMPRESS},
	{"paranoid", no_argument, NULL, OPT_PARANOID},
	{"no-restart", no_argument, NULL, OPT_NO_RESTART},
	{"tcp-close", no_argument, NULL, OPT_TCP_CLOSE},
	{"shm-peers", required_argument, NULL, OPT_SHM_PEERS},
	{"shm-detached", no_argument, NULL, OPT_SHM_DETACHED},
	{NULL, 0, NULL, 0},
};

static int take_codec(struct options *o, const char *name)
{
	static const char *const names[] = {"none", "zstd",
					    "lz4"}; /* in the order of enum icp_codec */

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(name, names[i])) {
			o->codec = (enum icp_codec)i;
			return 0;
		}
	}
	return cli_usage(&verb_checkpoint, "--compress takes zstd, lz4 or none, not '%s'",
			 name);
}

static int take_how(struct options *o, enum dump_release_how how)
{
	if (o->how != DUMP_THAW && o->how != how)
		return cli_usage(&verb_checkpoint,
				 "--kill and --leave-frozen exclude each other");
	o->how = how;
	return 0;
}

static int take_peers(struct options *o, const char *word)
{
	static const char *const words[] = {"warn", "include", "refuse"}; /* enum shm_peers */

	int which = cli_word(word, words, 3);

	if (which >= 0) {
		o->shm_peers = (enum shm_peers)which;
		return 0;
	}
	return cli_usage(&verb_checkpoint,
			 "--shm-peers takes include, warn or refuse, not '%s'", word);
}

static int take_option(struct options *o, int opt, char **argv)
{
	switch (opt) {
	case 'p':
		return cli_add_pid(&verb_checkpoint, &o->pids, optarg);
	case OPT_DIR:
		o->dir = optarg;
		return 0;
	case OPT_EVERY:
		if (cli_seconds(optarg, &o->every_s) && o->every_s >= 0.01)
			return 0;
		return cli_usage(&verb_checkpoint,
				 "--every takes 10ms or more (500ms, 10s, 5m), not '%s'",
				 optarg);
	case OPT_COUNT:
		if (cli_number(optarg, 1, 1000000000, &o->count))
			return 0;
		return cli_usage(&verb_checkpoint,
				 "--count takes a number of versions, not '%s'", optarg);
	case OPT_KEEP:
		o->keep = true;
		return 0;
	case OPT_STOP:
		o->stop = true;
		return 0;
	case OPT_KILL:
		return take_how(o, DUMP_KILL);
	case OPT_FROZEN:
		return take_how(o, DUMP_LEAVE_STOPPED);
	case OPT_LABEL:
		o->label = optarg;
		return 0;
	case OPT_FULL:
		o->full = true;
		return 0;
	case OPT_TRACKER:
		o->tracker = optarg;
		return 0;
	case OPT_JSON:
		o->json = true;
		return 0;
	case OPT_COMPRESS:
		return take_codec(o, optarg);
	case OPT_PARANOID:
		o->paranoid = true;
		return 0;
	case OPT_NO_RESTART:
		o->no_restart = true;
		return 0;
	case OPT_TCP_CLOSE:
		o->tcp_close = true;
		return 0;
	case OPT_SHM_PEERS:
		return take_peers(o, optarg);
	case OPT_SHM_DETACHED:
		o->shm_detached = true;
		return 0;
	default:
		return cli_bad_option(&verb_checkpoint, argv);
	}
}

static int check_options(struct options *o)
{
	if (!o->pids.n)
		return cli_usage(&verb_checkpoint, "which process? --pid PID");
	if (o->stop)
		return 0;
	if (!o->dir)
		return cli_usage(&verb_checkpoint, "where to? --dir DIR");
	if (o->count && !o->every_s)
		return cli_usage(&verb_checkpoint, "--count goes with --every");
	if (o->how != DUMP_THAW && (o->every_s > 0 || o->keep))
		return cli_usage(&verb_checkpoint,
				 "--kill and --leave-frozen are for one version");
	if (o->label && strlen(o->label) > 255)
		return cli_usage(&verb_checkpoint, "a label has at most 255 bytes");
	if (o->dir[0] == '/') {
		snprintf(o->path, sizeof(o->path), "%s", o->dir);
	} else { /* the session that does it may have another working directory */
		char cwd[PATH_MAX / 2];

		if (!getcwd(cwd, sizeof(cwd)))
			return cli_failed(fail(-errno, "find the working directory"));
		snprintf(o->path, sizeof(o->path), "%s/%s", cwd, o->dir);
	}
	return 0;
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
		return cli_usage(&verb_checkpoint,
				 "'%s' is not an option: processes are named with --pid",
				 argv[optind]);
	return check_options(o);
}

static struct checkpoint_request request_of(const struct options *o)
{
	return (struct checkpoint_request){
		.dir = o->path,
		.label = o->label,
		.full = o->full,
		.no_restart = o->no_restart,
		.tcp_close = o->tcp_close,
		.paranoid = o->paranoid,
		.shm_detached = o->shm_detached,
		.shm_peers = o->shm_peers,
		.codec = o->codec,
		.how = o->how,
		.roots = o->pids.data,
		.n_roots = o->pids.n,
	};
}

static int print_result(const struct options *o, const struct dump_result *r)
{
	char pages[32], zero[32], bytes[16];

	for (size_t i = 0; i < r->n_peers; i++)
		note("warning: pid %d (%s) attaches the segment with key %#x (id %d) and is "
		     "not "
		     "part of the job: what it writes is saved, the process is not",
		     r->peers[i].pid, r->peers[i].comm, (unsigned)r->peers[i].key,
		     r->peers[i].shmid);
	if (o->json) {
		json_t *line = result_to_json(r);
		int err = !line || json_dumpf(line, stdout, JSON_COMPACT);

		json_decref(line);
		putchar('\n');
		return err || fflush(stdout) ? fail(-EIO, "write the result") : 0;
	}
	printf("version %u (%s): %lu process%s, %s pages (%s zero), %s written, pause %.2f ms, "
	       "total %.3f s",
	       r->version, r->incremental ? "incremental" : "full", r->processes,
	       r->processes == 1 ? "" : "es", human_count(r->pages, pages),
	       human_count(r->zero_pages, zero), human_bytes((double)r->bytes_written, bytes),
	       (double)r->pause_ns / 1e6, (double)r->total_ns / 1e9);
	if (r->incremental)
		printf(", changes found by %s", r->found_by);
	putchar('\n');
	if (r->held[0])
		printf("packets of its connections are held back until a restart; "
		       "nft delete table inet %s lets go of them\n",
		       r->held);
	return fflush(stdout) ? fail(-EIO, "write the result") : 0;
}

static int one_version(const struct options *o, struct session *s)
{
	struct checkpoint_request request = request_of(o);
	struct dump_result result;
	struct ticker ticker = {0};
	int err;

	ticker_start(&ticker, &session_progress(s)->pages_done,
		     &session_progress(s)->pages_to_do);
	err = session_checkpoint(s, &request, &result);
	ticker_end(&ticker);
	return err ? err : print_result(o, &result);
}

/* ---- own session ---- */

/* A version that fails after others went well is told of, and tried again when the next is due: the disk may have room then. */
static int repeat(const struct options *o, struct session *s, int signals)
{
	uint64_t due = now_ns(), every = (uint64_t)(o->every_s * 1e9);
	int err = 0, failed = 0;

	for (long n = 1; !err; n++) {
		err = one_version(o, s);
		if (err && err != -EINTR && n > 1 && session_alive(s)) {
			cli_failed(err);
			err_clear();
			failed = 1;
			err = 0;
		}
		if (err || !every || (o->count && n >= o->count))
			break;
		while (due <= now_ns())
			due += every;
		err = session_follow(s, signals, due);
	}
	if (err == -EINTR && every)
		err = 0; /* Ctrl-C is how it ends */
	return err < 0 ? err : failed;
}

static int with_session(const void *arg, int report_fd)
{
	const struct options *o = arg;
	_cleanup_session_ struct session *s = NULL;
	_cleanup_fd_ int signals = session_signals();
	struct session_config config = {
		.tracker = o->tracker,
		.tree = true,
		.interval_s = 1,
		.checkpoints = true,
		.cancel_fd = signals,
		.background = o->keep,
	};
	int err = signals < 0 ? fail(-errno, "signalfd")
			      : session_open(&config, o->pids.data, o->pids.n, &s);

	if (!err)
		err = background_listen(s, o->keep);
	if (!err)
		err = repeat(o, s, signals);
	if (report_fd < 0 || err < 0)
		return err;
	return background_go_on(s, signals, report_fd);
}

/* A session has the job's trackers: it does the work. -ENOENT: there is none. */
static int over_socket(const struct options *o)
{
	struct checkpoint_request request = request_of(o);
	struct dump_result result;
	int err = control_checkpoint(&request, &result);

	return err ? err : print_result(o, &result);
}

static int stop_tracking(const struct options *o)
{
	for (size_t i = 0; i < o->pids.n; i++)
		switch (control_end(o->pids.data[i])) {
		case 0:
			break;
		case -ENOENT:
			return cli_failed(
				refuse(-ENOENT, "no session tracks pid %d", o->pids.data[i]));
		default:
			return cli_failed(-EPERM);
		}
	return EXIT_DONE;
}

/* --every where a session follows the job: it is asked every time. */
static int repeat_over_socket(const struct options *o)
{
	_cleanup_fd_ int signals = o->every_s > 0 ? session_signals() : -1;
	uint64_t due = now_ns(), every = (uint64_t)(o->every_s * 1e9);
	int err = over_socket(o);

	for (long n = 1; !err && every && (!o->count || n < o->count); n++) {
		struct pollfd p = {.fd = signals, .events = POLLIN};

		while (due <= now_ns())
			due += every;
		if (poll(&p, 1, (int)((due - now_ns()) / 1000000) + 1) > 0)
			break;
		err = over_socket(o);
		if (err == -ENOENT)
			return refuse(-EPIPE, "the session that followed the job has ended");
	}
	return err;
}

static int run_options(const struct options *o)
{
	int err;

	if (o->stop)
		return stop_tracking(o);
	err = repeat_over_socket(o);
	if (err != -ENOENT)
		return err ? cli_failed(err) : EXIT_DONE;
	err_clear();
	if (o->keep)
		return background(with_session, o);
	err = with_session(o, -1);
	return err < 0 ? cli_failed(err) : err ? EXIT_FAILED : EXIT_DONE;
}

static int run(int argc, char **argv)
{
	struct options o = {0};
	int status = parse(&o, argc, argv);

	if (!status)
		status = run_options(&o);
	vec_free(&o.pids);
	return status;
}

const struct verb verb_checkpoint = {
	.name = "checkpoint",
	.run = run,
	.line = "cut a version of a running job",
	.help = "usage: icp-bpf checkpoint --pid PID --dir DIR [OPTIONS]\n"
		"\n"
		"Saves a process with all its descendants as the next version in DIR: the "
		"first is full, the next ones hold what\n"
		"changed. Memory is copied while the job runs; it is frozen only for the last "
		"changes. A version is there whole\n"
		"or not at all. If a session follows the job (icp-bpf trace, --keep-tracking) "
		"the changes come from it; otherwise they\n"
		"are found by comparing hashes with the last version.\n"
		"\n"
		"  -p, --pid PID        the process; may be repeated for a job of several "
		"trees\n"
		"      --dir DIR        the repository; made if it is not there\n"
		"      --every T        go on: a version every 500ms, 10s, 5m; Ctrl-C ends it\n"
		"      --count N        with --every: end after N versions\n"
		"      --keep-tracking  leave a session in the background, so that the next "
		"checkpoint finds its changes at once\n"
		"      --stop-tracking  end that session\n"
		"      --kill           end the job after the commit, for moving it\n"
		"      --leave-frozen   leave it stopped (SIGSTOP) after the commit\n"
		"      --label TEXT     a note, shown by icp-bpf list\n"
		"      --full           save every page\n"
		"      --compress C     zstd, lz4 or none (the default)\n"
		"      --tracker NAME   uffd; the best available one by default (see icp-bpf "
		"check)\n"
		"      --paranoid       also scan where events say what was written, and fail "
		"if they missed a page\n"
		"      --no-restart     also save what icp-bpf restart can't bring back "
		"(sockets...): only the data is wanted\n"
		"      --tcp-close      connections to processes outside of the job are saved "
		"as closed: not refused\n"
		"      --shm-peers HOW  a process outside the job attaches a segment of it: "
		"warn "
		"(the default), include it, refuse\n"
		"      --shm-detached   save segments, too, that the job made and nobody of it "
		"attaches\n"
		"      --json           one JSON object a version, see docs/json.md\n"
		"\n"
		"example: icp-bpf checkpoint --pid $(pidof redis-server) --dir "
		"/var/lib/icp/redis --every 10s\n",
};
