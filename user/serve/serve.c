// SPDX-License-Identifier: GPL-2.0
#include "serve/serve.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/log.h"
#include "obs/json.h"
#include "serve/api.h"
#include "serve/follow.h"
#include "serve/http.h"
#include "serve/usage.h"
#include "session/checkpoint.h"

#define LOOK_NS 1000000000u /* for processes that are new */
#define BREATH_MS 10 /* as trace: a target that maps memory in a loop does not keep us busy */
#define TRIM_NS 60000000000u

struct serve {
	const struct serve_config *config;
	struct session *session;
	struct follow *follow;
	struct model *model;
	struct streams *streams;
	struct http *http;
	struct sample sample;
	int signals;
	bool ended;
	uint64_t look_ns, trim_ns;
};

static int open_signals(struct serve *s)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signals < 0 ? fail(-errno, "signalfd") : 0;
}

/* To systemd, when it started us and waits for that (sd_notify(3)). */
static void notify(const char *what)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t len = path ? strlen(path) : 0;
	_cleanup_fd_ int fd = -1;

	if (len < 2 || len >= sizeof(addr.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(addr.sun_path, path, len);
	if (path[0] == '@')
		addr.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && sendto(fd, what, strlen(what), MSG_NOSIGNAL, (struct sockaddr *)&addr,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		debug("NOTIFY_SOCKET: %s", strerror(errno));
}

static void fill_model(struct serve *s)
{
	const struct serve_config *c = s->config;
	struct model *m = s->model;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	m->info = *session_info(s->session);
	m->start_time = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
	m->interval_s = c->interval_s;
	m->mtbf_s = c->mtbf_s;
	m->pids = c->pids.data;
	m->n_pids = c->pids.n;
	m->cgroups = (const char *const *)c->cgroups.data;
	m->n_cgroups = c->cgroups.n;
	m->dirs = c->dirs.data;
	m->n_dirs = c->dirs.n;
	m->match = c->match;
}

/* The server listens before anything is attached to: a port that is taken leaves every process alone. */
static int open_parts(struct serve *s)
{
	struct session_config config = {
		.tracker = s->config->tracker,
		.tree = s->config->tree,
		.interval_s = s->config->interval_s,
		.top = WRITERS_MAX,
		.cancel_fd = -1,
		.daemon = true,
	};
	struct http_config http = {
		.listen = s->config->listen ? s->config->listen : SERVE_LISTEN,
		.token_file = s->config->token_file,
	};
	int err = open_signals(s);

	if (!err)
		err = follow_new(s->config, &s->follow);
	if (!err)
		err = model_new(&s->model);
	if (!err)
		err = streams_new(&s->streams);
	if (!err)
		err = session_open(&config, NULL, 0, &s->session);
	if (err)
		return err;
	fill_model(s);
	http.model = s->model;
	http.session = s->session;
	http.streams = s->streams;
	err = http_open(&http, &s->http);
	if (err)
		return err;
	err = control_open(s->session); /* checkpoints of the processes come to us */
	if (err == -EACCES)
		err = 0;
	return err ? err : follow_look(s->follow, s->session, s->model, true);
}

static void take_signals(struct serve *s)
{
	struct signalfd_siginfo info;

	while (read(s->signals, &info, sizeof(info)) == sizeof(info))
		s->ended = true;
}

/* Checkpoints that were asked for over the control socket meanwhile. */
static int take_cuts(struct serve *s)
{
	struct session_cut cut;
	int err = 0;

	while (!err && session_next_cut(s->session, &cut)) {
		pthread_mutex_lock(&s->model->lock);
		err = model_cut(s->model, &cut);
		pthread_mutex_unlock(&s->model->lock);
		streams_publish(s->streams, "checkpoint", api_cut(&cut));
	}
	return err;
}

static int step(struct serve *s)
{
	int err = session_step(s->session, NULL, false);

	if (!err)
		err = take_cuts(s);
	if (!err && now_ns() - s->look_ns >= LOOK_NS) {
		s->look_ns = now_ns();
		err = follow_look(s->follow, s->session, s->model, false);
	}
	http_tick(s->http);
	streams_keep(s->streams);
	return err;
}

/* Who came, and who has gone, since the sample before. */
static void tell_changes(struct serve *s, const pid_list *before)
{
	const struct model *m = s->model;

	vec_each (p, &m->procs) {
		bool known = false;

		for (size_t i = 0; i < before->n; i++)
			known |= before->data[i] == (*p)->pid;
		if (!known || (*p)->last.ended)
			streams_publish(s->streams, "process",
					json_pack("{s:s, s:i, s:o}", "op",
						  (*p)->last.ended ? "gone" : "came", "pid",
						  (int)(*p)->pid, "comm",
						  json_name((*p)->comm)));
	}
}

static int take_sample(struct serve *s)
{
	_cleanup_(free_pids) pid_list before = {0};
	struct model *m = s->model;
	int err = session_sample(s->session, &s->sample);

	if (err)
		return err;
	vec_each (p, &m->procs) {
		pid_t *slot = vec_push(&before);

		if (slot)
			*slot = (*p)->pid;
	}
	pthread_mutex_lock(&m->lock);
	err = model_sample(m, s->session, &s->sample);
	usage_read(&m->cpu_s, &m->rss_bytes);
	pthread_mutex_unlock(&m->lock);
	session_forget_stacks(s->session);
	if (err || !streams_wanted(s->streams))
		return err;
	tell_changes(s, &before);
	streams_publish(s->streams, "sample", api_sample(m)); /* only we write the model */
	return 0;
}

static int wait_until(struct serve *s, uint64_t due_ns)
{
	int err = 0;

	while (!err && !s->ended) {
		struct pollfd fds[2] = {{.fd = s->signals, .events = POLLIN},
					{.fd = session_fd(s->session), .events = POLLIN}};
		uint64_t now = now_ns();
		int64_t left = (int64_t)(due_ns - now) / 1000000;

		if (now >= due_ns)
			break;
		left = left > STEP_MS ? STEP_MS : left;
		if (poll(fds, 2, (int)(left < 1 ? 1 : left)) < 0 && errno != EINTR)
			return fail(-errno, "poll");
		take_signals(s);
		err = step(s);
		if (!err && fds[1].revents)
			(void)poll(fds, 1, BREATH_MS);
	}
	return err;
}

static int loop(struct serve *s)
{
	uint64_t interval = (uint64_t)(s->config->interval_s * 1e9), due = now_ns() + interval;
	int err = 0;

	while (!err && !s->ended) {
		err = wait_until(s, due);
		if (!err && !s->ended)
			err = take_sample(s);
		if (now_ns() - s->trim_ns >
		    TRIM_NS) { /* symbol tables, checkpoints: once and big */
			malloc_trim(0);
			s->trim_ns = now_ns();
		}
		while (due <= now_ns())
			due += interval;
	}
	return err;
}

int serve_run(const struct serve_config *c)
{
	struct serve s = {.config = c, .signals = -1};
	int err;

	mallopt(M_ARENA_MAX, 2);
	err = open_parts(&s);
	if (!err) {
		note("serving %s, a sample every %g s; Ctrl-C ends it", http_url(s.http),
		     c->interval_s);
		notify("READY=1");
		err = loop(&s);
	}
	notify("STOPPING=1");
	http_close(s.http);
	follow_free(s.follow);
	session_close(s.session);
	streams_free(s.streams);
	model_free(s.model);
	sample_clear(&s.sample);
	vec_free(&s.sample.processes);
	cleanup_fd(&s.signals);
	return err;
}
