// SPDX-License-Identifier: GPL-2.0
/* What the warden promises, on targets of every sort. */
#include "unit/inject/helpers.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/user.h>

struct board {
	_Atomic int ready, trapped;
	_Atomic uint64_t counter;
	_Atomic pid_t child;
	_Atomic int stop;
};

static struct board *board;
static struct warden *w;

static int setup(void **state)
{
	board = shared(sizeof(*board));
	return warden_open(&w);
}

static int teardown(void **state)
{
	warden_close(w);
	munmap(board, sizeof(*board));
	return 0;
}

static void idle(void *arg)
{
	board->ready = 1;
	for (;;)
		pause();
}

static void count(void *arg)
{
	board->ready = 1;
	for (;;)
		board->counter++;
}

static pid_t start(void (*body)(void *), void *arg)
{
	pid_t pid;

	board->ready = 0;
	board->counter = 0;
	pid = spawn(body, arg);
	wait_for(board->ready);
	return pid;
}

/* Nothing may move while we look. */
static bool counter_moves(void)
{
	uint64_t before = board->counter;

	usleep(20000);
	return board->counter != before;
}

static void assert_free(pid_t pid)
{
	uint64_t before = board->counter;

	wait_for(board->counter != before);
	wait_for(count_threads(pid, true, 0) == 0);
	assert_int_equal(count_threads(pid, false, 't'), 0);
}

static void test_uffd_leaves_nothing(void **state)
{
	pid_t pid = start(count, NULL);
	char *before = snapshot(pid), *after, link[64] = "", path[64];
	uint64_t ns = 0;
	int fd = -1;

	for (int i = 0; i < 50; i++) {
		assert_ok(warden_uffd(w, pid, &fd, &ns));
		assert_true(fd >= 0 && ns > 0);
		assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		assert_true(readlink(path, link, sizeof(link) - 1) > 0);
		assert_string_equal(link, "anon_inode:[userfaultfd]");
		close(fd);
	}
	after = snapshot(pid);
	assert_string_equal(before, after);
	assert_free(pid);
	free(before);
	free(after);
	end(pid);
}

static void *stuck(void *arg)
{
	for (;;)
		pause();
	return NULL;
}

static void sixteen(void *arg)
{
	pthread_t t;

	for (int i = 1; i < (int)(intptr_t)arg; i++)
		pthread_create(&t, NULL, stuck, NULL);
	idle(NULL);
}

static void test_stop_time(void **state)
{
	for (int threads = 1; threads <= 16; threads += 15) {
		pid_t pid = start(sixteen, (void *)(intptr_t)threads);
		uint64_t best = UINT64_MAX, bestf = UINT64_MAX, ns;
		int fd;

		for (int i = 0; i < 50; i++) {
			assert_ok(warden_uffd(w, pid, &fd, &ns));
			close(fd);
			best = ns < best ? ns : best;
			assert_ok(warden_freeze(w, &pid, 1, false, 10000, NULL));
			assert_ok(warden_thaw(w, &ns));
			bestf = ns < bestf ? ns : bestf;
		}
		print_message("%d threads: attach stops %.3f ms, freeze and thaw %.3f ms\n",
			      threads, (double)best / 1e6, (double)bestf / 1e6);
		end(pid);
	}
}

static void test_refusals(void **state)
{
	pid_t pid = start(idle, NULL), other, sleeper;
	int fd;

	assert_int_equal(warden_uffd(w, 0x3ffffff, &fd, NULL), -ESRCH);
	assert_non_null(strstr(err_text(-ESRCH), "no such process"));
	assert_int_equal(warden_uffd(w, getpid(), &fd, NULL), -EINVAL);
	assert_non_null(strstr(err_text(-EINVAL), "icp-bpf itself"));
	assert_int_equal(warden_uffd(w, 2, &fd, NULL), -EINVAL);
	assert_non_null(strstr(err_text(-EINVAL), "kernel thread"));
	assert_int_equal(ptrace(PTRACE_SEIZE, pid, NULL, NULL), 0);
	assert_int_equal(warden_uffd(w, pid, &fd, NULL), -EBUSY);
	assert_non_null(strstr(err_text(-EBUSY), "already traced by process"));
	end(pid);
	sleeper = start(idle, NULL);
	other = fork();
	if (!other) {
		for (;;)
			pause();
	}
	kill(other, SIGKILL);
	wait_for(state_of(other, other) == 'Z');
	assert_int_equal(warden_uffd(w, other, &fd, NULL), -ESRCH);
	assert_non_null(strstr(err_text(-ESRCH), "zombie"));
	waitpid(other, NULL, 0);
	assert_int_equal(warden_freeze(w, (pid_t[]){sleeper, 0x3ffffff}, 2, false, 1000, NULL),
			 -ESRCH);
	assert_int_equal(count_threads(sleeper, true, 0), 0);
	assert_int_equal(warden_thaw(w, NULL), -EINVAL);
	end(sleeper);
}

