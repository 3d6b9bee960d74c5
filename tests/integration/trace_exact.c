// SPDX-License-Identifier: GPL-2.0
/* `icp-bpf trace --json` against children that know exactly which pages they wrote, over every kind of memory. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/kid.h"
#include "lib/tracer.h"

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)
#define N 300ul

static struct {
	int shm[4];
	size_t shms;
	char paths[4][64];
	size_t files;
} made;

static int clean(void **state)
{
	tracers_kill();
	kids_end();
	while (made.shms)
		shmctl(made.shm[--made.shms], IPC_RMID, NULL);
	while (made.files)
		unlink(made.paths[--made.files]);
	return 0;
}

static int file_in(const char *dir, size_t pages)
{
	char *path = made.paths[made.files];
	int fd;

	snprintf(path, sizeof(made.paths[0]), "%s/icp-exact-XXXXXX", dir);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	made.files++;
	assert_int_equal(ftruncate(fd, (off_t)(pages * PAGE)), 0);
	return fd;
}

static int segment(size_t pages)
{
	int id = shmget(IPC_PRIVATE, pages * PAGE, 0600);

	assert_true(id >= 0);
	made.shm[made.shms++] = id;
	return id;
}

/* One kind of memory: before (half of it filled), written every third page, read only, written again and again. */
static void check_kind(struct kid *kid, uint64_t area)
{
	struct tracer *t;

	kid_call(kid, kid_write, area, N / 2);
	t = tracer_start("--pid", decimal(kid->pid), "--interval", "30ms", NULL);
	tracer_catch_up(t);
	tracer_forget(t);
	kid_call(kid, kid_write, area, N / 3, 3);
	tracer_catch_up(t);
	tracer_expect(t, kid->pid, area, area + N * PAGE, N / 3);
	tracer_forget(t);
	kid_call(kid, kid_read, area, N);
	tracer_catch_up(t);
	tracer_expect(t, kid->pid, area, area + N * PAGE, 0);
	tracer_forget(t);
	kid_call(kid, kid_write, area + 7 * PAGE, 1);
	tracer_stop(t);
	tracer_expect(t, kid->pid, area, area + N * PAGE, 1);
	/* an hour's interval: only the sample at the end; a page counts once */
	t = tracer_start("--pid", decimal(kid->pid), "--interval", "1h", NULL);
	kid_call(kid, kid_write, area + 5 * PAGE, 20, 2, 50000);
	tracer_stop(t);
	assert_int_equal(json_array_size(t->samples), 1);
	tracer_expect(t, kid->pid, area, area + N * PAGE, 20);
	assert_string_equal(text(t->summary, "reason"), "interrupted");
}

static void private_anonymous(void **state)
{
	struct kid *kid = kid_start();

	check_kind(kid, kid_call(kid, kid_map, N * PAGE, RW, MAP_PRIVATE));
}

static void shared_anonymous(void **state)
{
	struct kid *kid = kid_start();

	check_kind(kid, kid_call(kid, kid_map, N * PAGE, RW, MAP_SHARED));
}

static void memfd(void **state)
{
	int fd = memfd_create("icp-exact", 0);
	struct kid *kid;

	assert_int_equal(ftruncate(fd, N * PAGE), 0);
	kid = kid_start();
	check_kind(kid, kid_call(kid, kid_map_fd, N * PAGE, RW, MAP_SHARED, (uint64_t)fd));
	check_kind(kid, kid_call(kid, kid_map_fd, N * PAGE, RW, MAP_PRIVATE, (uint64_t)fd));
	close(fd);
}

static void files_in(const char *dir)
{
	int fd = file_in(dir, N);
	struct kid *kid = kid_start();

	check_kind(kid, kid_call(kid, kid_map_fd, N * PAGE, RW, MAP_SHARED, (uint64_t)fd));
	check_kind(kid, kid_call(kid, kid_map_fd, N * PAGE, RW, MAP_PRIVATE, (uint64_t)fd));
	close(fd);
}

static void disk_files(void **state)
{
	files_in("/var/tmp");
}

static void tmpfs_files(void **state)
{
	files_in("/dev/shm");
}

static uint64_t do_shmat(const uint64_t *args)
{
	return (uintptr_t)shmat((int)args[0], NULL, 0);
}

static void system_v_segment(void **state)
{
	int id = segment(N);
	struct kid *kid = kid_start();

	check_kind(kid, kid_call(kid, do_shmat, (uint64_t)id));
}

