// SPDX-License-Identifier: GPL-2.0
/* `icp-bpf trace`: events, children, execve, ends, and how a trace is bounded and shown. */
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/kid.h"
#include "lib/robust_procs.h"
#include "lib/tracer.h"

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)

static struct {
	int shm;
	pid_t pid;
} made = {.shm = -1};

static int clean(void **state)
{
	tracers_kill();
	kids_end();
	if (made.shm >= 0)
		shmctl(made.shm, IPC_RMID, NULL);
	made.shm = -1;
	if (made.pid) {
		kill(-made.pid, SIGKILL);
		waitpid(made.pid, NULL, 0);
	}
	made.pid = 0;
	return 0;
}

uint64_t a_known_function(const uint64_t *args);
uint64_t __attribute__((noinline)) a_known_function(const uint64_t *args)
{
	for (uint64_t i = 0; i < args[1]; i++)
		*(volatile char *)(args[0] + i * PAGE + i * 8) = 1;
	prctl(PR_SET_NAME, "known-thread");
	return 0;
}

static uint64_t read_zeroes(const uint64_t *args)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	return (uint64_t)read(fd, (void *)args[0], args[1]);
}

/* Each first write of a page, in order, with where and who; those of read(2) are the kernel's. */
static void write_events(void **state)
{
	struct kid *kid = kid_start();
	uint64_t area = kid_call(kid, kid_map, 64 * PAGE, RW, MAP_PRIVATE), users = 0,
		 kernels = 0;
	struct tracer *t =
		tracer_start("--pid", decimal(kid->pid), "--events", "--interval", "1h", NULL);
	json_t *e, *w;
	size_t i;

	kid_call(kid, a_known_function, area, 40);
	kid_call(kid, read_zeroes, area + 40 * PAGE, 8 * PAGE);
	tracer_stop(t);
	json_array_foreach(t->events, i, e)
	{
		uint64_t addr = hex(e, "address");

		if (strcmp(text(e, "type"), "write") || addr < area || addr >= area + 64 * PAGE)
			continue;
		assert_int_equal(number(e, "pid"), kid->pid);
		assert_int_equal(number(e, "tid"), kid->pid);
		assert_string_equal(text(e, "vma"), "[anon]");
		if (addr >= area + 40 * PAGE) {
			assert_true(json_is_true(json_object_get(e, "kernel")));
			kernels++;
			continue;
		}
		assert_false(json_is_true(json_object_get(e, "kernel")));
		assert_int_equal(addr, area + users * (PAGE + 8));
		assert_non_null(strstr(text(e, "function"), "a_known_function"));
		users++;
	}
	assert_int_equal(users, 40);
	assert_int_equal(kernels, 8);
	w = json_array_get(json_object_get(tracer_last(t, kid->pid), "writers"), 0);
	assert_non_null(strstr(text(w, "function"), "a_known_function"));
	assert_string_equal(text(w, "comm"), "known-thread");
	assert_in_range(number(w, "faults"), 40, 41);
}

static uint64_t make_segment(const uint64_t *args)
{
	return (uint64_t)shmget((key_t)args[0], 16 * PAGE, IPC_CREAT | IPC_EXCL | 0600);
}

static uint64_t attach(const uint64_t *args)
{
	return (uintptr_t)shmat((int)args[0], NULL, 0);
}

static uint64_t detach(const uint64_t *args)
{
	return (uint64_t)shmdt((void *)args[0]);
}

static uint64_t become(const uint64_t *args)
{
	execl("/bin/sleep", "sleep", "60", NULL);
	return 0;
}

static uint64_t finish(const uint64_t *args)
{
	_exit(0);
}

/* Find one event of the segment, and check that it comes after the last one that was found. */
static json_t *expect(struct tracer *t, size_t *from, const char *op, const char *implied)
{
	for (; *from < json_array_size(t->events); (*from)++) {
		json_t *e = json_array_get(t->events, *from);

		if (strcmp(text(e, "type"), "segment") || strcmp(text(e, "op"), op) ||
		    strcmp(text(e, "implied"), implied))
			continue;
		(*from)++;
		assert_int_equal(number(e, "id"), made.shm);
		assert_int_equal(number(e, "size"), 16 * PAGE);
		return e;
	}
	fail_msg("no %s event", op);
	return NULL;
}

