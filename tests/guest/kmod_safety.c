// SPDX-License-Identifier: GPL-2.0
/*
 * The module icp_helper in a guest, loaded: bad calls, missing rights, loading and unloading, and storms: a process whose threads write,
 * and check what they wrote, while its memory is looked at without a pause and something else happens to it. In the end what the looks
 * collected must be what it holds. ICP_SECONDS: of each storm (3).
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../kmod-helper/icp_uapi.h"
#include "proc/maps.h"
#include "proc/target.h"
#include "track/tracker.h"

#include <cmocka.h>

#define PAGE 4096ul
#define PAGES 2048ul /* of the private area; a quarter as many are shared */
#define SHARED (PAGES / 4)
#define WRITERS 4
#define MODULE "/run/modules/icp_helper.ko"

#define EVERYWHERE (UINT64_MAX & ~(PAGE - 1))
#define COLLAPSE 25 /* MADV_COLLAPSE, 6.1 */

struct control {
	volatile int ready, stop, parked;
	volatile uint64_t wrong, rounds, done;
};

typedef void chaos_fn(char *area);

static struct control *control;
static char *private_area, *shared_area;

static double seconds(void)
{
	const char *text = getenv("ICP_SECONDS");

	return text ? strtod(text, NULL) : 3;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- the process --- */

/* Each page of an area has a word for each writer; two of them share a range. */
static void *writer(void *arg)
{
	uint64_t me = (uintptr_t)arg, random = me * 77 + 1;
	static uint32_t expected[WRITERS][PAGES + SHARED];

	while (!control->stop) {
		uint64_t page, half = (me & 1) * (PAGES / 2);
		volatile uint32_t *word;

		random = random * 6364136223846793005ull + 1442695040888963407ull;
		page = random >> 33 & 7 ? half + (random >> 36) % (PAGES / 2)
					: PAGES + (random >> 36) % SHARED;
		word = page < PAGES ? (void *)(private_area + page * PAGE + me * 4)
				    : (void *)(shared_area + (page - PAGES) * PAGE + me * 4);
		if (*word != expected[me][page])
			__atomic_fetch_add(&control->wrong, 1, __ATOMIC_RELAXED);
		*word = ++expected[me][page];
		if (!(__atomic_fetch_add(&control->rounds, 1, __ATOMIC_RELAXED) & 63))
			usleep(200); /* others want to run, too */
	}
	return NULL;
}

static void be_target(chaos_fn *chaos)
{
	pthread_t threads[WRITERS];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uintptr_t i = 0; i < WRITERS; i++)
		pthread_create(&threads[i], NULL, writer, (void *)i);
	control->ready = 1;
	while (!control->stop) {
		if (chaos)
			chaos(private_area);
		control->done++;
		usleep(1000);
	}
	for (int i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	control->parked = 1;
	for (;;)
		pause();
}

static void do_fork(char *area)
{
	pid_t pid = fork();

	if (!pid) {
		area[PAGE * 100 + 2000] = 1; /* its own copy */
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void do_layout(char *area)
{
	size_t size = 64 * PAGE;
	char *a = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
	     *b;

	memset(a, 7, size);
	b = mremap(a, size, 2 * size, MREMAP_MAYMOVE);
	mprotect(b, size / 2, PROT_READ);
	control->wrong += b[size - 1] != 7 || b[0] != 7;
	munmap(b, 2 * size);
	mprotect(area, 16 * PAGE, PROT_READ | PROT_WRITE);
}

static void do_swap(char *area)
{
	static unsigned round;

	madvise(area, PAGES * PAGE, MADV_PAGEOUT);
	if (round++ % 4 == 0)
		do_fork(area);
	for (size_t i = 0; i < PAGES; i += 3) /* in again, by reading */
		(void)*(volatile char *)(area + i * PAGE);
}

static void do_huge(char *area)
{
	madvise(area, PAGES * PAGE, COLLAPSE);
	usleep(3000);
	/* a mapping that ends within a huge page splits it */
	mprotect(area + 100 * PAGE, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
	mprotect(area + 100 * PAGE, PAGE, PROT_READ | PROT_WRITE);
	madvise(area, PAGES * PAGE, MADV_PAGEOUT);
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		print_message("%s: %s\n", path, strerror(errno));
	close(fd);
}

static void do_compact(char *area)
{
	put("/proc/sys/vm/compact_memory", "1");
}

static void do_merge(char *area)
{
	madvise(area, PAGES * PAGE, MADV_MERGEABLE);
}

/* --- those who look --- */

static char *area_of(int flags)
{
	/* where a huge page could be */
	char *at = mmap(NULL, PAGES * PAGE + (2 << 20), PROT_READ | PROT_WRITE,
			flags | MAP_ANONYMOUS, -1, 0);

	assert_true(at != MAP_FAILED);
	return (char *)(((uintptr_t)at + (2 << 20) - 1) & ~((2ul << 20) - 1));
}

static pid_t start(chaos_fn *chaos)
{
	pid_t pid;

	control = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	private_area = area_of(MAP_PRIVATE);
	shared_area = area_of(MAP_SHARED);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		be_target(chaos);
	while (!control->ready)
		usleep(1000);
	return pid;
}

static void copy(pid_t pid, uint64_t from, uint64_t to, char *shadow, const char *area)
{
	while (from < to) {
		struct iovec l = {shadow + (from - (uintptr_t)area), to - from},
			     r = {(void *)from, to - from};
		ssize_t got = process_vm_readv(pid, &l, 1, &r, 1, 0);

		assert_true(got > 0 && got % (ssize_t)PAGE == 0);
		from += (uint64_t)got;
	}
}

static void apply(pid_t pid, const struct dirty *d, char *shadow, const char *area,
		  size_t pages)
{
	uint64_t start_at = (uintptr_t)area, end_at = start_at + pages * PAGE;

	for (size_t i = 0; i < d->n; i++) {
		const struct dirty_run *r = &d->data[i];
		uint64_t from = r->start > start_at ? r->start : start_at,
			 to = r->end < end_at ? r->end : end_at;

		if (from < to)
			copy(pid, from, to, shadow, area);
	}
}

static uint64_t differences(pid_t pid, char *shadow, const char *area, size_t pages)
{
	char *truth = malloc(pages * PAGE);
	uint64_t n = 0;

	copy(pid, (uintptr_t)area, (uintptr_t)area + pages * PAGE, truth, area);
	for (size_t i = 0; i < pages; i++)
		n += memcmp(truth + i * PAGE, shadow + i * PAGE, PAGE) != 0;
	free(truth);
	return n;
}

static void take(struct tracker *t, struct target *target, struct dirty *d)
{
	struct maps maps = {0};

	assert_int_equal(maps_read(target, &maps), 0);
	assert_int_equal(tracker_take(t, &maps, d), 0);
	maps_free(&maps);
}

/* A child that looks through the same file meanwhile, and resets nothing. */
static pid_t start_onlooker(void)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;; usleep(20000)) {
		for (int fd = 3; fd < 32; fd++) {
			static struct icp_run runs[64];
			struct icp_take look = {.end = EVERYWHERE,
						.runs = (uintptr_t)runs,
						.n_runs = 64,
						.report = ICP_PAGE_ALL};

			for (int i = 0; i < 20 && look.start < look.end; i++) {
				if (ioctl(fd, ICP_IOC_TAKE, &look))
					break;
				look.start = look.next;
			}
		}
	}
}

static void storm(chaos_fn *chaos, bool shared_too)
{
	pid_t pid = start(chaos), onlooker;
	char *copy_private = calloc(PAGES, PAGE), *copy_shared = calloc(SHARED, PAGE);
	struct target *target = NULL;
	struct tracker *t = NULL;
	struct dirty d = {0};
	double end = now() + seconds();
	unsigned long takes = 0;

	assert_int_equal(target_open(pid, &target), 0);
	assert_int_equal(tracker_open("kmod", target, NULL, false, &t), 0);
	onlooker = start_onlooker();
	copy(pid, (uintptr_t)private_area, (uintptr_t)private_area + PAGES * PAGE, copy_private,
	     private_area);
	copy(pid, (uintptr_t)shared_area, (uintptr_t)shared_area + SHARED * PAGE, copy_shared,
	     shared_area);
	for (bool last = false; !last; takes++) {
		last = now() >= end && takes > 2;
		if (last)
			control->stop = 1;
		while (last && !control->parked)
			usleep(1000);
		take(t, target, &d);
		apply(pid, &d, copy_private, private_area, PAGES);
		apply(pid, &d, copy_shared, shared_area, SHARED);
	}
	kill(onlooker, SIGKILL);
	waitpid(onlooker, NULL, 0);
	print_message("%lu takes, %lu writes, %lu times something else\n", takes,
		      control->rounds, control->done);
	assert_true(takes > 2);
	assert_true(control->rounds > 0);
	assert_true(control->done > 0);
	assert_int_equal(control->wrong, 0);
	assert_int_equal(differences(pid, copy_private, private_area, PAGES), 0);
	if (shared_too)
		assert_int_equal(differences(pid, copy_shared, shared_area, SHARED), 0);
	tracker_close(t);
	target_free(target);
	dirty_free(&d);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	free(copy_private);
	free(copy_shared);
	munmap(control, PAGE);
}

static void storm_plain(void **state)
{
	storm(NULL, true);
}

static void storm_fork(void **state)
{
	storm(do_fork, true);
}

static void storm_layout(void **state)
{
	storm(do_layout, true);
}

static void storm_compaction(void **state)
{
	storm(do_compact, true);
}

static void storm_ksm(void **state)
{
	put("/sys/kernel/mm/ksm/sleep_millisecs", "1");
	put("/sys/kernel/mm/ksm/pages_to_scan", "2000");
	put("/sys/kernel/mm/ksm/run", "1");
	storm(do_merge, true);
	put("/sys/kernel/mm/ksm/run", "2");
}

static void swap_on(void)
{
	static const char command[] =
		"cd /run/modules; for m in lz4_compress lz4hc_compress lzo_compress "
		"lzo_decompress lzo lzo-rle zsmalloc zram; do "
		"[ ! -e $m.ko ] || busybox insmod ./$m.ko 2>/dev/null; done; "
		"grep -q zram0 /proc/swaps || { echo 128M >/sys/block/zram0/disksize && "
		"busybox mkswap /dev/zram0 >/dev/null && busybox swapon /dev/zram0; }";

	assert_int_equal(system(command), 0);
}

static void storm_huge(void **state)
{
	swap_on();
	storm(do_huge, false);
}

/* The shared area may be paged out too: what was written and dropped between two looks is in neither. */
static void storm_swap(void **state)
{
	swap_on();
	storm(do_swap, false);
}

/* Processes that end and execute while they are looked at. */
static void exit_and_exec(void **state)
{
	double end = now() + seconds();
	unsigned long n = 0;

	while (now() < end) {
		struct icp_run runs[256];
		struct icp_bind bind;
		struct icp_take all = {.end = EVERYWHERE,
				       .runs = (uintptr_t)runs,
				       .n_runs = 256,
				       .report = ICP_PAGE_ALL,
				       .flags = ICP_TAKE_RESET};
		int fd = open(ICP_DEVICE, O_RDWR | O_CLOEXEC), err = 0;
		pid_t pid = fork();

		if (!pid) {
			memset(malloc(1 << 20), 1, 1 << 20);
			if (n % 2)
				execl("/bin/true", "true", NULL);
			_exit(0);
		}
		bind = (struct icp_bind){.pid = (uint32_t)pid};
		err = ioctl(fd, ICP_IOC_BIND, &bind);
		while (!err) {
			err = ioctl(fd, ICP_IOC_TAKE, &all);
			all.start = all.next < all.end ? all.next : 0;
		}
		assert_int_equal(errno, ESRCH);
		waitpid(pid, NULL, 0);
		close(fd);
		n++;
	}
	print_message("%lu processes\n", n);
	assert_true(n > 0);
}

/* --- calls that must be refused --- */

static int refused(int fd, unsigned long op, void *arg)
{
	errno = 0;
	return ioctl(fd, op, arg) ? errno : 0;
}

static int refused_take(int fd, struct icp_take take)
{
	return refused(fd, ICP_IOC_TAKE, &take);
}

static int refused_bind(int fd, uint32_t pid)
{
	return refused(fd, ICP_IOC_BIND, &(struct icp_bind){.pid = pid});
}

static void bad_calls(void **state)
{
	static char page[4 * PAGE] __attribute__((aligned(4096)));
	uint64_t at = (uintptr_t)page, end = at + 4 * PAGE;
	struct icp_run runs[8];
	struct icp_take good = {.start = at,
				.end = end,
				.runs = (uintptr_t)runs,
				.n_runs = 8,
				.report = ICP_PAGE_ALL},
			bad;
	int fd = open(ICP_DEVICE, O_RDWR | O_CLOEXEC),
	    other = open(ICP_DEVICE, O_RDWR | O_CLOEXEC);

	memset(page, 1, sizeof(page));
	assert_true(fd >= 0 && other >= 0);
	assert_int_equal(refused_take(fd, good), ENOTCONN);
	assert_int_equal(refused(fd, ICP_IOC_BIND, NULL), EFAULT);
	assert_int_equal(refused(fd, ICP_IOC_BIND, &(struct icp_bind){1, 1}), EINVAL);
	assert_int_equal(refused_bind(fd, 0), EINVAL);
	assert_int_equal(refused_bind(fd, UINT32_MAX), EINVAL);
	assert_int_equal(refused_bind(fd, INT32_MAX), ESRCH);
	assert_int_equal(refused_bind(fd, 2), ESRCH); /* kthreadd */
	assert_int_equal(refused_bind(fd, (uint32_t)getpid()), 0);
	assert_int_equal(refused_bind(fd, (uint32_t)getpid()), EBUSY);
	assert_int_equal(refused_bind(other, (uint32_t)getpid()), EBUSY);
	for (unsigned nr = 0; nr < 256; nr++)
		for (unsigned size = 0; size < 128; size += 4) {
			unsigned long op = _IOC(_IOC_READ | _IOC_WRITE, 'i', nr, size);

			if (op != ICP_IOC_TAKE && op != ICP_IOC_FRESH)
				assert_int_equal(refused(fd, op, page), ENOTTY);
		}
	assert_int_equal(refused(fd, ICP_IOC_VERSION, NULL), EFAULT);
	assert_int_equal(refused(fd, ICP_IOC_STATS, (void *)-8), EFAULT);
	assert_int_equal(refused(fd, ICP_IOC_TAKE, (void *)8), EFAULT);
#define BAD(field, value)                                                                      \
	bad = good;                                                                            \
	bad.field = value;                                                                     \
	assert_int_equal(refused_take(fd, bad), EINVAL)
	BAD(start, at + 1);
	BAD(end, end - 1);
	BAD(start, end + PAGE);
	BAD(end, UINT64_MAX);
	BAD(n_runs, ICP_RUNS_MAX + 1);
	BAD(n_runs, UINT32_MAX);
	BAD(n_runs, 0);
	BAD(report, 1u << 31);
	BAD(flags, 2);
	assert_int_equal(refused(fd, ICP_IOC_FRESH, &good), EINVAL); /* report */
	assert_int_equal(refused(fd, ICP_IOC_TAKE, &good), 0);
	assert_int_equal(good.next, end);
	assert_int_equal(good.n_filled, 1);
	assert_int_equal(runs[0].what & ICP_PAGE_UNKNOWN, 0);
	bad = good;
	bad.runs = 8; /* what can't be told is unknown from then on */
	bad.flags = ICP_TAKE_RESET;
	assert_int_equal(refused_take(fd, bad), EFAULT);
	assert_int_equal(refused(fd, ICP_IOC_TAKE, &good), 0);
	assert_true(runs[0].what & ICP_PAGE_UNKNOWN);
	close(fd);
	assert_int_equal(refused_bind(other, (uint32_t)getpid()), 0);
	close(other);
}

static void no_rights(void **state)
{
	int fd = open(ICP_DEVICE, O_RDWR), status;
	pid_t pid = fork();

	assert_true(fd >= 0);
	if (!pid) {
		int bad = setgid(65534) || setuid(65534);

		bad |= refused_bind(fd, (uint32_t)getppid()) != EPERM;
		bad |= refused_bind(fd, 1) != EPERM;
		bad |= open(ICP_DEVICE, O_RDWR) >= 0;
		_exit(bad);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(fd);
}

static int load(void)
{
	int fd = open(MODULE, O_RDONLY | O_CLOEXEC), err;

	err = syscall(SYS_finit_module, fd, "", 0) ? errno : 0;
	close(fd);
	return err;
}

static int unload(void)
{
	return syscall(SYS_delete_module, "icp_helper", O_NONBLOCK) ? errno : 0;
}

static void load_and_unload(void **state)
{
	int fd = open(ICP_DEVICE, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(unload(), EAGAIN);
	close(fd);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(unload(), 0);
		assert_int_equal(load(), 0);
	}
}

/* Those who hold the file are killed at random moments: nothing stays bound, and the module can go. */
static void killed_holders(void **state)
{
	double end = now() + seconds();

	while (now() < end) {
		pid_t pid = fork(), me = getpid();

		if (!pid) {
			static struct icp_run runs[512];
			struct icp_take all = {.end = EVERYWHERE,
					       .runs = (uintptr_t)runs,
					       .n_runs = 512,
					       .report = ICP_PAGE_ALL,
					       .flags = ICP_TAKE_RESET};
			int fd = open(ICP_DEVICE, O_RDWR | O_CLOEXEC);

			if (fd < 0 || refused_bind(fd, (uint32_t)me))
				_exit(1);
			for (;; all.start = all.next < all.end ? all.next : 0)
				refused(fd, ICP_IOC_TAKE, &all);
		}
		usleep((useconds_t)(rand() % 30000));
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	assert_int_equal(unload(), 0);
	assert_int_equal(load(), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_calls),	    cmocka_unit_test(no_rights),
		cmocka_unit_test(load_and_unload),  cmocka_unit_test(killed_holders),
		cmocka_unit_test(exit_and_exec),    cmocka_unit_test(storm_plain),
		cmocka_unit_test(storm_fork),	    cmocka_unit_test(storm_layout),
		cmocka_unit_test(storm_compaction), cmocka_unit_test(storm_ksm),
		cmocka_unit_test(storm_huge),	    cmocka_unit_test(storm_swap),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
