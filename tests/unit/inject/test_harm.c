// SPDX-License-Identifier: GPL-2.0
/* A busy target computes right and keeps all it has, whatever happens to us. */
#include "unit/inject/helpers.h"

#include <pthread.h>
#include <sys/epoll.h>

#include "inject/freeze.h"

#define THREADS 4
#define KILLS 100
#define WARDEN_KILLS 300
#define MASK_KILLS 200
#define ROUNDS 200

struct board {
	_Atomic uint64_t rounds[THREADS];
	_Atomic int wrong, ready;
	_Atomic uint64_t naps, broken_off;

	_Atomic uint64_t operations;
};

static struct board *board;

/* Values that live in registers for a while: general, SSE/AVX, x87 and flags; then compared
 * with what they must be. */
static bool registers_hold(uint64_t seed)
{
	double x = (double)(seed & 0xffff), y = x;
	uint64_t a = seed, b = ~seed, n = 2000, out_a, out_b,
		 ymm[4] = {seed, seed + 1, seed + 2, seed + 3};
	uint64_t got[4];
	long double ld = (long double)seed, ld_out;

	__asm__ volatile(
		"vmovdqu %[in], %%ymm7\n\t"
		"vmovdqu %[in], %%ymm15\n\t"
		"fldt %[ld]\n\t"
		"1: add $3, %[a]\n\t"
		"sub $5, %[b]\n\t"
		"vaddpd %%xmm1, %%xmm2, %%xmm3\n\t"
		"dec %[n]\n\t"
		"jnz 1b\n\t"
		"fstpt %[ldo]\n\t"
		"vpxor %%ymm7, %%ymm15, %%ymm14\n\t"
		"vpor %%ymm7, %%ymm14, %%ymm7\n\t"
		"vmovdqu %%ymm7, %[got]\n\t"
		: [a] "+r"(a), [b] "+r"(b), [n] "+r"(n), [got] "=m"(got), [ldo] "=m"(ld_out)
		: [in] "m"(ymm), [ld] "m"(ld)
		: "xmm1", "xmm2", "xmm3", "xmm7", "xmm14", "xmm15", "st", "cc");
	out_a = seed + 3 * 2000;
	out_b = ~seed - 5 * 2000;
	for (int i = 0; i < 100; i++)
		y = y * 2 - x;
	return a == out_a && b == out_b && !memcmp(got, ymm, sizeof(ymm)) && ld == ld_out &&
	       y == x;
}

static void *checker(void *arg)
{
	size_t me = (size_t)arg;

	board->ready++;
	for (uint64_t i = 1;; i++) {
		if (!registers_hold(i * 0x9e3779b97f4a7c15ull + me))
			board->wrong++;
		board->rounds[me]++;
	}
	return NULL;
}

/* Calls that are interrupted go on, and return what they should. */
static void *sleeper(void *arg)
{
	struct timespec nap = {.tv_nsec = 300000};

	(void)arg;
	for (;;) {
		if (nanosleep(&nap, NULL))
			board->wrong++;
		board->naps++;
	}
	return NULL;
}

static void *waiter(void *arg)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event e;

	(void)arg;
	for (;;) {
		if (epoll_wait(epoll, &e, 1, -1) != -1 || errno != EINTR)
			board->wrong++;
		board->broken_off++;
	}
	return NULL;
}

static void busy(void *arg)
{
	pthread_t t;

	(void)arg;
	pthread_create(&t, NULL, waiter, NULL);
	pthread_create(&t, NULL, sleeper, NULL);
	for (size_t i = 1; i < THREADS; i++)
		pthread_create(&t, NULL, checker, (void *)i);
	checker((void *)0);
}

static pid_t start_busy(void)
{
	pid_t pid;

	board = shared(sizeof(*board));
	pid = spawn(busy, NULL);
	wait_for(board->ready == THREADS);
	return pid;
}

/* It has the descriptors and mappings of @before, which is freed. */
static void end_unchanged(pid_t pid, char *before)
{
	char *after = snapshot(pid);

	assert_string_equal(before, after);
	free(before);
	free(after);
	end(pid);
}

static bool all_moved(const uint64_t *since)
{
	for (int i = 0; i < THREADS; i++)
		if (board->rounds[i] == since[i])
			return false;
	return true;
}

