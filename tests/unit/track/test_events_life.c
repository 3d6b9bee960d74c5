// SPDX-License-Identifier: GPL-2.0
/* The eBPF side: fork, exec, exit and pid namespaces. */
#include "events_kids.h"

/* --- life --- */

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

static void capacity(void **state)
{
	struct events *e = open_events(NULL);
	const pid_t first = 1 << 23; /* beyond any real pid */

	for (pid_t pid = first; pid < first + 16384; pid++)
		follow(e, pid, true);
	assert_int_equal(events_add(e, first - 1, true), -ENOSPC);
	follow(e, first, true); /* again */
	events_del(e, first);
	follow(e, first - 1, true);
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

/* --- namespaces --- */

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

static void observer_in_namespace(void **state)
{
	within(family);
	within(not_followed);
	within(one_exit_each);
	within(target_in_namespace);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(family),
		cmocka_unit_test(not_followed),
		cmocka_unit_test(no_room),
		cmocka_unit_test(capacity),
		cmocka_unit_test(one_exit_each),
		cmocka_unit_test(target_in_namespace),
		cmocka_unit_test(observer_in_namespace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
