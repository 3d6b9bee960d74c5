// SPDX-License-Identifier: GPL-2.0
/*
 * The control socket of a session: /run/icp-bpf/PID.sock, mode 0600 in a directory of mode 0700. One JSON object a line, one request
 * a connection. Only root and the session's own user are heard. Beside it PID.pids says whom the session follows: to find the one that
 * is meant nobody has to be asked, who may be busy for minutes, or be asking us.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/io.h"
#include "base/log.h"
#include "session/checkpoint.h"
#include "session/control_priv.h"
#include "session/result.h"

#define REQUEST_MAX 65536
#define ANSWER_MAX (4u << 20)
#define REQUEST_SECONDS 2

struct control {
	int fd;
	struct sockaddr_un addr;
	pid_list published; /* what the file says */
};

static struct sockaddr_un address_of(const char *name)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	snprintf(addr.sun_path, sizeof(addr.sun_path), RUN_DIR "/%s", name);
	return addr;
}

static void path_of_pids(char path[64], pid_t session, const char *suffix)
{
	snprintf(path, 64, RUN_DIR "/%d.pids%s", session, suffix);
}

/* Connected, or -1; a socket that nobody listens on any more is removed. */
static int connect_to(const char *name)
{
	struct sockaddr_un addr = address_of(name);
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char pids[64];

	if (fd < 0)
		return -1;
	if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return take_fd(&fd);
	if (errno == ECONNREFUSED) {
		unlink(addr.sun_path);
		path_of_pids(pids, (pid_t)atoi(name), "");
		unlink(pids);
	}
	return -1;
}

static bool is_published(const struct session *s, const struct control *c)
{
	size_t n = 0;

	vec_each (p, &s->processes) {
		if ((*p)->ended)
			continue;
		if (n == c->published.n || c->published.data[n] != (*p)->target->pid)
			return false;
		n++;
	}
	return n == c->published.n;
}

/* Tell whom we follow, whole or as it was before. */
static int publish(const struct session *s, struct control *c)
{
	char path[64], next[64];
	FILE *file;

	if (is_published(s, c))
		return 0;
	path_of_pids(path, getpid(), "");
	path_of_pids(next, getpid(), ".new");
	file = fopen(next, "we");
	if (!file)
		return fail(-errno, "write %s", next);
	fchmod(fileno(file), 0600);
	c->published.n = 0;
	vec_each (p, &s->processes) {
		pid_t *slot = (*p)->ended ? NULL : vec_push(&c->published);

		if (slot)
			fprintf(file, "%d\n", *slot = (*p)->target->pid);
	}
	if (fclose(file) || rename(next, path)) {
		int err = -errno;

		unlink(next);
		c->published.n = 0;
		return fail(err, "write %s", path);
	}
	return 0;
}

int control_open(struct session *s)
{
	struct epoll_event event = {.events = EPOLLIN};
	struct control *c;
	char name[32], pids[64];
	int err;

	if (mkdir(RUN_DIR, 0700) && errno != EEXIST)
		return -errno;
	c = calloc(1, sizeof(*c));
	if (!c)
		return fail(-ENOMEM, "control socket");
	snprintf(name, sizeof(name), "%d.sock", getpid());
	c->addr = address_of(name);
	unlink(c->addr.sun_path); /* our own pid: a session of that pid is dead */
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	event.data.fd = c->fd;
	if (c->fd < 0 || bind(c->fd, (struct sockaddr *)&c->addr, sizeof(c->addr)) ||
	    chmod(c->addr.sun_path, 0600) || listen(c->fd, 16) ||
	    epoll_ctl(s->epoll, EPOLL_CTL_ADD, c->fd, &event)) {
		err = -errno;
		cleanup_fd(&c->fd);
		free(c);
		return err == -EACCES || err == -EPERM
			       ? -EACCES
			       : fail(err, "listen on " RUN_DIR "/%s", name);
	}
	s->control = c;
	path_of_pids(pids, getpid(), "");
	err = warden_remove_later(s->warden, c->addr.sun_path);
	if (!err)
		err = warden_remove_later(s->warden, pids);
	return err ? err : publish(s, c);
}

void control_close(struct session *s)
{
	char pids[64];

	if (!s->control)
		return;
	path_of_pids(pids, getpid(), "");
	unlink(s->control->addr.sun_path);
	unlink(pids);
	cleanup_fd(&s->control->fd);
	vec_free(&s->control->published);
	free(s->control);
	s->control = NULL;
}

/* ---- one line of JSON each way ---- */