static void assert_runs(pid_t pid)
{
	uint64_t since[THREADS];

	for (int i = 0; i < THREADS; i++)
		since[i] = board->rounds[i];
	wait_for(all_moved(since));
	assert_int_equal(board->wrong, 0);
	assert_int_equal(count_threads(pid, false, 't'), 0);
}

static int attach_and_freeze(struct warden *w, pid_t pid)
{
	int fd, err = warden_uffd(w, pid, &fd, NULL);

	if (err)
		return err;
	close(fd);
	board->operations++;
	err = warden_freeze(w, &pid, 1, true, 10000, NULL);
	if (err)
		return err;
	board->operations++;
	return warden_thaw(w, NULL);
}

static void test_registers(void **state)
{
	_cleanup_warden_ struct warden *w = NULL;
	pid_t pid;

	assert_ok(warden_open(&w));
	pid = start_busy();
	for (int i = 0; i < ROUNDS; i++)
		assert_ok(attach_and_freeze(w, pid));
	assert_runs(pid);
	end(pid);
}

/* A process that owns a warden and works with it until it is killed. */
static void victim(void *arg)
{
	pid_t pid = *(pid_t *)arg;
	struct warden *w;

	if (warden_open(&w))
		_exit(1);
	for (;;) {
		int err = attach_and_freeze(w, pid);

		if (err && err != -EBUSY && err != -ETIMEDOUT) {
			print_error("victim: %s\n", err_text(err));
			_exit(1);
		}
	}
}

static pid_t child_of(pid_t pid)
{
	char text[64];

	slurp(text, sizeof(text), "/proc/%d/task/%d/children", pid, pid);
	return atoi(text);
}

static void test_killed_at_any_moment(void **state)
{
	char *before;
	int traced_at_kill = 0;
	pid_t pid;

	pid = start_busy();
	before = snapshot(pid);
	srand(1);
	for (int i = 0; i < KILLS; i++) {
		uint64_t since = board->operations;
		pid_t owner = spawn(victim, &pid), warden;
		int status;

		wait_for(board->operations != since);
		warden = child_of(owner);
		assert_true(warden > 0);
		usleep((unsigned)rand() % 3000);
		kill(owner, SIGKILL);
		traced_at_kill += count_threads(pid, true, 0) > 0;
		waitpid(owner, &status, 0);
		assert_true(WIFSIGNALED(status));
		wait_for(strchr(
			"ZX", state_of(warden, warden))); /* init reaps it, or it is gone: 0 */
		assert_int_equal(count_threads(pid, true, 0), 0);
		assert_runs(pid);
	}
	assert_int_equal(board->broken_off, 0);
	end_unchanged(pid, before);
	print_message("%d of %d kills while the target was traced\n", traced_at_kill, KILLS);
}

/* ... until its warden is, which must be told as such. */
static void bereft(void *arg)
{
	pid_t pid = *(pid_t *)arg;
	struct warden *w;
	int err;

	if (warden_open(&w))
		_exit(1);
	do {
		err = attach_and_freeze(w, pid);
	} while (!err || err == -EBUSY || err == -ETIMEDOUT); /* on a busy machine */
	if (err != -EPIPE)
		print_error("bereft: %s\n", err_text(err));
	warden_close(w);
	_exit(err != -EPIPE);
}

/* What only stopping does to a call may be seen then, nothing else. */
static void test_warden_killed(void **state)
{
	char *before;
	pid_t pid;

	pid = start_busy();
	before = snapshot(pid);
	srand(2);
	for (int i = 0; i < WARDEN_KILLS; i++) {
		uint64_t since = board->operations, naps;
		pid_t owner = spawn(bereft, &pid), warden;
		int status;

		wait_for(board->operations != since);
		warden = child_of(owner);
		assert_true(warden > 0);
		usleep((unsigned)rand() % 3000);
		kill(warden, SIGKILL);
		waitpid(owner, &status, 0);
		assert_int_equal(status, 0);
		assert_int_equal(count_threads(pid, true, 0), 0);
		assert_runs(pid);
		naps = board->naps;
		wait_for(board->naps != naps);
	}
	end_unchanged(pid, before);
	print_message("epoll_wait() said EINTR %lu times in %d kills\n",
		      (unsigned long)board->broken_off, WARDEN_KILLS);
}

