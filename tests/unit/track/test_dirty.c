// SPDX-License-Identifier: GPL-2.0
/* Dirty sets against a plain array of pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/page.h"
#include "track/dirty.h"

#undef fail
#include <cmocka.h>

#define PAGES 64
#define ROUNDS 20000

/* Random runs; what each page is, 0: not in it. */
static void make(struct dirty *d, uint8_t what[PAGES])
{
	unsigned chance = 1 + (unsigned)(random() % 8);

	for (uint64_t i = 0; i < PAGES; i++) {
		what[i] = 0;
		if ((unsigned)(random() % 8) >= chance)
			continue;
		what[i] = (uint8_t)(DIRTY_WRITTEN + random() % 4);
		assert_int_equal(dirty_append(d, i * page_size(), (i + 1) * page_size(),
					      (enum dirty_what)what[i]),
				 0);
	}
}

static void assert_is(const struct dirty *d, const uint8_t what[PAGES])
{
	uint8_t found[PAGES] = {0};
	uint64_t end = 0, pages = 0;

	for (size_t i = 0; i < d->n; i++) {
		const struct dirty_run *r = &d->data[i];

		assert_true(r->start >= end && r->start < r->end);
		assert_false(i && r->start == end && r->what == d->data[i - 1].what);
		end = r->end;
		for (uint64_t at = r->start; at < r->end; at += page_size(), pages++)
			found[at / page_size()] = (uint8_t)r->what;
	}
	assert_memory_equal(found, what, PAGES);
	assert_int_equal(dirty_pages(d), pages);
}

/* Pairs of random sets; @check may change the first, and then tells in @x what it must be. */
static void with_pairs(unsigned seed, void (*check)(struct dirty *a, const struct dirty *b,
						    uint8_t *x, const uint8_t *y))
{
	srandom(seed);
	for (int i = 0; i < ROUNDS; i++) {
		_cleanup_(dirty_free) struct dirty a = {0};
		_cleanup_(dirty_free) struct dirty b = {0};
		uint8_t x[PAGES], y[PAGES];

		make(&a, x);
		make(&b, y);
		check(&a, &b, x, y);
		assert_is(&a, x);
		assert_is(&b, y);
	}
}

static void join(struct dirty *a, const struct dirty *b, uint8_t *x, const uint8_t *y)
{
	assert_int_equal(dirty_join(a, b), 0);
	for (size_t k = 0; k < PAGES; k++)
		x[k] = y[k] ? y[k] : x[k];
}

static void common(struct dirty *a, const struct dirty *b, uint8_t *x, const uint8_t *y)
{
	uint64_t both = 0;

	for (size_t k = 0; k < PAGES; k++)
		both += x[k] && y[k];
	assert_int_equal(dirty_common(a, b), both);
	assert_int_equal(dirty_common(b, a), both);
}

static void subtract(struct dirty *a, const struct dirty *b, uint8_t *x, const uint8_t *y)
{
	assert_int_equal(dirty_subtract(a, b), 0);
	for (size_t k = 0; k < PAGES; k++)
		x[k] = y[k] ? 0 : x[k];
}

static void test_join(void **state)
{
	with_pairs(1, join);
}

static void test_common(void **state)
{
	with_pairs(3, common);
}

static void test_subtract(void **state)
{
	with_pairs(2, subtract);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_join),
		cmocka_unit_test(test_common),
		cmocka_unit_test(test_subtract),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
