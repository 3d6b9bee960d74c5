// SPDX-License-Identifier: GPL-2.0
#include "serve/reply.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "serve/api.h"
#include "serve/assets.h"
#include "serve/metrics.h"

#define JSON_TYPE "application/json"
#define CSP                                                                                    \
	"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "            \
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
#define PENDING_MAX (16u << 20) /* bytes of answers that nobody has read yet */

struct answer {
	unsigned status;
	const char *type;
	char *text; /* to be freed */
	size_t len;
};

static _Atomic size_t pending;

struct body {
	size_t len;
	char *text;
};

static void free_body(void *cls)
{
	struct body *b = cls;

	pending -= b->len;
	free(b->text);
	free(b);
}

static void answer_json(struct answer *a, json_t *json)
{
	a->type = JSON_TYPE;
	a->text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
	a->len = a->text ? strlen(a->text) : 0;
	json_decref(json);
	if (!a->text)
		a->status = MHD_HTTP_SERVICE_UNAVAILABLE;
}

static void answer_error(struct answer *a, unsigned status, const char *why)
{
	a->status = status;
	answer_json(a, json_pack("{s:s}", "error", why));
}

static void answer_text(struct answer *a, unsigned status, const char *text)
{
	a->status = status;
	a->type = "text/plain; charset=utf-8";
	a->text = strdup(text);
	a->len = strlen(text);
}

/* A number of the query, @otherwise without it; -1: not one in [1, max]. */
static long parameter(struct MHD_Connection *connection, const char *name, long max,
		      long otherwise)
{
	const char *text = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, name);
	char *end;
	long n;

	if (!text)
		return otherwise;
	n = strtol(text, &end, 10);
	return end == text || *end || n < 1 || n > max ? -1 : n;
}

static void ready(struct model *m, struct answer *a)
{
	double age = model_age(m), limit = 3 * m->interval_s;
	char why[96];

	if (m->sample_ns && age <= (limit > 5 ? limit : 5)) {
		answer_text(a, MHD_HTTP_OK, "ok\n");
		return;
	}
	snprintf(why, sizeof(why),
		 m->sample_ns ? "the last sample is %.1f s old\n" : "there is no sample yet\n",
		 age);
	answer_text(a, MHD_HTTP_SERVICE_UNAVAILABLE, why);
}

static void metrics(struct model *m, struct answer *a)
{
	FILE *out = open_memstream(&a->text, &a->len);

	a->type = "text/plain; version=0.0.4; charset=utf-8";
	if (!out) {
		a->status = MHD_HTTP_SERVICE_UNAVAILABLE;
		return;
	}
	metrics_write(m, out);
	fclose(out);
}

static void heatmap(struct model *m, struct proc *p, struct MHD_Connection *connection,
		    struct answer *a)
{
	long rows = parameter(connection, "rows", HEAT_ROWS, 64),
	     columns = parameter(connection, "columns", HEAT_COLUMNS, HEAT_COLUMNS);
	FILE *out;

	if (rows < 0 || columns < 0) {
		answer_error(a, MHD_HTTP_BAD_REQUEST, "rows: 1 to 256, columns: 1 to 240");
		return;
	}
	out = open_memstream(&a->text, &a->len);
	a->type = JSON_TYPE;
	if (!out) {
		a->status = MHD_HTTP_SERVICE_UNAVAILABLE;
		return;
	}
	api_heatmap(m, p, (size_t)rows, (size_t)columns, out);
	fclose(out);
}

/* What follows /api/processes/ */
static void one_process(struct model *m, const char *rest, struct MHD_Connection *connection,
			struct answer *a)
{
	long samples = parameter(connection, "samples", HISTORY, HISTORY);
	char *end;
	long pid = strtol(rest, &end, 10);
	struct proc *p =
		end > rest && pid > 0 && pid <= INT32_MAX ? model_proc(m, (pid_t)pid) : NULL;

