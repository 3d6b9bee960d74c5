// SPDX-License-Identifier: GPL-2.0
/* What can go wrong with a checkpoint, and what it promises then: whole versions only, and a target that runs on unharmed. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <jansson.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/oracle.h"
#include "lib/scratch.h"

#define KILLS 90
#define MANY 300 /* checkpoints of a target that notices every EINTR */
#define NOBODY 65534

struct fixture {
	struct talker target;
	struct outside before;
	char top[SCRATCH_MAX], dir[SCRATCH_MAX + 16], pid[16];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(mkdtemp(scratch(f->top, "faults")));
	snprintf(f->dir, sizeof(f->dir), "%s/versions", f->top);
	talker_start(&f->target, built("tests/targets/checksum"), NULL);
	talker_ask(&f->target, "", "ok threads");
	snprintf(f->pid, sizeof(f->pid), "%d", f->target.pid);
	outside_look(&f->before, f->target.pid);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[128];

	talker_end(&f->target);
	outside_free(&f->before);
	snprintf(command, sizeof(command), "rm -rf %s", f->top);
	ignore_failure(system(command));
	free(f);
	return 0;
}

/* Untraced, not stopped, and it still adds up. */
static void assert_target(struct fixture *f)
{
	assert_untouched(f->target.pid, &f->before, true);
	talker_ask(&f->target, "?", "ok");
}

static int cut(struct fixture *f, struct run *r, const char *more, const char *too)
{
	return icp(r, NULL, "checkpoint", "--no-restart", "--json", "--pid", f->pid, "--dir",
		   f->dir, more, too, NULL);
}

static void cut_well(struct fixture *f, const char *more, const char *too)
{
	struct run r;

	if (cut(f, &r, more, too))
		fail_msg("%s", run_text(r.err));
	run_close(&r);
}

static void cut_badly(struct fixture *f, const char *more, const char *too, const char *why)
{
	struct run r;
	char *err;

	assert_int_equal(cut(f, &r, more, too), 1);
	err = run_text(r.err);
	if (!strstr(err, why) || strchr(err, '\n') != err + strlen(err) - 1)
		fail_msg("not one line about '%s': %s", why, err);
	free(err);
	run_close(&r);
}

/* It opens, for writing too; the newest version, or every one, is sound. How many there are. */
static size_t assert_repo(struct fixture *f, bool every)
{
	_cleanup_repo_ struct repo *r = NULL;
	uint32_t *numbers;
	size_t n;

	if (access(f->dir, F_OK))
		return 0;
	if (repo_open(f->dir, REPO_CREATE, &r))
		fail_msg("%s", err_text(-EIO));
	assert_int_equal(repo_committed(r, &numbers, &n), 0);
	if (n)
		oracle_verify(r, every ? 0 : numbers[n - 1]);
	free(numbers);
	return n;
}

static void test_kill_9(void **state)
{
	struct fixture *f = *state;
	unsigned seed = (unsigned)getpid(), done = 0;
	double begin = seconds_now(), whole;

	cut_well(f, NULL, NULL);
	whole = (seconds_now() - begin) * 900;
	for (unsigned i = 0; i < KILLS; i++) {
		const char *argv[] = {built("icp-bpf"),
				      "checkpoint",
				      "--no-restart",
				      "--pid",
				      f->pid,
				      "--dir",
				      f->dir,
				      i % 3 ? "--full" : NULL,
				      NULL};
		pid_t keep[] = {f->target.pid, 0};
		struct run r;

		run_start(&r, NULL, argv);
		nap_ms(whole *
		       (((i * 37u) % KILLS) + (double)((seed * (i + 1)) % 997u) / 997.0) /
		       KILLS);
		kill(r.pid, SIGKILL);
		run_wait(&r, 10);
		done += WIFEXITED(r.status);
		run_close(&r);
		assert_no_orphans(keep, 2);
		assert_target(f);
		assert_repo(f, false);
	}
	print_message("seed %u: %u of %u had ended before, %zu versions\n", seed, done, KILLS,
		      assert_repo(f, true));
	assert_true(done < KILLS);
}