static int send_json(int fd, json_t *object)
{
	_cleanup_free_ char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	size_t len;

	json_decref(object);
	if (!text)
		return -ENOMEM;
	len = strlen(text);
	text[len] = '\n'; /* in place of the NUL */
	for (size_t at = 0; at <= len;) {
		ssize_t put = send(fd, text + at, len + 1 - at, MSG_NOSIGNAL);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		at += (size_t)put;
	}
	return 0;
}

static json_t *receive_json(int fd, size_t max)
{
	_cleanup_free_ char *text = malloc(max);
	size_t used = 0;

	while (text && used < max) {
		ssize_t got = recv(fd, text + used, max - used, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return NULL;
		used += (size_t)got;
		if (text[used - 1] == '\n')
			return json_loadb(text, used, 0, NULL);
	}
	return NULL;
}

static json_t *failure(int err)
{
	return json_pack("{s:b, s:i, s:s}", "ok", 0, "errno", -err, "error", err_text(err));
}

static json_t *do_checkpoint(struct session *s, json_t *request, pid_t asker)
{
	struct checkpoint_request r = {.asker = asker};
	struct dump_result result;
	int full, no_restart, paranoid, tcp_close, codec, how, deadline, err, peers = 0,
									      detached = 0;
	json_t *roots, *each;
	pid_t pids[256];
	size_t i;

	if (json_unpack(request,
			"{s:s, s:s, s:b, s:b, s:b, s:b, s:i, s:i, s:i, s:o, s?:i, s?:b}", "dir",
			&r.dir, "label", &r.label, "full", &full, "no_restart", &no_restart,
			"paranoid", &paranoid, "tcp_close", &tcp_close, "codec", &codec, "how",
			&how, "deadline_ms", &deadline, "roots", &roots, "shm_peers", &peers,
			"shm_detached", &detached) ||
	    r.dir[0] != '/' || json_array_size(roots) > 256)
		return failure(refuse(-EINVAL, "not a request for a checkpoint"));
	r.full = full;
	r.no_restart = no_restart;
	r.paranoid = paranoid;
	r.tcp_close = tcp_close;
	r.shm_peers = (enum shm_peers)peers;
	r.shm_detached = detached;
	r.codec = (enum icp_codec)codec;
	r.how = (enum dump_release_how)how;
	r.deadline_ms = (unsigned)deadline;
	json_array_foreach(roots, i, each) pids[i] = (pid_t)json_integer_value(each);
	r.roots = pids;
	r.n_roots = json_array_size(roots);
	err = session_checkpoint(s, &r, &result);
	return err ? failure(err)
		   : json_pack("{s:b, s:o}", "ok", 1, "result", result_to_json(&result));
}

static json_t *rates_json(const struct session *s)
{
	json_t *list = json_array();

	vec_each (r, &s->rates)
		json_array_append_new(list, json_pack("{s:i, s:f}", "id", r->shmid,
						      "bytes_per_s", r->bytes_per_s));
	return json_pack("{s:b, s:o}", "ok", 1, "segments", list);
}

static json_t *answer(struct session *s, json_t *request, pid_t asker)
{
	const char *op = json_string_value(json_object_get(request, "op"));

	if (op && !strcmp(op, "rates"))
		return rates_json(s);
	if (op && !strcmp(op, "look"))
		return control_answer_look(s, request);
	if (op && !strcmp(op, "checkpoint"))
		return do_checkpoint(s, request, asker);
	if (op && !strcmp(op, "end") && !s->config.background)
		return failure(refuse(
			-EPERM, "session %d runs in the foreground: end it there (Ctrl-C)",
			getpid()));
	if (op && !strcmp(op, "end")) {
		s->end_asked = true;
		return json_pack("{s:b}", "ok", 1);
	}
	return failure(refuse(-EINVAL, "no such request"));
}

static bool trusted(int fd, pid_t *asker)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) ||
	    (peer.uid && peer.uid != geteuid()))
		return false;
	*asker = peer.pid;
	return true;
}

int control_serve(struct session *s)
{
	struct timeval limit = {.tv_sec = REQUEST_SECONDS};
	int err = s->control ? publish(s, s->control) : 0;

	if (err)
		return err;
	while (s->control) {
		_cleanup_fd_ int fd = accept4(s->control->fd, NULL, NULL, SOCK_CLOEXEC);
		json_t *request;
		pid_t asker;

		if (fd < 0)
			return 0;
		if (!trusted(fd, &asker))
			continue;
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
		request = receive_json(fd, REQUEST_MAX);
		ignore_failure(send_json(fd, answer(s, request, asker)));
		err_clear();
		json_decref(request);
	}
	return 0;
}

/* ---- the other side ---- */

