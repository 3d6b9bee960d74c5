// SPDX-License-Identifier: GPL-2.0
/* Checkpoints of what `icp-bpf serve` follows: they show as metrics and versions, jobs do not get in each other's way, and what was
 * forecast is what comes. */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/kid.h"
#include "lib/scratch.h"
#include "lib/server.h"
#include "lib/tracer.h"

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)

static struct server server;
static char dirs[2][SCRATCH_MAX];
static struct talker load;

static void remove_dir(char *dir)
{
	struct run r;

	if (!dir[0])
		return;
	run_start(&r, NULL, (const char *[]){"rm", "-rf", dir, NULL});
	run_wait(&r, 60);
	run_close(&r);
	dir[0] = 0;
}

static int clean(void **state)
{
	if (server.r.pid)
		run_close(&server.r);
	memset(&server, 0, sizeof(server));
	if (load.pid)
		talker_end(&load);
	memset(&load, 0, sizeof(load));
	kids_end();
	remove_dir(dirs[0]);
	remove_dir(dirs[1]);
	return 0;
}

static const char *new_dir(int i)
{
	assert_non_null(mkdtemp(scratch_shm(dirs[i], "serve")));
	return dirs[i];
}

/* icp-bpf checkpoint --json of @pid; what it said. */
static json_t *cut(pid_t pid, const char *dir)
{
	struct run r;
	json_t *json;
	char *text;
	int status = icp(&r, NULL, "checkpoint", "--pid", decimal(pid), "--dir", dir,
			 "--no-restart", "--json", NULL);

	text = run_text(status ? r.err : r.out);
	if (status)
		fail_msg("checkpoint: %s", text);
	json = json_loads(text, 0, NULL);
	assert_non_null(json);
	free(text);
	run_close(&r);
	return json;
}

static struct kid *kid_with_memory(uint64_t *area, size_t pages)
{
	struct kid *kid = kid_start();

	*area = kid_call(kid, kid_map, pages * PAGE, RW, MAP_PRIVATE);
	kid_call(kid, kid_write, *area, pages);
	return kid;
}

static double of_kids(const char *name, const char *labels)
{
	char sample[160];

	snprintf(sample, sizeof(sample), "%s{comm=\"serve_cut\"%s}", name, labels);
	return server_metric(&server, sample);
}

static json_t *version_of(json_t *list, int number)
{
	json_t *v;
	size_t i;

	json_array_foreach(json_object_get(list, "versions"), i, v)
	{
		if ((int)json_integer_value(json_object_get(v, "version")) == number)
			return v;
	}
	fail_msg("version %d is not shown", number);
	return NULL;
}

static void shows_checkpoints(void **state)
{
	uint64_t area;
	struct kid *kid = kid_with_memory(&area, 300);
	const char *dir = new_dir(0);
	json_t *full, *inc, *list;
	struct run r;

	server_start(&server, "--pid", decimal(kid->pid), "--interval", "200ms", NULL);
	server_wait_pid(&server, kid->pid, true);
	full = cut(kid->pid, dir);
	kid_call(kid, kid_write, area, 50);
	inc = cut(kid->pid, dir);
	assert_string_equal(text(full, "type"), "full");
	assert_string_equal(text(inc, "type"), "incremental");
	assert_string_not_equal(text(inc, "found_by"), "hash"); /* the daemon's trackers knew */
	server_catch_up(&server);
	assert_true(of_kids("icpbpf_checkpoints_total", ",type=\"full\"") == 1);
	assert_true(of_kids("icpbpf_checkpoints_total", ",type=\"incremental\"") == 1);
	assert_true(of_kids("icpbpf_checkpoint_bytes_total", ",type=\"full\"") ==
		    (double)number(full, "bytes_written"));
	assert_true(of_kids("icpbpf_checkpoint_bytes_total", ",type=\"incremental\"") ==
		    (double)number(inc, "bytes_written"));
	assert_true(of_kids("icpbpf_checkpoint_pause_seconds_count", "") == 2);
	assert_true(of_kids("icpbpf_checkpoint_pause_seconds_bucket", ",le=\"+Inf\"") == 2);
	assert_true(fabs(of_kids("icpbpf_checkpoint_duration_seconds_sum", "") -
			 json_real_value(json_object_get(full, "total_seconds")) -
			 json_real_value(json_object_get(inc, "total_seconds"))) < 1e-6);
	list = server_json(&server, "/api/versions");
	assert_int_equal(json_array_size(json_object_get(list, "versions")), 2);
	assert_true(json_is_true(json_object_get(version_of(list, 2), "live")));
	assert_int_equal(number(version_of(list, 2), "bytes"), number(inc, "bytes_written"));
	assert_true(json_is_null(json_object_get(list, "running")));
	json_decref(list);
	/* one that fails is counted, too */
	assert_int_equal(icp(&r, NULL, "checkpoint", "--pid", decimal(kid->pid), "--dir",
			     "/proc/no/such", "--no-restart", NULL),
			 1);
	run_close(&r);
	server_catch_up(&server);
	assert_true(of_kids("icpbpf_checkpoint_failures_total", "") == 1);
	list = server_json(&server, "/api/versions");
	assert_int_equal(json_array_size(json_object_get(list, "failures")), 1);
	json_decref(list);
	server_stop(&server);
	/* another daemon finds them in the repository */
	server_start(&server, "--pid", decimal(kid->pid), "--dir", dir, NULL);
	list = server_json(&server, "/api/versions");
	assert_int_equal(json_array_size(json_object_get(list, "versions")), 2);
	assert_false(json_is_true(json_object_get(version_of(list, 1), "live")));
	assert_int_equal(number(version_of(list, 2), "parent"), 1);
	assert_int_equal(number(version_of(list, 2), "pages"), number(inc, "pages"));
	json_decref(list);
	json_decref(full);
	json_decref(inc);
	server_stop(&server);
}

