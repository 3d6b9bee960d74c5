// SPDX-License-Identifier: GPL-2.0
/*
 * The eBPF side against children that know exactly what they did. Every child does one step per
 * byte it is sent, and answers with a number.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "track/events.h"

#include <cmocka.h> /* last: it has a macro fail() */

#define PAGE 4096ul
#define PAGES 1000ul

extern char **environ;
extern char __executable_start, etext;

/* --- children
 * ----------------------------------------------------------------------------------------------------
 */

struct kid {
	pid_t pid;
	int to, from;
};

/* The child's end: wait for the word, answer. */
struct ends {
	int from, to;
};

static void await(struct ends *io)
{
	char byte;

	if (read(io->from, &byte, 1) != 1)
		_exit(0);
}

static void answer(struct ends *io, uint64_t value)
{
	if (write(io->to, &value, sizeof(value)) != sizeof(value))
		_exit(1);
}

static struct kid kid_start(void (*run)(struct ends *))
{
	int down[2], up[2];
	struct kid kid;

	assert_int_equal(pipe(down), 0);
	assert_int_equal(pipe(up), 0);
	kid.pid = fork();
	assert_true(kid.pid >= 0);
	if (!kid.pid) {
		struct ends io = {down[0], up[1]};

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(down[1]);
		close(up[0]);
		run(&io);
		_exit(0);
	}
	close(down[0]);
	close(up[1]);
	kid.to = down[1];
	kid.from = up[0];
	return kid;
}

static uint64_t kid_result(struct kid *kid)
{
	uint64_t value;

	assert_int_equal(read(kid->from, &value, sizeof(value)), sizeof(value));
	return value;
}

static void kid_go(struct kid *kid)
{
	assert_int_equal(write(kid->to, "", 1), 1);
}

static uint64_t kid_step(struct kid *kid)
{
	kid_go(kid);
	return kid_result(kid);
}

