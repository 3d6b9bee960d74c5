// SPDX-License-Identifier: GPL-2.0
/* `icp-bpf serve`: what it shows is what was written, it follows who comes and goes, and nobody is harmed by it. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/kid.h"
#include "lib/scratch.h"
#include "lib/server.h"
#include "lib/tracer.h"

#define PAGE 4096ul
#define N 300ul
#define RW (PROT_READ | PROT_WRITE)

static struct server server;
static struct talker storm;
static char cgroup[128], config_path[SCRATCH_MAX];
static int config = -1;
static int segment = -1;

static int clean(void **state)
{
	if (server.r.pid)
		run_close(&server.r);
	memset(&server, 0, sizeof(server));
	if (storm.pid)
		talker_end(&storm);
	memset(&storm, 0, sizeof(storm));
	tracers_kill();
	kids_end();
	if (config >= 0) {
		close(config);
		unlink(config_path);
	}
	config = -1;
	if (cgroup[0])
		rmdir(cgroup);
	cgroup[0] = 0;
	if (segment >= 0)
		shmctl(segment, IPC_RMID, NULL);
	segment = -1;
	return 0;
}

static json_t *process_json(pid_t pid, const char *below)
{
	char path[96];

	snprintf(path, sizeof(path), "/api/processes/%d%s", pid, below);
	return server_json(&server, path);
}

/* The field of the VMA that begins at @start. */
static json_t *vma_at(json_t *process, uint64_t start)
{
	json_t *vma;
	size_t i;

	json_array_foreach(json_object_get(process, "vmas"), i, vma)
	{
		if (hex(vma, "start") == start)
			return vma;
	}
	fail_msg("no VMA at %#lx", (unsigned long)start);
	return NULL;
}

static uint64_t heat_between(pid_t pid, uint64_t start, uint64_t end)
{
	json_t *heat = process_json(pid, "/heatmap?rows=256"), *column, *row;
	uint64_t pages = 0;
	size_t i, k;

	json_array_foreach(json_object_get(heat, "cells"), i, column)
	{
		assert_int_equal(json_array_size(column),
				 json_array_size(json_object_get(heat, "rows")));
		json_array_foreach(json_object_get(heat, "rows"), k, row)
		{
			if (hex(row, "start") >= start && hex(row, "end") <= end)
				pages +=
					(uint64_t)json_integer_value(json_array_get(column, k));
		}
	}
	json_decref(heat);
	return pages;
}

static void shows_what_was_written(void **state)
{
	struct kid *kid = kid_start();
	uint64_t area = kid_call(kid, kid_map, 512 * PAGE, RW, MAP_PRIVATE);
	uint64_t bins =
		(area + 0xffff) & ~0xfffful; /* rows of the heatmap that nothing else is in */
	json_t *process, *flame;
	char name[128], *metrics, *again;

	server_start(&server, "--pid", decimal(kid->pid), "--interval", "200ms", NULL);
	server_wait_pid(&server, kid->pid, true);
	kid_call(kid, kid_write, bins, 64, 4);
	server_catch_up(&server);
	kid_call(kid, kid_write, bins, 64, 4);
	server_catch_up(&server);
	kid_call(kid, kid_read, area, 512);
	server_catch_up(&server);
	process = process_json(kid->pid, "");
	assert_int_equal(number(json_object_get(vma_at(process, area), "wws_pages"), "60"), 64);
	assert_int_equal(heat_between(kid->pid, bins, bins + 256 * PAGE), 128);
	assert_true(json_array_size(json_object_get(process, "writers")) > 0);
	flame = process_json(kid->pid, "/flamegraph");
	assert_true(json_is_true(json_object_get(flame, "stacks")));
	assert_true(number(json_object_get(flame, "tree"), "value") > 0);
	json_decref(flame);
	/* it is idle now: both ways of asking see the same */
	snprintf(name, sizeof(name), "icpbpf_dirty_pages_total{pid=\"%d\",comm=\"serve\"}",
		 kid->pid);
	assert_true(server_metric(&server, name) ==
		    (double)number(json_object_get(process, "totals"), "dirty_pages"));
	assert_true(number(json_object_get(process, "totals"), "dirty_pages") >= 128);
	json_decref(process);
	/* no address is a label */
	assert_int_equal(http_get(server.port, "/metrics", NULL, &metrics), 200);
	again = metrics;
	while ((again = strstr(again, "0x")))
		assert_memory_equal(again - 5, "key=\"", 5), again += 2;
	free(metrics);
	server_stop(&server);
}

