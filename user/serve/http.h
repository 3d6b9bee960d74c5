/* SPDX-License-Identifier: GPL-2.0 */
/* The HTTP server, in a thread of its own: docs/api.md. Reads the model, never writes it. */
#ifndef ICP_SERVE_HTTP_H
#define ICP_SERVE_HTTP_H

#include "serve/model.h"
#include "serve/stream.h"

struct http;

struct http_config {
	const char *listen;	/* ADDRESS:PORT; port 0: any */
	const char *token_file; /* or NULL */
	struct model *model;	/* borrowed, as all of these */
	struct session *session;
	struct streams *streams;
};

/* Refuses: an address that is not this machine's alone without a token, a token that others can read. */
int http_open(const struct http_config *config, struct http **out) _must_use_;
void http_close(struct http *h);

/* "http://127.0.0.1:9477" */
const char *http_url(const struct http *h);
/* To be called now and then: ends connections that take too long. */
void http_tick(struct http *h);

/* listen.c */
/* A listening socket, and its address as text; *@local: only this machine reaches it. */
int listen_open(const char *where, int *fd, char url[96], bool *local) _must_use_;
/* The token in @path, to be freed. */
int token_read(const char *path, char **out) _must_use_;

#endif
