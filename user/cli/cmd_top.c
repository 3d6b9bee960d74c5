// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "base/page.h"
#include "cli/background.h"
#include "cli/cli.h"
#include "cli/top.h"
#include "obs/view.h"
#include "session/checkpoint.h"
#include "session/look.h"

#define LISTS 30 /* lines of areas and writers that a sample holds */
/* Change events are taken in at most this often, so that a target that forks in a loop does not keep us busy. */
#define BREATH_MS 10

struct top_options {
	pid_list pids;
	bool tree, batch;
	double interval_s;
	const char *tracker;
};

struct top_run {
	struct top_options o;
	struct session *session; /* NULL: no --pid */
	struct sample sample;
	struct looks looks;
	struct top top;
	struct top_screen screen;
	uint64_t opened_ns;
	int signals;
};

enum { OPT_TREE = 256, OPT_INTERVAL, OPT_BATCH, OPT_TRACKER };

static const struct option long_options[] = {
	{"pid", required_argument, NULL, 'p'},
	{"tree", no_argument, NULL, OPT_TREE},
	{"interval", required_argument, NULL, OPT_INTERVAL},
	{"batch", no_argument, NULL, OPT_BATCH},
	{"tracker", required_argument, NULL, OPT_TRACKER},
	{NULL, 0, NULL, 0},
};

static int take_option(struct top_options *o, int opt, char **argv)
{
	switch (opt) {
	case 'p':
		return cli_add_pid(&verb_top, &o->pids, optarg);
	case OPT_TREE:
		o->tree = true;
		return 0;
	case OPT_BATCH:
		o->batch = true;
		return 0;
	case OPT_TRACKER:
		o->tracker = optarg;
		return 0;
	case OPT_INTERVAL:
		if (cli_seconds(optarg, &o->interval_s) && o->interval_s >= 0.05)
			return 0;
		return cli_usage(&verb_top,
				 "--interval takes 50ms or more (500ms, 1s, 1m), not '%s'",
				 optarg);
	default:
		return cli_bad_option(&verb_top, argv);
	}
}

static int parse(struct top_options *o, int argc, char **argv)
{
	int opt, status;

	o->interval_s = 1;
	opterr = 0;
	while ((opt = getopt_long(argc, argv, "p:", long_options, NULL)) != -1) {
		status = take_option(o, opt, argv);
		if (status)
			return status;
	}
	if (optind < argc)
		return cli_usage(&verb_top,
				 "'%s' is not an option: processes are named with --pid",
				 argv[optind]);
	return 0;
}

/* ---- what there is to see ---- */

/* Who is followed already is seen through the session that does. */
static void drop_followed(pid_list *pids)
{
	size_t kept = 0;

	for (size_t i = 0; i < pids->n; i++)
		if (!control_owner(pids->data[i]))
			pids->data[kept++] = pids->data[i];
	pids->n = kept;
}

static int open_session(struct top_run *r)
{
	struct session_config config = {
		.tracker = r->o.tracker,
		.tree = r->o.tree,
		.interval_s = r->o.interval_s,
		.top = LISTS,
		.cancel_fd = -1,
	};
	int err;

	drop_followed(&r->o.pids);
	if (!r->o.pids.n)
		return 0;
	err = session_open(&config, r->o.pids.data, r->o.pids.n, &r->session);
	r->opened_ns = now_ns();
	return err ? err : background_listen(r->session, false);
}

/* At first they are only named: a sample of no time at all would say nothing. */
static int see_named(struct top_run *r)
{
	int err = 0;

	for (size_t i = 0; !err && i < r->o.pids.n; i++) {
		struct process_sample s = {.pid = r->o.pids.data[i]};

		if (tasks_comm(s.pid, s.comm))
			err = top_see(&r->top, 0, 0, &s);
	}
	return err;
}