static uint64_t attach(const uint64_t *args)
{
	return (uint64_t)(uintptr_t)shmat((int)args[0], NULL, 0);
}

static void segments(void **state)
{
	struct kid *one = kid_start(), *two = kid_start();
	uint64_t at_one, at_two;
	char name[96];
	key_t key = (key_t)(0x1c9b0000 + (getpid() & 0xffff));
	json_t *json, *seg, *found = NULL;
	double before;
	size_t i;

	segment = shmget(key, 64 * PAGE, IPC_CREAT | IPC_EXCL | 0600);
	assert_true(segment >= 0);
	at_one = kid_call(one, attach, (uint64_t)segment);
	at_two = kid_call(two, attach, (uint64_t)segment);
	server_start(&server, "--pid", decimal(one->pid), "--pid", decimal(two->pid),
		     "--interval", "200ms", NULL);
	server_wait_pid(&server, two->pid, true);
	server_catch_up(&server);
	snprintf(name, sizeof(name), "icpbpf_segment_dirty_pages_total{key=\"0x%08x\"}",
		 (unsigned)key);
	before = server_metric(&server, name);
	kid_call(one, kid_write, at_one, 20);
	server_catch_up(&server);
	kid_call(two, kid_write, at_two + 40 * PAGE, 10);
	server_catch_up(&server);
	assert_true(server_metric(&server, name) == before + 30);
	json = server_json(&server, "/api/segments");
	json_array_foreach(json_object_get(json, "segments"), i, seg)
	{
		if ((int)number(seg, "id") == segment)
			found = seg;
	}
	assert_non_null(found);
	assert_int_equal(number(found, "attach_count"), 2);
	assert_int_equal(json_array_size(json_object_get(found, "pids")), 2);
	json_decref(json);
	server_stop(&server);
}

static void harms_nobody(void **state)
{
	struct kid *kid = kid_start();
	struct outside before;
	uint64_t area = kid_call(kid, kid_map, N * PAGE, RW, MAP_PRIVATE);

	kid_call(kid, kid_write, area, N);
	outside_look(&before, kid->pid);
	server_start(&server, "--pid", decimal(kid->pid), "--interval", "200ms", NULL);
	server_wait_pid(&server, kid->pid, true);
	server_stop(&server);
	assert_untouched(kid->pid, &before, true);
	server_start(&server, "--pid", decimal(kid->pid), "--interval", "200ms", NULL);
	server_wait_pid(&server, kid->pid, true);
	kill(server.r.pid, SIGKILL);
	run_wait(&server.r, 20);
	run_close(&server.r);
	assert_no_orphans((pid_t[]){kid->pid, 0}, 20);
	assert_untouched(kid->pid, &before, true);
	assert_int_equal(kid_call(kid, kid_write, area, N), kid_call(kid, kid_write, area, N));
	outside_free(&before);
}

static size_t count(const char *text, const char *what)
{
	size_t n = 0;

	for (; (text = strstr(text, what)); text++)
		n++;
	return n;
}