/* Wait until it has ended by itself; its exit code. */
static int kid_wait(struct kid *kid)
{
	int status;

	assert_int_equal(waitpid(kid->pid, &status, 0), kid->pid);
	close(kid->to);
	close(kid->from);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void kid_end(struct kid *kid)
{
	kill(kid->pid, SIGKILL);
	kid_wait(kid);
}

static char *fresh(size_t pages)
{
	char *area = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (area == MAP_FAILED || madvise(area, pages * PAGE, MADV_NOHUGEPAGE))
		_exit(2);
	return area;
}

static size_t offset_of(size_t page)
{
	return page * PAGE + page * 8 % PAGE;
}

/* Writes PAGES fresh pages, each at an offset of its own, twice; then a word of the last one
 * again. */
static void run_writer(struct ends *io)
{
	volatile char *area = fresh(PAGES);

	answer(io, (uintptr_t)area);
	for (;;) {
		await(io);
		for (size_t round = 0; round < 2; round++) {
			for (size_t i = 0; i < PAGES; i++)
				area[offset_of(i)] = 1;
		}
		answer(io, 0);
	}
}

/* --- helpers
 * -----------------------------------------------------------------------------------------------------
 */

static struct events *open_events(const struct events_config *config)
{
	struct events *e;

	if (events_open(config, &e))
		fail_msg("%s", err_text(-1));
	assert_int_equal(events_missing(e), 0);
	return e;
}

static void follow(struct events *e, pid_t pid, bool children)
{
	if (events_add(e, pid, children))
		fail_msg("%s", err_text(-1));
}

static void drain(struct events *e, struct event_batch *batch)
{
	if (events_drain(e, batch))
		fail_msg("%s", err_text(-1));
}

static struct icp_counters counters(struct events *e, pid_t pid)
{
	struct icp_counters c;

	assert_int_equal(events_counters(e, pid, &c), 0);
	return c;
}

static const struct icp_change *find(struct event_batch *b, uint32_t type, uint32_t op,
				     uint32_t pid)
{
	const struct icp_change *found = NULL;

	vec_each (c, &b->changes) {
		if (c->type == type && c->op == op && c->pid == pid) {
			assert_null(found);
			found = c;
		}
	}
	assert_non_null(found);
	return found;
}

static size_t count(struct event_batch *b, uint32_t type, uint32_t pid)
{
	size_t n = 0;

	vec_each (c, &b->changes)
		n += c->type == type && (!pid || c->pid == pid);
	return n;
}

static void expect(const struct icp_change *c, uint64_t a, uint64_t b, uint64_t d, int64_t ret)
{
	assert_int_equal(c->arg[0], a);
	assert_int_equal(c->arg[1], b);
	assert_int_equal(c->arg[2], d);
	assert_int_equal(c->ret, ret);
	assert_int_equal(c->tid, c->pid);
	assert_true(c->time);
}

/* The faults of @batch in [area, area + PAGES pages) are the writer's, exactly. */
static void expect_writer(struct event_batch *batch, uint64_t area, pid_t pid)
{
	size_t seen = 0;
	uint64_t before = 0;

	vec_each (f, &batch->faults) {
		assert_true(f->time >= before);
		before = f->time;
		assert_int_equal(f->pid, pid);
		if (f->addr < area || f->addr >= area + PAGES * PAGE)
			continue;
		assert_int_equal(f->addr, area + offset_of(seen));
		assert_int_equal(f->tid, pid);
		assert_int_equal(f->flags, 0);
		assert_true(f->ip >= (uintptr_t)&__executable_start &&
			    f->ip < (uintptr_t)&etext);
		seen++;
	}
	assert_int_equal(seen, PAGES);
}

/* --- faults
 * ------------------------------------------------------------------------------------------------------
 */

static void exact_pages(void **state)
{
	struct events *e = open_events(NULL);
	struct kid kid = kid_start(run_writer);
	uint64_t area = kid_result(&kid);
	struct event_batch batch = {};
	struct icp_counters c;

	follow(e, kid.pid, false);
	kid_step(&kid);
	drain(e, &batch);
	expect_writer(&batch, area, kid.pid);
	c = counters(e, kid.pid);
	assert_int_equal(c.faults_user + c.faults_kernel, batch.faults.n);
	assert_int_equal(c.lost_faults, 0);
	assert_int_equal(c.follow, 0);

	/* no fault is left, and none is recorded of who isn't followed */
	batch.faults.n = 0;
	kid_step(&kid);
	events_del(e, kid.pid);
	drain(e, &batch);
	vec_each (f, &batch.faults)
		assert_false(f->addr >= area && f->addr < area + PAGES * PAGE);
	assert_int_equal(events_counters(e, kid.pid, &c), -ENOENT);
	kid_end(&kid);
	event_batch_free(&batch);
	events_close(e);
}

static void run_reader(struct ends *io)
{
	char *area = fresh(2);
	int zero[2];

	if (pipe(zero) || write(zero[1], "0123456789", 10) != 10)
		_exit(3);
	answer(io, (uintptr_t)area);
	await(io);
	answer(io, syscall(SYS_read, zero[0], area + 100, 10));
	await(io);
}

static bool executable(pid_t pid, uint64_t addr)
{
	char path[64], line[512];
	bool found = false;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "r");
	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps)) {
		unsigned long start, end;
		char prot[5];

		if (sscanf(line, "%lx-%lx %4s", &start, &end, prot) == 3 && addr >= start &&
		    addr < end)
			found = prot[2] == 'x';
	}
	fclose(maps);
	return found;
}

static void kernel_writes(void **state)
{
	struct events *e = open_events(NULL);
	struct kid kid = kid_start(run_reader);
	uint64_t area = kid_result(&kid);
	struct event_batch batch = {};
	size_t seen = 0;

	follow(e, kid.pid, false);
	assert_int_equal(kid_step(&kid), 10);
	drain(e, &batch);
	vec_each (f, &batch.faults) {
		if (f->addr < area || f->addr >= area + 2 * PAGE)
			continue;
		assert_int_equal(f->addr, area + 100);
		assert_int_equal(f->flags, ICP_FAULT_KERNEL);
		assert_true(executable(kid.pid, f->ip));
		seen++;
	}
	assert_int_equal(seen, 1);
	assert_true(counters(e, kid.pid).faults_kernel >= 1);
	kid_end(&kid);
	event_batch_free(&batch);
	events_close(e);
}