static void segment_events(void **state)
{
	int32_t key = 0x1c900000 | (getpid() & 0xfffff);
	struct kid *kid = kid_start(), *other = kid_start();
	struct tracer *t =
		tracer_start("--pid", decimal(kid->pid), "--pid", decimal(other->pid),
			     "--events", "--interval", "30ms", NULL);
	uint64_t one, two;
	size_t from = 0;
	json_t *e;

	made.shm = (int)kid_call(kid, make_segment, (uint64_t)key);
	assert_true(made.shm >= 0);
	tracer_catch_up(t);
	one = kid_call(kid, attach, (uint64_t)made.shm);
	tracer_catch_up(t);
	two = kid_call(kid, attach, (uint64_t)made.shm);
	tracer_catch_up(t);
	assert_int_equal(kid_call(kid, detach, one), 0);
	tracer_catch_up(t);
	kid_call(other, attach, (uint64_t)made.shm);
	tracer_catch_up(t);
	kid_ask(kid, become, (const uint64_t[4]){0});
	tracer_catch_up(t);
	kid_ask(other, finish, (const uint64_t[4]){0});
	tracer_catch_up(t);
	tracer_stop(t);
	e = expect(t, &from, "get", "");
	assert_int_equal(strtoul(text(e, "key"), NULL, 16), (uint32_t)key);
	e = expect(t, &from, "attach", "");
	assert_int_equal(hex(e, "address"), one);
	assert_int_equal(number(e, "attach_count"), 1);
	e = expect(t, &from, "attach", "");
	assert_int_equal(hex(e, "address"), two);
	assert_int_equal(number(e, "attach_count"), 2);
	e = expect(t, &from, "detach", "");
	assert_int_equal(hex(e, "address"), one);
	expect(t, &from, "attach", "");
	e = expect(t, &from, "detach", "exec");
	assert_int_equal(hex(e, "address"), two);
	assert_int_equal(number(e, "pid"), kid->pid);
	e = expect(t, &from, "detach", "exit");
	assert_int_equal(number(e, "pid"), other->pid);
}

static uint64_t fork_writer(const uint64_t *args)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		kid_write((const uint64_t[4]){args[0], 5, 1, 1});
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
		/* after it was attached: every second page, for as long as it lives */
		for (;;) {
			kid_write((const uint64_t[4]){args[0] + 20 * PAGE, 20, 2, 1});
			usleep(1000);
		}
	}
	return (uint64_t)pid;
}

/* The parent is exact in spite of the fork; with --tree children and grandchildren are there. */
static void forks(void **state)
{
	struct kid *kid = kid_start();
	uint64_t area = kid_call(kid, kid_map, 64 * PAGE, RW, MAP_PRIVATE);
	struct tracer *t;
	pid_t child;

	kid_call(kid, kid_write, area, 64);
	t = tracer_start("--pid", decimal(kid->pid), "--tree", "--interval", "30ms", NULL);
	tracer_catch_up(t);
	tracer_forget(t);
	child = (pid_t)kid_call(kid, fork_writer, area);
	kid_call(kid, kid_write, area + 60 * PAGE, 3);
	for (int i = 0; i < 200 && !tracer_last(t, child); i++)
		tracer_catch_up(t);
	assert_int_equal(tracer_dirty(t, kid->pid, area, area + 64 * PAGE), 3);
	tracer_forget(t);
	tracer_catch_up(t);
	tracer_forget(t);
	tracer_catch_up(t);
	/* two intervals at least, each with at most its 20 pages */
	assert_in_range(tracer_dirty(t, child, area, area + 64 * PAGE), 1,
			20 * json_array_size(t->samples));
	assert_int_equal(tracer_dirty(t, kid->pid, area, area + 64 * PAGE), 0);
	tracer_stop(t);
	assert_int_equal(json_array_size(json_object_get(t->summary, "processes")), 3);
	kill(child, SIGKILL);
}

static void only_the_parent(void **state)
{
	struct kid *kid = kid_start();
	uint64_t area = kid_call(kid, kid_map, 64 * PAGE, RW, MAP_PRIVATE);
	struct tracer *t;
	pid_t child;

	kid_call(kid, kid_write, area, 64);
	t = tracer_start("--pid", decimal(kid->pid), "--interval", "1h", NULL);
	child = (pid_t)kid_call(kid, fork_writer, area);
	kid_call(kid, kid_write, area + 60 * PAGE, 3);
	tracer_stop(t);
	assert_int_equal(tracer_dirty(t, kid->pid, area, area + 64 * PAGE), 3);
	assert_int_equal(json_array_size(json_object_get(t->summary, "processes")), 1);
	kill(child, SIGKILL);
}

