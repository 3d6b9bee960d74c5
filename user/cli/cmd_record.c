// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/background.h"
#include "cli/cli.h"
#include "cli/recorder.h"
#include "obs/view.h"
#include "session/checkpoint.h"

/* Lines of areas and writers for who asks (icp-bpf top). */
#define LISTS 30
/* Change events are taken in at most this often, so that a target that forks in a loop does not keep us busy. */
#define BREATH_MS 10
/* About one user stack of a process on a processor in this time. */
#define STACK_PERIOD_NS 10000000u

struct record_options {
	pid_list pids;
	bool tree;
	double interval_s, duration_s; /* duration 0: unlimited */
	const char *tracker, *file;
};

struct record {
	struct record_options o;
	struct session *session;
	struct recorder recorder;
	struct sample sample;
	int signals;
	const char *reason; /* set: end */
};

enum { OPT_TREE = 256, OPT_INTERVAL, OPT_DURATION, OPT_TRACKER };

static const struct option long_options[] = {
	{"pid", required_argument, NULL, 'p'},
	{"output", required_argument, NULL, 'o'},
	{"tree", no_argument, NULL, OPT_TREE},
	{"interval", required_argument, NULL, OPT_INTERVAL},
	{"duration", required_argument, NULL, OPT_DURATION},
	{"tracker", required_argument, NULL, OPT_TRACKER},
	{NULL, 0, NULL, 0},
};

static int take_option(struct record_options *o, int opt, char **argv)
{
	switch (opt) {
	case 'p':
		return cli_add_pid(&verb_record, &o->pids, optarg);
	case 'o':
		o->file = optarg;
		return 0;
	case OPT_TREE:
		o->tree = true;
		return 0;
	case OPT_TRACKER:
		o->tracker = optarg;
		return 0;
	case OPT_INTERVAL:
		if (cli_seconds(optarg, &o->interval_s) && o->interval_s >= 0.01)
			return 0;
		return cli_usage(&verb_record,
				 "--interval takes 10ms or more (500ms, 1s, 1m), not '%s'",
				 optarg);
	case OPT_DURATION:
		if (cli_seconds(optarg, &o->duration_s))
			return 0;
		return cli_usage(&verb_record, "--duration takes a time (10s, 5m), not '%s'",
				 optarg);
	default:
		return cli_bad_option(&verb_record, argv);
	}
}

static int parse(struct record_options *o, int argc, char **argv)
{
	int opt, status;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "p:o:", long_options, NULL)) != -1) {
		status = take_option(o, opt, argv);
		if (status)
			return status;
	}
	if (optind < argc)
		return cli_usage(&verb_record,
				 "'%s' is not an option: processes are named with --pid",
				 argv[optind]);
	if (!o->pids.n)
		return cli_usage(&verb_record, "which process? --pid PID");
	if (!o->file)
		return cli_usage(&verb_record, "where to? -o FILE");
	return 0;
}

static int sample(struct record *r)
{
	int err = session_sample(r->session, &r->sample);

	if (!err)
		err = recorder_sample(&r->recorder, &r->sample);
	if (!session_alive(r->session))
		r->reason = "exited";
	return err;
}

/* Until the next sample is due: take in events as they come. */
static int wait_until(struct record *r, uint64_t due_ns)
{
	int err = 0;

	while (!err && !r->reason && session_alive(r->session)) {
		struct pollfd fds[2] = {{.fd = r->signals, .events = POLLIN},
					{.fd = session_fd(r->session), .events = POLLIN}};
		uint64_t now = now_ns();
		int64_t left = (int64_t)(due_ns - now) / 1000000;

		if (now >= due_ns)
			break;
		left = left > STEP_MS ? STEP_MS : left;
		if (poll(fds, 2, (int)(left < 1 ? 1 : left)) < 0 && errno != EINTR)
			return fail(-errno, "poll");
		if (fds[0].revents)
			r->reason = "interrupted";
		err = session_step(r->session, NULL, false);
		if (!err)
			err = recorder_events(&r->recorder);
		if (!err && fds[1].revents)
			(void)poll(fds, 1, BREATH_MS);
	}
	return err;
}

static int loop(struct record *r)
{
	uint64_t interval = (uint64_t)(r->o.interval_s * 1e9), start = now_ns(),
		 due = start + interval;
	uint64_t end =
		r->o.duration_s > 0 ? start + (uint64_t)(r->o.duration_s * 1e9) : UINT64_MAX;
	int err = 0;

	while (!err && !r->reason) {
		err = wait_until(r, due < end ? due : end);
		if (!err)
			err = session_step(r->session, NULL, false);
		if (!err)
			err = recorder_events(&r->recorder);
		if (!err)
			err = sample(r);
		if (now_ns() >= end && !r->reason)
			r->reason = "duration";
		while (due <= now_ns() + interval / 2) /* after a late one no very short one */
			due += interval;
	}
	/* what came between the last events and the last look */
	if (!err)
		err = session_step(r->session, NULL, false);
	return err ? err : recorder_events(&r->recorder);
}