/* Every operation of the store in turn fails, or is the last thing that icp-bpf does. */
static void each_fault(struct fixture *f, const char *what, const char *more)
{
	unsigned n = 0, failed = 0;

	for (bool reached = true; reached;) {
		size_t before = assert_repo(f, false);
		char text[64], *err;
		struct run r;
		int status;

		snprintf(text, sizeof(text), "%u:%s", ++n, what);
		setenv("ICP_FAULT", text, 1);
		status = cut(f, &r, more, NULL);
		unsetenv("ICP_FAULT");
		err = run_text(r.err);
		reached = status != 0;
		if (status == 1 && !strstr(err, "injected fault") &&
		    !strstr(err, "may not survive a power failure"))
			fail_msg("fault %s: %s", text, err);
		failed += status != 0;
		assert_untouched(f->target.pid, &f->before, true);
		/* a version more, or none; with a failure at the very end either */
		assert_in_range(assert_repo(f, false) - before, 0, 1);
		if (!status)
			assert_int_equal(assert_repo(f, false), before + 1);
		free(err);
		run_close(&r);
		assert_true(n < 500);
	}
	talker_ask(&f->target, "?", "ok");
	print_message("%s: %u operations, %u made it fail; %zu versions\n", what, n - 1, failed,
		      assert_repo(f, true));
	assert_true(failed > 5);
}

static void test_store_faults(void **state)
{
	each_fault(*state, "EIO", NULL);
	each_fault(*state, "ENOSPC:sticky", NULL);
	each_fault(*state, "kill", NULL);
}

/* --kill: a version that does not come about must not cost the job. */
static void test_kill_with_faults(void **state)
{
	struct fixture *f = *state;

	for (unsigned n = 1; n < 200; n++) {
		size_t before = assert_repo(f, false);
		char text[64];
		struct run r;
		int status;

		snprintf(text, sizeof(text), "%u:EIO", n);
		setenv("ICP_FAULT", text, 1);
		status = cut(f, &r, "--kill", NULL);
		unsetenv("ICP_FAULT");
		run_close(&r);
		if (!status)
			break;
		if (assert_repo(f, false) == before)
			assert_target(f);
	}
	/* the one that succeeded took the job with it */
	assert_int_equal(waitpid(f->target.pid, NULL, 0), f->target.pid);
	f->target.pid = 0;
	assert_true(assert_repo(f, true) > 0);
}

static void test_leave_frozen(void **state)
{
	struct fixture *f = *state;
	_cleanup_repo_ struct repo *r = NULL;
	struct verdict v;
	char *status;

	cut_well(f, "--leave-frozen", "--label=as it is");
	status = file_text("/proc/%s/status", f->pid);
	assert_non_null(strstr(status, "State:\tT (stopped)"));
	assert_non_null(strstr(status, "TracerPid:\t0"));
	free(status);
	assert_int_equal(repo_open(f->dir, REPO_READ, &r), 0);
	oracle_compare(r, 1, f->target.pid, &v);
	if (v.wrong)
		fail_msg("%s", v.first);
	kill(f->target.pid, SIGCONT);
	assert_target(f);
}