	if (!p)
		answer_error(a, MHD_HTTP_NOT_FOUND, "this process is not followed");
	else if (samples < 0)
		answer_error(a, MHD_HTTP_BAD_REQUEST, "samples: 1 to 600");
	else if (!*end)
		answer_json(a, api_process(m, p, (size_t)samples));
	else if (!strcmp(end, "/heatmap"))
		heatmap(m, p, connection, a);
	else if (!strcmp(end, "/flamegraph"))
		answer_json(a, api_flamegraph(m, p));
	else
		answer_error(a, MHD_HTTP_NOT_FOUND, "there is no such path: docs/api.md");
}

/* With the lock held. */
static void from_model(struct model *m, const char *url, struct MHD_Connection *connection,
		       struct answer *a)
{
	static const char below[] = "/api/processes/";

	if (!strcmp(url, "/metrics"))
		metrics(m, a);
	else if (!strcmp(url, "/-/ready"))
		ready(m, a);
	else if (!strcmp(url, "/api/status"))
		answer_json(a, api_status(m));
	else if (!strcmp(url, "/api/processes"))
		answer_json(a, api_processes(m));
	else if (!strcmp(url, "/api/segments"))
		answer_json(a, api_segments(m));
	else if (!strcmp(url, "/api/forecast"))
		answer_json(a, api_forecast(m));
	else if (!strncmp(url, below, sizeof(below) - 1))
		one_process(m, url + sizeof(below) - 1, connection, a);
	else
		answer_error(a, MHD_HTTP_NOT_FOUND, "there is no such path: docs/api.md");
}

static void make_answer(struct replies *r, const char *url, struct MHD_Connection *connection,
			struct answer *a)
{
	long limit;

	if (!strcmp(url, "/-/healthy")) {
		answer_text(a, MHD_HTTP_OK, "ok\n");
		return;
	}
	if (!strcmp(url, "/api/versions")) {
		limit = parameter(connection, "limit", 100000, 500);
		if (limit < 0)
			answer_error(a, MHD_HTTP_BAD_REQUEST, "limit: 1 to 100000");
		else
			answer_json(a, versions_json(r->versions, r->model, r->session,
						     (size_t)limit));
		return;
	}
	pthread_mutex_lock(&r->model->lock);
	from_model(r->model, url, connection, a);
	pthread_mutex_unlock(&r->model->lock);
}

/* ---- who may ask ---- */

/* Takes as long whatever is wrong. */
static bool same_text(const char *a, const char *b)
{
	size_t len = strlen(b);
	unsigned char differ = strlen(a) != len;

	for (size_t i = 0; i < len; i++)
		differ |= (unsigned char)(a[i % (strlen(a) + 1)] ^ b[i]);
	return !differ;
}

static bool has_token(const struct replies *r, struct MHD_Connection *connection)
{
	const char *header =
		MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Authorization");

	return header && !strncasecmp(header, "Bearer ", 7) && same_text(header + 7, r->token);
}

/* A page of somebody else's, whose name leads here (DNS rebinding), has a name in Host. */
static bool host_is_address(struct MHD_Connection *connection)
{
	const char *header = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Host");
	unsigned char addr[16];
	char host[64];
	size_t len;

	if (!header || strlen(header) >= sizeof(host))
		return !header; /* HTTP/1.0: no browser */
	snprintf(host, sizeof(host), "%s", header);
	if (host[0] == '[') {
		host[strcspn(host, "]")] = 0;
		return inet_pton(AF_INET6, host + 1, addr) == 1;
	}
	len = strcspn(host, ":");
	host[len] = 0;
	return !strcasecmp(host, "localhost") || inet_pton(AF_INET, host, addr) == 1;
}

/* 0, or the status of the refusal. */
static unsigned check(const struct replies *r, struct MHD_Connection *connection,
		      const char *method, const char *url, bool page, struct answer *a)
{
	if (strcmp(method, "GET") && strcmp(method, "HEAD"))
		answer_error(a, MHD_HTTP_METHOD_NOT_ALLOWED, "read-only: GET and HEAD");
	else if (!r->token && !host_is_address(connection))
		answer_error(a, MHD_HTTP_FORBIDDEN,
			     "Host must be an address or localhost, unless there is a token");
	else if (r->token && !page && strncmp(url, "/-/", 3) && !has_token(r, connection))
		answer_error(a, MHD_HTTP_UNAUTHORIZED,
			     "this needs the token: Authorization: Bearer TOKEN");
	return a->status == MHD_HTTP_OK ? 0 : a->status;
}