json_t *control_ask(const char *name, json_t *request, unsigned ms)
{
	_cleanup_fd_ int fd = connect_to(name);
	struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	if (fd < 0) {
		json_decref(request);
		return NULL;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return send_json(fd, request) ? NULL : receive_json(fd, ANSWER_MAX);
}

static bool follows(pid_t session, const pid_t *pids, size_t n)
{
	_cleanup_free_ char *text = NULL;
	char path[64];
	bool found = false;

	path_of_pids(path, session, "");
	if (io_read_file(AT_FDCWD, path, &text, NULL)) /* ended, or another user's */
		return false;
	for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n')
		for (size_t i = 0; i < n; i++)
			found |= atoi(line) == pids[i];
	return found;
}

bool control_is_socket(const char *name)
{
	size_t len = strlen(name);

	return len >= 6 && len <= 60 && !strcmp(name + len - 5, ".sock");
}

/* The socket of the session that follows one of @pids (it takes the others in). */
static int find_session(const pid_t *pids, size_t n, char name[64])
{
	_cleanup_dir_ DIR *dir = opendir(RUN_DIR);
	int fd;

	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		if (!control_is_socket(entry->d_name) ||
		    !follows((pid_t)atoi(entry->d_name), pids, n))
			continue;
		fd = connect_to(entry->d_name);
		if (fd < 0) /* killed */
			continue;
		close(fd);
		snprintf(name, 64, "%s", entry->d_name);
		return 0;
	}
	return -ENOENT;
}

int control_checkpoint(const struct checkpoint_request *r, struct dump_result *out)
{
	json_t *roots, *answer_json;
	char name[64];
	int err = find_session(r->roots, r->n_roots, name);

	if (err)
		return err;
	roots = json_array();
	for (size_t i = 0; i < r->n_roots; i++)
		json_array_append_new(roots, json_integer(r->roots[i]));
	answer_json = control_ask(
		name,
		json_pack("{s:s, s:s, s:s, s:b, s:b, s:b, s:b, s:i, s:i, s:i, s:o, s:i, s:b}",
			  "op", "checkpoint", "dir", r->dir, "label", r->label ? r->label : "",
			  "full", r->full, "no_restart", r->no_restart, "paranoid", r->paranoid,
			  "tcp_close", r->tcp_close, "codec", (int)r->codec, "how", (int)r->how,
			  "deadline_ms", (int)r->deadline_ms, "roots", roots, "shm_peers",
			  (int)r->shm_peers, "shm_detached", r->shm_detached),
		0);
	if (!answer_json)
		return refuse(-EPIPE, "the session %.*s gave no answer: it may have ended",
			      (int)strcspn(name, "."), name);
	if (json_is_true(json_object_get(answer_json, "ok"))) {
		err = result_from_json(json_object_get(answer_json, "result"), out);
	} else {
		const char *text = json_string_value(json_object_get(answer_json, "error"));
		int code = (int)json_integer_value(json_object_get(answer_json, "errno"));

		err = refuse(code > 0 ? -code : -EPROTO, "%s",
			     text ? text : "the session's answer makes no sense");
	}
	json_decref(answer_json);
	return err;
}

int control_end(pid_t pid)
{
	char name[64];
	json_t *said;
	int err = find_session(&pid, 1, name);

	if (err)
		return err;
	said = control_ask(name, json_pack("{s:s}", "op", "end"), 0);
	if (said && !json_is_true(json_object_get(said, "ok")))
		err = refuse(-EPERM, "%s", json_string_value(json_object_get(said, "error")));
	json_decref(said);
	return err;
}

pid_t control_owner(pid_t pid)
{
	char name[64];

	return find_session(&pid, 1, name) ? 0 : (pid_t)atoi(name);
}

static int add_rates(const char *name, segment_rates *out)
{
	json_t *said = control_ask(name, json_pack("{s:s}", "op", "rates"), 1000), *each;
	int err = 0;
	size_t i;

	json_array_foreach(json_object_get(said, "segments"), i, each)
	{
		struct segment_rate *r = vec_push(out);

		if (!r) {
			err = fail(-ENOMEM, "rates of segments");
			break;
		}
		r->shmid = (int32_t)json_integer_value(json_object_get(each, "id"));
		r->bytes_per_s = json_number_value(json_object_get(each, "bytes_per_s"));
		r->session = (pid_t)atoi(name);
	}
	json_decref(said);
	return err;
}

int control_rates(segment_rates *out)
{
	_cleanup_dir_ DIR *dir = opendir(RUN_DIR);
	int err = 0;

	for (struct dirent *entry; dir && !err && (entry = readdir(dir));)
		if (control_is_socket(entry->d_name))
			err = add_rates(entry->d_name, out);
	return err;
}