/* A disk that is full for a while: what was dirty belongs to the next version. */
static void test_full_disk(void **state)
{
	struct fixture *f = *state;
	char disk[80], filler[96], pid[16], line[64];
	struct talker job;
	struct run session;
	const char *argv[] = {built("icp-bpf"), "trace", "--tree", "--json", "--interval",
			      "100ms",		"--pid", pid,	   NULL};

	snprintf(disk, sizeof(disk), "%s/disk", f->top);
	snprintf(filler, sizeof(filler), "%s/filler", disk);
	snprintf(f->dir, sizeof(f->dir), "%s/versions", disk);
	assert_int_equal(mkdir(disk, 0700), 0);
	assert_int_equal(unshare(CLONE_NEWNS), 0);
	/* in a chroot / is no mount */
	assert_true(!mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || errno == EINVAL);
	assert_int_equal(mount("tmpfs", disk, "tmpfs", 0, "size=64m"), 0);
	setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
	talker_start(&job, built("tests/targets/oracle_target"), "4711", f->top, "calm", NULL);
	unsetenv("GLIBC_TUNABLES");
	assert_true(talker_line(&job, line, sizeof(line)));
	snprintf(pid, sizeof(pid), "%d", job.pid);
	run_start(&session, NULL, argv);
	assert_true(run_says(&session, "\"type\":\"start\"", 20));
	for (int i = 0; i < 6; i++) {
		struct run r;
		bool full = i % 2;
		int fd, status;

		talker_ask(&job, "80\n", "ok");
		fd = open(filler, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		for (off_t at = 0, step = 1 << 20; full && step >= 4096;)
			if (fallocate(fd, 0, at, step))
				step /= 2;
			else
				at += step;
		status = icp(&r, NULL, "checkpoint", "--no-restart", "--json", "--pid", pid,
			     "--dir", f->dir, NULL);
		if (full) {
			char *err = run_text(r.err);

			if (status != 1 || !strstr(err, "No space left"))
				fail_msg("status %d: %s", status, err);
			free(err);
		} else {
			_cleanup_repo_ struct repo *repo = NULL;
			struct verdict v;
			uint32_t latest;

			if (status)
				fail_msg("%s", run_text(r.err));
			assert_int_equal(repo_open(f->dir, REPO_READ, &repo), 0);
			assert_int_equal(repo_latest(repo, &latest), 0);
			oracle_compare(repo, latest, job.pid, &v);
			if (v.wrong)
				fail_msg("%lu wrong: %s", v.wrong, v.first);
		}
		run_close(&r);
		close(fd);
		unlink(filler);
	}
	assert_int_equal(assert_repo(f, true), 3);
	kill(session.pid, SIGINT);
	run_wait(&session, 10);
	run_close(&session);
	snprintf(filler, sizeof(filler), "/dev/shm/oracle_shm.%d", job.pid);
	unlink(filler);
	talker_end(&job);
	umount2(disk, MNT_DETACH);
}

static void test_exclusion(void **state)
{
	struct fixture *f = *state;
	_cleanup_repo_ struct repo *r = NULL;
	char path[128];
	int fd;

	cut_well(f, NULL, NULL);
	assert_int_equal(repo_open(f->dir, REPO_WRITE, &r), 0);
	cut_badly(f, NULL, NULL, f->dir);
	repo_close(r);
	r = NULL;
	cut_well(f, NULL, NULL);
	snprintf(f->dir, sizeof(f->dir), "%s/foreign", f->top);
	assert_int_equal(mkdir(f->dir, 0700), 0);
	snprintf(path, sizeof(path), "%s/precious", f->dir);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	cut_badly(f, NULL, NULL, f->dir);
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
	assert_target(f);
}

static void expect_answers(struct fixture *f, int n, const char *begins)
{
	for (int i = 0; i < n; i++) {
		char line[128];

		assert_true(talker_line(&f->target, line, sizeof(line)));
		if (strncmp(line, begins, strlen(begins)))
			fail_msg("the target says '%s'", line);
	}
}

/* Threads and children come and go all the time; then it executes itself again and again. */
static void test_storms(void **state)
{
	struct fixture *f = *state;
	unsigned failed = 0;

	for (int i = 0; i < 20; i++) {
		assert_int_equal(write(f->target.to, "tftf", 4), 4);
		cut_well(f, NULL, NULL);
		cut_well(f, NULL, NULL);
		for (int k = 0; k < 2; k++) {
			expect_answers(f, 1, "ok threads");
			expect_answers(f, 1, "ok forks");
		}
	}
	talker_ask(&f->target, "?", "ok");
	for (int i = 0; i < 20; i++) {
		struct run r;

		assert_int_equal(write(f->target.to, "x", 1), 1);
		if (cut(f, &r, NULL, NULL)) {
			char *err = run_text(r.err);

			if (!strstr(err, "try again") && !strstr(err, "executed") &&
			    !strstr(err, "ended"))
				fail_msg("%s", err);
			failed++;
			free(err);
		}
		run_close(&r);
		expect_answers(f, 1, "ok threads");
	}
	talker_ask(&f->target, "?", "ok");
	print_message("%u of 20 failed because of an execve\n", failed);
	assert_repo(f, true);
}

/* The job ends in the middle: there is a version or there is none, and nobody is left behind. */
static void test_target_ends(void **state)
{
	struct fixture *f = *state;
	unsigned failed = 0;

	cut_well(f, NULL, NULL);
	for (unsigned i = 0; i < 20; i++) {
		const char *argv[] = {built("icp-bpf"), "checkpoint", "--no-restart", "--pid",
				      f->pid,		"--dir",      f->dir,	      NULL};
		pid_t none[] = {0};
		struct run r;
		size_t before = assert_repo(f, false);

		run_start(&r, NULL, argv);
		nap_ms(20 + 12 * i);
		talker_end(&f->target);
		run_wait(&r, 20);
		assert_true(WIFEXITED(r.status) && WEXITSTATUS(r.status) < 2);
		failed += r.status != 0;
		if (r.status) {
			char *err = run_text(r.err);

			assert_int_equal(strncmp(err, "icp-bpf: ", 9), 0);
			free(err);
		}
		run_close(&r);
		assert_no_orphans(none, 2);
		assert_int_equal(assert_repo(f, false), before + !r.status);
		talker_start(&f->target, built("tests/targets/checksum"), NULL);
		talker_ask(&f->target, "", "ok threads");
		snprintf(f->pid, sizeof(f->pid), "%d", f->target.pid);
	}
	print_message("%u of 20 failed\n", failed);
	assert_repo(f, true);
}

/* Hundreds of pauses; the target reports every call that was interrupted. */
static void test_no_eintr(void **state)
{
	struct fixture *f = *state;
	struct run r;
	char count[16], *out;
	unsigned lines = 0;
	const char *argv[] = {built("icp-bpf"),
			      "checkpoint",
			      "--no-restart",
			      "--json",
			      "--pid",
			      f->pid,
			      "--dir",
			      f->dir,
			      "--every",
			      "10ms",
			      "--count",
			      count,
			      NULL};

	snprintf(count, sizeof(count), "%d", MANY);
	run_start(&r, NULL, argv);
	run_wait(&r, 200);
	if (r.status)
		fail_msg("%s", run_text(r.err));
	out = run_text(r.out);
	for (char *at = out; (at = strchr(at, '\n')); at++)
		lines++;
	assert_int_equal(lines, MANY);
	free(out);
	run_close(&r);
	assert_target(f);
	assert_int_equal(assert_repo(f, false), MANY);
}

static void assert_private(const char *path)
{
	char command[256];

	/* directories 0700, files 0600, nothing else */
	snprintf(command, sizeof(command),
		 "! find %s \\( -type d ! -perm 700 \\) -o \\( ! -type d ! -perm 600 \\) | "
		 "grep .",
		 path);
	assert_int_equal(system(command), 0);
}

static void test_what_it_says(void **state)
{
	static const char *const keys[] = {"version",	     "type",	      "processes",
					   "pages",	     "zero_pages",    "bytes_written",
					   "precopy_rounds", "pause_seconds", "total_seconds",
					   "tracker",	     "found_by"};
	struct fixture *f = *state;
	mode_t mask = umask(0);
	struct run r;
	json_t *json;
	char *out;

	cut_well(f, NULL, NULL);
	assert_int_equal(cut(f, &r, "--label", "second"), 0);
	umask(mask);
	out = run_text(r.out);
	json = json_loads(out, 0, NULL);
	assert_non_null(json);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (!json_object_get(json, keys[i]))
			fail_msg("no %s in %s", keys[i], out);
	assert_int_equal(json_integer_value(json_object_get(json, "version")), 2);
	assert_string_equal(json_string_value(json_object_get(json, "type")), "incremental");
	json_decref(json);
	free(out);
	run_close(&r);
	assert_private(f->dir);
	{
		_cleanup_repo_ struct repo *repo = NULL;
		Icp__Manifest *m;

		assert_int_equal(repo_open(f->dir, REPO_READ, &repo), 0);
		assert_int_equal(repo_manifest(repo, 2, &m), 0);
		assert_string_equal(m->job->label, "second");
		manifest_free(m);
	}
	assert_target(f);
}

/* A session in the background, asked with a relative directory from elsewhere, and ended. */
static void test_keep_tracking(void **state)
{
	struct fixture *f = *state;
	pid_t keep[] = {f->target.pid, 0};
	char here[512], *out, binary[600];
	struct run r;

	assert_non_null(getcwd(here, sizeof(here)));
	snprintf(binary, sizeof(binary), "%s%s%s", built("icp-bpf")[0] == '/' ? "" : here,
		 built("icp-bpf")[0] == '/' ? "" : "/", built("icp-bpf"));
	cut_well(f, "--keep-tracking", NULL);
	assert_int_equal(chdir(f->top), 0);
	for (int i = 0; i < 3; i++) {
		const char *argv[] = {binary, "checkpoint", "--no-restart", "--json", "--pid",
				      f->pid, "--dir",	    "versions",	    NULL};

		run_start(&r, NULL, argv);
		run_wait(&r, 20);
		if (r.status)
			fail_msg("%s", run_text(r.err));
		out = run_text(r.out);
		if (strstr(out, "\"hash\""))
			fail_msg("not from the session: %s", out);
		free(out);
		run_close(&r);
	}
	assert_int_equal(chdir(here), 0);
	assert_int_equal(icp(&r, NULL, "checkpoint", "--no-restart", "--pid", f->pid,
			     "--stop-tracking", NULL),
			 0);
	run_close(&r);
	assert_no_orphans(keep, 5);
	assert_int_equal(icp(&r, NULL, "checkpoint", "--no-restart", "--pid", f->pid,
			     "--stop-tracking", NULL),
			 1);
	run_close(&r);
	assert_int_equal(assert_repo(f, true), 4);
	assert_target(f);
}

static void become_nobody(void *arg)
{
	if (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY))
		_exit(126);
}