static void lost_faults(void **state)
{
	/* 40 bytes and a header of 8: 85 fit into 4096, less one byte that a ring never fills
	 */
	struct events *e = open_events(&(struct events_config){.fault_ring_bytes = PAGE});
	struct kid kid = kid_start(run_writer);
	struct event_batch batch = {};
	struct icp_counters c;

	kid_result(&kid);
	follow(e, kid.pid, false);
	kid_step(&kid);
	drain(e, &batch);
	c = counters(e, kid.pid);
	assert_int_equal(batch.faults.n, 85);
	assert_true(c.faults_user >= PAGES);
	assert_int_equal(c.faults_user + c.faults_kernel, batch.faults.n + c.lost_faults);
	kid_end(&kid);
	event_batch_free(&batch);
	events_close(e);
}

static void side_by_side(void **state)
{
	struct events *one = open_events(NULL), *two = open_events(NULL);
	struct kid kid = kid_start(run_writer), other = kid_start(run_writer);
	uint64_t area = kid_result(&kid), other_area = kid_result(&other);
	struct event_batch a = {}, b = {};

	follow(one, kid.pid, false);
	follow(two, other.pid, false);
	kid_step(&kid);
	kid_step(&other);
	drain(one, &a);
	drain(two, &b);
	expect_writer(&a, area, kid.pid);
	expect_writer(&b, other_area, other.pid);
	events_close(one);

	kid_end(&kid);
	kid_end(&other);
	drain(two, &b);
	find(&b, ICP_EV_EXIT, 0, other.pid);
	assert_int_equal(count(&b, ICP_EV_EXIT, 0), 1);
	event_batch_free(&a);
	event_batch_free(&b);
	events_close(two);
}

/* --- life
 * --------------------------------------------------------------------------------------------------------
 */

static void run_parent(struct ends *io)
{
	volatile char *area = fresh(1);
	pid_t child;

	area[0] = 1;
	answer(io, (uintptr_t)area);
	await(io);
	child = syscall(SYS_fork);
	if (!child) {
		area[8] = 2;
		_exit(0);
	}
	waitpid(child, NULL, 0);
	answer(io, child);
	await(io);
	if (posix_spawn(&child, "/bin/true", NULL, NULL, (char *[]){"true", NULL}, environ))
		_exit(4);
	waitpid(child, NULL, 0);
	answer(io, child);
	await(io);
	execl("/bin/true", "true", NULL);
}

static void family(void **state)
{
	struct events *e = open_events(NULL);
	struct kid kid = kid_start(run_parent);
	uint64_t area = kid_result(&kid);
	struct event_batch batch = {};
	const struct icp_change *fork_;
	pid_t forked, spawned;
	size_t seen = 0;

	follow(e, kid.pid, true);
	assert_int_equal(counters(e, kid.pid).follow, 1);
	forked = kid_step(&kid);
	drain(e, &batch);
	fork_ = find(&batch, ICP_EV_FORK, 0, kid.pid);
	assert_int_equal(fork_->arg[0], forked);
	assert_int_equal(fork_->arg[1], 1);
	assert_int_equal(counters(e, forked).follow, 1);
	find(&batch, ICP_EV_EXIT, 0, forked);
	vec_each (f, &batch.faults)
		seen += f->pid == (uint32_t)forked && f->addr == area + 8;
	assert_int_equal(seen, 1);

	batch.changes.n = 0;
	spawned = kid_step(&kid);
	drain(e, &batch);
	fork_ = find(&batch, ICP_EV_FORK, ICP_FORK_SHARED_MM, kid.pid);
	assert_int_equal(fork_->arg[0], spawned);
	find(&batch, ICP_EV_EXEC, 0, spawned);
	find(&batch, ICP_EV_EXIT, 0, spawned);

	batch.changes.n = 0;
	kid_go(&kid);
	assert_int_equal(kid_wait(&kid), 0);
	drain(e, &batch);
	assert_true(find(&batch, ICP_EV_EXEC, 0, kid.pid) <
		    find(&batch, ICP_EV_EXIT, 0, kid.pid));
	event_batch_free(&batch);
	events_close(e);
}

static void run_childless(struct ends *io)
{
	pid_t child;

	answer(io, 0);
	await(io);
	child = syscall(SYS_fork);
	if (!child)
		_exit(0);
	waitpid(child, NULL, 0);
	answer(io, child);
	await(io);
}

