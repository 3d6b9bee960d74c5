// SPDX-License-Identifier: GPL-2.0
/* Open files and the locks on them, as tests/targets/openfiles checks them after a restart. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"

static int setup_files(void **state)
{
	int err = setup(state);

	((struct job *)*state)->target = "tests/targets/openfiles";
	return err;
}

/* Fails, says @text in one line, and leaves nothing behind. */
static void refused(const struct job *j, const char *option, const char *text)
{
	const pid_t keep[] = {j->pid, 0};
	struct run r;
	char *err;

	assert_int_equal(icp(&r, NULL, "restart", "--dir", j->repo, option, NULL), 1);
	err = run_text(r.err);
	if (!strstr(err, text) || strchr(err, '\n') != err + strlen(err) - 1)
		fail_msg("expected '%s', got: %s", text, err);
	free(err);
	assert_no_orphans(keep, 5);
	run_close(&r);
}

#define PLAY(name)                                                                             \
	static void test_##name(void **state)                                                  \
	{                                                                                      \
		play(*state, #name);                                                           \
	}

PLAY(locks)
PLAY(written)
PLAY(holes)
PLAY(mapped)
PLAY(nameless)
PLAY(names)
PLAY(fifos)
PLAY(closed_pipe)

static void must(struct job *j, const char *verb, const char *a, const char *b)
{
	struct run r;

	if (icp(&r, NULL, verb, "--dir", j->repo, a, b, NULL))
		fail_msg("%s: %s", verb, run_text(r.err));
	run_close(&r);
}

/* Versions that refer to one another, sound, and one that is left alone. */
static void test_chain_of_contents(void **state)
{
	struct job *j = *state;
	struct stat first, third;

	start_scene(j, "holes", NULL);
	for (int i = 0; i < 3; i++)
		cut(j);
	kill_job(j);
	must(j, "verify", NULL, NULL);
	assert_int_equal(stat(in(j, "repo/000001/0/file_1.1.bin"), &first), 0);
	/* nothing was written: nothing is in it but its head and its end */
	assert_int_equal(stat(in(j, "repo/000003/0/file_1.3.bin"), &third), 0);
	assert_true(third.st_size < first.st_size);
	must(j, "prune", "--keep-last", "1");
	must(j, "verify", NULL, NULL);
	go_on(j, "3", "direct");
}

/* ---- somebody else has the lock now ---- */

static void saved(struct job *j, const char *scene)
{
	start_scene(j, scene, NULL);
	cut(j);
	kill_job(j);
}

static void lock_refused(struct job *j, int fd)
{
	char text[64];

	snprintf(text, sizeof(text), "which pid %d (restart_files) has locked now", getpid());
	refused(j, NULL, text);
	close(fd);
	go_on(j, "1", "direct");
}

static void test_flock_taken(void **state)
{
	struct job *j = *state;
	int fd;

	saved(j, "one_flock");
	fd = open(in(j, "whole"), O_RDONLY);
	assert_int_equal(flock(fd, LOCK_SH), 0);
	lock_refused(j, fd);
}

static void take_range(const struct job *j, off_t start)
{
	struct flock l = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 5};
	int fd = open(in(j, "ranges"), O_RDWR);

	assert_int_equal(fcntl(fd, F_SETLK, &l), 0);
	lock_refused((struct job *)j, fd);
}

static void test_posix_taken(void **state)
{
	saved(*state, "one_posix");
	take_range(*state, 15);
}

static void test_ofd_taken(void **state)
{
	saved(*state, "one_ofd");
	take_range(*state, 6);
}

/* ---- files that changed since ---- */