/* One that another icp-bpf follows is said once, the others are shown, and it is taken in when it is free. */
static void one_is_held(void **state)
{
	struct kid *held = kid_start(), *free_one = kid_start();
	struct tracer *tracer =
		tracer_start("--pid", decimal(held->pid), "--interval", "200ms", NULL);
	json_t *json;
	char *said;

	server_start(&server, "--pid", decimal(held->pid), "--pid", decimal(free_one->pid),
		     "--interval", "200ms", NULL);
	server_wait_pid(&server, free_one->pid, true);
	said = server_said(&server);
	assert_int_equal(count(said, "is followed by another icp-bpf already"), 1);
	free(said);
	json = server_json(&server, "/api/processes");
	assert_int_equal(json_array_size(json_object_get(json, "refused")), 1);
	assert_int_equal(number(json_array_get(json_object_get(json, "refused"), 0), "pid"),
			 held->pid);
	json_decref(json);
	tracer_stop(tracer);
	server_wait_pid(&server, held->pid, true);
	server_catch_up(&server);
	json = server_json(&server, "/api/processes");
	assert_int_equal(json_array_size(json_object_get(json, "refused")), 0);
	json_decref(json);
	server_stop(&server);
}

static uint64_t set_name(const uint64_t *args)
{
	char name[16];

	snprintf(name, sizeof(name), "icpserve%u", (unsigned)args[0]);
	return (uint64_t)prctl(PR_SET_NAME, name);
}

static void come_and_go(void **state)
{
	unsigned mark = (unsigned)getpid() % 1000000;
	struct kid *first = kid_start(), *second;
	char match[64];

	kid_call(first, set_name, mark);
	snprintf(match, sizeof(match), "^icpserve%u$", mark);
	server_start(&server, "--match", match, "--interval", "200ms", NULL);
	server_wait_pid(&server, first->pid, true);
	second = kid_start(); /* another name, at first */
	server_catch_up(&server);
	assert_true(server_metric(&server, "icpbpf_followed_processes") == 1);
	kid_call(second, set_name, mark);
	server_wait_pid(&server, second->pid, true);
	kill(first->pid, SIGKILL);
	server_wait_pid(&server, first->pid, false);
	kill(second->pid, SIGKILL);
	server_wait_pid(&server, second->pid, false);
	assert_true(server_metric(&server, "icpbpf_followed_processes") == 0);
	server_stop(&server);
}

static uint64_t make_child(const uint64_t *args)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return (uint64_t)pid;
}

/* Children that there are, and those to come; together they are one job. */
static void families(void **state)
{
	struct kid *kid = kid_start();
	pid_t children[2] = {(pid_t)kid_call(kid, make_child, 0)};
	json_t *json, *job;

	server_start(&server, "--pid", decimal(kid->pid), "--tree", "--interval", "200ms",
		     NULL);
	server_wait_pid(&server, children[0], true);
	children[1] = (pid_t)kid_call(kid, make_child, 0);
	server_wait_pid(&server, children[1], true);
	for (int i = 0; i < 2; i++) {
		json = process_json(children[i], "");
		assert_int_equal(number(json, "job"), kid->pid);
		json_decref(json);
	}
	json = server_json(&server, "/api/forecast");
	assert_int_equal(json_array_size(json_object_get(json, "jobs")), 1);
	job = json_array_get(json_object_get(json, "jobs"), 0);
	assert_int_equal(number(job, "job"), kid->pid);
	assert_int_equal(json_array_size(json_object_get(job, "pids")), 3);
	json_decref(json);
	kill(kid->pid, SIGKILL);
	server_wait_pid(&server, kid->pid, false);
	server_wait_pid(&server, children[1], false);
	server_stop(&server);
}