/* Without @children a fork is told, but the child isn't added. */
static void not_followed(void **state)
{
	struct events *e = open_events(NULL);
	struct kid kid = kid_start(run_childless);
	struct event_batch batch = {};
	struct icp_counters c;
	pid_t child;

	kid_result(&kid);
	follow(e, kid.pid, false);
	child = kid_step(&kid);
	drain(e, &batch);
	assert_int_equal(find(&batch, ICP_EV_FORK, 0, kid.pid)->arg[0], child);
	assert_int_equal(find(&batch, ICP_EV_FORK, 0, kid.pid)->arg[1], 0);
	assert_int_equal(count(&batch, ICP_EV_EXIT, 0), 0);
	assert_int_equal(events_counters(e, child, &c), -ENOENT);
	assert_int_equal(counters(e, kid.pid).lost_changes, 0);
	kid_end(&kid);
	event_batch_free(&batch);
	events_close(e);
}

static void no_room(void **state)
{
	struct events *e = open_events(&(struct events_config){.max_targets = 1});
	struct kid kid = kid_start(run_childless);
	struct event_batch batch = {};

	kid_result(&kid);
	follow(e, kid.pid, true);
	assert_int_equal(events_add(e, getpid(), false), -ENOSPC);
	kid_step(&kid);
	drain(e, &batch);
	assert_int_equal(find(&batch, ICP_EV_FORK, 0, kid.pid)->arg[1], 0);
	assert_int_equal(counters(e, kid.pid).lost_changes, 1);
	kid_end(&kid);
	event_batch_free(&batch);
	events_close(e);
}

static void *end_soon(void *barrier)
{
	pthread_barrier_wait(barrier);
	return NULL;
}

/* Eight threads that end together, many times, the main thread among them. */
static void run_threads(struct ends *io)
{
	answer(io, 0);
	await(io);
	for (int round = 0; round < 50; round++) {
		pid_t child = syscall(SYS_fork);

		if (!child) {
			pthread_barrier_t barrier;
			pthread_t thread;

			pthread_barrier_init(&barrier, NULL, 8);
			for (int i = 0; i < 7; i++)
				pthread_create(&thread, NULL, end_soon, &barrier);
			pthread_barrier_wait(&barrier);
			syscall(SYS_exit, 0); /* this thread only */
		}
		waitpid(child, NULL, 0);
	}
	answer(io, 0);
	await(io);
}

static void one_exit_each(void **state)
{
	struct events *e = open_events(NULL);
	struct kid kid = kid_start(run_threads);
	struct event_batch batch = {};

	kid_result(&kid);
	follow(e, kid.pid, true);
	kid_step(&kid);
	drain(e, &batch);
	assert_int_equal(count(&batch, ICP_EV_FORK, 0), 50);
	assert_int_equal(count(&batch, ICP_EV_EXIT, 0), 50);
	vec_each (c, &batch.changes) {
		if (c->type == ICP_EV_FORK)
			assert_int_equal(count(&batch, ICP_EV_EXIT, c->arg[0]), 1);
	}
	kid_end(&kid);
	event_batch_free(&batch);
	events_close(e);
}

/* --- system calls
 * ------------------------------------------------------------------------------------------------
 */

