// SPDX-License-Identifier: GPL-2.0
/* Who asks `icp-bpf serve` in bad ways gets a short answer or none; who asks in good ways is answered all the same. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/kid.h"
#include "lib/scratch.h"
#include "lib/server.h"
#include "lib/tracer.h"

#define CROWD 200
#define STREAMS 64 /* user/serve/stream.h */

static struct server server;
static char token_file[SCRATCH_MAX];
static int crowd[CROWD];
static size_t crowded;

static void disperse(void)
{
	while (crowded)
		close(crowd[--crowded]);
}

static int clean(void **state)
{
	disperse();
	if (server.r.pid)
		run_close(&server.r);
	memset(&server, 0, sizeof(server));
	kids_end();
	if (token_file[0])
		unlink(token_file);
	token_file[0] = 0;
	return 0;
}

static pid_t start_with(const char *more, const char *value)
{
	struct kid *kid = kid_start();

	server_start(&server, "--pid", decimal(kid->pid), "--interval", "200ms", more, value,
		     NULL);
	server_wait_pid(&server, kid->pid, true);
	return kid->pid;
}

/* Send @text; the status, 0 when the connection is just ended, -1 when nothing comes. Reads to the end. */
static int say(const char *text, size_t len, char *answer, size_t room)
{
	int fd = http_connect(server.port);
	size_t have = 0;
	ssize_t got;

	assert_true(fd >= 0);
	for (size_t at = 0; at < len;) {
		ssize_t put = send(fd, text + at, len - at, MSG_NOSIGNAL);

		if (put < 0)
			break;
		at += (size_t)put;
	}
	shutdown(fd, SHUT_WR);
	while (have + 1 < room && (got = recv(fd, answer + have, room - have - 1, 0)) > 0)
		have += (size_t)got;
	answer[have] = 0;
	close(fd);
	return !strncmp(answer, "HTTP/1.", 7) ? atoi(answer + 9) : 0;
}

static int status_of(const char *text)
{
	char answer[8192];

	return say(text, strlen(text), answer, sizeof(answer));
}

/* It answers, samples come, and it is as small as before. */
static void assert_well(long rss_kb)
{
	long now;

	assert_int_equal(http_get(server.port, "/-/healthy", NULL, NULL), 200);
	assert_int_equal(http_get(server.port, "/-/ready", NULL, NULL), 200);
	server_catch_up(&server);
	now = status_number(server.r.pid, "VmRSS");
	if (now > rss_kb + 16384 + KEPT_KB)
		fail_msg("memory went from %ld to %ld KiB", rss_kb, now);
}

#define HOST "Host: 127.0.0.1\r\n"