static void tell(const struct record *r, uint64_t time_us, uint64_t bytes)
{
	const struct recorder *rec = &r->recorder;

	printf("recorded %.1f s, ended by %s: %s faults, %s takes, %s in %s",
	       (double)time_us / 1e6, r->reason, human_count(rec->faults, (char[32]){0}),
	       human_count(rec->takes, (char[32]){0}),
	       human_bytes((double)bytes, (char[16]){0}), r->o.file);
	if (rec->faults)
		printf(" (%.1f bytes a fault)", (double)bytes / (double)rec->faults);
	if (rec->lost)
		printf(", %s events lost", human_count(rec->lost, (char[32]){0}));
	putchar('\n');
}

static int record(struct record *r)
{
	struct session_config config = {
		.tracker = r->o.tracker,
		.tree = r->o.tree,
		.interval_s = r->o.interval_s,
		.top = LISTS,
		.cancel_fd = -1,
		.raw = true,
		.stack_period_ns = STACK_PERIOD_NS,
	};
	int err;

	r->signals = session_signals();
	signal(SIGXFSZ, SIG_IGN); /* a limit is like a full disk */
	if (r->signals < 0)
		return fail(-errno, "signalfd");
	err = session_open(&config, r->o.pids.data, r->o.pids.n, &r->session);
	if (!err) /* checkpoints of the job come to us, while we have its trackers */
		err = background_listen(r->session, false);
	if (!err)
		err = recorder_open(&r->recorder, r->session, r->o.file, &r->o.pids);
	if (err)
		return err;
	if (!session_info(r->session)->events)
		note("no events: who writes is not recorded (%s)",
		     session_info(r->session)->no_events);
	return loop(r);
}

/* Whatever ended it, the file is whole up to there, and says why it ends. */
static int finish(struct record *r, int failed)
{
	uint64_t time_us = r->recorder.writer ? recorder_time_us(&r->recorder) : 0;
	uint64_t bytes = r->recorder.writer ? rec_bytes(r->recorder.writer) : 0;
	bool begun = r->recorder.writer;
	char said[256];
	int err;

	if (failed) {
		snprintf(said, sizeof(said), "%s", err_text(failed));
		ignore_failure(recorder_close(&r->recorder, said));
		err_clear();
		return cli_failed(begun ? refuse(failed,
						 "the recording ends after %.1f s: %s; %s is "
						 "usable up to there",
						 (double)time_us / 1e6, said, r->o.file)
					: refuse(failed, "%s", said));
	}
	err = recorder_close(&r->recorder, r->reason);
	if (err)
		return cli_failed(err);
	tell(r, time_us, bytes);
	return EXIT_DONE;
}

static int run(int argc, char **argv)
{
	struct record r = {.signals = -1, .o = {.interval_s = 1}};
	int status = parse(&r.o, argc, argv);

	if (!status)
		status = finish(&r, record(&r));
	session_close(r.session);
	sample_clear(&r.sample);
	vec_free(&r.o.pids);
	cleanup_fd(&r.signals);
	return status;
}

const struct verb verb_record = {
	.name = "record",
	.run = run,
	.line = "record what running processes write, to look at later",
	.help = "usage: icp-bpf record --pid PID -o FILE [OPTIONS]\n"
		"\n"
		"Records write faults (time, thread, address, function) and, every interval, "
		"which pages were written, into FILE.\n"
		"icp-bpf report shows it. A fault costs a few bytes. Ends on Ctrl-C, after the "
		"duration, or with the last process;\n"
		"whatever ends it, the file is good up to there.\n"
		"\n"
		"  -p, --pid PID       the process; may be repeated\n"
		"  -o, --output FILE   must not exist\n"
		"      --tree          its descendants too, those of now and those to come\n"
		"      --duration T    end after this time: 30s, 5m\n"
		"      --interval T    between two looks at the page tables: 100ms, 1s (the "
		"default)\n"
		"      --tracker NAME  uffd; the best available one by default (see icp-bpf "
		"check)\n"
		"\n"
		"example: icp-bpf record --pid $(pidof redis-server) --duration 1m -o "
		"redis.rec "
		"&& icp-bpf report redis.rec\n",
};
