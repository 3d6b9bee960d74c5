// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>

#include "cli/cli.h"
#include "obs/view.h"
#include "session/checkpoint.h"
#include "session/session.h"
#include "session/tracked.h"

/* Change events are taken in at most this often, so that a target that maps memory in a loop does not keep us busy. */
#define BREATH_MS 10

struct trace_options {
	pid_list pids;
	bool tree, events, json;
	double interval_s, duration_s; /* duration 0: unlimited */
	long count, top;	       /* count 0: unlimited */
	const char *tracker;
};

struct trace {
	struct trace_options o;
	struct session *session;
	const struct view_ops *ops;
	struct view view;
	struct sample sample;
	struct trace_events events;
	int signals;
	const char *reason; /* set: end */
};

enum {
	OPT_TREE = 256,
	OPT_INTERVAL,
	OPT_DURATION,
	OPT_COUNT,
	OPT_JSON,
	OPT_TRACKER,
	OPT_TOP,
	OPT_EVENTS
};

static const struct option long_options[] = {
	{"pid", required_argument, NULL, 'p'},
	{"tree", no_argument, NULL, OPT_TREE},
	{"interval", required_argument, NULL, OPT_INTERVAL},
	{"duration", required_argument, NULL, OPT_DURATION},
	{"count", required_argument, NULL, OPT_COUNT},
	{"json", no_argument, NULL, OPT_JSON},
	{"tracker", required_argument, NULL, OPT_TRACKER},
	{"top", required_argument, NULL, OPT_TOP},
	{"events", no_argument, NULL, OPT_EVENTS},
	{NULL, 0, NULL, 0},
};

/* 0, or the exit status. */
static int take_option(struct trace_options *o, int opt, char **argv)
{
	switch (opt) {
	case 'p':
		return cli_add_pid(&verb_trace, &o->pids, optarg);
	case OPT_TREE:
		o->tree = true;
		return 0;
	case OPT_EVENTS:
		o->events = true;
		return 0;
	case OPT_JSON:
		o->json = true;
		return 0;
	case OPT_TRACKER:
		o->tracker = optarg;
		return 0;
	case OPT_INTERVAL:
		if (cli_seconds(optarg, &o->interval_s) && o->interval_s >= 0.01)
			return 0;
		return cli_usage(&verb_trace,
				 "--interval takes 10ms or more (500ms, 1s, 1m), not '%s'",
				 optarg);
	case OPT_DURATION:
		if (cli_seconds(optarg, &o->duration_s))
			return 0;
		return cli_usage(&verb_trace, "--duration takes a time (10s, 5m), not '%s'",
				 optarg);
	case OPT_COUNT:
		if (cli_number(optarg, 1, 1000000000, &o->count))
			return 0;
		return cli_usage(&verb_trace, "--count takes a number of samples, not '%s'",
				 optarg);
	case OPT_TOP:
		if (cli_number(optarg, 0, 1000000, &o->top))
			return 0;
		return cli_usage(&verb_trace, "--top takes a number of lines, not '%s'",
				 optarg);
	default:
		return cli_bad_option(&verb_trace, argv);
	}
}

static int parse(struct trace_options *o, int argc, char **argv)
{
	int opt, status;

	*o = (struct trace_options){.interval_s = 1, .top = 5};
	opterr = 0;
	while ((opt = getopt_long(argc, argv, "p:", long_options, NULL)) != -1) {
		status = take_option(o, opt, argv);
		if (status)
			return status;
	}
	if (optind < argc)
		return cli_usage(&verb_trace,
				 "'%s' is not an option: processes are named with --pid",
				 argv[optind]);
	if (!o->pids.n)
		return cli_usage(&verb_trace, "which process? --pid PID");
	return 0;
}

static int open_view(struct trace *t)
{
	struct winsize size = {0};
	sigset_t set;

	t->ops = t->o.json ? &view_json : &view_text;
	t->view.out = stdout;
	t->view.redraw = !t->o.json && !t->o.events && isatty(STDOUT_FILENO);
	if (t->view.redraw && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size))
		t->view.rows = size.ws_row;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	t->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return t->signals < 0 ? fail(-errno, "signalfd") : 0;
}

static void take_signals(struct trace *t)
{
	struct signalfd_siginfo info;
	struct winsize size;

	while (read(t->signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo != SIGWINCH)
			t->reason = "interrupted";
		else if (t->view.redraw && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size))
			t->view.rows = size.ws_row;
	}
}

static int step(struct trace *t)
{
	bool wanted = t->o.events || t->o.json;
	int err;

	t->events.n = 0;
	err = session_step(t->session, wanted ? &t->events : NULL, t->o.events);
	for (size_t i = 0; !err && i < t->events.n; i++)
		if (t->o.events || t->events.data[i].kind == TRACE_SEGMENT)
			err = t->ops->event(&t->view, &t->events.data[i]);
	return !err && t->events.n ? view_flush(&t->view) : err;
}