static int see_own(struct top_run *r)
{
	int err = session_step(r->session, NULL, false);

	if (!err && now_ns() - r->opened_ns < (uint64_t)(r->o.interval_s * 5e8))
		return see_named(r);
	if (!err)
		err = session_sample(r->session, &r->sample);
	for (size_t i = 0; !err && i < r->sample.processes.n; i++)
		err = top_see(&r->top, 0, r->sample.index, &r->sample.processes.data[i]);
	return err;
}

static int see_others(struct top_run *r)
{
	const struct top_row *row =
		r->screen.mode == TOP_PROCESS ? top_row_selected(&r->top) : NULL;
	int err = control_look(&r->looks, row && row->session ? row->s.pid : 0);

	for (size_t i = 0; !err && i < r->looks.processes.n; i++) {
		const struct look_process *p = &r->looks.processes.data[i];

		err = top_see(&r->top, p->session, p->index, &p->sample);
	}
	r->screen.sessions = r->looks.sessions;
	return err;
}

static int see(struct top_run *r)
{
	int err = 0;

	top_begin(&r->top);
	if (r->session)
		err = see_own(r);
	if (!err)
		err = see_others(r);
	top_end(&r->top);
	return err;
}

/* ---- a checkpoint ---- */

/* By the session that follows the process: our own, or the one that says so. */
static int cut(struct top_run *r, const struct top_row *row, struct dump_result *out)
{
	char path[PATH_MAX], cwd[PATH_MAX / 2] = "";
	pid_t pid = row->s.pid;
	struct checkpoint_request request = {.dir = path, .roots = &pid, .n_roots = 1};
	int err;

	if (r->screen.dir[0] != '/' && !getcwd(cwd, sizeof(cwd)))
		return fail(-errno, "find the working directory");
	snprintf(path, sizeof(path), "%s%s%s", cwd, cwd[0] ? "/" : "", r->screen.dir);
	if (!row->session)
		return session_checkpoint(r->session, &request, out);
	err = control_checkpoint(&request, out);
	return err == -ENOENT ? refuse(err, "no session follows pid %d any more", pid) : err;
}

static void checkpoint(struct top_run *r)
{
	const struct top_row *row = top_row_selected(&r->top);
	struct dump_result result;
	int err;

	if (!row)
		return;
	snprintf(r->screen.message, sizeof(r->screen.message),
		 "checkpoint of pid %d into %s...", row->s.pid, r->screen.dir);
	screen_draw(&r->screen, &r->top);
	err = cut(r, row, &result);
	if (err)
		snprintf(r->screen.message, sizeof(r->screen.message), "no checkpoint: %s",
			 err_text(err));
	else
		snprintf(r->screen.message, sizeof(r->screen.message),
			 "version %u (%s) of pid %d: %s pages, %s written, pause %.2f ms",
			 result.version, result.incremental ? "incremental" : "full",
			 row->s.pid, human_count(result.pages, (char[32]){0}),
			 human_bytes((double)result.bytes_written, (char[16]){0}),
			 (double)result.pause_ns / 1e6);
	err_clear();
}

/* ---- the screen ---- */

/* True: quit. */
static bool take_keys(struct top_run *r)
{
	enum top_key key;
	int ch;

	while ((key = screen_key(&ch)) != TOP_KEY_NONE) {
		switch (top_take_key(&r->screen, &r->top, key, ch)) {
		case TOP_QUIT:
			return true;
		case TOP_CHECKPOINT:
			checkpoint(r);
			break;
		case TOP_GO_ON:
			break;
		}
	}
	screen_draw(&r->screen, &r->top);
	return false;
}

