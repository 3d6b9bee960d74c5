// SPDX-License-Identifier: GPL-2.0
/* A checkpoint whose job goes on changes nothing that the job or its peers can see. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"
#include "lib/stream.h"

#define CUTS 10

static void ends_well(struct job *j)
{
	int status;

	assert_int_equal(waitpid(j->pid, &status, 0), j->pid);
	j->pid = 0;
	if (exists(j, "wrong"))
		fail_msg("%s", file_text("%s", in(j, "wrong")));
	assert_int_equal(status, 0);
}

/* Edges, timers, watches, times, signals, children. */
static void test_itself(void **state)
{
	struct job *j = *state;

	j->target = "tests/targets/unseen";
	start_scene(j, "all", NULL);
	for (int i = 0; i < CUTS; i++)
		cut(j);
	touch(j, "go");
	ends_well(j);
}

/* ---- TCP peers: in a network namespace of our own, whose counters are ours ---- */

struct counters {
	long resets, established_resets, sent, retransmitted;
};

static struct counters look(void)
{
	char *text = file_text("/proc/net/snmp"), *at = strstr(text, "Tcp: RtoAlgorithm");
	struct counters c = {0};
	long n[15];

	assert_non_null(at);
	at = strstr(at + 4, "Tcp: ") + 5;
	for (int i = 0; i < 15; i++)
		n[i] = strtol(at, &at, 10);
	free(text);
	c.established_resets = n[7];
	c.sent = n[10];
	c.retransmitted = n[11];
	c.resets = n[13];
	return c;
}

static void alone(void)
{
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	assert_int_equal(system("ip link set lo up"), 0);
}

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

static void start_server(struct job *j)
{
	j->target = "tests/targets/wire";
	start_scene(j, "serve", "4");
}

/* A stream goes on both ways; nothing is reset, nothing is sent again and again. */
static void test_peer(void **state)
{
	struct stream s = {.out_seed = 2, .in_seed = 1};
	struct job *j = *state;
	struct counters before, after;

	alone();
	start_server(j);
	s.fd = dial(j);
	fcntl(s.fd, F_SETFL, O_NONBLOCK);
	before = look();
	for (int i = 0; i < CUTS; i++) {
		for (int k = 0; k < 10; k++)
			assert_true(stream_step(&s, true, 20));
		cut(j);
	}
	assert_int_equal(shutdown(s.fd, SHUT_WR), 0);
	while (!s.ended)
		assert_true(stream_step(&s, false, 1000));
	ends_well(j);
	after = look();
	assert_int_equal(after.resets, before.resets);
	assert_int_equal(after.established_resets, before.established_resets);
	/* one that repair mode kept back each time, and what a busy machine answers late */
	print_message("%ld of %ld retransmitted\n", after.retransmitted - before.retransmitted,
		      after.sent - before.sent);
	assert_true(after.retransmitted - before.retransmitted <=
		    CUTS + (after.sent - before.sent) / 10);
	close(s.fd);
}

int main(int argc, char **argv)
{
#define UNSEEN(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		UNSEEN(test_itself),
		UNSEEN(test_peer), /* last: it leaves the network namespace */
	};

	adopt_orphans();
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