/* Who listens hears of it, with the same numbers. */
static void tells_listeners(void **state)
{
	static const char request[] = "GET /api/events HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n";
	uint64_t area;
	struct kid *kid = kid_with_memory(&area, 300);
	static char said[1 << 18];
	json_t *is, *told;
	char *at = NULL, *end;
	size_t have = 0;
	ssize_t got;
	int fd;

	server_start(&server, "--pid", decimal(kid->pid), "--interval", "200ms", NULL);
	server_wait_pid(&server, kid->pid, true);
	fd = http_connect(server.port);
	assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
	is = cut(kid->pid, new_dir(0));
	while (!at || !strstr(at, "\n\n")) {
		got = recv(fd, said + have, sizeof(said) - have - 1, 0);
		assert_true(got > 0);
		have += (size_t)got;
		said[have] = 0;
		at = strstr(said, "event: checkpoint\n");
	}
	assert_non_null(strstr(said, "event: hello\n"));
	at = strstr(at, "data: ") + 6;
	end = strstr(at, "\n\n");
	told = json_loadb(at, (size_t)(end - at), 0, NULL);
	assert_non_null(told);
	assert_int_equal(number(told, "bytes"), number(is, "bytes_written"));
	assert_int_equal(number(told, "version"), 1);
	assert_string_equal(text(told, "comm"), "serve_cut");
	close(fd);
	json_decref(told);
	json_decref(is);
	server_stop(&server);
}

/* Two jobs in turn, each into its own repository: both go on from their own last version, with what was seen since. */
static void jobs_in_turn(void **state)
{
	uint64_t areas[2];
	struct kid *kids[2] = {kid_with_memory(&areas[0], 400),
			       kid_with_memory(&areas[1], 400)};

	server_start(&server, "--pid", decimal(kids[0]->pid), "--pid", decimal(kids[1]->pid),
		     "--interval", "200ms", NULL);
	server_wait_pid(&server, kids[1]->pid, true);
	for (int i = 0; i < 2; i++)
		json_decref(cut(kids[i]->pid, new_dir(i)));
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 2; i++) {
			json_t *json;
			struct run r;

			kid_call(kids[i], kid_write, areas[i] + 40 * PAGE, 20);
			server_catch_up(&server);
			json = cut(kids[i]->pid, dirs[i]);
			assert_string_equal(text(json, "type"), "incremental");
			assert_string_not_equal(text(json, "found_by"), "hash");
			assert_in_range(number(json, "pages"), 20, 120);
			json_decref(json);
			assert_int_equal(icp(&r, NULL, "verify", "--dir", dirs[i], NULL), 0);
			run_close(&r);
		}
	server_stop(&server);
}

/* What an increment cut now would be, when that is at least @pages. */
static json_t *next_of(uint64_t pages)
{
	double end = seconds_now() + 120;

	for (;;) {
		json_t *json = server_json(&server, "/api/forecast"), *next;

		next = json_object_get(json_array_get(json_object_get(json, "jobs"), 0),
				       "next");
		if (next && !strcmp(text(next, "type"), "incremental") &&
		    number(next, "pages") >= pages) {
			json_incref(next);
			json_decref(json);
			return next;
		}
		json_decref(json);
		if (seconds_now() > end)
			fail_msg("no forecast of %lu pages", (unsigned long)pages);
		nap_ms(50);
	}
}

/* A steady writer: the forecast is within 15 % of what an increment then is. */
static void forecast_comes_true(void **state)
{
	const char *dir = new_dir(0);

	talker_start(&load, built("tests/targets/memload"), "128", NULL);
	talker_ask(&load, "", "ready");
	talker_ask(&load, "rate 2000\n", "ok");
	server_start(&server, "--pid", decimal(load.pid), "--interval", "200ms", NULL);
	server_wait_pid(&server, load.pid, true);
	json_decref(cut(load.pid, dir));
	for (int i = 0; i < 4; i++) {
		json_t *next = next_of(8000), *is = cut(load.pid, dir);
		double said = json_number_value(json_object_get(next, "bytes")),
		       was = (double)number(is, "bytes_written");

		print_message("forecast %.0f bytes, was %.0f: %.3f\n", said, was, said / was);
		assert_true(said > 0.85 * was && said < 1.15 * was);
		assert_true(json_real_value(json_object_get(next, "pause_s")) > 0);
		assert_int_equal(number(next, "measured"), i);
		json_decref(next);
		json_decref(is);
		server_catch_up(&server);
	}
	server_stop(&server);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(shows_checkpoints, clean),
		cmocka_unit_test_teardown(tells_listeners, clean),
		cmocka_unit_test_teardown(jobs_in_turn, clean),
		cmocka_unit_test_teardown(forecast_comes_true, clean),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
