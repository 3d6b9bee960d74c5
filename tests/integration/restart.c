// SPDX-License-Identifier: GPL-2.0
/* icp-bpf restart on programs that check themselves (tests/targets/reborn), and on others. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"

static void test_threads(void **state)
{
	play(*state, "threads");
}

static void test_tree(void **state)
{
	play(*state, "tree");
}

static void test_signals(void **state)
{
	play(*state, "signals");
}

static void test_calls(void **state)
{
	play(*state, "calls");
}

static void test_ids(void **state)
{
	play(*state, "ids");
}

static void test_files(void **state)
{
	play(*state, "files");
}

/* The key must be free again: the program removes its segment at its end. */
static void test_segment(void **state)
{
	struct job *j = *state;
	char command[64];

	start_scene(j, "shm", NULL);
	cut(j);
	snprintf(command, sizeof(command), "ipcrm -M %#x", 0x1c900000 + j->pid);
	kill_job(j);
	assert_int_equal(system(command), 0);
	go_on(j, "1", "direct");
	go_on(j, "1", "rbtree");
}

static void test_detach(void **state)
{
	struct job *j = *state;
	pid_t pid;
	struct run r;
	int status;

	start_scene(j, "memory", "8");
	cut(j);
	pid = j->pid;
	kill_job(j);
	begin_restart(j, &r, "1", "direct", "--detach");
	run_wait(&r, 30);
	assert_int_equal(WEXITSTATUS(r.status), 0);
	j->pid = pid;
	assert_int_equal(status_number(pid, "PPid"), getpid());
	touch(j, "go");
	assert_int_equal(waitpid(pid, &status, 0), pid);
	j->pid = 0;
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
	run_close(&r);
}

static void test_foreground_signal(void **state)
{
	struct job *j = *state;
	pid_t pid;
	struct run r;

	start_scene(j, "memory", "1");
	cut(j);
	pid = j->pid;
	kill_job(j);
	begin_restart(j, &r, "1", "direct", NULL);
	assert_true(run_says(&r, "\"phases\"", 30));
	assert_int_equal(status_number(pid, "PPid"), r.pid);
	kill(r.pid, SIGTERM);
	run_wait(&r, 30);
	assert_true(WIFEXITED(r.status));
	assert_int_equal(WEXITSTATUS(r.status), 128 + SIGTERM);
	assert_int_equal(kill(pid, 0), -1);
	run_close(&r);
}

/* Fails, says @text in one line, and leaves nothing behind. */
static void refused(const struct job *j, const char *text)
{
	const pid_t keep[] = {j->pid, 0};
	char *err;
	struct run r;

	assert_int_equal(icp(&r, NULL, "restart", "--dir", j->repo, NULL), 1);
	err = run_text(r.err);
	if (!strstr(err, text) || strchr(err, '\n') != err + strlen(err) - 1)
		fail_msg("expected '%s', got: %s", text, err);
	free(err);
	assert_no_orphans(keep, 5);
	run_close(&r);
}

static void test_pid_taken(void **state)
{
	struct job *j = *state;
	char text[64];

	start_scene(j, "memory", "1");
	cut(j);
	snprintf(text, sizeof(text), "pid %d is taken by another process (reborn)", j->pid);
	refused(j, text);
	touch(j, "go");
	assert_int_equal(waitpid(j->pid, NULL, 0), j->pid);
	j->pid = 0;
}

