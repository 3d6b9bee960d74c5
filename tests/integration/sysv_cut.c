// SPDX-License-Identifier: GPL-2.0
/* What a checkpoint does about segments: others that attach them, those that nobody attaches, large ones. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/kid.h"
#include "lib/sysv_job.h"

#define PAGE 4096ul

static void start_two(struct sysv_job *j, const char *pages)
{
	sysv_start(j, "ring", j->key, "0", "2", pages, NULL);
	sysv_wait(j, "ready.0");
	sysv_start(j, "ring", j->key, "1", "2", pages, NULL);
	sysv_wait(j, "ready.1");
	sysv_turns(j, sysv_id(j, j->key), 8);
}

static void contains(char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("expected '%s', got: %s", part, text);
	free(text);
}

static void test_peers_warn(void **state)
{
	struct sysv_job *j = *state;
	char text[64];

	start_two(j, "30");
	snprintf(text, sizeof(text), "warning: pid %d (sysv_target) attaches", j->pids[1]);
	j->n = 1;
	contains(sysv_cut(j, NULL), text);
	j->n = 2;
	sysv_go(j);
}

static void test_peers_refuse(void **state)
{
	struct sysv_job *j = *state;
	char pid[16];
	struct run r;

	start_two(j, "30");
	snprintf(pid, sizeof(pid), "%d", j->pids[0]);
	assert_int_equal(icp(&r, NULL, "checkpoint", "--pid", pid, "--dir", j->repo,
			     "--shm-peers", "refuse", NULL),
			 1);
	contains(run_text(r.err), "is not part of the job");
	run_close(&r);
	sysv_turns(j, sysv_id(j, j->key), 8);
	sysv_go(j);
}

static void test_peers_include(void **state)
{
	struct sysv_job *j = *state;

	start_two(j, "30");
	j->n = 1;
	free(sysv_cut(j, "--shm-peers", "include", NULL));
	j->n = 2;
	sysv_kill(j);
	sysv_clean(j);
	free(sysv_restart(j, 1, NULL));
	sysv_turns(j, sysv_id(j, j->key), 8);
	sysv_go(j);
}

static void test_detached(void **state)
{
	struct sysv_job *j = *state;

	sysv_start(j, "lone", j->key, "50", NULL);
	sysv_wait(j, "ready.0");
	for (int v = 1; v <= 2; v++)
		free(sysv_cut(j, "--shm-detached", NULL));
	sysv_kill(j);
	for (int v = 1; v <= 2; v++) {
		sysv_clean(j);
		free(sysv_restart(j, v, NULL));
		sysv_go(j);
	}
}

/* ---- byte for byte ---- */

static uint64_t write_by_read(const uint64_t *args)
{
	int id = (int)args[0], zero = open("/dev/urandom", O_RDONLY);
	char *seg = shmat(id, NULL, 0);
	uint64_t done = 0;

	if (seg == (void *)-1 || zero < 0)
		return 0;
	for (uint64_t page = args[1]; page < args[2]; page += args[3])
		done += read(zero, seg + page * PAGE, PAGE) == PAGE;
	close(zero);
	shmdt(seg);
	return done;
}

static json_t *cut_json(struct sysv_job *j)
{
	char pid[16];
	struct run r;
	char *text;
	json_t *out;

	snprintf(pid, sizeof(pid), "%d", j->pids[0]);
	if (icp(&r, NULL, "checkpoint", "--pid", pid, "--dir", j->repo, "--json",
		"--keep-tracking", NULL))
		fail_msg("%s", run_text(r.err));
	text = run_text(r.out);
	out = json_loads(text, 0, NULL);
	assert_non_null(out);
	free(text);
	run_close(&r);
	return out;
}

static void end_session(struct sysv_job *j)
{
	char pid[16];
	struct run r;

	snprintf(pid, sizeof(pid), "%d", j->pids[0]);
	assert_int_equal(icp(&r, NULL, "checkpoint", "--pid", pid, "--stop-tracking", NULL), 0);
	run_close(&r);
}

#define CHAIN 4

/* The whole segment of version @v is what it was when that was cut. */
static void check_version(struct sysv_job *j, int v, const void *want, size_t size)
{
	size_t now;
	void *copy;

	sysv_clean(j);
	sysv_touch(j, "quiet");
	free(sysv_restart(j, v, NULL));
	copy = sysv_copy(sysv_id(j, j->key), &now);
	assert_int_equal(now, size);
	for (size_t at = 0; at < size; at += PAGE)
		if (memcmp((char *)copy + at, (const char *)want + at, PAGE))
			fail_msg("version %d differs in page %zu", v, at / PAGE);
	free(copy);
	sysv_kill(j);
}

/*
 * A job that stands still, tracked; writes come from read(2) by a process that attaches the segment while the tracking is
 * on, is seen by nobody, and detaches again; then @pages of them, each version others.
 */
static void play_unseen(struct sysv_job *j, size_t pages, size_t stride)
{
	char number[24];
	void *copies[CHAIN];
	size_t size = 0;
	int id;

	snprintf(number, sizeof(number), "%zu", pages);
	sysv_start(j, "ring", j->key, "0", "1", number, NULL);
	sysv_wait(j, "ready.0");
	id = sysv_id(j, j->key);
	sysv_turns(j, id, 3);
	sysv_touch(j, "quiet");
	nap_ms(100);
	for (int v = 0; v < CHAIN; v++) {
		struct kid *kid = kid_start();
		json_t *result;
		uint64_t wrote = kid_call(kid, write_by_read, (uint64_t)id, 1 + (uint64_t)v,
					  pages, stride);

		assert_int_equal(wrote, (pages - 1 - (size_t)v + stride - 1) / stride);
		copies[v] = sysv_copy(id, &size);
		result = cut_json(j);
		/* what was written, and far from all of it */
		if (v)
			assert_in_range(json_integer_value(json_object_get(result, "pages")) -
						json_integer_value(
							json_object_get(result, "stale_pages")),
					wrote, wrote + 200 + pages / 8);

		json_decref(result);
		kids_end();
	}
	end_session(j);
	sysv_kill(j);
	for (int v = CHAIN; v >= 1; v--) {
		check_version(j, v, copies[v - 1], size);
		free(copies[v - 1]);
	}
}

static void test_unseen_writer(void **state)
{
	play_unseen(*state, 2000, 37);
}

/* 1 % dirty in each version. */
static void test_big(void **state)
{
	const char *wide = getenv("ICP_LONG");

	play_unseen(*state, (wide && *wide == '1' ? 1024ul : 256ul) << 8, 100);
}

static int teardown(void **state)
{
	kids_end();
	return sysv_teardown(state);
}

int main(void)
{
#define SYSV(name) cmocka_unit_test_setup_teardown(name, sysv_setup, teardown)
	const struct CMUnitTest tests[] = {
		SYSV(test_peers_warn), SYSV(test_peers_refuse),	 SYSV(test_peers_include),
		SYSV(test_detached),   SYSV(test_unseen_writer), SYSV(test_big),
	};

	adopt_orphans();
	cmocka_set_test_filter(getenv("ICP_TEST_FILTER"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