static void test_somebody_else(void **state)
{
	struct fixture *f = *state;
	const struct run_how how = {.before = become_nobody};
	char *err, text[32];
	struct run own, r;
	const char *argv[] = {"sleep", "1000", NULL};

	assert_int_equal(chmod(f->top, 0777), 0);
	/* not theirs */
	assert_int_equal(icp(&r, &how, "checkpoint", "--no-restart", "--pid", f->pid, "--dir",
			     f->dir, NULL),
			 1);
	run_close(&r);
	assert_int_equal(access(f->dir, F_OK), -1);
	assert_target(f);
	/* their own */
	run_start(&own, &how, argv);
	nap_ms(100);
	snprintf(text, sizeof(text), "%d", own.pid);
	for (int i = 0; i < 2; i++) {
		if (icp(&r, &how, "checkpoint", "--no-restart", "--pid", text, "--dir", f->dir,
			NULL)) {
			err = run_text(r.err);
			fail_msg("%s", err);
		}
		run_close(&r);
	}
	/* a background session needs /run/icp-bpf */
	assert_int_equal(icp(&r, &how, "checkpoint", "--no-restart", "--pid", text, "--dir",
			     f->dir, "--keep-tracking", NULL),
			 1);
	err = run_text(r.err);
	assert_non_null(strstr(err, "/run/icp-bpf"));
	free(err);
	run_close(&r);
	assert_int_equal(assert_repo(f, true), 2);
	run_close(&own);
}

#define faults_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		faults_test(test_kill_9),	    faults_test(test_store_faults),
		faults_test(test_kill_with_faults), faults_test(test_leave_frozen),
		faults_test(test_full_disk),	    faults_test(test_exclusion),
		faults_test(test_storms),	    faults_test(test_target_ends),
		faults_test(test_no_eintr),	    faults_test(test_what_it_says),
		faults_test(test_keep_tracking),    faults_test(test_somebody_else),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