/* Somebody who lives in the session that process @number began and left. */
static pid_t live_in_session(pid_t number)
{
	struct clone_args args = {.exit_signal = SIGCHLD,
				  .set_tid = (uint64_t)(uintptr_t)&number,
				  .set_tid_size = 1};
	pid_t *member = mmap(NULL, sizeof(*member), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t leader = (pid_t)syscall(SYS_clone3, &args, sizeof(args)), child;

	if (!leader) {
		setsid();
		child = (pid_t)syscall(SYS_fork);
		while (!child)
			pause();
		*member = child;
		_exit(0);
	}
	assert_int_equal(leader, number);
	assert_int_equal(waitpid(leader, NULL, 0), leader);
	leader = *member;
	munmap(member, sizeof(*member));
	return leader;
}

static void test_session_taken(void **state)
{
	struct job *j = *state;
	pid_t pid, member;
	char text[96];

	start_scene(j, "memory", "1");
	cut(j);
	pid = j->pid;
	kill_job(j);
	j->pid = member = live_in_session(pid);
	snprintf(text, sizeof(text), "pid %d is taken: process %d (restart) is in the session",
		 pid, member);
	refused(j, text);
	kill_job(j);
	go_on(j, "1", "direct");
}

static void flip_byte(const char *path)
{
	int fd = open(path, O_RDWR);
	struct stat st;
	char byte;

	assert_true(fd >= 0 && !fstat(fd, &st));
	assert_int_equal(pread(fd, &byte, 1, st.st_size / 2), 1);
	byte = (char)~byte;
	assert_int_equal(pwrite(fd, &byte, 1, st.st_size / 2), 1);
	close(fd);
}

static void test_damaged(void **state)
{
	struct job *j = *state;
	char path[160];

	start_scene(j, "memory", "8");
	cut(j);
	snprintf(path, sizeof(path), "%s/000001/0/task_mm_%d.1.bin", j->repo, j->pid);
	kill_job(j);
	flip_byte(path);
	refused(j, "its content is not what its hash says");
}

/* All processes of the tree are there when it is found. */
static void test_damaged_tree(void **state)
{
	struct job *j = *state;
	char path[160];
	pid_t pid;

	start_scene(j, "tree", NULL);
	cut(j);
	pid = j->pid;
	kill_job(j);
	/* of a child, which is filled after its parent */
	for (pid++; snprintf(path, sizeof(path), "%s/000001/0/task_mm_%d.1.bin", j->repo, pid),
		    access(path, F_OK);
	     pid++)
		assert_true(pid < 1 << 22);
	flip_byte(path);
	refused(j, "its content is not what its hash says");
}

static void test_missing_file(void **state)
{
	struct job *j = *state;

	start_scene(j, "files", NULL);
	cut(j);
	kill_job(j);
	assert_int_equal(unlink(in(j, "plain")), 0);
	refused(j, "plain: No such file or directory");
}

static void test_changed_mapped_file(void **state)
{
	struct job *j = *state;
	int fd;

	start_scene(j, "threads", NULL);
	cut(j);
	kill_job(j);
	fd = open(in(j, "mapped"), O_WRONLY);
	assert_int_equal(write(fd, "x", 1), 1);
	close(fd);
	refused(j, "mapped was changed since");
}

/* Whenever it dies, so do the processes that it was making. */
static void kill_in_between(struct job *j, int until_ms, int step_ms)
{
	const pid_t none[] = {0};
	pid_t pid = j->pid;
	struct run r;

	cut(j);
	kill_job(j);
	for (int ms = 0; ms < until_ms; ms += step_ms) {
		begin_restart(j, &r, "1", "direct", NULL);
		nap_ms(ms);
		kill(r.pid, SIGKILL);
		run_wait(&r, 30);
		run_close(&r);
		/* it may have been let go already */
		if (status_number(pid, "TracerPid") == 0)
			end_job(pid);
		assert_no_orphans(none, 10);
	}
}

static void test_killed_in_between(void **state)
{
	start_scene(*state, "memory", "64");
	kill_in_between(*state, 120, 6);
}

/* ---- programs that nobody here wrote ---- */

static bool here(const char *program)
{
	char command[64];

	snprintf(command, sizeof(command), "command -v %s >/dev/null", program);
	return !system(command);
}

static void run_on(struct job *j, const char *what)
{
	struct run r;

	kill_job(j);
	begin_restart(j, &r, "1", "direct", "--files=rewind");
	run_wait(&r, 120);
	if (r.status)
		fail_msg("%s: status %#x, %s", what, r.status, run_text(r.err));
	run_close(&r);
}

static void test_xz(void **state)
{
	struct job *j = *state;
	char command[512];
	const char *argv[] = {"sh", "-c", command, NULL};

	if (!here("xz"))
		skip();
	snprintf(command, sizeof(command),
		 "cd %s && seq 1 700000 > in && xz -9e -c in > want && : > made", j->dir);
	assert_int_equal(system(command), 0);
	snprintf(command, sizeof(command), "cd %s && : > ready && exec xz -9e -c in > got",
		 j->dir);
	start(j, argv);
	wait_for(j, "ready");
	nap_ms(400);
	cut(j);
	run_on(j, "xz");
	snprintf(command, sizeof(command), "cmp %s/want %s/got", j->dir, j->dir);
	assert_int_equal(system(command), 0);
}

static void test_python(void **state)
{
	struct job *j = *state;
	static const char script[] =
		"import sys,threading,time,os\n"
		"d=sys.argv[1]; n=[0]*4; stop=False\n"
		"def count(i):\n"
		"    while not stop: n[i]+=1; time.sleep(0.001)\n"
		"t=[threading.Thread(target=count,args=(i,)) for i in range(4)]\n"
		"[x.start() for x in t]\n"
		"time.sleep(0.2); open(d+'/ready','w').close(); before=list(n)\n"
		"while not os.path.exists(d+'/go'): time.sleep(0.01)\n"
		"time.sleep(0.1); stop=True; [x.join() for x in t]\n"
		"sys.exit(0 if all(a>b for a,b in zip(n,before)) else 1)\n";
	const char *argv[] = {"python3", "-c", script, j->dir, NULL};

	if (!here("python3"))
		skip();
	start(j, argv);
	wait_for(j, "ready");
	cut(j);
	touch(j, "go");
	run_on(j, "python3");
}

static void test_bash(void **state)
{
	struct job *j = *state;
	static const char script[] =
		"cd \"$1\"; trap 'echo trapped > trap' USR1\n"
		"seq 1 3000000 | gzip > packed & echo $! > writer; : > ready\n"
		"until [ -e go ]; do sleep 0.05; done\n"
		"wait $! || exit 3; kill -USR1 $$; [ \"$(cat trap)\" = trapped ] || exit 4\n"
		"gzip -dc packed | cksum > got; seq 1 3000000 | cksum > want; cmp got want\n";
	const char *argv[] = {"bash", "-c", script, "bash", j->dir, NULL};

	if (!here("bash") || !here("gzip"))
		skip();
	start(j, argv);
	wait_for(j, "ready");
	nap_ms(100);
	cut(j);
	touch(j, "go");
	run_on(j, "bash");
}

int main(void)
{
#define RESTART(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		RESTART(test_threads),
		RESTART(test_tree),
		RESTART(test_signals),
		RESTART(test_calls),
		RESTART(test_ids),
		RESTART(test_files),
		RESTART(test_segment),
		RESTART(test_detach),
		RESTART(test_foreground_signal),
		RESTART(test_pid_taken),
		RESTART(test_session_taken),
		RESTART(test_damaged),
		RESTART(test_damaged_tree),
		RESTART(test_missing_file),
		RESTART(test_changed_mapped_file),
		RESTART(test_killed_in_between),
		RESTART(test_xz),
		RESTART(test_python),
		RESTART(test_bash),
	};

	adopt_orphans();
	cmocka_set_test_filter(getenv("ICP_TEST_FILTER"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
