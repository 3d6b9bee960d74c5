// SPDX-License-Identifier: GPL-2.0
#include "lib/server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

char *server_said(struct server *s)
{
	return run_text(s->r.err);
}

void server_start_as(struct server *s, const struct run_how *how, const char *const *argv)
{
	double end = seconds_now() + 60;
	static const char begin[] = "serving http://127.0.0.1:";

	run_start(&s->r, how, argv);
	s->port = 0;
	while (!s->port) {
		char *said = server_said(s), *at = strstr(said, begin);

		if (at && strchr(at, ','))
			s->port = atoi(at + sizeof(begin) - 1);
		if (seconds_now() > end || waitpid(s->r.pid, &s->r.status, WNOHANG))
			fail_msg("icp-bpf serve did not start: %s", said);
		free(said);
		nap_ms(20);
	}
}

void server_start(struct server *s, const char *first, ...)
{
	const char *argv[32] = {built("icp-bpf"), "serve", "--listen", "127.0.0.1:0", first};
	int n = 5;
	va_list args;

	va_start(args, first);
	while (n < 31 && (argv[n] = va_arg(args, const char *)))
		n++;
	va_end(args);
	argv[n] = NULL;
	server_start_as(s, NULL, argv);
}

void server_stop(struct server *s)
{
	kill(s->r.pid, SIGTERM);
	run_wait(&s->r, 30);
	assert_true(WIFEXITED(s->r.status));
	assert_int_equal(WEXITSTATUS(s->r.status), 0);
	run_close(&s->r);
	s->port = 0;
}

int http_connect(int port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_port = htons((uint16_t)port),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval limit = {.tv_sec = 60};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		close(fd);
		return -1;
	}
	return fd;
}

static char *read_to_end(int fd)
{
	size_t len = 0, cap = 65536;
	char *text = malloc(cap);
	ssize_t got;

	while ((got = recv(fd, text + len, cap - len - 1, 0)) > 0) {
		len += (size_t)got;
		if (cap - len < 4096)
			text = realloc(text, cap *= 2);
	}
	text[len] = 0;
	return text;
}

int http_get(int port, const char *path, const char *headers, char **body)
{
	int fd = http_connect(port), status = 0;
	char *text, *end;

	if (fd < 0)
		return 0;
	dprintf(fd, "GET %s HTTP/1.0\r\nHost: 127.0.0.1:%d\r\n%s\r\n", path, port,
		headers ? headers : "");
	text = read_to_end(fd);
	close(fd);
	if (strncmp(text, "HTTP/1.", 7))
		text[0] = 0;
	else
		status = atoi(text + 9);
	end = strstr(text, "\r\n\r\n");
	if (body)
		*body = strdup(end ? end + 4 : "");
	free(text);
	return status;
}

json_t *server_json(const struct server *s, const char *path)
{
	json_error_t error;
	char *body;
	json_t *json;
	int status = http_get(s->port, path, NULL, &body);

	if (status != 200)
		fail_msg("%s: status %d: %s", path, status, body);
	json = json_loads(body, 0, &error);
	if (!json)
		fail_msg("%s: not JSON: %s", path, error.text);
	free(body);
	return json;
}

double server_metric(const struct server *s, const char *sample)
{
	size_t len = strlen(sample);
	double value = -1;
	char *body;

	assert_int_equal(http_get(s->port, "/metrics", NULL, &body), 200);
	for (char *line = body; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, sample, len) && line[len] == ' ')
			value = strtod(line + len, NULL);
	}
	free(body);
	return value;
}

static long sample_index(const struct server *s)
{
	json_t *status = server_json(s, "/api/status");
	long index = (long)json_integer_value(json_object_get(status, "index"));

	json_decref(status);
	return index;
}

/* The next one may have begun already. */
void server_catch_up(const struct server *s)
{
	long now = sample_index(s);
	double end = seconds_now() + 60;

	while (sample_index(s) < now + 2) {
		if (seconds_now() > end)
			fail_msg("no new sample");
		nap_ms(20);
	}
}

void server_wait_pid(const struct server *s, pid_t pid, bool there)
{
	double end = seconds_now() + 60;
	char path[64];

	snprintf(path, sizeof(path), "/api/processes/%d", pid);
	while ((http_get(s->port, path, NULL, NULL) == 200) != there) {
		if (seconds_now() > end)
			fail_msg("pid %d is still %s", pid, there ? "not followed" : "shown");
		nap_ms(50);
	}
}