/* A warden that breaks off by a fault ends, and what it had frozen runs on. */
static void test_warden_crashes(void **state)
{
	static const unsigned char trap[] = {0x0f, 0x0b}; /* ud2 */
	struct warden *w;
	char path[32];
	pid_t pid;
	int mem;

	assert_ok(warden_open(&w));
	pid = start_busy();
	assert_ok(warden_freeze(w, &pid, 1, true, 60000, NULL));
	snprintf(path, sizeof(path), "/proc/%d/mem", child_of(getpid()));
	mem = open(path, O_WRONLY);
	assert_true(mem >= 0);
	wait_for(pwrite(mem, trap, sizeof(trap), (off_t)(uintptr_t)freeze_drain) ==
		 sizeof(trap));
	close(mem);
	if (!warden_thaw(w, NULL))
		assert_int_equal(warden_thaw(w, NULL), -EPIPE);
	warden_close(w);
	assert_runs(pid);
	end(pid);
}

/* The mask is as it was, and a stop or a going on that was asked for meanwhile comes. */
struct masked {
	_Atomic uint64_t rounds, wrong;
	_Atomic bool stop_it;
	pid_t pid;
};

static struct masked *masked;

static void mask_checker(void *arg)
{
	sigset_t one, old;

	(void)arg;
	sigemptyset(&one);
	sigaddset(&one, SIGUSR2);
	for (;; masked->rounds++) {
		pthread_sigmask(SIG_BLOCK, &one, &old);
		masked->wrong += sigismember(&old, SIGTERM) == 1;
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
}

/* Freezes it, sends a signal, and injects calls until its warden is killed. */
static void bereft_injecting(void *arg)
{
	struct warden_call calls[8];
	pid_t pid = masked->pid;
	struct warden *w;
	int err;

	(void)arg;
	if (warden_open(&w) || warden_freeze(w, &pid, 1, true, 60000, NULL))
		_exit(1);
	kill(pid, masked->stop_it ? SIGSTOP : SIGCONT);
	do {
		for (size_t i = 0; i < 8; i++)
			calls[i] = (struct warden_call){.nr = SYS_getpid};
		err = warden_inject(w, pid, calls, 8);
		board->operations++;
	} while (!err);
	warden_close(w);
	_exit(err != -EPIPE);
}

static void test_stops_and_masks(void **state)
{
	board = shared(sizeof(*board));
	masked = shared(sizeof(*masked));
	masked->pid = spawn(mask_checker, NULL);
	wait_for(masked->rounds > 0);
	srand(3);
	for (int i = 0; i < MASK_KILLS; i++) {
		uint64_t since = board->operations, rounds;
		pid_t owner;
		int status;

		masked->stop_it = i % 2;
		if (i % 4 > 1) /* it is stopped already */
			kill(masked->pid, SIGSTOP);
		owner = spawn(bereft_injecting, NULL);
		wait_for(board->operations > since + 2);
		usleep((unsigned)rand() % 1000);
		kill(child_of(owner), SIGKILL);
		waitpid(owner, &status, 0);
		assert_int_equal(status, 0);
		if (masked->stop_it) {
			wait_for(state_of(masked->pid, masked->pid) == 'T');
			kill(masked->pid, SIGCONT);
		}
		rounds = masked->rounds;
		wait_for(masked->rounds != rounds);
		assert_int_equal(masked->wrong, 0);
		assert_int_equal(status_of(masked->pid, masked->pid, "TracerPid"), 0);
	}
	end(masked->pid);
}

/* The warden is reaped, and takes no descriptor of ours with it. */
static void test_close(void **state)
{
	struct warden *w;
	pid_t pid;
	char path[64];
	struct dirent *e;
	DIR *dir;
	int n = 0;

	assert_ok(warden_open(&w));
	pid = child_of(getpid());
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	wait_for(({
		char comm[32];
		slurp(comm, sizeof(comm), "/proc/%d/task/%d/comm", pid, pid);
		!strcmp(comm, "icp-warden\n");
	}));
	wait_for(syscall_of(pid, pid) == SYS_ppoll);
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	assert_non_null(dir);
	while ((e = readdir(dir)))
		n += e->d_name[0] != '.';
	closedir(dir);
	assert_int_equal(n, 6); /* /dev/null three times, socket, pidfd, signalfd */
	warden_close(w);
	assert_int_equal(kill(pid, 0), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_killed_at_any_moment),
		cmocka_unit_test(test_warden_killed),
		cmocka_unit_test(test_warden_crashes),
		cmocka_unit_test(test_stops_and_masks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
