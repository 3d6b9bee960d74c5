// SPDX-License-Identifier: GPL-2.0
/* The write working set against an oracle that remembers the last write of every page in a
 * plain array. */
#include "obs/wws.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define PAGES 20000
#define PAGE ((uint64_t)sysconf(_SC_PAGESIZE))

static const uint32_t windows[] = {1, 10, 60};

struct oracle {
	uint64_t last[PAGES]; /* tick + 1; 0 never */
};

/* Three places far apart, one across the line where 32 bits of page number end, one at the top.
 */
static uint64_t address_of(unsigned page)
{
	static const uint64_t area[] = {0x10000, (1ull << 44) - 3000 * 4096ull,
					0x7ffffffff000 - 8000 * 4096ull};

	return area[page % 3] / PAGE * PAGE + page / 3 * PAGE;
}

static uint64_t oracle_count(const struct oracle *o, uint64_t tick, uint32_t window)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < PAGES; i++)
		n += o->last[i] && tick + 1 - o->last[i] < window;
	return n;
}

static void random_run(struct wws *w, struct oracle *o, uint64_t tick, unsigned *seed)
{
	unsigned first = (unsigned)rand_r(seed) % PAGES;
	unsigned len = rand_r(seed) % 4 ? 1 + (unsigned)rand_r(seed) % 8
					: 1 + (unsigned)rand_r(seed) % 1500;
	unsigned n = 0;

	while (n < len && first + 3 * n < PAGES)
		o->last[first + 3 * n++] = tick + 1;
	assert_int_equal(wws_add(w, address_of(first), address_of(first) + n * PAGE, tick), 0);
}

/* Two pieces of each area, neither of which begins or ends where a chunk does. */
#define PIECES 6

static void check_pieces(struct wws *w, const struct oracle *o, uint64_t tick)
{
	static const unsigned from[] = {0, 1500}, to[] = {1000, 4001};
	uint64_t pages[PIECES * 3], wanted[PIECES * 3] = {0};
	struct wws_range ranges[PIECES];

	for (unsigned i = 0; i < PIECES; i++)
		ranges[i] = (struct wws_range){address_of(i / 2 + 3 * from[i % 2]),
					       address_of(i / 2 + 3 * (to[i % 2] - 1)) + PAGE};
	for (unsigned page = 0; page < PAGES; page++)
		for (unsigned half = 0; half < 2; half++) {
			if (!o->last[page] || page / 3 < from[half] || page / 3 >= to[half])
				continue;
			for (unsigned k = 0; k < 3; k++)
				wanted[(page % 3 * 2 + half) * 3 + k] +=
					tick + 1 - o->last[page] < windows[k];
		}
	wws_count_in(w, windows, 3, ranges, PIECES, pages);
	assert_memory_equal(pages, wanted, sizeof(pages));
}

static void check_all(struct wws *w, const struct oracle *o, uint64_t tick)
{
	for (size_t i = 0; i < sizeof(windows) / sizeof(*windows); i++)
		assert_int_equal(wws_count(w, tick, windows[i]),
				 oracle_count(o, tick, windows[i]));
	assert_int_equal(wws_count(w, tick, 37), oracle_count(o, tick, 37));
	check_pieces(w, o, tick);
}