/* A warden without privilege: another user's process is refused, its own works. */
static void test_unprivileged(void **state)
{
	pid_t root = start(idle, NULL), tester = fork();
	int status;

	if (!tester) {
		struct warden *mine;
		int fd, got;
		pid_t own;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (setgid(65534) || setuid(65534))
			_exit(2);
		prctl(PR_SET_DUMPABLE, 1);
		if (warden_open(&mine))
			_exit(3);
		got = warden_uffd(mine, root, &fd, NULL);
		if (got != -EPERM || !strstr(err_text(got), "CAP_SYS_PTRACE"))
			_exit(4);
		own = start(idle, NULL);
		got = warden_uffd(mine, own, &fd, NULL);
		if (got)
			fprintf(stderr, "own: %s\n", err_text(got));
		kill(own, SIGKILL);
		warden_close(mine);
		_exit(got ? 5 : 0);
	}
	waitpid(tester, &status, 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	end(root);
}

static void stop_on_userfaultfd(void *arg)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {4, code};

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		_exit(1);
	board->ready = 1;
	while (!board->stop)
		board->counter++;
	syscall(SYS_userfaultfd, O_CLOEXEC);
	_exit(0);
}

static void test_seccomp(void **state)
{
	pid_t pid = start(stop_on_userfaultfd, NULL);
	int fd, status;

	assert_ok(warden_uffd(w, pid, &fd, NULL));
	close(fd);
	assert_free(pid);
	assert_int_equal(status_of(pid, pid, "Seccomp"), 2);
	/* The filter is in force again. */
	board->stop = 1;
	waitpid(pid, &status, 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
	board->stop = 0;
}

static void test_stopped_stays_stopped(void **state)
{
	pid_t pid = start(count, NULL);
	struct warden_thread *threads;
	size_t n;
	int fd;

	kill(pid, SIGSTOP);
	wait_for(state_of(pid, pid) == 'T');
	assert_ok(warden_uffd(w, pid, &fd, NULL));
	close(fd);
	wait_for(state_of(pid, pid) == 'T');
	assert_false(counter_moves());
	assert_ok(warden_freeze(w, &pid, 1, false, 10000, NULL));
	assert_ok(warden_threads(w, &threads, &n));
	assert_int_equal(n, 1);
	assert_true(threads[0].stopped && threads[0].tid == pid && threads[0].pid == pid);
	free(threads);
	assert_ok(warden_thaw(w, NULL));
	wait_for(state_of(pid, pid) == 'T');
	assert_false(counter_moves());
	kill(pid, SIGCONT);
	assert_free(pid);
	end(pid);
}

static void test_deadline(void **state)
{
	pid_t pid = start(count, NULL);
	uint64_t before;

	assert_ok(warden_freeze(w, &pid, 1, false, 50, NULL));
	before = board->counter;
	wait_for(board->counter != before);
	assert_free(pid);
	assert_int_equal(warden_thaw(w, NULL), -ETIMEDOUT);
	assert_ok(warden_freeze(w, &pid, 1, false, 10000, NULL));
	assert_ok(warden_thaw(w, NULL));
	end(pid);
}

static void *bomb_thread(void *arg)
{
	pthread_t t;

	for (int i = 0; i < 50; i++)
		board->counter++;
	while (pthread_create(&t, NULL, bomb_thread, NULL))
		usleep(100);
	pthread_detach(t);
	return NULL;
}

/* Each thread starts the next and dies; processes come and go as well. */
static void bomb(void *arg)
{
	pthread_t t;

	for (int i = 0; i < 4; i++)
		pthread_create(&t, NULL, bomb_thread, NULL);
	board->ready = 1;
	for (;;) {
		pid_t pid = fork();

		if (!pid) {
			for (int i = 0; i < 1000; i++)
				board->counter++;
			_exit(0);
		}
		board->counter++;
		waitpid(pid, NULL, 0);
	}
}

static void test_nobody_escapes(void **state)
{
	pid_t pid = start(bomb, NULL);

	for (int i = 0; i < 50; i++) {
		struct warden_thread *threads;
		size_t n;

		assert_ok(warden_freeze(w, &pid, 1, true, 10000, NULL));
		assert_false(counter_moves());
		assert_ok(warden_threads(w, &threads, &n));
		assert_true(n >= 1);
		free(threads);
		assert_ok(warden_thaw(w, NULL));
		assert_free(pid);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void test_kill_and_leave_stopped(void **state)
{
	pid_t pid = start(count, NULL);
	int status;

	assert_ok(warden_freeze(w, &pid, 1, true, 10000, NULL));
	assert_ok(warden_leave_stopped(w));
	wait_for(state_of(pid, pid) == 'T');
	assert_false(counter_moves());
	kill(pid, SIGCONT);
	assert_free(pid);
	assert_ok(warden_freeze(w, &pid, 1, true, 10000, NULL));
	assert_ok(warden_kill(w));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	pid = start(sixteen, (void *)16);
	assert_ok(warden_freeze(w, &pid, 1, true, 10000, NULL));
	assert_ok(warden_kill(w));
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void on_trap(int sig)
{
	board->trapped++;
}

static void trapper(void *arg)
{
	signal(SIGTRAP, on_trap);
	count(NULL);
}

/* Injection changes neither registers, nor mask, nor the target's own use of SIGTRAP. */
static void test_inject(void **state)
{
	struct warden_call calls[] = {
		{.nr = SYS_getpid}, {.nr = SYS_gettid}, {.nr = SYS_close, .args = {999}}};
	pid_t pid = start(trapper, NULL);
	struct user_regs_struct before = {0}, after = {0};
	size_t len = sizeof(before);
	uint64_t mask = 1;
	size_t masklen = sizeof(mask);
	siginfo_t info[4];
	size_t infolen = sizeof(info);
	struct {
		uint64_t off;
		uint32_t flags;
		int32_t nr;
	} peek = {0, 1 /* shared */, 4};

	assert_ok(warden_freeze(w, &pid, 1, false, 10000, NULL));
	assert_ok(warden_regset(w, pid, 1 /* NT_PRSTATUS */, &before, &len));
	assert_int_equal(len, sizeof(before));
	assert_ok(warden_inject(w, pid, calls, 3));
	assert_int_equal(calls[0].ret, pid);
	assert_int_equal(calls[1].ret, pid);
	assert_int_equal(calls[2].ret, -EBADF);
	assert_ok(warden_regset(w, pid, 1, &after, &len));
	assert_memory_equal(&before, &after, sizeof(before));
	assert_ok(warden_ptrace(w, 0x420a, pid, 8, NULL, 0, &mask, &masklen));
	assert_true(mask == 0);
	assert_true(warden_ptrace(w, PTRACE_POKETEXT, pid, 0, NULL, 0, NULL, NULL) == -EINVAL);
	kill(pid, SIGTRAP);
	assert_int_equal(warden_ptrace(w, 0x4209, pid, 0, &peek, sizeof(peek), info, &infolen),
			 1);
	assert_int_equal(info[0].si_signo, SIGTRAP);
	assert_ok(warden_thaw(w, NULL));
	wait_for(board->trapped == 1);
	assert_free(pid);
	end(pid);
}

/* A signal that is on its way to its handler when we come goes back into the queue. */
static void test_signals_in_flight(void **state)
{
	pid_t pid = start(trapper, NULL);
	int sent = 0, fd;

	board->trapped = 0;
	for (int i = 0; i < 200; i++) {
		kill(pid, SIGTRAP);
		sent++;
		if (i % 2) {
			assert_ok(warden_uffd(w, pid, &fd, NULL));
			close(fd);
		} else {
			assert_ok(warden_freeze(w, &pid, 1, false, 10000, NULL));
			assert_ok(warden_thaw(w, NULL));
		}
		wait_for(board->trapped == sent);
	}
	end(pid);
}

static void vforker(void *arg)
{
	for (;;) {
		pid_t pid;

		board->ready = 1;
		board->counter++;
		pid = vfork();
		if (!pid) {
			usleep(5000);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
}

/* A parent inside vfork() does not stop before its child has gone on. */
static void test_vfork(void **state)
{
	pid_t pid = start(vforker, NULL);
	int fd;

	for (int i = 0; i < 20; i++) {
		assert_ok(warden_freeze(w, &pid, 1, true, 10000, NULL));
		assert_false(counter_moves());
		assert_ok(warden_thaw(w, NULL));
		assert_ok(warden_uffd(w, pid, &fd, NULL));
		close(fd);
	}
	assert_free(pid);
	end(pid);
}

static void *vfork_thread(void *arg)
{
	pid_t pid = vfork();

	if (!pid) {
		board->child = getpid();
		while (!board->stop)
			usleep(1000);
		_exit(0);
	}
	board->trapped = 1;
	return NULL;
}

static void one_stuck(void *arg)
{
	pthread_t t;

	pthread_create(&t, NULL, vfork_thread, NULL);
	idle(NULL);
}

/* One thread can not stop: the attach does without it, a freeze is refused, and it is let go
 * when it can. */
static void test_straggler(void **state)
{
	pid_t pid;
	int fd;

	board->stop = board->trapped = 0;
	board->child = 0;
	pid = start(one_stuck, NULL);
	wait_for(board->child);
	wait_for(count_threads(pid, false, 'D') == 1);
	assert_ok(warden_uffd(w, pid, &fd, NULL));
	close(fd);
	assert_int_equal(warden_freeze(w, &pid, 1, false, 10000, NULL), -EBUSY);
	assert_non_null(strstr(err_text(-EBUSY), "uninterruptible sleep"));
	assert_int_equal(count_threads(pid, false, 't'), 0);
	board->stop = 1;
	wait_for(board->trapped);
	wait_for(count_threads(pid, true, 0) == 0);
	board->stop = board->trapped = 0;
	end(pid);
}

static void execer(void *arg)
{
	board->ready = 1;
	execl("/bin/sh", "sh", "-c",
	      "i=0; while [ $i -lt 20 ]; do i=$((i+1)); done; exec sh -c \"$0\" \"$0\"",
	      "i=0; while [ $i -lt 20 ]; do i=$((i+1)); done; exec sh -c \"$0\" \"$0\"", NULL);
}

static void test_exec_storm(void **state)
{
	pid_t pid = start(execer, NULL);
	int fd, ok = 0;

	for (int i = 0; i < 100; i++) {
		int err = warden_uffd(w, pid, &fd, NULL);

		if (!err) {
			close(fd);
			ok++;
		} else {
			assert_int_equal(err, -EAGAIN);
		}
	}
	assert_true(ok > 50);
	assert_int_equal(count_threads(pid, true, 0), 0);
	assert_int_equal(kill(pid, 0), 0);
	end(pid);
}

/* Targets that are killed at any moment: an error at most, and the warden goes on. */
static void test_dying(void **state)
{
	int seed = (int)getpid();

	srand((unsigned)seed);
	for (int i = 0; i < 60; i++) {
		pid_t pid = start(sixteen, (void *)8), killer = fork();
		int fd, err;

		if (!killer) {
			usleep((unsigned)rand() % 1500);
			kill(pid, SIGKILL);
			_exit(0);
		}
		(void)rand();
		do {
			err = warden_uffd(w, pid, &fd, NULL);
			if (!err)
				close(fd);
		} while (!err || err == -EBUSY); /* it dies, and gets no processor for it */
		assert_int_equal(err, -ESRCH);
		waitpid(killer, NULL, 0);
		waitpid(pid, NULL, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_uffd_leaves_nothing),
		cmocka_unit_test(test_stop_time),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_unprivileged),
		cmocka_unit_test(test_seccomp),
		cmocka_unit_test(test_stopped_stays_stopped),
		cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_nobody_escapes),
		cmocka_unit_test(test_kill_and_leave_stopped),
		cmocka_unit_test(test_inject),
		cmocka_unit_test(test_signals_in_flight),
		cmocka_unit_test(test_vfork),
		cmocka_unit_test(test_straggler),
		cmocka_unit_test(test_exec_storm),
		cmocka_unit_test(test_dying),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