static json_t *segment_of(const struct tracer *t, pid_t pid, int id)
{
	json_t *seg;
	size_t i;

	json_array_foreach(json_object_get(tracer_last(t, pid), "segments"), i,
			   seg) if ((int)number(seg, "id") == id) return seg;
	fail_msg("pid %d has no segment %d", pid, id);
	return NULL;
}

/* a writes pages 0..59 of the first, b 40..99; the second is written by b alone. */
static void two_segments_two_processes(void **state)
{
	int one = segment(N), two = segment(N / 2);
	struct kid *a = kid_start(), *b = kid_start();
	uint64_t a1 = kid_call(a, do_shmat, (uint64_t)one),
		 b1 = kid_call(b, do_shmat, (uint64_t)one);
	uint64_t b2 = kid_call(b, do_shmat, (uint64_t)two);
	struct tracer *t = tracer_start("--pid", decimal(a->pid), "--pid", decimal(b->pid),
					"--interval", "1h", NULL);
	json_t *seg;

	kid_call(a, kid_write, a1, 60);
	kid_call(b, kid_write, b1 + 40 * PAGE, 60);
	kid_call(b, kid_write, b2, 10, 2);
	tracer_stop(t);
	seg = segment_of(t, a->pid, one);
	assert_int_equal(number(seg, "dirty_pages"), 60);
	assert_int_equal(number(seg, "dirty_pages_all"), 100);
	assert_int_equal(number(seg, "size"), N * PAGE);
	assert_int_equal(number(seg, "attach_count"), 2);
	assert_int_equal(json_array_size(json_object_get(seg, "pids")), 2);
	seg = segment_of(t, b->pid, one);
	assert_int_equal(number(seg, "dirty_pages"), 60);
	assert_int_equal(number(seg, "dirty_pages_all"), 100);
	seg = segment_of(t, b->pid, two);
	assert_int_equal(number(seg, "dirty_pages"), 10);
	assert_int_equal(number(seg, "dirty_pages_all"), 10);
	assert_int_equal(number(seg, "attach_count"), 1);
}

static char big_data[N * PAGE] __attribute__((aligned(4096))) = {1};
static char big_bss[N * PAGE] __attribute__((aligned(4096)));

/* Neighbours are written too, so take pages away from the edges and compare with what the rest says. */
static void data_and_bss(void **state)
{
	struct kid *kid = kid_start();
	struct tracer *t = tracer_start("--pid", decimal(kid->pid), "--interval", "1h", NULL);
	uint64_t data;

	kid_call(kid, kid_write, (uintptr_t)big_data, N / 2, 2);
	kid_call(kid, kid_write, (uintptr_t)big_bss, N);
	tracer_stop(t);
	data = number(tracer_last(t, kid->pid), "dirty_pages");
	/* besides: the stack, libc's data, the test's own variables */
	assert_in_range(data, N + N / 2, N + N / 2 + 16 + tracer_slack(2 * N));
}

static uint64_t grow_heap(const uint64_t *args)
{
	char *at = sbrk((intptr_t)(args[0] * PAGE));

	for (uint64_t i = 0; i < args[1]; i++)
		at[i * PAGE] = 1;
	return (uintptr_t)at;
}

static void growing_heap(void **state)
{
	struct kid *kid = kid_start();
	struct tracer *t;
	uint64_t at;

	kid_call(kid, grow_heap, 10, 10);
	t = tracer_start("--pid", decimal(kid->pid), "--interval", "30ms", NULL);
	tracer_catch_up(t);
	tracer_forget(t);
	at = kid_call(kid, grow_heap, N, N / 2);
	tracer_catch_up(t);
	assert_in_range(number(tracer_last(t, kid->pid), "index"), 3, 1000);
	tracer_expect(t, kid->pid, at - 10 * PAGE, at + N * PAGE, N / 2);
	tracer_forget(t);
	kid_call(kid, kid_write, at + 200 * PAGE, 30);
	tracer_stop(t);
	tracer_expect(t, kid->pid, at - 10 * PAGE, at + N * PAGE, 30);
}

static uint64_t __attribute__((noinline)) use_stack(const uint64_t *args)
{
	volatile char deep[N * PAGE];

	for (uint64_t i = 0; i < N; i++)
		deep[i * PAGE] = 1;
	return (uintptr_t)deep;
}

