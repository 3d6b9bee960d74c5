// SPDX-License-Identifier: GPL-2.0
/* The eBPF side: system calls and wake-ups. */
#include "events_kids.h"

/* --- system calls --- */

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

static int segment =
	-1; /* for the teardown, should the test fail before its child removes it */

static int remove_segment(void **state)
{
	if (segment >= 0)
		shmctl(segment, IPC_RMID, NULL);
	return 0;
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
	id = segment = kid_step(&kid);
	assert_true(id >= 0);
	expect(only(e, &b, ICP_EV_SHM, ICP_SHM_GET, kid.pid), IPC_PRIVATE, 3 * PAGE,
	       IPC_CREAT | 0600, id);
	at = kid_step(&kid);
	expect(only(e, &b, ICP_EV_SHM, ICP_SHM_AT, kid.pid), id, 0, SHM_RDONLY, at);
	kid_step(&kid);
	segment = -1;
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

static void observer_in_namespace(void **state)
{
	within(segments);
	within(mappings);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mappings),
		cmocka_unit_test_teardown(segments, remove_segment),
		cmocka_unit_test(lost_changes),
		cmocka_unit_test(calls_on_demand),
		cmocka_unit_test(wakes_for_changes),
		cmocka_unit_test(observer_in_namespace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
