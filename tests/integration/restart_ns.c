// SPDX-License-Identifier: GPL-2.0
/* icp-bpf restart --new-pid-namespace: one version, many times at once, again and again. */
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"
#include "lib/tracer.h"

#define COPIES 3

static int setup_writer(void **state)
{
	int err = setup(state);

	((struct job *)*state)->target = "tests/targets/writer";
	return err;
}

static void start_writer(struct job *j)
{
	const char *argv[] = {built("tests/targets/writer"), j->dir, NULL};

	start(j, argv);
	touch(j, "killed");
	wait_for(j, "half");
	wait_for(j, "ready");
}

static json_t *said_of(struct run *r)
{
	char *text = run_text(r->out);
	json_t *said = json_loads(text, 0, NULL);

	assert_non_null(said);
	free(text);
	return said;
}

static void begin(const struct job *j, struct run *r, const char *version, const char *more)
{
	const char *argv[] = {built("icp-bpf"),
			      "restart",
			      "--json",
			      "--new-pid-namespace",
			      "--dir",
			      j->repo,
			      "--version",
			      version,
			      more,
			      NULL};

	run_start(r, NULL, argv);
}

/* It runs; our pid of its first process. */
static pid_t runs(struct run *r)
{
	json_t *said;
	pid_t pid;

	if (!run_says(r, "\"phases\"", 30))
		fail_msg("%s", run_text(r->err));
	said = said_of(r);
	assert_true(number(said, "init") > 1);
	assert_int_equal(json_array_size(json_object_get(said, "pids")), 2);
	pid = (pid_t)json_integer_value(json_array_get(json_object_get(said, "pids"), 0));
	json_decref(said);
	return pid;
}

static void ends_well(const struct job *j, struct run *r)
{
	run_wait(r, 60);
	if (exists(j, "wrong"))
		fail_msg("%s", file_text("%s", in(j, "wrong")));
	assert_true(WIFEXITED(r->status));
	assert_int_equal(WEXITSTATUS(r->status), 7);
	run_close(r);
}

/* Its pids are taken all the while, by the first of all. */
static void test_many(void **state)
{
	struct job *j = *state;
	struct run r[COPIES];
	pid_t pids[COPIES];
	int status;

	start_writer(j);
	cut(j);
	for (int i = 0; i < COPIES; i++) {
		begin(j, &r[i], "1", NULL);
		pids[i] = runs(&r[i]);
		assert_int_not_equal(pids[i], j->pid);
		for (int k = 0; k < i; k++)
			assert_int_not_equal(pids[i], pids[k]);
	}
	touch(j, "go");
	for (int i = 0; i < COPIES; i++)
		ends_well(j, &r[i]);
	assert_int_equal(waitpid(j->pid, &status, 0), j->pid);
	j->pid = 0;
	assert_int_equal(WEXITSTATUS(status), 7);
	assert_no_orphans((const pid_t[]){0}, 20);
}

/* A version of a job in a namespace, cut by its pid here, goes into a namespace again. */
static void test_again(void **state)
{
	struct job *j = *state, copy = *j;
	struct run r;
	char version[3] = "1";

	start_writer(j);
	cut(j);
	kill_job(j);
	for (int i = 0; i < 3; i++, version[0]++) {
		begin(j, &r, version, NULL);
		copy.pid = runs(&r);
		cut(&copy);
		kill(copy.pid, SIGKILL);
		run_wait(&r, 30);
		assert_int_equal(WEXITSTATUS(r.status), 128 + SIGKILL);
		run_close(&r);
	}
	begin(j, &r, "4", NULL);
	runs(&r);
	touch(j, "go");
	ends_well(j, &r);
	assert_no_orphans((const pid_t[]){0}, 20);
}

/* With its pids here it would not know itself. */
static void test_not_without(void **state)
{
	struct job *j = *state, copy = *j;
	struct run r, plain;
	char *said;

	start_writer(j);
	cut(j);
	begin(j, &r, "1", NULL);
	copy.pid = runs(&r);
	cut(&copy);
	assert_int_equal(icp(&plain, NULL, "restart", "--dir", j->repo, "--version", "2", NULL),
			 1);
	said = run_text(plain.err);
	assert_non_null(strstr(said, "--new-pid-namespace"));
	free(said);
	run_close(&plain);
	touch(j, "go");
	ends_well(j, &r);
}

