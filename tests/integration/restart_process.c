// SPDX-License-Identifier: GPL-2.0
/* What a process is besides its memory, and what is refused before the job is touched. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"

static int setup_remade(void **state)
{
	int err = setup(state);

	((struct job *)*state)->target = "tests/targets/remade";
	return err;
}

static void test_scheduled(void **state)
{
	play(*state, "scheduled");
}

static void test_traits(void **state)
{
	play(*state, "traits");
}

static void test_chroot(void **state)
{
	if (getuid())
		skip();
	play(*state, "chroot");
}

/* The checkpoint says @text in one line and leaves no version; with --no-restart there is one. */
static void refused(const struct job *j, const char *text)
{
	struct outside before;
	char pid[16], *err;
	struct run r;

	snprintf(pid, sizeof(pid), "%d", j->pid);
	outside_look(&before, j->pid);
	assert_int_equal(icp(&r, NULL, "checkpoint", "--pid", pid, "--dir", j->repo, NULL), 1);
	err = run_text(r.err);
	if (!strstr(err, text) || strchr(err, '\n') != err + strlen(err) - 1)
		fail_msg("expected '%s', got: %s", text, err);
	free(err);
	run_close(&r);
	assert_untouched(j->pid, &before, true);
	outside_free(&before);
	if (icp(&r, NULL, "checkpoint", "--no-restart", "--pid", pid, "--dir", j->repo, NULL))
		fail_msg("%s", run_text(r.err));
	run_close(&r);
}

static void test_deleted_program(void **state)
{
	struct job *j = *state;
	char command[400], program[128];
	const char *argv[] = {program, "idle", j->dir, NULL};

	snprintf(program, sizeof(program), "%s", in(j, "program"));
	snprintf(command, sizeof(command), "cp %s %s", built(j->target), argv[0]);
	assert_int_equal(system(command), 0);
	start(j, argv);
	wait_for(j, "ready");
	assert_int_equal(unlink(argv[0]), 0);
	refused(j, "program) was deleted");
}

static void test_deleted_cwd(void **state)
{
	struct job *j = *state;
	const char *argv[] = {
		"sh", "-c",   "cd $1/sub && rmdir $1/sub && : >$1/ready && sleep 600",
		"sh", j->dir, NULL};

	assert_int_equal(mkdir(in(j, "sub"), 0777), 0);
	start(j, argv);
	wait_for(j, "ready");
	refused(j, "working directory");
}

static void test_namespaces(void **state)
{
	static const char *const options[][2] = {{"--net", "another network namespace"},
						 {"--mount", "another mount namespace"},
						 {"--uts", "another UTS namespace"}};
	struct job *j = *state;

	if (getuid())
		skip();
	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
		const char *argv[] = {"unshare", options[i][0], built(j->target),
				      "idle",	 j->dir,	NULL};

		unlink(in(j, "ready"));
		start(j, argv);
		wait_for(j, "ready");
		refused(j, options[i][1]);
		kill_job(j);
	}
}

static void test_huge_pages(void **state)
{
	struct job *j = *state;
	char *at = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		skip();
	munmap(at, 2 << 20);
	start_scene(j, "huge", NULL);
	refused(j, "huge pages (hugetlbfs)");
}

int main(void)
{
#define PROCESS(name) cmocka_unit_test_setup_teardown(name, setup_remade, teardown)
	const struct CMUnitTest tests[] = {
		PROCESS(test_scheduled),   PROCESS(test_traits),
		PROCESS(test_chroot),	   PROCESS(test_deleted_program),
		PROCESS(test_deleted_cwd), PROCESS(test_namespaces),
		PROCESS(test_huge_pages),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
