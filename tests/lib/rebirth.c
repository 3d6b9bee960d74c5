// SPDX-License-Identifier: GPL-2.0
#include "lib/rebirth.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proc/tasks.h"

const char *in(const struct job *j, const char *name)
{
	static char paths[4][128];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", j->dir, name);
	return path;
}

bool exists(const struct job *j, const char *name)
{
	return !access(in(j, name), F_OK);
}

void touch(const struct job *j, const char *name)
{
	int fd = open(in(j, name), O_WRONLY | O_CREAT, 0666);

	assert_true(fd >= 0);
	close(fd);
}

int setup(void **state)
{
	struct job *j = calloc(1, sizeof(*j));

	snprintf(j->dir, sizeof(j->dir), "/tmp/icp-restart-XXXXXX");
	*state = j;
	if (!mkdtemp(j->dir))
		return -1;
	snprintf(j->repo, sizeof(j->repo), "%s/repo", j->dir);
	return chmod(j->dir, 0777);
}

/* All of the job is ours, since we adopt orphans. */
void end_job(pid_t pid)
{
	pid_list all = {0};

	if (!pid)
		return;
	if (tasks_descendants(pid, &all))
		all.n = 0;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, __WALL);
	vec_each (p, &all)
		kill(*p, SIGKILL);
	vec_each (p, &all)
		waitpid(*p, NULL, __WALL);
	free_pids(&all);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

int teardown(void **state)
{
	struct job *j = *state;

	end_job(j->pid);
	nftw(j->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(j);
	return 0;
}

/* In a session of its own, with nothing open that leads to us. */
void start(struct job *j, const char *const *argv)
{
	j->pid = fork();
	assert_true(j->pid >= 0);
	if (j->pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	for (int fd = 0; fd <= 2; fd++)
		if (dup2(open(fd ? in(j, "output") : "/dev/null", O_RDWR | O_CREAT | O_APPEND,
			      0666),
			 fd) != fd)
			_exit(126);
	syscall(SYS_close_range, 3, ~0u, 0);
	execvp(argv[0], (char *const *)argv);
	_exit(127);
}

void wait_for(const struct job *j, const char *name)
{
	double end = seconds_now() + 30;

	while (!exists(j, name)) {
		if (exists(j, "wrong"))
			fail_msg("%s", file_text("%s", in(j, "wrong")));
		if (seconds_now() > end || waitpid(j->pid, NULL, WNOHANG))
			fail_msg("no %s", in(j, name));
		nap_ms(2);
	}
}

void start_scene(struct job *j, const char *scene, const char *more)
{
	const char *argv[] = {built(j->target ? j->target : "tests/targets/reborn"), scene,
			      j->dir, more, NULL};

	start(j, argv);
	wait_for(j, "ready");
}

void cut(const struct job *j)
{
	struct run r;
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", j->pid);
	if (icp(&r, NULL, "checkpoint", "--pid", pid, "--dir", j->repo, NULL))
		fail_msg("%s", run_text(r.err));
	run_close(&r);
}

bool restart_runs(struct run *r, const char *const *argv)
{
	double end = seconds_now() + 120;

	for (;;) {
		char *err;
		bool taken;

		run_start(r, NULL, argv);
		if (run_says(r, "\"phases\"", 120))
			return true;
		err = run_text(r->err);
		taken = strstr(err, " is taken by ");
		free(err);
		if (!taken || seconds_now() > end)
			return false;
		run_close(r);
		/* what it had made is dead, and ours to reap: it has pids of the job */
		assert_no_orphans((const pid_t[]){0}, 120);
		nap_ms(10);
	}
}

void begin_restart(const struct job *j, struct run *r, const char *version, const char *lookup,
		   const char *more)
{
	const char *argv[] = {built("icp-bpf"), "restart",   "--json", "--dir",
			      j->repo,		"--version", version,  "--lookup",
			      lookup,		more,	     NULL};

	run_start(r, NULL, argv);
}

void go_on(const struct job *j, const char *version, const char *lookup)
{
	/* it may have been restarted before, and written */
	go_on_with(j, version, lookup, "--files=rewind");
}

/* Goes on from @version to its end, which must be a good one. */
void go_on_with(const struct job *j, const char *version, const char *lookup, const char *more)
{
	const char *argv[] = {built("icp-bpf"), "restart",   "--json", "--dir",
			      j->repo,		"--version", version,  "--lookup",
			      lookup,		more,	     NULL};
	struct run r;

	unlink(in(j, "go"));
	if (!restart_runs(&r, argv))
		fail_msg("version %s by %s: %s", version, lookup, run_text(r.err));
	touch(j, "go");
	run_wait(&r, 60);
	if (exists(j, "wrong"))
		fail_msg("version %s by %s: %s", version, lookup,
			 file_text("%s", in(j, "wrong")));
	assert_true(WIFEXITED(r.status));
	assert_int_equal(WEXITSTATUS(r.status), 0);
	run_close(&r);
}

void kill_job(struct job *j)
{
	end_job(j->pid);
	j->pid = 0;
}

void play(struct job *j, const char *scene)
{
	static const char *const versions[] = {"1", "2", "3"};

	start_scene(j, scene, NULL);
	for (size_t i = 0; i < 3; i++)
		cut(j);
	kill_job(j);
	if (getenv("ICP_GUEST")) { /* emulated: an older one, and one that is made of three */
		go_on(j, versions[0], "rbtree");
		go_on(j, versions[2], "direct");
		return;
	}
	for (size_t i = 0; i < 3; i++) {
		go_on(j, versions[i], "direct");
		go_on(j, versions[i], "rbtree");
	}
}