static int sample(struct trace *t)
{
	int err = session_sample(t->session, &t->sample);

	/* with --events alone the samples would only be in the way, as with strace; JSON lines tell themselves apart */
	if (!err && (t->o.json || !t->o.events))
		err = t->ops->sample(&t->view, session_info(t->session), &t->sample);
	if (t->o.count && t->sample.index >= (unsigned)t->o.count)
		t->reason = "count";
	if (!session_alive(t->session))
		t->reason = "exited";
	return err;
}

/* Until the next sample is due: take in events as they come. */
static int wait_until(struct trace *t, uint64_t due_ns)
{
	int err = 0;

	while (!err && !t->reason) {
		struct pollfd fds[2] = {{.fd = t->signals, .events = POLLIN},
					{.fd = session_fd(t->session), .events = POLLIN}};
		uint64_t now = now_ns();
		int64_t left = (int64_t)(due_ns - now) / 1000000;

		if (now >= due_ns || !session_alive(t->session))
			break;
		left = left > STEP_MS ? STEP_MS : left;
		if (poll(fds, 2, (int)(left < 1 ? 1 : left)) < 0 && errno != EINTR)
			return fail(-errno, "poll");
		take_signals(t);
		err = step(t);
		if (!err && fds[1].revents)
			(void)poll(fds, 1, BREATH_MS);
	}
	return err;
}

static int loop(struct trace *t)
{
	uint64_t interval = (uint64_t)(t->o.interval_s * 1e9), start = now_ns(),
		 due = start + interval;
	uint64_t end =
		t->o.duration_s > 0 ? start + (uint64_t)(t->o.duration_s * 1e9) : UINT64_MAX;
	int err = 0;

	while (!err && !t->reason) {
		err = wait_until(t, due < end ? due : end);
		if (!err)
			err = step(t);
		if (!err)
			err = sample(t);
		if (now_ns() >= end && !t->reason)
			t->reason = "duration";
		while (due <= now_ns())
			due += interval;
	}
	return err;
}

static int run_trace(struct trace *t)
{
	_cleanup_(free_summary) struct summary summary = {0};
	struct session_config config = {
		.tracker = t->o.tracker,
		.tree = t->o.tree,
		.interval_s = t->o.interval_s,
		.top = (size_t)t->o.top,
		.cancel_fd = -1,
		.segment_events = t->o.events,
	};
	int err = open_view(t);

	if (!err)
		err = session_open(&config, t->o.pids.data, t->o.pids.n, &t->session);
	if (!err) /* checkpoints of the job come to us, while we have its trackers */
		err = control_open(t->session);
	if (err == -EACCES)
		err = 0;
	if (!err)
		err = t->ops->start(&t->view, session_info(t->session), t->o.pids.data,
				    t->o.pids.n);
	if (!err)
		err = loop(t);
	if (err)
		return err;
	summary.reason = t->reason;
	err = session_summary(t->session, &summary);
	return err ? err : t->ops->summary(&t->view, session_info(t->session), &summary);
}

static int run(int argc, char **argv)
{
	struct trace t = {.signals = -1};
	int status = parse(&t.o, argc, argv);

	if (!status) {
		int err = run_trace(&t);

		/* whoever read our output has gone: nothing is left to say, and nobody to say it to */
		if (err == -EPIPE)
			clearerr(stdout);
		status = err && err != -EPIPE ? cli_failed(err) : EXIT_DONE;
	}
	session_close(t.session);
	sample_clear(&t.sample);
	vec_free(&t.events);
	vec_free(&t.o.pids);
	cleanup_fd(&t.signals);
	return status;
}

const struct verb verb_trace = {
	.name = "trace",
	.run = run,
	.line = "watch what running processes write",
	.help = "usage: icp-bpf trace --pid PID [OPTIONS]\n"
		"\n"
		"Attaches to a running process and shows, every interval, how many pages it "
		"wrote, where and by whom, and how\n"
		"large its write working set is. The process is stopped for about 0.1 ms; it "
		"runs on when icp-bpf ends, in\n"
		"whatever way. Ends with a summary on Ctrl-C, after the duration, or with the "
		"last process.\n"
		"\n"
		"  -p, --pid PID       the process; may be repeated\n"
		"      --tree          its descendants too, those of now and those to come\n"
		"      --interval T    time between samples: 500ms, 1s (the default), 1m\n"
		"      --duration T    end after this time\n"
		"      --count N       end after N samples\n"
		"      --top N         lines of memory areas and of writers (5)\n"
		"      --events        print each write access (the first to a page in an "
		"interval) and each System V segment\n"
		"                      event as they come, instead of samples; costs every "
		"system call of the machine\n"
		"                      about 0.1 us meanwhile\n"
		"      --json          JSON Lines, see docs/json.md\n"
		"      --tracker NAME  uffd; the best available one by default (see icp-bpf "
		"check)\n"
		"\n"
		"example: icp-bpf trace --pid $(pidof redis-server) --interval 1s --duration "
		"10s\n",
};
