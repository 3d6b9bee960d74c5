// SPDX-License-Identifier: GPL-2.0
/*
 * Storms against the module icp_helper, in a guest: a process whose threads write, and check what they wrote, while its memory is looked at without
 * a pause and something else happens to it. In the end what the looks collected must be what it holds, and the kernel's log clean.
 * ICP_SECONDS: of each storm (3).
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proc/maps.h"
#include "proc/target.h"
#include "track/tracker.h"
#include "lib/kmod.h" /* last: cmocka's fail() is a macro */

#define PAGES 2048ul /* of the private area; a quarter as many are shared */
#define QUIET                                                                                  \
	256ul /* the last of them: the writers leave these alone, so that they can be merged */
#define BUSY (PAGES - QUIET)
#define SHARED (PAGES / 4)
#define WRITERS 4
#define COLLAPSE 25 /* MADV_COLLAPSE, 6.1 */
#define KPF_KSM 21  /* Documentation/admin-guide/mm/pagemap.rst */

struct control {
	volatile int ready, stop, parked;
	volatile uint64_t wrong, rounds, done, merged;
};

typedef void chaos_fn(char *area);

/* What happens to the memory meanwhile, and how it shows that it did. */
struct storm {
	chaos_fn *chaos;
	const char *counters[3]; /* of /proc/vmstat: these grow */
	bool merges, shared_too;
};

static struct control *control;
static char *private_area, *shared_area;
static pid_t target_pid, onlooker_pid;

/* --- the process --- */

/* Each page of an area has a word for each writer; two of them share a range. */
static void *writer(void *arg)
{
	uint64_t me = (uintptr_t)arg, random = me * 77 + 1;
	static uint32_t expected[WRITERS][PAGES + SHARED];

	while (!control->stop) {
		uint64_t page, half = (me & 1) * (BUSY / 2);
		volatile uint32_t *word;

		random = random * 6364136223846793005ull + 1442695040888963407ull;
		page = random >> 33 & 7 ? half + (random >> 36) % (BUSY / 2)
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

/* How many of these pages are KSM's at this moment: the counters in /sys lag behind. */
static uint64_t merged(const char *from, uint64_t pages)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC),
	    flags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	uint64_t n = 0, entry, bits;

	for (uint64_t i = 0; i < pages; i++)
		if (pread(pagemap, &entry, 8, (off_t)(((uintptr_t)from / PAGE + i) * 8)) == 8 &&
		    entry >> 63 &&
		    pread(flags, &bits, 8, (off_t)((entry & ((1ull << 55) - 1)) * 8)) == 8)
			n += bits >> KPF_KSM & 1;
	close(pagemap);
	close(flags);
	return n;
}

