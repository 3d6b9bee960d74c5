// SPDX-License-Identifier: GPL-2.0
/* Sockets of tests/targets/wire over checkpoints and restarts, with a client outside the job. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"
#include "lib/stream.h"
#include "proc/tasks.h"

/* ---- a client, in a process of its own ---- */

struct client {
	pid_t pid;
	struct shared {
		_Atomic uint64_t sent, received;
		_Atomic bool stop;
	} * shared;
};

static uint64_t number_in(const struct job *j, const char *name)
{
	char *text = file_text("%s", in(j, name));
	uint64_t n = strtoull(text, NULL, 10);

	free(text);
	return n;
}

static int connect_to(const struct job *j, const char *how)
{
	uint16_t port = htons((uint16_t)number_in(j, "port"));
	struct sockaddr_in a4 = {.sin_family = AF_INET,
				 .sin_port = port,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 a6 = {
		.sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = in6addr_loopback};
	int fd = socket(how[0] == '6' ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (how[0] == '6')
		assert_int_equal(connect(fd, (void *)&a6, sizeof(a6)), 0);
	else
		assert_int_equal(connect(fd, (void *)&a4, sizeof(a4)), 0);
	return fd;
}

/* Streams until it is told to stop, then ends its stream and reads the other to its end. */
static int client_main(int fd, struct shared *shared)
{
	struct stream s = {.fd = fd, .out_seed = 2, .in_seed = 1};
	bool shut = false;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (!s.ended) {
		if (!stream_step(&s, !shut, 20))
			return 1;
		shared->sent = s.sent;
		shared->received = s.received;
		if (shared->stop && !shut) {
			shut = true;
			if (shutdown(fd, SHUT_WR))
				return 2;
		}
	}
	return 0;
}

static void client_start(struct client *c, const struct job *j, const char *how)
{
	int fd = connect_to(j, how);

	c->shared = mmap(NULL, sizeof(*c->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(c->shared != MAP_FAILED);
	c->pid = fork();
	if (!c->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(client_main(fd, c->shared));
	}
	close(fd);
}

/* Until that much more went through in each direction. */
static void client_flows(const struct client *c, uint64_t bytes)
{
	uint64_t sent = c->shared->sent, received = c->shared->received;
	double end = seconds_now() + 60;
	int status = 0;

	while (c->shared->sent < sent + bytes || c->shared->received < received + bytes) {
		bool over = waitpid(c->pid, &status, WNOHANG) != 0;

		if (over || seconds_now() > end)
			fail_msg("the stream %s: sent %lu, received %lu (status %#x)",
				 over ? "broke off" : "stands still",
				 (unsigned long)c->shared->sent,
				 (unsigned long)c->shared->received, (unsigned)status);
		nap_ms(2);
	}
}

/* Every byte that was sent was received, in both directions. */
static void client_ends(struct client *c, const struct job *j)
{
	double end = seconds_now() + 60;
	int status;

	c->shared->stop = true;
	while (!waitpid(c->pid, &status, WNOHANG)) {
		if (seconds_now() > end)
			fail_msg("the stream doesn't end");
		nap_ms(2);
	}
	assert_int_equal(status, 0);
	while (!exists(j, "received")) {
		if (seconds_now() > end)
			fail_msg("the server doesn't end");
		nap_ms(2);
	}
	assert_int_equal(number_in(j, "received"), c->shared->sent);
	assert_int_equal(number_in(j, "sent"), c->shared->received);
	munmap(c->shared, sizeof(*c->shared));
}

static void cut_with(const struct job *j, const char *option)
{
	char pid[16];
	struct run r;

	snprintf(pid, sizeof(pid), "%d", j->pid);
	if (icp(&r, NULL, "checkpoint", "--pid", pid, "--dir", j->repo, option, NULL))
		fail_msg("%s", run_text(r.err));
	run_close(&r);
}

static void begin(struct job *j, const char *scene, const char *how)
{
	j->target = "tests/targets/wire";
	start_scene(j, scene, how);
}

static char table[64]; /* of the last cut_and_kill() */

static bool table_exists(const char *name)
{
	char command[120];

	snprintf(command, sizeof(command), "nft list table inet %s >/dev/null 2>&1", name);
	return !system(command);
}

/* The result names the table that holds packets back. */
static void cut_and_kill(const struct job *j)
{
	char pid[16], *out, *at;
	struct run r;

	snprintf(pid, sizeof(pid), "%d", j->pid);
	if (icp(&r, NULL, "checkpoint", "--pid", pid, "--dir", j->repo, "--kill", NULL))
		fail_msg("%s", run_text(r.err));
	out = run_text(r.out);
	at = strstr(out, "delete table inet ");
	if (!at || sscanf(at, "delete table inet %63s", table) != 1)
		fail_msg("no table in: %s", out);
	free(out);
	run_close(&r);
	assert_true(table_exists(table));
}

static int remove_table(void **state)
{
	char command[120];

	snprintf(command, sizeof(command), "nft delete table inet %s 2>/dev/null", table);
	if (table[0] && system(command))
		errno = 0;
	table[0] = 0;
	return teardown(state);
}

/* ---- tests ---- */

/* Killed and restarted three times while data flows both ways. */
static void move(struct job *j, const char *how)
{
	static const char *const versions[] = {"1", "2", "3"};
	struct client c;
	struct run r[3];
	pid_t pid;

	begin(j, "serve", how);
	pid = j->pid;
	client_start(&c, j, how);
	for (int i = 0; i < 3; i++) {
		client_flows(&c, 300000);
		cut_and_kill(j);
		if (!i)
			waitpid(pid, NULL, 0);
		else
			run_wait(&r[i - 1], 30), run_close(&r[i - 1]);
		begin_restart(j, &r[i], versions[i], "direct", NULL);
		if (!run_says(&r[i], "\"phases\"", 30))
			fail_msg("%s", run_text(r[i].err));
		assert_false(table_exists(table));
	}
	client_flows(&c, 300000);
	client_ends(&c, j);
	run_wait(&r[2], 30);
	assert_int_equal(r[2].status, 0);
	run_close(&r[2]);
	j->pid = 0;
}

static void test_move_v4(void **state)
{
	move(*state, "4");
}

static void test_move_v6(void **state)
{
	move(*state, "6");
}

static void test_move_mapped(void **state)
{
	move(*state, "m");
}

/* The job goes on: nobody notices. */
static void test_running(void **state)
{
	struct job *j = *state;
	struct client c;
	int status;

	begin(j, "serve", "4");
	client_start(&c, j, "4");
	for (int i = 0; i < 20; i++) {
		client_flows(&c, 20000);
		cut(j);
	}
	client_flows(&c, 100000);
	client_ends(&c, j);
	assert_int_equal(waitpid(j->pid, &status, 0), j->pid);
	assert_int_equal(status, 0);
	j->pid = 0;
}

static pid_t warden_of(pid_t icp)
{
	pid_list all = {0};
	pid_t found = 0;

	if (tasks_descendants(icp, &all))
		all.n = 0;
	vec_each (pid, &all) {
		char *comm = file_text("/proc/%d/comm", *pid);

		if (comm && !strcmp(comm, "icp-warden\n"))
			found = *pid;
		free(comm);
	}
	free_pids(&all);
	return found;
}

/* A checkpoint whose icp-bpf, or warden, is killed after a while. */
static void cut_short(const struct job *j, double ms, bool warden, const char *option)
{
	char pid[16];
	const char *argv[] = {built("icp-bpf"), "checkpoint", "--pid", pid,
			      "--dir",		j->repo,      option,  NULL};
	pid_t victim;
	struct run r;

	snprintf(pid, sizeof(pid), "%d", j->pid);
	run_start(&r, NULL, argv);
	nap_ms(ms);
	victim = warden ? warden_of(r.pid) : r.pid;
	if (victim)
		kill(victim, SIGKILL);
	run_wait(&r, 60);
	run_close(&r);
}

/* Whoever dies when, the connection works. */
static void test_killed(void **state)
{
	struct job *j = *state;
	struct client c;
	int status;

	begin(j, "serve", "4");
	client_start(&c, j, "4");
	for (int i = 0; i < 24; i++) {
		cut_short(j, 2 + 3 * i, i % 2, NULL);
		client_flows(&c, 5000);
	}
	client_ends(&c, j);
	assert_int_equal(waitpid(j->pid, &status, 0), j->pid);
	assert_int_equal(status, 0);
	j->pid = 0;
}

/* Until the job is killed, which comes last, nothing stays held back. */
static void test_killed_moving(void **state)
{
	struct job *j = *state;
	struct client c;

	begin(j, "serve", "4");
	client_start(&c, j, "4");
	for (int i = 0; i < 30; i++) {
		double end = seconds_now() + 30;

		snprintf(table, sizeof(table), "icp_bpf_%d", j->pid);
		cut_short(j, 10 + 3 * i, i % 2, "--kill");
		if (waitpid(j->pid, NULL, WNOHANG))
			break;
		while (table_exists(table) && seconds_now() < end)
			nap_ms(5);
		assert_false(table_exists(table));
		client_flows(&c, 5000);
	}
	kill(c.pid, SIGKILL);
	waitpid(c.pid, NULL, 0);
}

static void play_wire(struct job *j, const char *scene)
{
	j->target = "tests/targets/wire";
	play(j, scene);
}

/* Both ends are in the job: each version of it can be restarted. */
static void test_within(void **state)
{
	play_wire(*state, "both");
}

/* What holds back the connections of the newest version holds back those of all. */
static void test_older_version(void **state)
{
	struct job *j = *state;

	begin(j, "both", NULL);
	cut(j);
	cut_and_kill(j);
	while (waitpid(-1, NULL, 0) > 0)
		;
	j->pid = 0;
	go_on(j, "1", "direct");
	assert_false(table_exists(table));
}

static void test_still(void **state)
{
	play_wire(*state, "sockets");
}

static void closed(struct job *j, const char *how, const char *cut_option, const char *option,
		   bool gone)
{
	struct run r;
	int fd;

	begin(j, "quiet", how);
	fd = connect_to(j, how);
	wait_for(j, "accepted");
	cut_with(j, cut_option);
	kill_job(j);
	if (gone)
		close(fd);
	touch(j, "go");
	begin_restart(j, &r, "1", "direct", option);
	run_wait(&r, 30);
	if (r.status)
		fail_msg("%s%s", run_text(r.err), file_text("%s", in(j, "wrong")));
	run_close(&r);
	if (!gone)
		close(fd);
}

static void test_close_at_restart(void **state)
{
	closed(*state, "4", "--full", "--tcp-close", false);
}

static void test_close_at_checkpoint(void **state)
{
	closed(*state, "6", "--tcp-close", NULL, false);
}

static void test_close_mapped(void **state)
{
	closed(*state, "m", "--tcp-close", NULL, false);
}

/* The peer has gone on: the program is told as soon as the peer is heard of. */
static void test_peer_gone(void **state)
{
	closed(*state, "4", "--full", NULL, true);
}

static void refused(struct job *j, const char *scene)
{
	char pid[16], *err;
	struct run r;

	begin(j, scene, NULL);
	snprintf(pid, sizeof(pid), "%d", j->pid);
	assert_int_equal(icp(&r, NULL, "checkpoint", "--pid", pid, "--dir", j->repo, NULL), 1);
	err = run_text(r.err);
	if (!strstr(err, "descriptor 3 is a socket"))
		fail_msg("%s: %s", scene, err);
	free(err);
	run_close(&r);
	kill_job(j);
	unlink(in(j, "ready"));
}

static void test_refused(void **state)
{
	refused(*state, "packet");
	refused(*state, "raw");
}

/* Of a network namespace of our own, so that nobody else sees it come and go. */
static void test_address_gone(void **state)
{
	struct job *j = *state;
	struct run r;
	char *err;

	assert_int_equal(unshare(CLONE_NEWNET), 0);
	assert_int_equal(system("ip link set lo up && ip address add 10.77.0.1/32 dev lo"), 0);
	begin(j, "address", "10.77.0.1");
	cut(j);
	kill_job(j);
	assert_int_equal(system("ip address del 10.77.0.1/32 dev lo"), 0);
	begin_restart(j, &r, "1", "direct", NULL);
	run_wait(&r, 30);
	err = run_text(r.err);
	if (WEXITSTATUS(r.status) != 1 || !strstr(err, "which this machine has not"))
		fail_msg("%s", err);
	free(err);
	run_close(&r);
	assert_int_equal(system("ip address add 10.77.0.1/32 dev lo"), 0);
	go_on(j, "1", "direct");
}

int main(int argc, char **argv)
{
#define TCP(name) cmocka_unit_test_setup_teardown(name, setup, remove_table)
	const struct CMUnitTest tests[] = {
		TCP(test_move_v4),	    TCP(test_move_v6),
		TCP(test_move_mapped),	    TCP(test_killed),
		TCP(test_killed_moving),    TCP(test_running),
		TCP(test_within),	    TCP(test_still),
		TCP(test_close_at_restart), TCP(test_close_at_checkpoint),
		TCP(test_close_mapped),	    TCP(test_peer_gone),
		TCP(test_refused),	    TCP(test_older_version),
		TCP(test_address_gone), /* last: it leaves the network namespace */
	};

	adopt_orphans();
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
