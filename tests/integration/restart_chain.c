// SPDX-License-Identifier: GPL-2.0
/*
 * Every version of a chain, cut while the job (tests/targets/toiler) runs, can be restarted in
 * every way; the same for the job of a user that is not root, who gains nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"

#include "proc/tasks.h"

#define VERSIONS 20
#define PATIENCE 120 /* s; on a busy machine */

static const struct way {
	const char *lookup, *more;
} ways[] = {{"direct", NULL}, {"rbtree", NULL}, {"direct", "--lazy"}};

static void cut_with(struct job *j, const char *more)
{
	char pid[16];
	const char *argv[] = {built("icp-bpf"), "checkpoint", "--pid", pid,
			      "--dir",		j->repo,      more,    NULL};
	struct run r;

	snprintf(pid, sizeof(pid), "%d", j->pid);
	run_start(&r, NULL, argv);
	run_wait(&r, PATIENCE);
	if (r.status)
		fail_msg("%s", run_text(r.err));
	run_close(&r);
}

/* Some by comparing, the others by what a session saw. */
static void cut_chain(struct job *j)
{
	for (unsigned i = 1; i <= VERSIONS; i++) {
		cut_with(j, i == VERSIONS / 2 ? "--keep-tracking" : NULL);
		nap_ms(15);
	}
}

static void begin(struct job *j, struct run *r, unsigned version, const struct way *way)
{
	char number[16];
	const char *argv[] = {built("icp-bpf"), "restart", "--json",  "--dir",	j->repo,
			      "--version",	number,	   "--files", "rewind", "--lookup",
			      way->lookup,	way->more, NULL};

	unlink(in(j, "go"));
	unlink(in(j, "ask"));
	snprintf(number, sizeof(number), "%u", version);
	if (!restart_runs(r, argv))
		fail_msg("version %u by %s: %s", version, way->lookup, run_text(r->err));
}

/* It looks at all that it has, and ends. */
static void finish(struct job *j, struct run *r, unsigned version, const struct way *way)
{
	touch(j, "go");
	run_wait(r, PATIENCE);
	if (exists(j, "wrong"))
		fail_msg("version %u by %s: %s", version, way->lookup,
			 file_text("%s", in(j, "wrong")));
	if (r->status)
		fail_msg("version %u by %s: status %#x, %s", version, way->lookup, r->status,
			 run_text(r->err));
	run_close(r);
	assert_no_orphans((const pid_t[]){0}, PATIENCE);
}

/* Files are cut back to what they were, never made longer: the newest version comes first. */
static void each_version(struct job *j, unsigned step)
{
	struct run r;

	for (unsigned version = VERSIONS; version >= 1 && version <= VERSIONS; version -= step)
		for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
			begin(j, &r, version, &ways[i]);
			finish(j, &r, version, &ways[i]);
		}
}

static void start_toiler(struct job *j, const char *const *argv)
{
	start(j, argv);
	wait_for(j, "ready");
}

static void test_chain(void **state)
{
	struct job *j = *state;
	const char *argv[] = {built("tests/targets/toiler"), j->dir, NULL};

	start_toiler(j, argv);
	cut_chain(j);
	kill_job(j);
	assert_no_orphans((const pid_t[]){0}, PATIENCE);
	each_version(j, 1);
}

/* ---- of a user ---- */

static const char *const rights[] = {
	"Uid:",	   "Gid:",    "Groups:", "CapInh:",	"CapPrm:",
	"CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:"};

static void add_rights(char **text, pid_t pid)
{
	char *status = file_text("/proc/%d/status", pid), *with;

	for (size_t i = 0; i < sizeof(rights) / sizeof(*rights); i++) {
		char *line = strstr(status, rights[i]);

		assert_non_null(line);
		assert_true(asprintf(&with, "%s%.*s\n", *text, (int)strcspn(line, "\n"), line) >
			    0);
		free(*text);
		*text = with;
	}
	free(status);
}

/* Of processes that are always there under these pids. */
static char *rights_of(const pid_t *pids, size_t n)
{
	char *text = strdup("");

	for (size_t i = 0; i < n; i++)
		add_rights(&text, pids[i]);
	return text;
}

/* As the user can do it. */
static void start_as_user(struct job *j)
{
	const char *argv[] = {"setpriv",
			      "--reuid=54321",
			      "--regid=54322",
			      "--groups=54323,54324",
			      "--inh-caps=-all",
			      "--bounding-set=-sys_admin",
			      "--no-new-privs",
			      built("tests/targets/toiler"),
			      j->dir,
			      NULL};

	start_toiler(j, argv);
}

static void test_user(void **state)
{
	struct job *j = *state;
	pid_t pids[2];
	pid_list all = {0};
	char *before, *now;
	struct run r;

	start_as_user(j);
	cut_chain(j);
	assert_int_equal(tasks_descendants(j->pid, &all), 0);
	assert_true(all.n >= 3);
	pids[0] = j->pid;
	pids[1] = all.data[0]; /* its first child */
	free_pids(&all);
	before = rights_of(pids, 2);
	assert_non_null(strstr(before, "Uid:\t54321\t54321\t54321\t54321\n"));
	assert_non_null(strstr(before, "CapEff:\t0000000000000000\n"));
	kill_job(j);
	assert_no_orphans((const pid_t[]){0}, PATIENCE);
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		begin(j, &r, VERSIONS, &ways[i]);
		now = rights_of(pids, 2);
		assert_string_equal(before, now);
		free(now);
		finish(j, &r, VERSIONS, &ways[i]);
	}
	free(before);
	each_version(j, 5);
}

static void test_pending_timer(void **state)
{
	struct job *j = *state;

	j->target = "tests/targets/ticking";
	play(j, "timer");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_chain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_user, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pending_timer, setup, teardown),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