/* All quiet pages become alike; once they are merged every other one is written, which takes it apart again. */
static void do_merge(char *area)
{
	char *quiet = area + BUSY * PAGE;
	static unsigned char round;
	uint64_t n;

	madvise(area, PAGES * PAGE, MADV_MERGEABLE);
	memset(quiet, ++round, QUIET * PAGE);
	while ((n = merged(quiet, QUIET)) < QUIET / 2 && !control->stop)
		usleep(2000);
	control->merged += n;
	for (size_t i = 0; i < QUIET; i += 2)
		quiet[i * PAGE + 7] = (char)i;
	for (size_t i = 0; i < QUIET; i++)
		control->wrong += quiet[i * PAGE + 7] != (char)(i % 2 ? round : i) ||
				  quiet[i * PAGE + 8] != (char)round;
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
	pid = target_pid = fork();
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
static void start_onlooker(void)
{
	onlooker_pid = fork();
	if (onlooker_pid)
		return;
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

static int end_storm(void **state)
{
	pid_t pids[] = {onlooker_pid, target_pid};

	onlooker_pid = target_pid = 0;
	for (size_t i = 0; i < 2; i++) {
		if (pids[i] <= 0)
			continue;
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
	return 0;
}

struct shadow {
	char *private, *shared;
};

static void look(struct tracker *t, struct target *target, struct shadow *to)
{
	pid_t pid = target->pid;
	struct dirty d = {0};

	take(t, target, &d);
	apply(pid, &d, to->private, private_area, PAGES);
	apply(pid, &d, to->shared, shared_area, SHARED);
	dirty_free(&d);
}

/* Until the time is up, what was to happen has happened, and then until everything stands still. */
static unsigned long look_until_done(const struct storm *s, struct tracker *t,
				     struct target *target, struct shadow *to)
{
	double end = kmod_now() + kmod_seconds();
	unsigned long takes = 0;

	do {
		look(t, target, to);
		takes++;
	} while (kmod_now() < end || takes < 3 || !control->done ||
		 (s->merges && !control->merged));
	control->stop = 1;
	while (!control->parked)
		usleep(1000);
	look(t, target, to);
	return takes + 1;
}

static void check_counters(const struct storm *s, const uint64_t *before)
{
	for (size_t i = 0; i < 3 && s->counters[i]; i++) {
		uint64_t n = kmod_vmstat(s->counters[i]) - before[i];

		print_message("%s: %lu\n", s->counters[i], n);
		assert_true(n > 0);
	}
	if (s->merges) {
		uint64_t sharing = kmod_number("/sys/kernel/mm/ksm/pages_sharing");

		print_message("pages found merged: %lu; pages_sharing: %lu\n", control->merged,
			      sharing);
		assert_true(control->merged > 0 && sharing > 0);
	}
}

static void storm(const struct storm *s)
{
	pid_t pid = start(s->chaos);
	struct shadow to = {calloc(PAGES, PAGE), calloc(SHARED, PAGE)};
	struct target *target = NULL;
	struct tracker *t = NULL;
	uint64_t before[3] = {0};
	unsigned long takes;

	for (size_t i = 0; i < 3 && s->counters[i]; i++)
		before[i] = kmod_vmstat(s->counters[i]);
	assert_int_equal(target_open(pid, &target), 0);
	assert_int_equal(tracker_open("kmod", target, NULL, false, &t), 0);
	start_onlooker();
	copy(pid, (uintptr_t)private_area, (uintptr_t)private_area + PAGES * PAGE, to.private,
	     private_area);
	copy(pid, (uintptr_t)shared_area, (uintptr_t)shared_area + SHARED * PAGE, to.shared,
	     shared_area);
	takes = look_until_done(s, t, target, &to);
	print_message("%lu takes, %lu writes, %lu times something else\n", takes,
		      control->rounds, control->done);
	assert_true(control->rounds > 0);
	assert_int_equal(control->wrong, 0);
	assert_int_equal(differences(pid, to.private, private_area, PAGES), 0);
	if (s->shared_too)
		assert_int_equal(differences(pid, to.shared, shared_area, SHARED), 0);
	check_counters(s, before);
	tracker_close(t);
	target_free(target);
	free(to.private);
	free(to.shared);
	munmap(control, PAGE);
	kernel_is_content();
}

static void storm_plain(void **state)
{
	storm(&(struct storm){.shared_too = true});
}

static void storm_fork(void **state)
{
	storm(&(struct storm){.chaos = do_fork, .shared_too = true});
}

static void storm_layout(void **state)
{
	storm(&(struct storm){.chaos = do_layout, .shared_too = true});
}

static void storm_compaction(void **state)
{
	storm(&(struct storm){.chaos = do_compact, .shared_too = true});
}

static void storm_ksm(void **state)
{
	put("/sys/kernel/mm/ksm/sleep_millisecs", "1");
	put("/sys/kernel/mm/ksm/pages_to_scan", "2000");
	if (!access("/sys/kernel/mm/ksm/smart_scan", W_OK)) /* 6.7: leaves out what changed */
		put("/sys/kernel/mm/ksm/smart_scan", "0");
	put("/sys/kernel/mm/ksm/run", "1");
	storm(&(struct storm){.chaos = do_merge, .merges = true, .shared_too = true});
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

/* Here, and below: the shared area may be paged out too, and what was written and dropped between two looks is in neither. */
static void storm_huge(void **state)
{
	swap_on();
	storm(&(struct storm){.chaos = do_huge,
			      .counters = {"thp_collapse_alloc", "thp_split_pmd", "pswpout"}});
}

static void storm_swap(void **state)
{
	swap_on();
	storm(&(struct storm){.chaos = do_swap, .counters = {"pswpout", "pswpin"}});
}

#define STORM(name) cmocka_unit_test_setup_teardown(name, kernel_mark, end_storm)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		STORM(storm_plain),	 STORM(storm_fork), STORM(storm_layout),
		STORM(storm_compaction), STORM(storm_ksm),  STORM(storm_huge),
		STORM(storm_swap),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
