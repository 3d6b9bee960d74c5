/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Children that know exactly what they did, for the tests of the eBPF side. Every child does
 * one step per byte it is sent, and answers with a number.
 */
#ifndef ICP_TEST_EVENTS_H
#define ICP_TEST_EVENTS_H

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

/* --- children --- */

struct kid {
	pid_t pid;
	int to, from;
};

/* The child's end: wait for the word, answer. */
struct ends {
	int from, to;
};

static inline void await(struct ends *io)
{
	char byte;

	if (read(io->from, &byte, 1) != 1)
		_exit(0);
}

static inline void answer(struct ends *io, uint64_t value)
{
	if (write(io->to, &value, sizeof(value)) != sizeof(value))
		_exit(1);
}

static inline struct kid kid_start(void (*run)(struct ends *))
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

static inline uint64_t kid_result(struct kid *kid)
{
	uint64_t value;

	assert_int_equal(read(kid->from, &value, sizeof(value)), sizeof(value));
	return value;
}

static inline void kid_go(struct kid *kid)
{
	assert_int_equal(write(kid->to, "", 1), 1);
}

static inline uint64_t kid_step(struct kid *kid)
{
	kid_go(kid);
	return kid_result(kid);
}

/* Wait until it has ended by itself; its exit code. */
static inline int kid_wait(struct kid *kid)
{
	int status;

	assert_int_equal(waitpid(kid->pid, &status, 0), kid->pid);
	close(kid->to);
	close(kid->from);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline void kid_end(struct kid *kid)
{
	kill(kid->pid, SIGKILL);
	kid_wait(kid);
}

static inline char *fresh(size_t pages)
{
	char *area = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (area == MAP_FAILED || madvise(area, pages * PAGE, MADV_NOHUGEPAGE))
		_exit(2);
	return area;
}

static inline size_t offset_of(size_t page)
{
	return page * PAGE + page * 8 % PAGE;
}

/* Writes PAGES fresh pages, each at an offset of its own, twice; then a word of the last one
 * again. */
static inline void run_writer(struct ends *io)
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

/* --- helpers --- */

static inline struct events *open_events(const struct events_config *config)
{
	struct events *e;

	if (events_open(config, &e))
		fail_msg("%s", err_text(-1));
	assert_int_equal(events_missing(e), 0);
	return e;
}

static inline void follow(struct events *e, pid_t pid, bool children)
{
	if (events_add(e, pid, children))
		fail_msg("%s", err_text(-1));
}

static inline void drain(struct events *e, struct event_batch *batch)
{
	if (events_drain(e, batch))
		fail_msg("%s", err_text(-1));
}

static inline struct icp_counters counters(struct events *e, pid_t pid)
{
	struct icp_counters c;

	assert_int_equal(events_counters(e, pid, &c), 0);
	return c;
}

static inline const struct icp_change *find(struct event_batch *b, uint32_t type, uint32_t op,
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

static inline size_t count(struct event_batch *b, uint32_t type, uint32_t pid)
{
	size_t n = 0;

	vec_each (c, &b->changes)
		n += c->type == type && (!pid || c->pid == pid);
	return n;
}

static inline void expect(const struct icp_change *c, uint64_t a, uint64_t b, uint64_t d,
			  int64_t ret)
{
	assert_int_equal(c->arg[0], a);
	assert_int_equal(c->arg[1], b);
	assert_int_equal(c->arg[2], d);
	assert_int_equal(c->ret, ret);
	assert_int_equal(c->tid, c->pid);
	assert_true(c->time);
}

/* The faults of @batch in [area, area + PAGES pages) are the writer's, exactly. */
static inline void expect_writer(struct event_batch *batch, uint64_t area, pid_t pid)
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

/* Run all of @test as pid 1 of a new pid namespace: ids are then those of that namespace,
 * inside the test. */
static inline void within(void (*test)(void **))
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

#endif