static void test_detached(void **state)
{
	const pid_t none[] = {0};
	struct job *j = *state;
	json_t *said;
	struct run r;
	pid_t init;

	start_writer(j);
	cut(j);
	kill_job(j);
	begin(j, &r, "1", "--detach");
	run_wait(&r, 30);
	assert_int_equal(r.status, 0);
	said = said_of(&r);
	init = (pid_t)number(said, "init");
	json_decref(said);
	run_close(&r);
	assert_int_equal(status_number(init, "PPid"), getpid());
	touch(j, "go");
	assert_int_equal(waitpid(init, NULL, 0), init);
	assert_false(exists(j, "wrong"));
	assert_no_orphans(none, 20);
}

/* Its increments are those of the version, under another pid. */
static void test_tracked(void **state)
{
	const pid_t none[] = {0};
	struct job *j = *state;
	json_t *said;
	struct run r;
	char pid[16];
	pid_t init;

	start_writer(j);
	cut(j);
	kill_job(j);
	begin(j, &r, "1", "--keep-tracking");
	snprintf(pid, sizeof(pid), "%d", runs(&r));
	while (!strstr(run_text(r.err), "goes on tracking"))
		nap_ms(5);
	for (int i = 2; i < 4; i++) {
		struct run cut;

		if (icp(&cut, NULL, "checkpoint", "--json", "--pid", pid, "--dir", j->repo,
			NULL))
			fail_msg("%s", run_text(cut.err));
		said = said_of(&cut);
		assert_int_equal(number(said, "parent"), i - 1);
		assert_string_equal(text(said, "type"), "incremental");
		json_decref(said);
		run_close(&cut);
	}
	init = (pid_t)status_number(atoi(pid), "PPid");
	kill(init, SIGKILL);
	run_wait(&r, 30);
	assert_int_equal(WEXITSTATUS(r.status), 128 + SIGKILL);
	run_close(&r);
	assert_no_orphans(none, 20);
	begin(j, &r, "3", NULL);
	runs(&r);
	touch(j, "go");
	ends_well(j, &r);
}

static void test_signal(void **state)
{
	struct job *j = *state;
	struct run r;

	start_writer(j);
	cut(j);
	begin(j, &r, "1", NULL);
	runs(&r);
	kill(r.pid, SIGTERM);
	run_wait(&r, 30);
	assert_int_equal(WEXITSTATUS(r.status), 128 + SIGTERM);
	run_close(&r);
	assert_no_orphans((const pid_t[]){j->pid, 0}, 20);
}

static void test_scenes(void **state)
{
	static const char *const scenes[] = {"threads", "tree", "signals", "calls", "files"};
	struct job *j = *state;

	j->target = NULL;
	for (size_t i = 0; i < sizeof(scenes) / sizeof(*scenes); i++) {
		char version[8];
		struct run r;

		unlink(in(j, "ready"));
		unlink(in(j, "go"));
		start_scene(j, scenes[i], NULL);
		cut(j);
		kill_job(j);
		snprintf(version, sizeof(version), "%zu", i + 1);
		begin(j, &r, version, NULL);
		if (!run_says(&r, "\"phases\"", 30))
			fail_msg("%s: %s", scenes[i], run_text(r.err));
		touch(j, "go");
		run_wait(&r, 60);
		if (exists(j, "wrong"))
			fail_msg("%s: %s", scenes[i], file_text("%s", in(j, "wrong")));
		assert_int_equal(r.status, 0);
		run_close(&r);
	}
}

int main(void)
{
#define NS(name) cmocka_unit_test_setup_teardown(name, setup_writer, teardown)
	const struct CMUnitTest tests[] = {
		NS(test_many),	  NS(test_again),  NS(test_not_without), NS(test_detached),
		NS(test_tracked), NS(test_signal), NS(test_scenes),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
