// SPDX-License-Identifier: GPL-2.0
/* What is under way when the checkpoint comes (tests/targets/queued): of a job that is restarted,
 * and of one that was only looked at. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"

static void begin(struct job *j, const char *scene)
{
	j->target = "tests/targets/queued";
	start_scene(j, scene, NULL);
}

static void ends_well(struct job *j)
{
	int status;

	touch(j, "go");
	assert_int_equal(waitpid(j->pid, &status, 0), j->pid);
	j->pid = 0;
	if (exists(j, "wrong"))
		fail_msg("%s", file_text("%s", in(j, "wrong")));
	assert_int_equal(status, 0);
}

/* Looked at three times, it ends as if nothing had been. */
static void runs_on(struct job *j, const char *scene)
{
	begin(j, scene);
	for (int i = 0; i < 3; i++)
		cut(j);
	ends_well(j);
}

/* Every version of it. */
static void comes_back(struct job *j, const char *scene)
{
	static const char *const versions[] = {"1", "2", "3"};

	begin(j, scene);
	for (int i = 0; i < 3; i++)
		cut(j);
	kill_job(j);
	touch(j, "again");
	for (int i = 0; i < 3; i++)
		go_on(j, versions[i], "direct");
}

static void test_rights(void **state)
{
	comes_back(*state, "rights");
}

static void test_rights_run_on(void **state)
{
	runs_on(*state, "rights");
}

static void test_udp(void **state)
{
	comes_back(*state, "udp");
}

static void test_udp_runs_on(void **state)
{
	runs_on(*state, "udp");
}

static void test_empty(void **state)
{
	comes_back(*state, "empty");
}

static void test_empty_runs_on(void **state)
{
	runs_on(*state, "empty");
}

/* ---- connections that wait to be accepted ---- */

static int dial(const struct job *j)
{
	char *text = file_text("%s", in(j, "port"));
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)strtoul(text, NULL, 10)),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	free(text);
	assert_int_equal(connect(fd, (void *)&a, sizeof(a)), 0);
	return fd;
}

static void expect(int fd, const char *text)
{
	char buf[16] = "";

	assert_int_equal(poll(&(struct pollfd){fd, POLLIN, 0}, 1, 20000), 1);
	assert_int_equal(recv(fd, buf, sizeof(buf), 0), strlen(text));
	assert_string_equal(buf, text);
}

static void is_reset(int fd)
{
	char byte;

	assert_int_equal(poll(&(struct pollfd){fd, POLLIN, 0}, 1, 20000), 1);
	assert_int_equal(recv(fd, &byte, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	close(fd);
}

/* Their clients are told at once; who comes to the new one is served. */
static void test_accept(void **state)
{
	struct job *j = *state;
	int silent, talks, late;
	struct run r;

	begin(j, "accept");
	silent = dial(j);
	talks = dial(j);
	assert_int_equal(send(talks, "hello", 5, 0), 5);
	cut(j);
	kill_job(j);
	is_reset(silent);
	is_reset(talks);
	touch(j, "again");
	begin_restart(j, &r, "1", "direct", NULL);
	if (!run_says(&r, "\"phases\"", 60))
		fail_msg("%s", run_text(r.err));
	touch(j, "go");
	for (double end = seconds_now() + 30; !exists(j, "empty"); nap_ms(2))
		if (exists(j, "wrong") || seconds_now() > end)
			fail_msg("%s", file_text("%s", in(j, "wrong")));
	late = dial(j);
	expect(late, "welcome");
	close(late);
	run_wait(&r, 30);
	assert_int_equal(r.status, 0);
	run_close(&r);
}

static void test_accept_runs_on(void **state)
{
	struct job *j = *state;
	int silent, talks;

	begin(j, "accept");
	silent = dial(j);
	talks = dial(j);
	assert_int_equal(send(talks, "hello", 5, 0), 5);
	cut(j);
	ends_well(j);
	expect(silent, "welcome");
	close(silent);
	is_reset(talks); /* by the end of the job, which never accepted it */
}

/* ---- connections that come up: in a network namespace of our own ---- */

static void command(const char *text)
{
	if (system(text))
		fail_msg("%s", text);
}

static void close_road(struct job *j)
{
	char text[256], *port;

	j->target = "tests/targets/queued";
	start(j, (const char *[]){built(j->target), "connect", j->dir, NULL});
	wait_for(j, "port");
	port = file_text("%s", in(j, "port"));
	snprintf(text, sizeof(text),
		 "nft 'add table inet road; add chain inet road in { type filter hook input "
		 "priority 0; }; add rule inet road in tcp dport %s drop'",
		 port);
	free(port);
	command(text);
	touch(j, "closed");
	wait_for(j, "ready");
}

static void test_connect(void **state)
{
	struct job *j = *state;

	assert_int_equal(unshare(CLONE_NEWNET), 0);
	command("ip link set lo up");
	close_road(j);
	cut(j);
	command("nft delete table inet road");
	ends_well(j);
	unlink(in(j, "ready"));
	unlink(in(j, "go"));
	unlink(in(j, "port"));
	unlink(in(j, "closed"));
	close_road(j);
	cut(j);
	kill_job(j);
	command("nft delete table inet road");
	touch(j, "again");
	go_on(j, "2", "direct");
}

int main(int argc, char **argv)
{
#define QUEUED(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		QUEUED(test_rights),  QUEUED(test_rights_run_on),
		QUEUED(test_udp),     QUEUED(test_udp_runs_on),
		QUEUED(test_empty),   QUEUED(test_empty_runs_on),
		QUEUED(test_accept),  QUEUED(test_accept_runs_on),
		QUEUED(test_connect), /* last: it leaves the network namespace */
	};

	adopt_orphans();
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
