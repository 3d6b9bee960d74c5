// SPDX-License-Identifier: GPL-2.0
/* The heatmap and the flame graph against plain sums, far over their limits. */
#include "serve/flame.h"
#include "serve/heat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGE 4096ull

static uint64_t sum_of(const struct heat *h)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < h->n; i++)
		for (size_t c = 0; c < HEAT_COLUMNS; c++)
			sum += h->rows[i].cells[c];
	return sum;
}

static void check_order(const struct heat *h)
{
	for (size_t i = 0; i < h->n; i++) {
		const struct heat_row *r = &h->rows[i];

		assert_true(r->start < r->end);
		assert_true(r->start >> h->shift == r->bin);
		assert_true((r->end - 1) >> h->shift == r->bin);
		assert_true(!i || h->rows[i - 1].bin < r->bin);
	}
}

/* No page is lost when bins are joined, and each is where it was written. */
static void heat_keeps_all(void **state)
{
	struct heat *h = malloc(sizeof(*h));
	unsigned seed = 11;
	uint64_t wanted[HEAT_COLUMNS] = {0}, is[HEAT_COLUMNS] = {0};

	assert_non_null(h);
	heat_init(h);
	for (unsigned column = 0; column < HEAT_COLUMNS; column++) {
		heat_advance(h, column);
		for (int i = 0; i < 40; i++) {
			uint64_t area = (uint64_t)(rand_r(&seed) % 5) << 40,
				 start = area + (uint64_t)(rand_r(&seed) % 1000000) * PAGE,
				 pages = 1 + (uint64_t)rand_r(&seed) % 200;

			assert_int_equal(heat_add(h, start, start + pages * PAGE, area,
						  area + (1ull << 39), "x"),
					 0);
			wanted[h->column % HEAT_COLUMNS] += pages;
		}
		check_order(h);
		assert_true(h->n <= HEAT_ROWS);
	}
	for (size_t i = 0; i < h->n; i++)
		for (size_t c = 0; c < HEAT_COLUMNS; c++)
			is[c] += h->rows[i].cells[c];
	assert_memory_equal(is, wanted, sizeof(is));
	/* what is old goes, and then rows are small again */
	for (unsigned column = 0; column < HEAT_COLUMNS; column++)
		heat_advance(h, HEAT_COLUMNS + column);
	assert_int_equal(h->n, 0);
	heat_advance(h, 1000);
	assert_int_equal(heat_add(h, 5 * PAGE, 6 * PAGE, 4 * PAGE, 7 * PAGE, "y"), 0);
	assert_int_equal(sum_of(h), 1);
	assert_int_equal(h->rows[0].start, 4 * PAGE);
	assert_int_equal(h->rows[0].end, 7 * PAGE);
	heat_fini(h);
	free(h);
}

static void heat_takes_a_terabyte(void **state)
{
	struct heat *h = malloc(sizeof(*h));

	heat_init(h);
	heat_advance(h, 1);
	assert_int_equal(heat_add(h, 0x1000, (1ull << 40) + 0x1000, 0, 1ull << 41, "x"), 0);
	assert_int_equal(sum_of(h), (1ull << 40) / PAGE);
	assert_true(h->n <= HEAT_ROWS);
	check_order(h);
	heat_fini(h);
	free(h);
}

static uint64_t value_at(const struct flame *f, uint32_t at, const char *const *names, size_t n)
{
	if (!n)
		return f->nodes.data[at].value;
	for (uint32_t i = f->nodes.data[at].first; i; i = f->nodes.data[i].next)
		if (!strcmp(flame_name(f, &f->nodes.data[i]), names[0]))
			return value_at(f, i, names + 1, n - 1);
	return 0;
}

static void flame_adds_up(void **state)
{
	const char *a[] = {"main", "work", "write"}, *b[] = {"main", "work"}, *c[] = {"other"};
	struct flame f = {0}, g = {0};

	assert_int_equal(flame_add(&f, a, 3, 5), 0);
	assert_int_equal(flame_add(&f, b, 2, 7), 0);
	assert_int_equal(flame_add(&g, c, 1, 1), 0);
	assert_int_equal(flame_add(&g, a, 3, 10), 0);
	assert_int_equal(flame_add(&g, a, 0, 2), 0); /* without any frame */
	assert_int_equal(flame_join(&f, &g), 0);
	assert_int_equal(f.stacks, 5);
	assert_int_equal(value_at(&f, 0, NULL, 0), 25);
	assert_int_equal(value_at(&f, 0, a, 1), 22);
	assert_int_equal(value_at(&f, 0, a, 2), 22);
	assert_int_equal(value_at(&f, 0, a, 3), 15);
	assert_int_equal(value_at(&f, 0, c, 1), 1);
	flame_clear(&f);
	flame_clear(&g);
}

/* More names and stacks than it holds: the sum stays right, the memory bounded. */
static void flame_is_bounded(void **state)
{
	struct flame f = {0};
	unsigned seed = 3;

	for (int i = 0; i < 50000; i++) {
		char texts[8][32];
		const char *names[8];

		for (int k = 0; k < 8; k++) {
			snprintf(texts[k], sizeof(texts[k]), "function_%d",
				 rand_r(&seed) % 20000);
			names[k] = texts[k];
		}
		assert_int_equal(flame_add(&f, names, 8, 3), 0);
	}
	assert_int_equal(value_at(&f, 0, NULL, 0), 150000);
	assert_true(f.nodes.n <= 4096);
	assert_true(f.names.n <= 128 << 10);
	flame_clear(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(heat_keeps_all),
		cmocka_unit_test(heat_takes_a_terabyte),
		cmocka_unit_test(flame_adds_up),
		cmocka_unit_test(flame_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