static void growing_stack(void **state)
{
	struct kid *kid = kid_start();
	struct tracer *t = tracer_start("--pid", decimal(kid->pid), "--interval", "1h", NULL);
	uint64_t at = kid_call(kid, use_stack), pages;

	tracer_stop(t);
	pages = tracer_dirty(t, kid->pid, at - 256 * PAGE, at + PAGE);
	assert_in_range(pages, N, N + 4 + tracer_slack(256));
}

static uint64_t map_huge(const uint64_t *args)
{
	char *at = mmap(NULL, 8 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(at, 8 << 20, MADV_HUGEPAGE);
	if (args[0])
		memset(at, 1, 8 << 20);
	return (uintptr_t)at;
}

static void huge_pages(void **state)
{
	struct kid *kid = kid_start();
	uint64_t full = kid_call(kid, map_huge, 1), empty = kid_call(kid, map_huge, 0);
	uint64_t low = full < empty ? full : empty;
	struct tracer *t = tracer_start("--pid", decimal(kid->pid), "--interval", "1h", NULL);

	kid_call(kid, kid_write, full, 10, 100);
	kid_call(kid, kid_read, empty, 2048);
	tracer_stop(t);
	if (tracer_splits_huge_pages())
		tracer_expect(t, kid->pid, low, low + (16 << 20), 10);
	else /* all of each that was written, of three at most, and soft-dirty can't tell the huge zero page */
		assert_in_range(tracer_dirty(t, kid->pid, low, low + (16 << 20)), 10,
				3 * 512 + tracer_slack(4096));
}

/* --- writes that are no stores --- */

static uint64_t read_into(const uint64_t *args)
{
	int fd = (int)args[2];

	return (uint64_t)pread(fd, (void *)args[0], args[1], 0);
}

static void *write_part(void *args)
{
	kid_write(args);
	return NULL;
}

static uint64_t write_in_threads(const uint64_t *args)
{
	static pthread_t threads[8];
	static uint64_t parts[8][4];

	for (uint64_t i = 0; i < 8; i++) {
		parts[i][0] = args[0] + i * args[1] * PAGE;
		parts[i][1] = args[1];
		parts[i][2] = 1;
		parts[i][3] = 100;
		pthread_create(&threads[i], NULL, write_part, parts[i]);
	}
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

static void read_calls(void **state)
{
	int fd = file_in("/var/tmp", N), direct = open(made.paths[0], O_RDONLY | O_DIRECT);
	struct kid *kid = kid_start();
	uint64_t area = kid_call(kid, kid_map, N * PAGE, RW, MAP_PRIVATE);
	struct tracer *t;

	kid_call(kid, kid_write, area, N);
	t = tracer_start("--pid", decimal(kid->pid), "--interval", "1h", NULL);
	assert_int_equal(kid_call(kid, read_into, area, 20 * PAGE, (uint64_t)fd), 20 * PAGE);
	/* a guest has memory only, where old kernels know no O_DIRECT */
	assert_true(direct >= 0 || getenv("ICP_GUEST"));
	if (direct >= 0)
		assert_int_equal(kid_call(kid, read_into, area + 100 * PAGE, 30 * PAGE,
					  (uint64_t)direct),
				 30 * PAGE);
	tracer_stop(t);
	tracer_expect(t, kid->pid, area, area + N * PAGE, direct >= 0 ? 50 : 20);
	assert_true(number(tracer_last(t, kid->pid), "kernel_faults") >= 20);
	close(fd);
	if (direct >= 0)
		close(direct);
}

static void written_by_others(void **state)
{
	static char page[4 * PAGE];
	struct kid *kid = kid_start();
	uint64_t area = kid_call(kid, kid_map, N * PAGE, RW, MAP_PRIVATE);
	struct iovec from = {page, sizeof(page)},
		     to = {(void *)(area + 50 * PAGE), sizeof(page)};
	struct tracer *t;

	kid_call(kid, kid_write, area, N);
	t = tracer_start("--pid", decimal(kid->pid), "--interval", "1h", NULL);
	assert_int_equal(process_vm_writev(kid->pid, &from, 1, &to, 1, 0), sizeof(page));
	assert_int_equal(ptrace(PTRACE_SEIZE, kid->pid, 0, 0), 0);
	assert_int_equal(ptrace(PTRACE_INTERRUPT, kid->pid, 0, 0), 0);
	assert_int_equal(waitpid(kid->pid, NULL, 0), kid->pid);
	assert_int_equal(ptrace(PTRACE_POKEDATA, kid->pid, area + 90 * PAGE, 42), 0);
	assert_int_equal(ptrace(PTRACE_DETACH, kid->pid, 0, 0), 0);
	tracer_stop(t);
	tracer_expect(t, kid->pid, area, area + N * PAGE, 5);
}

static void eight_threads(void **state)
{
	struct kid *kid = kid_start();
	uint64_t area = kid_call(kid, kid_map, N * PAGE, RW, MAP_PRIVATE);
	struct tracer *t;

	kid_call(kid, kid_write, area, N);
	t = tracer_start("--pid", decimal(kid->pid), "--interval", "1h", NULL);
	kid_call(kid, write_in_threads, area, 30);
	tracer_stop(t);
	tracer_expect(t, kid->pid, area, area + N * PAGE, 240);
}

/* --- the layout changes while it is traced --- */

static uint64_t change_layout(const uint64_t *args)
{
	char *area = (char *)args[0];

	switch (args[1]) {
	case 0: /* another mapping in its place, 10 pages written */
		munmap(area, N * PAGE);
		area = mmap(area, N * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		return kid_write((const uint64_t[4]){(uintptr_t)area, 10, 1, 1});
	case 1: /* zapped, one written again */
		madvise(area, N * PAGE, MADV_DONTNEED);
		return kid_write((const uint64_t[4]){(uintptr_t)area + 3 * PAGE, 1, 1, 1});
	default: /* read-only and back, 4 written */
		mprotect(area, N * PAGE, PROT_READ);
		mprotect(area, N * PAGE, RW);
		return kid_write((const uint64_t[4]){(uintptr_t)area, 4, 2, 1});
	}
}

static void layout(void **state)
{
	static const uint64_t expected[] = {10, 1, 4};
	struct kid *kid = kid_start();
	uint64_t area = kid_call(kid, kid_map, N * PAGE, RW, MAP_PRIVATE), born;
	struct tracer *t;

	kid_call(kid, kid_write, area, N);
	t = tracer_start("--pid", decimal(kid->pid), "--interval", "30ms", NULL);
	for (uint64_t i = 0; i < 3; i++) {
		tracer_catch_up(t);
		tracer_forget(t);
		kid_call(kid, change_layout, area, i);
		tracer_catch_up(t);
		tracer_expect(t, kid->pid, area, area + N * PAGE, expected[i]);
	}
	tracer_forget(t);
	born = kid_call(kid, kid_map, N * PAGE, RW, MAP_PRIVATE);
	kid_call(kid, kid_write, born, 12, 5);
	kid_call(kid, kid_read, born, N);
	tracer_catch_up(t);
	tracer_expect(t, kid->pid, born, born + N * PAGE, 12);
	tracer_stop(t);
}

/* What one interval wrote is in the working sets, and the totals know a page that was written twice. */
static void working_set(void **state)
{
	struct kid *kid = kid_start();
	uint64_t area = kid_call(kid, kid_map, N * PAGE, RW, MAP_PRIVATE), wws;
	struct tracer *t = tracer_start("--pid", decimal(kid->pid), "--interval", "30ms", NULL);
	json_t *total;

	kid_call(kid, kid_write, area, 100);
	tracer_catch_up(t);
	kid_call(kid, kid_write, area + 50 * PAGE, 100);
	tracer_catch_up(t);
	wws = number(json_object_get(tracer_last(t, kid->pid), "wws_pages"), "60");
	tracer_stop(t);
	assert_in_range(wws, 150,
			170 + tracer_slack(N)); /* its stack and libc's data besides */
	total = json_array_get(json_object_get(t->summary, "processes"), 0);
	tracer_expect(t, kid->pid, area, area + N * PAGE, 200);
	assert_in_range(number(total, "unique_pages"), 150, 170 + tracer_slack(N));
	assert_in_range(number(total, "dirty_pages"), 200, 260 + tracer_slack(4 * N));
}

int main(void)
{
#define T(name) cmocka_unit_test_teardown(name, clean)
	const struct CMUnitTest tests[] = {
		T(private_anonymous),
		T(shared_anonymous),
		T(memfd),
		T(disk_files),
		T(tmpfs_files),
		T(system_v_segment),
		T(two_segments_two_processes),
		T(data_and_bss),
		T(growing_heap),
		T(growing_stack),
		T(huge_pages),
		T(read_calls),
		T(written_by_others),
		T(eight_threads),
		T(layout),
		T(working_set),
	};

	cmocka_set_test_filter(getenv("ICP_TEST_FILTER"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
