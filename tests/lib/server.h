/* SPDX-License-Identifier: GPL-2.0 */
/* A run of `icp-bpf serve`, and a small HTTP client. */
#ifndef ICP_TESTS_SERVER_H
#define ICP_TESTS_SERVER_H

#include <jansson.h>

#include "lib/robust_procs.h"

struct server {
	struct run r;
	int port;
};

/* serve --listen 127.0.0.1:0 with these arguments; returns when it listens. NULL-terminated. */
void server_start(struct server *s, const char *first, ...) __attribute__((sentinel));
/* The same, started in another way. */
void server_start_as(struct server *s, const struct run_how *how, const char *const *argv);
/* SIGTERM, and exit status 0. */
void server_stop(struct server *s);
/* What it has said on stderr; to be freed. */
char *server_said(struct server *s);

/* Connected, with a time limit for reading. */
int http_connect(int port);
/* GET: the status; *@body (to be freed) unless NULL. @headers: "Name: value\r\n"... or NULL. 0: no answer. */
int http_get(int port, const char *path, const char *headers, char **body);
/* 200 and JSON, else the test fails. The caller frees. */
json_t *server_json(const struct server *s, const char *path);
/* The value of the sample `name` or `name{labels}` of /metrics, as it is written there; -1: there is none. */
double server_metric(const struct server *s, const char *sample);
/* Wait until everything done before now is in a sample. */
void server_catch_up(const struct server *s);
/* Wait until /api/processes has @pid, or (false) has it no more. */
void server_wait_pid(const struct server *s, pid_t pid, bool there);

#endif