static void agrees_with_the_oracle(void **state)
{
	const char *given = getenv("SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0)
			      : (unsigned)time(NULL) ^ (unsigned)getpid();
	_cleanup_free_ struct oracle *o = calloc(1, sizeof(*o));

	print_message("SEED=%u\n", seed);
	assert_non_null(o);
	for (int round = 0; round < 8; round++) {
		_cleanup_wws_ struct wws *w = NULL;
		/* also across the end of the 32 bits of a stamp, which counts from the first
		 * tick */
		uint64_t tick = (uint64_t)rand_r(&seed) % 3;

		memset(o, 0, sizeof(*o));
		assert_int_equal(wws_new(windows, 3, &w), 0);
		random_run(w, o, tick, &seed);
		if (round & 1) {
			tick += UINT32_MAX - 100;
			check_all(w, o, tick);
		}
		for (int i = 0; i < 250; i++) {
			int runs = rand_r(&seed) % 6;

			tick += rand_r(&seed) % 30 ? 1 : (unsigned)rand_r(&seed) % 150;
			while (runs--)
				random_run(w, o, tick, &seed);
			check_all(w, o, tick);
		}
	}
}

static void counts_a_page_once(void **state)
{
	_cleanup_wws_ struct wws *w = NULL;

	assert_int_equal(wws_new(windows, 3, &w), 0);
	assert_int_equal(wws_count(w, 5, 1), 0);
	for (uint64_t tick = 0; tick < 5; tick++)
		for (int i = 0; i < 3; i++)
			assert_int_equal(wws_add(w, 7 * PAGE, 9 * PAGE, tick), 0);
	assert_int_equal(wws_count(w, 4, 1), 2);
	assert_int_equal(wws_count(w, 4, 60), 2);
	assert_int_equal(wws_count(w, 5, 1), 0);
	assert_int_equal(wws_count(w, 13, 10), 2);
	assert_int_equal(wws_count(w, 14, 10), 0);
	assert_int_equal(wws_count(w, 14, 60), 2);
	/* a page touched in part is a page */
	assert_int_equal(wws_add(w, 100 * PAGE + 5, 101 * PAGE + 1, 14), 0);
	assert_int_equal(wws_count(w, 14, 1), 2);
}

static void forgets_what_is_older_than_the_largest_window(void **state)
{
	_cleanup_wws_ struct wws *w = NULL;
	size_t one;

	assert_int_equal(wws_new(windows, 3, &w), 0);
	assert_int_equal(wws_add(w, 0, PAGE, 0), 0);
	one = wws_memory(w);
	assert_true(one >= 512 * 4 && one < 512 * 4 + 256);
	/* a writer that walks through memory for ever: one new chunk a tick, 60 kept */
	for (uint64_t tick = 1; tick < 1000; tick++) {
		assert_int_equal(wws_add(w, tick * 512 * PAGE, tick * 512 * PAGE + PAGE, tick),
				 0);
		assert_int_equal(wws_memory(w), one * (tick < 60 ? tick + 1 : 60));
		assert_int_equal(wws_count(w, tick, 60), tick < 60 ? tick + 1 : 60);
	}
	assert_int_equal(wws_count(w, 1058, 60), 1);
	assert_int_equal(wws_memory(w), one);
	assert_int_equal(wws_count(w, 1059, 60), 0);
	assert_int_equal(wws_memory(w), 0);
}

static void refuses_nonsense(void **state)
{
	static const uint32_t zero[] = {10, 0}, huge[] = {WWS_WINDOW_MAX + 1};
	_cleanup_wws_ struct wws *w = NULL;

	assert_int_equal(wws_new(windows, 0, &w), -EINVAL);
	assert_int_equal(wws_new(zero, 2, &w), -EINVAL);
	assert_int_equal(wws_new(huge, 1, &w), -EINVAL);
	assert_int_equal(wws_new(windows, 3, &w), 0);
	assert_int_equal(wws_add(w, PAGE, PAGE, 9), -EINVAL);
	assert_int_equal(wws_add(w, 2 * PAGE, PAGE, 9), -EINVAL);
	assert_int_equal(wws_add(w, PAGE, 2 * PAGE, 9), 0);
	assert_int_equal(wws_add(w, PAGE, 2 * PAGE, 8), -EINVAL);
	assert_int_equal(wws_count(w, 3, 1), 1);     /* as of tick 9 */
	assert_int_equal(wws_count(w, 20, 1000), 1); /* cut to 60 */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees_with_the_oracle),
		cmocka_unit_test(counts_a_page_once),
		cmocka_unit_test(forgets_what_is_older_than_the_largest_window),
		cmocka_unit_test(refuses_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