/* ---- sending ---- */

static enum MHD_Result send_it(struct MHD_Connection *connection, unsigned status,
			       const char *type, const char *cache,
			       struct MHD_Response *response)
{
	enum MHD_Result done;

	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, "Content-Type", type);
	MHD_add_response_header(response, "Cache-Control", cache);
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
	MHD_add_response_header(response, "Content-Security-Policy", CSP);
	if (status == MHD_HTTP_UNAUTHORIZED)
		MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED) {
		MHD_add_response_header(response, "Allow", "GET, HEAD");
		MHD_add_response_header(response, "Connection", "close");
	}
	done = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return done;
}

static bool header_has(struct MHD_Connection *connection, const char *header, const char *what)
{
	const char *value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, header);

	return value && strstr(value, what);
}

static enum MHD_Result send_asset(struct MHD_Connection *connection, const struct asset *file)
{
	bool known = header_has(connection, "If-None-Match", file->etag);
	bool packed = !known && header_has(connection, "Accept-Encoding", "gzip");
	const unsigned char *data = packed ? file->gz : file->data;
	size_t len = packed ? file->gz_len : file->len;
	struct MHD_Response *response = MHD_create_response_from_buffer(
		known ? 0 : len, (void *)data, MHD_RESPMEM_PERSISTENT);

	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, "ETag", file->etag);
	MHD_add_response_header(response, "Vary", "Accept-Encoding");
	if (packed)
		MHD_add_response_header(response, "Content-Encoding", "gzip");
	return send_it(connection, known ? MHD_HTTP_NOT_MODIFIED : MHD_HTTP_OK, file->type,
		       "no-cache", response);
}

static enum MHD_Result send_answer(struct MHD_Connection *connection, struct answer *a)
{
	static char busy[] = "{\"error\":\"too many answers are being read: try again\"}";
	struct body *body = calloc(1, sizeof(*body));
	struct MHD_Response *response;

	if (!body || !a->text || pending + a->len > PENDING_MAX) {
		free(body);
		free(a->text);
		return send_it(connection, MHD_HTTP_SERVICE_UNAVAILABLE, JSON_TYPE, "no-store",
			       MHD_create_response_from_buffer(sizeof(busy) - 1, busy,
							       MHD_RESPMEM_PERSISTENT));
	}
	*body = (struct body){a->len, a->text};
	pending += a->len;
	response = MHD_create_response_from_buffer_with_free_callback_cls(a->len, a->text,
									  free_body, body);
	if (!response)
		free_body(body);
	return send_it(connection, a->status, a->type, "no-store", response);
}

static enum MHD_Result send_events(struct replies *r, struct MHD_Connection *connection,
				   bool *endless)
{
	struct MHD_Response *response;
	struct answer a = {0};
	json_t *hello;

	pthread_mutex_lock(&r->model->lock);
	hello = api_status(r->model);
	pthread_mutex_unlock(&r->model->lock);
	response = streams_response(r->streams, connection, hello);
	*endless = response != NULL;
	if (response)
		return send_it(connection, MHD_HTTP_OK, "text/event-stream", "no-store",
			       response);
	answer_error(&a, MHD_HTTP_SERVICE_UNAVAILABLE, "too many event streams");
	return send_answer(connection, &a);
}

enum MHD_Result reply(struct replies *r, struct MHD_Connection *connection, const char *method,
		      const char *url, bool *endless)
{
	struct answer a = {.status = MHD_HTTP_OK};
	const struct asset *file = asset_find(url);

	if (check(r, connection, method, url, file != NULL, &a))
		return send_answer(connection, &a);
	if (file)
		return send_asset(connection, file);
	if (!strcmp(url, "/api/events") && !strcmp(method, "GET"))
		return send_events(r, connection, endless);
	if (!strcmp(url, "/api/events"))
		answer_text(&a, MHD_HTTP_OK, "");
	else
		make_answer(r, url, connection, &a);
	return send_answer(connection, &a);
}
