// SPDX-License-Identifier: GPL-2.0
/* What a checkpoint refuses, it refuses before it touches anything: tests/targets/barred sleeps, and
 * is not woken, not even for a moment. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"

/* How often its threads gave up the processor: who is stopped for a moment wakes up and goes to
 * sleep again. */
static unsigned long switches(pid_t pid)
{
	char path[64];
	unsigned long sum = 0;
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	assert_non_null(dir);
	while ((e = readdir(dir))) {
		char *text, *at;

		if (e->d_name[0] == '.')
			continue;
		text = file_text("%s/%s/status", path, e->d_name);
		for (at = text; (at = strstr(at, "voluntary_ctxt_switches:"));)
			sum += strtoul(at += strlen("voluntary_ctxt_switches:"), NULL, 10);
		free(text);
	}
	closedir(dir);
	return sum;
}

static void wait_asleep(pid_t pid)
{
	double end = seconds_now() + 30;

	for (;;) { /* rt_sigtimedwait(2) */
		char *call = file_text("/proc/%d/syscall", pid);
		bool asleep = !strncmp(call, "128 ", 4);

		free(call);
		if (asleep)
			return;
		if (seconds_now() > end)
			fail_msg("it doesn't sleep");
		nap_ms(1);
	}
}

static int checkpoint(const struct job *j, const char *option, char **err)
{
	struct run r;
	char pid[16];
	int status;

	snprintf(pid, sizeof(pid), "%d", j->pid);
	status = icp(&r, NULL, "checkpoint", "--pid", pid, "--dir", j->repo, option, NULL);
	*err = run_text(r.err);
	run_close(&r);
	return status;
}

static void refuses(struct job *j, const char *scene, const char *text)
{
	unsigned long before;
	char *err;
	int status;

	unlink(in(j, "ready"));
	unlink(in(j, "missing"));
	unlink(in(j, "socket"));
	j->target = "tests/targets/barred";
	start_scene(j, scene, NULL);
	wait_asleep(j->pid);
	before = switches(j->pid);
	if (exists(j, "missing")) {
		print_message("%s: not on this machine\n", scene);
	} else {
		assert_int_equal(checkpoint(j, NULL, &err), 1);
		if (!strstr(err, text) || strchr(err, '\n') != err + strlen(err) - 1)
			fail_msg("%s: expected '%s', got: %s", scene, text, err);
		if (switches(j->pid) != before)
			fail_msg("%s: it was touched: %lu, not %lu", scene, switches(j->pid),
				 before);
		free(err);
		if (checkpoint(j, "--no-restart", &err))
			fail_msg("%s: %s", scene, err);
		assert_int_not_equal(switches(j->pid), before); /* that can be seen */
		free(err);
	}
	kill(j->pid, SIGUSR1);
	assert_int_equal(waitpid(j->pid, &status, 0), j->pid);
	j->pid = 0;
	if (exists(j, "wrong"))
		fail_msg("%s: %s", scene, file_text("%s", in(j, "wrong")));
	assert_int_equal(status, 0);
}

struct barred {
	const char *scene, *text;
};

static void refuses_all(void **state, const struct barred *all)
{
	for (; all->scene; all++)
		refuses(*state, all->scene, all->text);
	assert_no_orphans((const pid_t[]){0}, 60);
}

static void test_outside(void **state)
{
	refuses_all(state,
		    (const struct barred[]){
			    {"epoll", "(added as 4) that no process of the job has open"},
			    {"pidfd", "which is not part of the job"},
			    {"proc", "of a process that is not part of the job"},
			    {"unix", "connected to a process outside of the job"},
			    {"pipe", "whose other end is not part of the job"},
			    {NULL, NULL}});
}

static void test_unix(void **state)
{
	refuses_all(state,
		    (const struct barred[]){
			    {"unaccepted", "has sent something and wasn't accepted yet"},
			    {"hung_up", "has sent something and wasn't accepted yet"},
			    {"unix_oob", "a Unix socket with an urgent byte"},
			    {"unix_filter", "a socket with an eBPF filter"},
			    {"unix_elsewhere", "a Unix socket of another network namespace"},
			    {NULL, NULL}});
}

static void test_tcp(void **state)
{
	refuses_all(state, (const struct barred[]){
				   {"ulp", "a TCP socket whose data the kernel changes"},
				   {"urgent", "a TCP connection with urgent data"},
				   {"urgent_read", "a TCP connection with urgent data"},
				   {"urgent_inline", "a TCP connection with urgent data"},
				   {"zerocopy", "may send with MSG_ZEROCOPY"},
				   {"too_much", "wait to be sent by a connection"},
				   {"tcp_elsewhere", "a socket of another network namespace"},
				   {NULL, NULL}});
}

static void test_sockets(void **state)
{
	refuses_all(state,
		    (const struct barred[]){
			    {"udp_filter", "a socket with an eBPF filter"},
			    {"udp_zerocopy", "may send with MSG_ZEROCOPY"},
			    {"netlink", "a netlink socket of protocol"},
			    {"netlink_elsewhere", "a socket of another network namespace"},
			    {"mptcp", "is a socket"},
			    {"sctp", "is a socket"},
			    {"vsock", "is a socket"},
			    {"raw", "is a socket"},
			    {"packet", "is a socket"},
			    {NULL, NULL}});
}

static void test_memory(void **state)
{
	refuses_all(state,
		    (const struct barred[]){{"memfd", "a memfd that isn't mapped as a whole"},
					    {"mapping", "[perf_event] is mapped at"},
					    {NULL, NULL}});
}

int main(int argc, char **argv)
{
#define REFUSED(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		REFUSED(test_outside), REFUSED(test_unix),   REFUSED(test_tcp),
		REFUSED(test_sockets), REFUSED(test_memory),
	};

	adopt_orphans();
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
