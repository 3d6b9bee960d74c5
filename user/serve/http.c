// SPDX-License-Identifier: GPL-2.0
#include "serve/http.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "serve/mhd.h"
#include "serve/reply.h"

#define CONNECTIONS_MAX 256u
#define CONNECTION_BYTES 16384u /* for a request's head and a block of the answer */
#define IDLE_S 30u
#define REQUEST_NS 15000000000u /* a request's head comes within this */
#define ANSWER_NS 60000000000u	/* an answer is read within this */

/* A connection, so that slow ones can be ended: libmicrohttpd only minds silent ones. */
struct peer {
	int fd;
	enum { PEER_WAITING, PEER_ANSWERED, PEER_STREAM } state;
	uint64_t since_ns;
	struct peer *next, **at;
};

struct http {
	struct http_config config;
	struct MHD_Daemon *daemon;
	struct replies replies;
	char url[96];
	pthread_mutex_t lock;
	struct peer *peers;
};

static struct peer *peer_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
			  enum MHD_ConnectionNotificationCode code)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct http *h = cls;
	struct peer *p = *context;

	pthread_mutex_lock(&h->lock);
	if (code == MHD_CONNECTION_NOTIFY_CLOSED && p) {
		*p->at = p->next;
		if (p->next)
			p->next->at = p->at;
		free(p);
		*context = NULL;
	}
	if (code == MHD_CONNECTION_NOTIFY_STARTED && info) {
		p = calloc(1, sizeof(*p));
		if (p) {
			*p = (struct peer){.fd = info->connect_fd,
					   .since_ns = now_ns(),
					   .next = h->peers,
					   .at = &h->peers};
			if (p->next)
				p->next->at = &p->next;
			h->peers = p;
		}
		*context = p;
	}
	pthread_mutex_unlock(&h->lock);
}

static void mark(struct http *h, struct MHD_Connection *connection, int state)
{
	struct peer *p = peer_of(connection);

	pthread_mutex_lock(&h->lock);
	if (p) {
		p->state = state;
		p->since_ns = now_ns();
	}
	pthread_mutex_unlock(&h->lock);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **context,
			 enum MHD_RequestTerminationCode code)
{
	mark(cls, connection, PEER_WAITING);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *upload,
				  size_t *upload_size, void **context)
{
	struct http *h = cls;
	bool endless = false;
	enum MHD_Result done = reply(&h->replies, connection, method, url, &endless);

	mark(h, connection, endless ? PEER_STREAM : PEER_ANSWERED);
	return done;
}

void http_tick(struct http *h)
{
	uint64_t now = now_ns();

	pthread_mutex_lock(&h->lock);
	for (struct peer *p = h->peers; p; p = p->next)
		if ((p->state == PEER_WAITING && now - p->since_ns > REQUEST_NS) ||
		    (p->state == PEER_ANSWERED && now - p->since_ns > ANSWER_NS))
			shutdown(p->fd, SHUT_RDWR);
	pthread_mutex_unlock(&h->lock);
}

static int start(struct http *h, int fd)
{
	h->daemon = MHD_start_daemon(
		MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
		on_request, h, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
		CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_NOTIFY_COMPLETED,
		on_completed, h, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
	return h->daemon ? 0 : fail(-EIO, "start the HTTP server");
}

static int open_parts(struct http *h)
{
	const struct http_config *c = &h->config;
	_cleanup_fd_ int fd = -1;
	bool local;
	int err = c->token_file ? token_read(c->token_file, &h->replies.token) : 0;

	if (!err)
		err = mhd_load();
	if (!err)
		err = listen_open(c->listen, &fd, h->url, &local);
	if (err)
		return err;
	if (!local && !h->replies.token)
		return refuse(
			-EACCES,
			"--listen %s is reached from other machines: that needs --token-file",
			c->listen);
	if (!local)
		note("%s has no TLS: the token and the data go over the network in the clear; "
		     "put a proxy with TLS in front",
		     h->url);
	err = versions_new(&h->replies.versions);
	if (!err)
		err = start(h, fd);
	if (!err)
		fd = -1; /* the server's now */
	return err;
}

int http_open(const struct http_config *config, struct http **out)
{
	struct http *h = calloc(1, sizeof(*h));
	int err;

	if (!h)
		return fail(-ENOMEM, "HTTP server");
	h->config = *config;
	h->replies.model = config->model;
	h->replies.session = config->session;
	h->replies.streams = config->streams;
	pthread_mutex_init(&h->lock, NULL);
	err = open_parts(h);
	if (err)
		http_close(h);
	else
		*out = h;
	return err;
}

void http_close(struct http *h)
{
	if (!h)
		return;
	if (h->daemon) {
		streams_end(h->config.streams);
		MHD_stop_daemon(h->daemon);
	}
	versions_free(h->replies.versions);
	free(h->replies.token);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

const char *http_url(const struct http *h)
{
	return h->url;
}