/* However long the interval is, the end of the target ends the trace, with a sample. */
static void the_end_of_the_target(void **state)
{
	struct kid *kid = kid_start();
	struct tracer *t = tracer_start("--pid", decimal(kid->pid), "--interval", "1h", NULL);

	kid_ask(kid, finish, (const uint64_t[4]){0});
	tracer_end(t);
	assert_string_equal(text(t->summary, "reason"), "exited");
	assert_true(json_is_true(json_object_get(tracer_last(t, kid->pid), "ended")));
}

static uint64_t unique_pages_of(const struct tracer *t, pid_t pid)
{
	json_t *p;
	size_t i;

	json_array_foreach(json_object_get(t->summary, "processes"), i,
			   p) if ((pid_t)number(p, "pid") == pid) return number(p,
										"unique_pages");
	return 0;
}

static void shell_loop(void **state)
{
	struct tracer *t;

	made.pid = fork();
	if (!made.pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setpgid(0, 0);
		execl("/bin/sh", "sh", "-c", "while :; do /bin/true; done", NULL);
		_exit(127);
	}
	setpgid(made.pid, made.pid);
	t = tracer_start("--pid", decimal(made.pid), "--tree", "--interval", "50ms", NULL);
	do
		tracer_catch_up(t);
	while (!tracer_dirty(t, made.pid, 0, UINT64_MAX));
	tracer_stop(t);
	assert_true(unique_pages_of(t, made.pid) > 0);
	t = tracer_start("--pid", decimal(made.pid), "--tree", "--interval", "50ms",
			 "--duration", "300ms", NULL);
	tracer_end(t);
	assert_string_equal(text(t->summary, "reason"), "duration");
}

static void count_and_top(void **state)
{
	struct kid *kid = kid_start();
	struct tracer *t = tracer_start("--pid", decimal(kid->pid), "--interval", "20ms",
					"--count", "3", "--top", "0", NULL);

	kid_call(kid, kid_map, 64 * PAGE, RW, MAP_PRIVATE);
	tracer_end(t);
	assert_int_equal(json_array_size(t->samples), 3);
	assert_string_equal(text(t->summary, "reason"), "count");
	assert_int_equal(json_array_size(json_object_get(tracer_last(t, kid->pid), "vmas")), 0);
	assert_int_equal(json_array_size(json_object_get(tracer_last(t, kid->pid), "writers")),
			 0);
}

/* All that a run of it writes to a terminal. */
static char *on_a_terminal(pid_t target)
{
	static char all[1 << 16];
	struct winsize size = {.ws_row = 24, .ws_col = 80};
	size_t used = 0;
	ssize_t got;
	int master;
	pid_t pid = forkpty(&master, NULL, NULL, &size);

	assert_true(pid >= 0);
	if (!pid) {
		execl(built("icp-bpf"), "icp-bpf", "trace", "--pid", decimal(target),
		      "--interval", "30ms", "--count", "3", NULL);
		_exit(127);
	}
	while (used < sizeof(all) - 1 &&
	       (got = read(master, all + used, sizeof(all) - 1 - used)) > 0)
		used += (size_t)got;
	all[used] = 0;
	waitpid(pid, NULL, 0);
	close(master);
	return all;
}

static void redraws_on_a_terminal(void **state)
{
	struct kid *kid = kid_start();
	struct run run = {0};
	char *piped, *shown = on_a_terminal(kid->pid);

	assert_non_null(strstr(shown, "\033["));
	assert_non_null(strstr(shown, "ended by count"));
	assert_int_equal(icp(&run, NULL, "trace", "--pid", decimal(kid->pid), "--interval",
			     "30ms", "--count", "3", NULL),
			 0);
	piped = run_text(run.out);
	assert_null(strchr(piped, '\033'));
	assert_non_null(strstr(piped, "ended by count"));
	free(piped);
	run_close(&run);
}

int main(void)
{
#define T(name) cmocka_unit_test_teardown(name, clean)
	const struct CMUnitTest tests[] = {
		T(write_events),    T(segment_events),	      T(forks),
		T(only_the_parent), T(the_end_of_the_target), T(shell_loop),
		T(count_and_top),   T(redraws_on_a_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