/* The first writable hierarchy: version 2's, or any of version 1. */
static void make_cgroup(pid_t pid)
{
	static const char *const mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified",
					     "/sys/fs/cgroup/pids", "/sys/fs/cgroup/systemd"};

	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		char procs[160];
		FILE *file;

		snprintf(cgroup, sizeof(cgroup), "%s/icp-serve-%d", mounts[i], getpid());
		snprintf(procs, sizeof(procs), "%s/below", cgroup);
		if (mkdir(cgroup, 0755))
			continue;
		snprintf(procs, sizeof(procs), "%s/cgroup.procs", cgroup);
		file = fopen(procs, "we");
		if (file && fprintf(file, "%d\n", pid) > 0 && !fclose(file))
			return;
		rmdir(cgroup);
	}
	cgroup[0] = 0;
	skip(); /* no control groups here, or not to be written */
}

static void by_cgroup(void **state)
{
	struct kid *kid = kid_start();

	make_cgroup(kid->pid);
	server_start(&server, "--cgroup", cgroup, "--interval", "200ms", NULL);
	server_wait_pid(&server, kid->pid, true);
	assert_true(server_metric(&server, "icpbpf_followed_processes") == 1);
	server_stop(&server);
	kill(kid->pid, SIGKILL);
	kids_end();
}

static void from_a_file(void **state)
{
	struct kid *kid = kid_start();
	json_t *json, *by;
	struct run r;
	char *said;

	config = mkstemp(scratch(config_path, "config"));
	assert_true(config >= 0);
	dprintf(config,
		"# who\n\n  pid = %d\t\nmatch=^no such name$\ninterval = 250ms\nmtbf = 2d\n",
		kid->pid);
	server_start(&server, "--config", config_path, NULL);
	server_wait_pid(&server, kid->pid, true);
	json = server_json(&server, "/api/status");
	assert_true(json_real_value(json_object_get(json, "interval_s")) == 0.25);
	assert_true(json_real_value(json_object_get(json, "mtbf_s")) == 2 * 86400);
	by = json_object_get(json, "followed_by");
	assert_string_equal(text(by, "match"), "^no such name$");
	json_decref(json);
	server_stop(&server);
	dprintf(config, "lisen = 127.0.0.1:1\n");
	assert_int_equal(icp(&r, NULL, "serve", "--config", config_path, NULL), 1);
	said = run_text(r.err);
	assert_non_null(strstr(said, " line 7: there is no setting 'lisen'"));
	free(said);
	run_close(&r);
}

static double storm_metric(const char *name)
{
	char sample[96];

	snprintf(sample, sizeof(sample), "%s{pid=\"%d\",comm=\"faultloop\"}", name, storm.pid);
	return server_metric(&server, sample);
}

/* A million faults a second are counted, and not told one by one; that is said. A version of such a process is whole. */
static void in_a_storm(void **state)
{
	double end = seconds_now() + 60;
	json_t *json, *totals;
	struct run r;
	char repo[SCRATCH_MAX];

	talker_start(&storm, built("tests/targets/faultloop"), "32", NULL);
	talker_ask(&storm, "", "ready");
	assert_int_equal(write(storm.to, "3\n3\n3\n3\n3\n3\n", 12), 12);
	server_start(&server, "--pid", decimal(storm.pid), "--interval", "500ms", NULL);
	while (storm_metric("icpbpf_untold_faults_total") <= 0 ||
	       server_metric(&server, "icpbpf_sampling_active") != 1) {
		if (seconds_now() > end)
			fail_msg("no storm");
		nap_ms(50);
	}
	json = server_json(&server, "/api/processes");
	totals = json_object_get(json_array_get(json_object_get(json, "processes"), 0),
				 "totals");
	assert_true(number(totals, "untold_faults") > 0);
	assert_true(number(totals, "untold_faults") < number(totals, "faults"));
	json_decref(json);
	assert_non_null(mkdtemp(scratch_shm(repo, "storm")));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(icp(&r, NULL, "checkpoint", "--pid", decimal(storm.pid),
				     "--dir", repo, "--no-restart", "--paranoid", NULL),
				 0);
		run_close(&r);
	}
	assert_int_equal(icp(&r, NULL, "verify", "--dir", repo, NULL), 0);
	run_close(&r);
	run_start(&r, NULL, (const char *[]){"rm", "-rf", repo, NULL});
	run_wait(&r, 60);
	run_close(&r);
	server_stop(&server);
}