static void put(const struct job *j, const char *name, int flags, const char *text)
{
	int fd = open(in(j, name), O_WRONLY | O_CREAT | flags, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void assert_text(const struct job *j, const char *name, const char *want)
{
	char *text = file_text("%s", in(j, name));

	assert_string_equal(text, want);
	free(text);
}

static void test_grown(void **state)
{
	struct job *j = *state;

	saved(j, "log");
	put(j, "log", O_APPEND, "since\n");
	put(j, "data", O_APPEND, "since");
	put(j, "in", O_APPEND, "more to read");
	refused(j, NULL, "log is longer than it was at the checkpoint: 10 bytes instead of 4");
	assert_text(j, "log", "one\nsince\n"); /* left alone */
	go_on_with(j, "1", "direct", "--files=rewind");
	assert_text(j, "in", "more to read"); /* read only: left alone */
	put(j, "data", O_APPEND, "since");
	refused(j, "--files=check", "is longer than it was");
	go_on_with(j, "1", "rbtree", "--files=rewind");
}

static void test_cut(void **state)
{
	struct job *j = *state;

	saved(j, "log");
	assert_int_equal(truncate(in(j, "data"), 3), 0);
	refused(j, NULL, "data is shorter than it was: 3 bytes instead of 8");
	refused(j, "--files=rewind", "data is shorter than it was: 3 bytes instead of 8");
	put(j, "log", O_APPEND, "since\n");
	refused(j, "--files=rewind", "shorter");
	assert_text(j, "log", "one\nsince\n"); /* nothing is cut before all is well */
	put(j, "data", O_TRUNC, "12345678");
	go_on_with(j, "1", "direct", "--files=rewind");
}

/* Does a restart, which goes well, say that a file was written since? */
static bool told_of_writes(const struct job *j)
{
	struct run r;
	char *said;
	bool told;

	unlink(in(j, "go"));
	begin_restart(j, &r, "1", "direct", "--files=rewind");
	if (!run_says(&r, "\"phases\"", 30))
		fail_msg("%s", run_text(r.err));
	touch(j, "go");
	run_wait(&r, 60);
	assert_true(WIFEXITED(r.status) && !WEXITSTATUS(r.status));
	said = run_text(r.err);
	told = strstr(said, "written since the checkpoint") && strstr(said, in(j, "data"));
	free(said);
	run_close(&r);
	return told;
}

static void test_written_over(void **state)
{
	struct job *j = *state;

	saved(j, "log");
	assert_false(told_of_writes(j));
	/* it has written more by itself: the log is rewound, this has its old length again */
	put(j, "data", O_TRUNC, "12345678");
	assert_true(told_of_writes(j));
}

static void test_replaced(void **state)
{
	struct job *j = *state;

	saved(j, "log");
	put(j, "copy", 0, "12345678 and more");
	assert_int_equal(rename(in(j, "copy"), in(j, "data")), 0);
	refused(j, NULL, "data is another file than the one that it was writing");
	refused(j, "--files=rewind", "data is another file than the one that it was writing");
	assert_text(j, "data", "12345678 and more");
	assert_int_equal(truncate(in(j, "data"), 8), 0);
	go_on_with(j, "1", "direct", "--files=rewind");
	assert_int_equal(unlink(in(j, "log")), 0);
	refused(j, "--files=rewind", "log: No such file or directory");
	assert_int_equal(mkfifo(in(j, "log"), 0600), 0);
	refused(j, "--files=rewind", "log is something else now");
}

/* What is cut is cut last: not when the restart fails after all files are open. */
static void test_not_cut_early(void **state)
{
	struct job *j = *state;
	char path[160];
	struct stat st;
	int fd;

	start_scene(j, "log", NULL);
	cut(j);
	snprintf(path, sizeof(path), "%s/000001/0/task_mm_%d.1.bin", j->repo, j->pid);
	kill_job(j);
	put(j, "log", O_APPEND, "since\n");
	fd = open(path, O_RDWR);
	assert_true(fd >= 0 && !fstat(fd, &st));
	assert_int_equal(pwrite(fd, "damage", 6, st.st_size / 2), 6);
	close(fd);
	refused(j, "--files=rewind", "its content is not what its hash says");
	assert_text(j, "log", "one\nsince\n");
}

/* The other name of a deleted file goes, too. */
static void test_last_name_gone(void **state)
{
	struct job *j = *state;

	saved(j, "names");
	assert_int_equal(unlink(in(j, "second")), 0);
	refused(j, NULL, "was removed, and by now so is its last other name");
}

/* Before the job is touched. */
static void test_pipe_to_outside(void **state)
{
	struct job *j = *state;
	char pid[16], *err;
	struct run r;

	start_scene(j, "outside", NULL);
	snprintf(pid, sizeof(pid), "%d", j->pid);
	assert_int_equal(icp(&r, NULL, "checkpoint", "--pid", pid, "--dir", j->repo, NULL), 1);
	err = run_text(r.err);
	assert_non_null(strstr(err, "whose other end is not part of the job"));
	free(err);
	run_close(&r);
	touch(j, "go");
	assert_int_equal(waitpid(j->pid, NULL, 0), j->pid);
	j->pid = 0;
}

int main(void)
{
#define FILES(name) cmocka_unit_test_setup_teardown(name, setup_files, teardown)
	const struct CMUnitTest tests[] = {
		FILES(test_locks),
		FILES(test_written),
		FILES(test_holes),
		FILES(test_mapped),
		FILES(test_nameless),
		FILES(test_names),
		FILES(test_fifos),
		FILES(test_closed_pipe),
		FILES(test_chain_of_contents),
		FILES(test_flock_taken),
		FILES(test_posix_taken),
		FILES(test_ofd_taken),
		FILES(test_grown),
		FILES(test_cut),
		FILES(test_written_over),
		FILES(test_replaced),
		FILES(test_not_cut_early),
		FILES(test_last_name_gone),
		FILES(test_pipe_to_outside),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
