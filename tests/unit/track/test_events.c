// SPDX-License-Identifier: GPL-2.0
/* The eBPF side: faults, the guard, privileges, hooks. */
#include "events_kids.h"

#include <linux/capability.h>

/* --- faults --- */

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

/* --- the guard --- */

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
	/* at least: ps(1) on this machine takes the lock, too, to read a command line */
	assert_true(after.read_locks >= before.read_locks + 1);
	assert_int_equal(after.own_locks, 1);
	assert_int_equal(after.write_locks, before.write_locks);

	other = fork();
	if (!other) {
		write_into(kid.pid, area);
		_exit(0);
	}
	assert_int_equal(waitpid(other, &status, 0), other);
	assert_int_equal(status, 0);
	assert_true(counters(e, kid.pid).read_locks >= after.read_locks + 1);
	assert_int_equal(counters(e, kid.pid).own_locks, 1);
	kid_end(&kid);
	events_close(e);
}

/* --- privileges and hooks --- */

/* What events_open() says without SYS_ADMIN and the capabilities in @drop. */
static void expect_refusal(uint64_t drop, const char *text)
{
	pid_t child = fork();
	int status;

	if (!child) {
		struct __user_cap_header_struct header = {.version =
								  _LINUX_CAPABILITY_VERSION_3};
		struct __user_cap_data_struct data[2];
		struct events *e;

		drop |= 1ull << CAP_SYS_ADMIN;
		if (syscall(SYS_capget, &header, data))
			_exit(1);
		data[0].effective &= ~(uint32_t)drop;
		data[1].effective &= ~(uint32_t)(drop >> 32);
		if (syscall(SYS_capset, &header, data) || events_open(NULL, &e) != -EPERM)
			_exit(2);
		_exit(strstr(err_text(-EPERM), text) ? 0 : 3);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void unprivileged(void **state)
{
	expect_refusal(1ull << CAP_BPF | 1ull << CAP_PERFMON, "needs CAP_BPF and CAP_PERFMON:");
	expect_refusal(1ull << CAP_BPF, "needs CAP_BPF:");
	expect_refusal(1ull << CAP_PERFMON, "needs CAP_PERFMON:");
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

static void observer_in_namespace(void **state)
{
	within(exact_pages);
	within(guard_counts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exact_pages),	cmocka_unit_test(kernel_writes),
		cmocka_unit_test(lost_faults),	cmocka_unit_test(side_by_side),
		cmocka_unit_test(guard_counts), cmocka_unit_test(unprivileged),
		cmocka_unit_test(hooks),	cmocka_unit_test(observer_in_namespace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