static void one_generation(unsigned mark)
{
	struct kid *kid = kid_start();

	kid_call(kid, kid_write, kid_call(kid, kid_map, 500 * PAGE, RW, MAP_PRIVATE), 500);
	kid_call(kid, set_name, mark);
	server_wait_pid(&server, kid->pid, true);
	kid_call(kid, kid_write, kid_call(kid, kid_map, 500 * PAGE, RW, MAP_PRIVATE), 500);
	kill(kid->pid, SIGKILL);
	kids_end();
}

/* Nothing is kept of who has gone: neither memory nor descriptors. */
static void stays_small(void **state)
{
	unsigned mark = (unsigned)getpid() % 1000000 + 1000000;
	struct outside before, after;
	char match[64];
	long early;

	snprintf(match, sizeof(match), "^icpserve%u$", mark);
	server_start(&server, "--match", match, "--interval", "100ms", NULL);
	for (int i = 0; i < 8; i++)
		one_generation(mark);
	while (server_metric(&server, "icpbpf_followed_processes") > 0)
		nap_ms(50);
	early = status_number(server.r.pid, "VmRSS");
	outside_look(&before, server.r.pid);
	for (int i = 0; i < 16; i++)
		one_generation(mark);
	while (server_metric(&server, "icpbpf_followed_processes") > 0)
		nap_ms(50);
	outside_look(&after, server.r.pid);
	assert_in_range(status_number(server.r.pid, "VmRSS"), 1, early + 1024);
	/* our own connections end a moment after we close them */
	assert_true(count(after.fds, "\n") <= count(before.fds, "\n") + 3);
	outside_free(&before);
	outside_free(&after);
	server_stop(&server);
}

/* A line that says why, and nothing is attached to. */
static void refusals(void **state)
{
	static const struct {
		const char *args[4], *says;
		int status;
	} cases[] = {
		{{NULL}, "what is to be followed?", 2},
		{{"--match", "("}, "--match '('", 1},
		{{"--cgroup", "no/such"}, "there is no cgroup no/such", 1},
		{{"--pid", "1x"}, "'1x' is not a process id", 2},
		{{"--match", "x", "--listen", "0.0.0.0:0"}, "needs --token-file", 1},
		{{"--match", "x", "--listen", "nonsense"}, "ADDRESS:PORT", 1},
		{{"--match", "x", "--mtbf", "soon"}, "--mtbf takes a time", 2},
		{{"--config", "/no/such"}, "read /no/such", 1},
		{{"--pid", "4194304"}, "none of the processes can be followed", 1},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct run r;
		char *said;

		assert_int_equal(icp(&r, NULL, "serve", cases[i].args[0], cases[i].args[1],
				     cases[i].args[2], cases[i].args[3], NULL),
				 cases[i].status);
		said = run_text(r.err);
		if (!strstr(said, cases[i].says))
			fail_msg("case %zu said: %s", i, said);
		free(said);
		run_close(&r);
	}
}

static int once(void **state)
{
	adopt_orphans();
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(shows_what_was_written, clean),
		cmocka_unit_test_teardown(segments, clean),
		cmocka_unit_test_teardown(harms_nobody, clean),
		cmocka_unit_test_teardown(one_is_held, clean),
		cmocka_unit_test_teardown(come_and_go, clean),
		cmocka_unit_test_teardown(families, clean),
		cmocka_unit_test_teardown(by_cgroup, clean),
		cmocka_unit_test_teardown(from_a_file, clean),
		cmocka_unit_test_teardown(in_a_storm, clean),
		cmocka_unit_test_teardown(stays_small, clean),
		cmocka_unit_test_teardown(refusals, clean),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, once, NULL);
}