/* Until the next sample is due; true: quit. */
static int wait_until(struct top_run *r, uint64_t due_ns, bool *quit)
{
	int err = 0;

	while (!err && !*quit) {
		struct pollfd fds[3] = {
			{.fd = r->signals, .events = POLLIN},
			{.fd = STDIN_FILENO, .events = POLLIN},
			{.fd = r->session ? session_fd(r->session) : -1, .events = POLLIN}};
		uint64_t now = now_ns();
		int64_t left = (int64_t)(due_ns - now) / 1000000;
		int n;

		if (now >= due_ns)
			break;
		left = left > STEP_MS && r->session ? STEP_MS : left > 1000 ? 1000 : left;
		n = poll(fds, 3, (int)(left < 1 ? 1 : left));
		if (n < 0 && errno != EINTR)
			return fail(-errno, "poll");
		*quit = n > 0 && (fds[0].revents || fds[1].revents & (POLLHUP | POLLERR));
		if (!*quit && (n < 0 || fds[1].revents)) /* EINTR: another size */
			*quit = take_keys(r);
		if (r->session && !*quit)
			err = session_step(r->session, NULL, false);
		if (!err && !*quit && n > 0 && fds[2].revents)
			(void)poll(fds, 2, BREATH_MS);
	}
	return err;
}

static int show_screen(struct top_run *r)
{
	uint64_t interval = (uint64_t)(r->o.interval_s * 1e9), due = now_ns();
	bool quit = false;
	int err = 0;

	while (!err && !quit) {
		err = see(r);
		if (err)
			break;
		screen_draw(&r->screen, &r->top);
		while (due <= now_ns() + interval / 2) /* after a late one no very short one */
			due += interval;
		err = wait_until(r, due, &quit);
	}
	return err;
}

/* ---- once ---- */

static int show_once(struct top_run *r)
{
	char text[512];
	int err = 0;

	if (r->session)
		err = session_follow(r->session, r->signals,
				     now_ns() + (uint64_t)(r->o.interval_s * 1e9));
	if (err >= 0)
		err = see(r);
	if (err)
		return err;
	top_header(&r->top, text, sizeof(text));
	puts(text);
	vec_each (row, &r->top.rows) {
		top_line(&r->top, *row, text, sizeof(text));
		puts(text);
	}
	return 0;
}

static int show(struct top_run *r)
{
	int err;

	r->top.page_size = page_size();
	r->signals = session_signals();
	if (r->signals < 0)
		return fail(-errno, "signalfd");
	err = r->o.batch ? 0 : screen_open(&r->screen);
	if (!err)
		err = open_session(r);
	if (!err)
		err = r->o.batch ? show_once(r) : show_screen(r);
	screen_close();
	return err;
}

static int run(int argc, char **argv)
{
	struct top_run r = {.signals = -1};
	int status = parse(&r.o, argc, argv);

	if (!status) {
		int err = show(&r);

		status = err ? cli_failed(err) : EXIT_DONE;
	}
	session_close(r.session);
	sample_clear(&r.sample);
	looks_free(&r.looks);
	top_free(&r.top);
	vec_free(&r.o.pids);
	cleanup_fd(&r.signals);
	return status;
}

const struct verb verb_top = {
	.name = "top",
	.run = run,
	.line = "full-screen view of what is traced on this machine",
	.help = "usage: icp-bpf top [--pid PID]... [OPTIONS]\n"
		"\n"
		"Shows the processes that are traced on this machine, by dirty rate: those "
		"given "
		"with --pid, and those that other\n"
		"sessions follow (icp-bpf trace, record, serve, checkpoint --keep-tracking). "
		"Enter opens a process: its rate over\n"
		"time, memory areas, segments, who writes. c cuts a checkpoint, h lists the "
		"keys, q quits.\n"
		"\n"
		"  -p, --pid PID       trace this process; may be repeated\n"
		"      --tree          its descendants too, those of now and those to come\n"
		"      --interval T    time between samples: 500ms, 1s (the default)\n"
		"      --batch         print the list once, after an interval, and end\n"
		"      --tracker NAME  uffd; the best available one by default (see icp-bpf "
		"check)\n"
		"\n"
		"example: icp-bpf top --pid $(pidof redis-server)\n",
};