static void run_caller(struct ends *io)
{
	char *area, *moved, *old;

	answer(io, 0);
	await(io);
	area = (char *)syscall(SYS_mmap, NULL, 4 * PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	answer(io, (uintptr_t)area);
	await(io);
	moved = (char *)syscall(SYS_mremap, area, 4 * PAGE, 64 * PAGE, MREMAP_MAYMOVE, 0);
	answer(io, (uintptr_t)moved);
	await(io);
	answer(io, syscall(SYS_mprotect, moved, PAGE, PROT_READ));
	await(io);
	answer(io, syscall(SYS_madvise, moved + PAGE, 2 * PAGE, MADV_DONTNEED));
	await(io);
	old = (char *)syscall(SYS_brk, 0); /* a query: no event */
	answer(io, syscall(SYS_brk, old + 8 * PAGE));
	await(io);
	syscall(SYS_munmap, 1, PAGE); /* fails: no event */
	answer(io, syscall(SYS_munmap, moved, 64 * PAGE));
	await(io);
}

static const struct icp_change *only(struct events *e, struct event_batch *batch, uint32_t type,
				     uint32_t op, pid_t pid)
{
	batch->changes.n = 0;
	drain(e, batch);
	assert_int_equal(batch->changes.n, 1);
	return find(batch, type, op, pid);
}

static void mappings(void **state)
{
	struct events *e = open_events(NULL);
	struct kid kid = kid_start(run_caller);
	struct event_batch b = {};
	uint64_t area, moved, brk_;

	kid_result(&kid);
	follow(e, kid.pid, false);
	area = kid_step(&kid);
	expect(only(e, &b, ICP_EV_MAP, ICP_MAP_MMAP, kid.pid), area, 4 * PAGE, 0, area);
	moved = kid_step(&kid);
	expect(only(e, &b, ICP_EV_MAP, ICP_MAP_MREMAP, kid.pid), moved, 64 * PAGE, area, moved);
	kid_step(&kid);
	expect(only(e, &b, ICP_EV_MAP, ICP_MAP_MPROTECT, kid.pid), moved, PAGE, PROT_READ, 0);
	kid_step(&kid);
	expect(only(e, &b, ICP_EV_MAP, ICP_MAP_MADVISE, kid.pid), moved + PAGE, 2 * PAGE,
	       MADV_DONTNEED, 0);
	brk_ = kid_step(&kid);
	expect(only(e, &b, ICP_EV_MAP, ICP_MAP_BRK, kid.pid), brk_, 0, 0, brk_);
	assert_int_equal(kid_step(&kid), 0);
	expect(only(e, &b, ICP_EV_MAP, ICP_MAP_MUNMAP, kid.pid), moved, 64 * PAGE, 0, 0);
	kid_end(&kid);
	event_batch_free(&b);
	events_close(e);
}

static void run_segment(struct ends *io)
{
	int id;
	void *at;

	answer(io, 0);
	await(io);
	syscall(SYS_shmget, 0x1c9e0bad, PAGE, 0); /* fails: no such key */
	id = syscall(SYS_shmget, IPC_PRIVATE, 3 * PAGE, IPC_CREAT | 0600);
	answer(io, id);
	await(io);
	at = (void *)syscall(SYS_shmat, id, NULL, SHM_RDONLY);
	answer(io, (uintptr_t)at);
	await(io);
	syscall(SYS_shmctl, id, IPC_STAT, &(struct shmid_ds){}); /* no event */
	answer(io, syscall(SYS_shmctl, id, IPC_RMID, NULL));
	await(io);
	answer(io, syscall(SYS_shmdt, at));
	await(io);
}

static void segments(void **state)
{
	struct events *e = open_events(NULL);
	struct kid kid = kid_start(run_segment);
	struct event_batch b = {};
	uint64_t at;
	int id;

	kid_result(&kid);
	follow(e, kid.pid, false);
	id = kid_step(&kid);
	assert_true(id >= 0);
	expect(only(e, &b, ICP_EV_SHM, ICP_SHM_GET, kid.pid), IPC_PRIVATE, 3 * PAGE,
	       IPC_CREAT | 0600, id);
	at = kid_step(&kid);
	expect(only(e, &b, ICP_EV_SHM, ICP_SHM_AT, kid.pid), id, 0, SHM_RDONLY, at);
	kid_step(&kid);
	expect(only(e, &b, ICP_EV_SHM, ICP_SHM_RMID, kid.pid), id, 0, 0, 0);
	kid_step(&kid);
	expect(only(e, &b, ICP_EV_SHM, ICP_SHM_DT, kid.pid), at, 0, 0, 0);
	kid_end(&kid);
	event_batch_free(&b);
	events_close(e);
}

/* Each step: 200 calls that are told, if the system-call program is on. */
static void run_storm(struct ends *io)
{
	char *area = fresh(1);

	answer(io, 0);
	for (;;) {
		await(io);
		for (int i = 0; i < 200; i++)
			syscall(SYS_madvise, area, PAGE, MADV_NORMAL);
		answer(io, 0);
	}
}

static void lost_changes(void **state)
{
	/* 56 bytes and a header of 8, less the last byte */
	struct events *e = open_events(&(struct events_config){.change_ring_bytes = PAGE});
	struct kid kid = kid_start(run_storm);
	struct event_batch batch = {};

	kid_result(&kid);
	follow(e, kid.pid, false);
	kid_step(&kid);
	drain(e, &batch);
	assert_int_equal(batch.changes.n, 63);
	assert_int_equal(counters(e, kid.pid).lost_changes, 200 - 63);
	kid_end(&kid);
	event_batch_free(&batch);
	events_close(e);
}

static void calls_on_demand(void **state)
{
	struct events *e = open_events(&(struct events_config){.no_syscalls = true});
	struct kid kid = kid_start(run_storm);
	struct event_batch batch = {};

	kid_result(&kid);
	follow(e, kid.pid, false);
	kid_step(&kid);
	drain(e, &batch);
	assert_int_equal(batch.changes.n, 0);
	assert_int_equal(events_calls(e, true), 0);
	assert_int_equal(events_calls(e, true), 0);
	kid_step(&kid);
	drain(e, &batch);
	assert_int_equal(batch.changes.n, 200);
	assert_int_equal(events_calls(e, false), 0);
	kid_step(&kid);
	drain(e, &batch);
	assert_int_equal(batch.changes.n, 200);
	kid_end(&kid);
	event_batch_free(&batch);
	events_close(e);
}

static bool readable(const struct events *e)
{
	struct pollfd fd = {.fd = events_fd(e), .events = POLLIN};

	return poll(&fd, 1, 0) == 1;
}

static void wakes_for_changes(void **state)
{
	struct events *e = open_events(NULL);
	struct kid kid = kid_start(run_writer);
	struct pollfd fd = {.fd = events_fd(e), .events = POLLIN};
	struct event_batch batch = {};

	kid_result(&kid);
	follow(e, kid.pid, false);
	kid_step(&kid);
	assert_false(readable(e));
	drain(e, &batch);
	assert_true(batch.faults.n >= PAGES);
	kid_end(&kid);
	assert_int_equal(poll(&fd, 1, 10000), 1);
	drain(e, &batch);
	find(&batch, ICP_EV_EXIT, 0, kid.pid);
	assert_false(readable(e));
	event_batch_free(&batch);
	events_close(e);
}

/* --- the guard
 * ---------------------------------------------------------------------------------------------------
 */

static void run_guarded(struct ends *io)
{
	volatile char *area = fresh(PAGES);

	area[0] = 1;
	answer(io, (uintptr_t)area);
	await(io);
	for (size_t i = 0; i < PAGES; i++)
		area[offset_of(i)] = 1;
	answer(io, 0);
	await(io);
	fresh(1);
	answer(io, 0);
	await(io);
}

static void write_into(pid_t pid, uint64_t addr)
{
	struct iovec from = {"x", 1}, to = {(void *)addr, 1};

	if (process_vm_writev(pid, &from, 1, &to, 1, 0) != 1)
		_exit(5);
}

static void guard_counts(void **state)
{
	struct events *e = open_events(NULL);
	struct kid kid = kid_start(run_guarded);
	uint64_t area = kid_result(&kid);
	struct icp_counters before, after;
	int status;
	pid_t other;

	follow(e, kid.pid, false);
	kid_step(&kid);
	after = counters(e, kid.pid);
	assert_true(after.faults_user >= PAGES - 1);
	assert_int_equal(after.write_locks, 0);

	kid_step(&kid);
	before = after;
	after = counters(e, kid.pid);
	assert_true(after.write_locks > before.write_locks);
	assert_int_equal(after.own_locks, 0);

	before = after;
	write_into(kid.pid, area);
	after = counters(e, kid.pid);
	assert_int_equal(after.read_locks, before.read_locks + 1);
	assert_int_equal(after.own_locks, 1);
	assert_int_equal(after.write_locks, before.write_locks);

	other = fork();
	if (!other) {
		write_into(kid.pid, area);
		_exit(0);
	}
	assert_int_equal(waitpid(other, &status, 0), other);
	assert_int_equal(status, 0);
	assert_int_equal(counters(e, kid.pid).read_locks, after.read_locks + 1);
	assert_int_equal(counters(e, kid.pid).own_locks, 1);
	kid_end(&kid);
	events_close(e);
}

/* --- namespaces
 * --------------------------------------------------------------------------------------------------
 */

static void run_namespaced(struct ends *io)
{
	pid_t child;
	int status;

	if (unshare(CLONE_NEWPID))
		_exit(6);
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run_parent(io);
		_exit(7);
	}
	answer(io, child);
	waitpid(child, &status, 0);
	_exit(!WIFEXITED(status) ? 8 : WEXITSTATUS(status));
}