static void answers(void **state)
{
	pid_t pid = start_with(NULL, NULL);
	char path[96];
	static const struct {
		const char *request;
		int status;
	} cases[] = {
		{"GET /api/status HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", 200},
		{"HEAD /metrics HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", 200},
		{"HEAD /api/events HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", 200},
		{"POST /api/status HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc", 405},
		{"DELETE /api/processes/1 HTTP/1.1\r\n" HOST "\r\n", 405},
		{"PUT / HTTP/1.1\r\n" HOST
		 "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		 405},
		{"GET /api/status HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403},
		{"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1.evil.example:80\r\n\r\n", 403},
		{"GET / HTTP/1.1\r\nHost: localhost:9477\r\nConnection: close\r\n\r\n", 200},
		{"GET / HTTP/1.1\r\nHost: [::1]:9477\r\nConnection: close\r\n\r\n", 200},
		{"GET /no/such HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", 404},
		{"GET /api/processes/999999999999999999999 HTTP/1.1\r\n" HOST
		 "Connection: close\r\n\r\n",
		 404},
		{"GET /api/processes/-1/heatmap HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n",
		 404},
		{"GET /api/processes/../../etc/passwd HTTP/1.1\r\n" HOST
		 "Connection: close\r\n\r\n",
		 404},
		{"GET /api/versions?limit=-3 HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n",
		 400},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int status = status_of(cases[i].request);

		if (status != cases[i].status)
			fail_msg("status %d, not %d: %s", status, cases[i].status,
				 cases[i].request);
	}
	snprintf(path, sizeof(path), "/api/processes/%d/heatmap?rows=0", pid);
	assert_int_equal(http_get(server.port, path, NULL, NULL), 400);
	snprintf(path, sizeof(path), "/api/processes/%d/heatmap?columns=nine", pid);
	assert_int_equal(http_get(server.port, path, NULL, NULL), 400);
	server_stop(&server);
}

/* What comes is an error or an end, and never a 200. */
static void nonsense(void **state)
{
	static char big[1 << 20], answer[65536];
	unsigned seed = 7;
	long rss;

	start_with(NULL, NULL);
	server_catch_up(&server);
	rss = status_number(server.r.pid, "VmRSS");
	memset(big, 'a', sizeof(big));
	memcpy(big, "GET /", 5); /* a line without an end */
	assert_int_not_equal(say(big, sizeof(big), answer, sizeof(answer)), 200);
	memcpy(big, "GET / HTTP/1.1\r\nA: ", 19); /* a header without one */
	assert_int_not_equal(say(big, sizeof(big), answer, sizeof(answer)), 200);
	for (size_t i = 16; i + 6 < sizeof(big); i += 6) /* headers without one */
		memcpy(big + i, "A: b\r\n", 6);
	assert_int_not_equal(say(big, sizeof(big), answer, sizeof(answer)), 200);
	for (int i = 0; i < 50; i++) {
		for (size_t k = 0; k < 4096; k++)
			big[k] = (char)rand_r(&seed);
		assert_int_not_equal(say(big, 4096, answer, sizeof(answer)), 200);
	}
	assert_int_not_equal(status_of("\r\n\r\n\r\n"), 200);
	assert_int_not_equal(status_of("GET\r\n\r\n"), 200);
	assert_int_not_equal(status_of("GET / HTTP/9.9\r\n\r\n"), 200);
	assert_int_not_equal(status_of("GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n"), 200);
	assert_int_not_equal(status_of("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 200);
	assert_well(rss);
	server_stop(&server);
}

static void gather(const char *each)
{
	while (crowded < CROWD) {
		int fd = http_connect(server.port);

		assert_true(fd >= 0);
		crowd[crowded++] = fd;
		assert_int_equal(send(fd, each, strlen(each), MSG_NOSIGNAL), strlen(each));
	}
}

/* 200 that say half of a request and wait. Others are answered, and after some seconds they are sent away. */
static void slow_crowd(void **state)
{
	double end = seconds_now() + 90;
	size_t gone = 0;
	long rss;

	start_with(NULL, NULL);
	server_catch_up(&server);
	rss = status_number(server.r.pid, "VmRSS");
	gather("GET /api/status HTTP/1.1\r\nHost: 127");
	assert_well(rss);
	while (gone < CROWD) {
		gone = 0;
		for (size_t i = 0; i < crowded; i++) {
			char byte[512];
			struct pollfd p = {.fd = crowd[i], .events = POLLIN};

			/* a byte now and then does not help */
			(void)!send(crowd[i], ".", 1, MSG_NOSIGNAL);
			gone += poll(&p, 1, 0) > 0 && recv(crowd[i], byte, sizeof(byte),
							   MSG_DONTWAIT | MSG_PEEK) == 0;
			gone += (p.revents & (POLLERR | POLLHUP)) && !(p.revents & POLLIN);
		}
		if (seconds_now() > end)
			fail_msg("%zu of %d were sent away", gone, CROWD);
		nap_ms(300);
	}
	assert_well(rss);
	server_stop(&server);
}

/* 200 good requests at once, from people who don't read the answers. */
static void crowd_that_does_not_read(void **state)
{
	pid_t pid = start_with(NULL, NULL);
	char request[160];
	long rss;

	server_catch_up(&server);
	rss = status_number(server.r.pid, "VmRSS");
	snprintf(request, sizeof(request),
		 "GET /api/processes/%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", pid);
	gather(request);
	for (int again = 0; again < 20; again++)
		for (size_t i = 0; i < crowded; i++)
			(void)!send(crowd[i], request, strlen(request),
				    MSG_NOSIGNAL | MSG_DONTWAIT);
	assert_well(rss);
	disperse();
	assert_well(rss);
	server_stop(&server);
}

static bool wait_for(int fd, const char *what)
{
	double end = seconds_now() + 30;
	static char text[1 << 18];
	size_t have = 0;

	while (seconds_now() < end && have + 4096 < sizeof(text)) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t got;

		if (poll(&p, 1, 100) <= 0)
			continue;
		got = recv(fd, text + have, 4096, 0);
		if (got <= 0)
			return false;
		have += (size_t)got;
		text[have] = 0;
		if (strstr(text, what))
			return true;
	}
	return false;
}

/* Streams: each sample comes, as many as may, also to those who read beside those who don't. */
static void streams(void **state)
{
	static const char request[] = "GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
	long rss;

	start_with(NULL, NULL);
	server_catch_up(&server);
	rss = status_number(server.r.pid, "VmRSS");
	while (crowded < STREAMS) {
		crowd[crowded] = http_connect(server.port);
		assert_true(crowd[crowded] >= 0);
		assert_int_equal(send(crowd[crowded++], request, strlen(request), 0),
				 strlen(request));
	}
	assert_true(wait_for(crowd[STREAMS - 1], "event: hello\n"));
	assert_int_equal(http_get(server.port, "/api/events", NULL, NULL), 503);
	assert_true(wait_for(crowd[0], "event: sample\n"));
	for (int i = 0; i < 10; i++)
		server_catch_up(&server);
	assert_true(wait_for(crowd[0], "event: sample\n"));
	assert_well(rss);
	disperse();
	/* there is room again, once it has noticed */
	for (double end = seconds_now() + 60; crowded == 0;) {
		int fd = http_connect(server.port);

		(void)!send(fd, request, strlen(request), 0);
		if (wait_for(fd, "event: sample\n"))
			crowd[crowded++] = fd;
		else
			close(fd);
		if (seconds_now() > end)
			fail_msg("no room for a stream");
	}
	/* it ends while somebody listens */
	server_stop(&server);
}

static const char *make_token(const char *text, mode_t mode)
{
	int fd = mkstemp(scratch(token_file, "token"));

	assert_true(fd >= 0);
	dprintf(fd, "%s\n", text);
	fchmod(fd, mode);
	close(fd);
	return token_file;
}

#define TOKEN "correct-horse-battery-staple"

static void token(void **state)
{
	static const char *const secret[] = {"/metrics", "/api/status", "/api/events",
					     "/api/processes", "/no/such"};
	struct kid *kid = kid_start();
	struct run r;

	server_start(&server, "--pid", decimal(kid->pid), "--token-file",
		     make_token(TOKEN, 0600), NULL);
	for (size_t i = 0; i < sizeof(secret) / sizeof(secret[0]); i++) {
		assert_int_equal(http_get(server.port, secret[i], NULL, NULL), 401);
		assert_int_equal(http_get(server.port, secret[i],
					  "Authorization: Bearer " TOKEN "x\r\n", NULL),
				 401);
		assert_int_equal(http_get(server.port, secret[i],
					  "Authorization: Bearer correct-horse\r\n", NULL),
				 401);
		assert_int_equal(
			http_get(server.port, secret[i], "Authorization: Bearer \r\n", NULL),
			401);
	}
	assert_int_equal(
		http_get(server.port, "/metrics", "Authorization: Bearer " TOKEN "\r\n", NULL),
		200);
	assert_int_equal(http_get(server.port, "/", NULL, NULL), 200);
	assert_int_equal(http_get(server.port, "/-/healthy", NULL, NULL), 200);
	server_stop(&server);
	/* one that others can read, and one that can be guessed */
	chmod(token_file, 0640);
	assert_int_equal(
		icp(&r, NULL, "serve", "--match", "x", "--token-file", token_file, NULL), 1);
	run_close(&r);
	unlink(token_file);
	assert_int_equal(icp(&r, NULL, "serve", "--match", "x", "--token-file",
			     make_token("short", 0600), NULL),
			 1);
	run_close(&r);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(answers, clean),
		cmocka_unit_test_teardown(nonsense, clean),
		cmocka_unit_test_teardown(slow_crowd, clean),
		cmocka_unit_test_teardown(crowd_that_does_not_read, clean),
		cmocka_unit_test_teardown(streams, clean),
		cmocka_unit_test_teardown(token, clean),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