/* A target whose own pid is 1, seen from here. */
static void target_in_namespace(void **state)
{
	struct events *e = open_events(NULL);
	struct kid kid = kid_start(run_namespaced);
	uint64_t first = kid_result(&kid), second = kid_result(&kid), area;
	struct event_batch batch = {};
	pid_t pid, child;
	size_t seen = 0;

	/* the pid and the address come from two processes, in either order */
	pid = first < second ? first : second;
	area = first < second ? second : first;
	follow(e, pid, true);
	assert_int_equal(kid_step(&kid), 2); /* as the target sees its child */
	drain(e, &batch);
	child = find(&batch, ICP_EV_FORK, 0, pid)->arg[0];
	assert_true(child > 2);
	find(&batch, ICP_EV_EXIT, 0, child);
	vec_each (f, &batch.faults)
		seen += f->pid == (uint32_t)child && f->addr == area + 8;
	assert_int_equal(seen, 1);
	kid_step(&kid);
	kid_go(&kid);
	assert_int_equal(kid_wait(&kid), 0);
	drain(e, &batch);
	find(&batch, ICP_EV_EXIT, 0, pid);
	event_batch_free(&batch);
	events_close(e);
}

/* Run all of @test as pid 1 of a new pid namespace: ids are then those of that namespace,
 * inside the test. */
static void within(void (*test)(void **))
{
	pid_t outer = fork(), inner;
	int status;

	assert_true(outer >= 0);
	if (!outer) {
		const struct CMUnitTest tests[] = {
			{"inside a pid namespace", test, NULL, NULL, NULL}};

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWPID))
			_exit(6);
		inner = fork();
		if (!inner)
			_exit(getpid() != 1 || cmocka_run_group_tests(tests, NULL, NULL));
		waitpid(inner, &status, 0);
		_exit(!WIFEXITED(status) || WEXITSTATUS(status));
	}
	assert_int_equal(waitpid(outer, &status, 0), outer);
	assert_int_equal(status, 0);
}

static void observer_in_namespace(void **state)
{
	within(exact_pages);
	within(family);
	within(guard_counts);
	within(segments);
	within(target_in_namespace); /* two levels */
}

/* --- privileges and hooks
 * ---------------------------------------------------------------------------------------- */

static void unprivileged(void **state)
{
	pid_t child = fork();
	int status;

	if (!child) {
		struct events *e;

		if (setresuid(65534, 65534, 65534) || events_open(NULL, &e) != -EPERM)
			_exit(1);
		_exit(!strstr(err_text(-EPERM), "CAP_BPF and CAP_PERFMON"));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void hooks(void **state)
{
	struct hook_status *h;
	size_t n, required = 0, seen = 0;

	assert_int_equal(events_hooks(&h, &n), 0);
	for (size_t i = 0; i < n; i++) {
		print_message("%-36s %-9s %s\n", h[i].name,
			      h[i].available  ? "yes"
			      : h[i].required ? "NO"
					      : "no",
			      h[i].why);
		required += h[i].required;
		if (h[i].required)
			assert_true(h[i].available);
		if (!h[i].available)
			assert_true(h[i].why[0]);
		seen += !strcmp(h[i].name, "raw_tp/sys_exit") && h[i].available;
	}
	assert_int_equal(required, 5);
	assert_int_equal(seen, 1);
	free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exact_pages),
		cmocka_unit_test(kernel_writes),
		cmocka_unit_test(lost_faults),
		cmocka_unit_test(side_by_side),
		cmocka_unit_test(family),
		cmocka_unit_test(not_followed),
		cmocka_unit_test(no_room),
		cmocka_unit_test(one_exit_each),
		cmocka_unit_test(mappings),
		cmocka_unit_test(segments),
		cmocka_unit_test(lost_changes),
		cmocka_unit_test(calls_on_demand),
		cmocka_unit_test(wakes_for_changes),
		cmocka_unit_test(guard_counts),
		cmocka_unit_test(target_in_namespace),
		cmocka_unit_test(observer_in_namespace),
		cmocka_unit_test(unprivileged),
		cmocka_unit_test(hooks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
