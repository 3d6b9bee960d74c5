// SPDX-License-Identifier: GPL-2.0
/* What a look at page tables makes of them, with what was populated before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "track/look.h"

#undef fail
#include <cmocka.h>

#define PAGE 4096ull

static struct dirty_run before_runs[] = {{2 * PAGE, 4 * PAGE, DIRTY_WRITTEN},
					 {6 * PAGE, 8 * PAGE, DIRTY_WRITTEN}};
static const struct dirty before = {.data = before_runs, .n = 2, .cap = 2};

static void expect(const struct dirty *d, size_t i, uint64_t start, uint64_t end,
		   enum dirty_what what)
{
	assert_true(i < d->n);
	assert_int_equal(d->data[i].start, start * PAGE);
	assert_int_equal(d->data[i].end, end * PAGE);
	assert_int_equal(d->data[i].what, what);
}

/* Pages 0 to 9, all alike; 2, 3, 6 and 7 were populated before. */
static void look(bool shared, unsigned what, struct dirty *found, struct dirty *populated)
{
	struct vma v = {.start = 0, .end = 10 * PAGE, .shared = shared};
	struct look l = {.before = &before, .v = &v, .found = found, .populated = populated};

	dirty_clear(found);
	dirty_clear(populated);
	assert_int_equal(look_run(&l, 0, 3 * PAGE, what), 0);
	assert_int_equal(look_run(&l, 3 * PAGE, 10 * PAGE, what), 0);
}

static void private_memory(void **state)
{
	struct dirty found = {0}, populated = {0};

	look(false, 0, &found, &populated);
	assert_int_equal(found.n, 2);
	expect(&found, 0, 2, 4, DIRTY_ZAPPED);
	expect(&found, 1, 6, 8, DIRTY_ZAPPED);
	assert_int_equal(populated.n, 0);
	look(false, LOOK_OWN | LOOK_WRITTEN, &found, &populated);
	assert_int_equal(found.n, 5);
	expect(&found, 0, 0, 2, DIRTY_NEW);
	expect(&found, 1, 2, 4, DIRTY_WRITTEN);
	expect(&found, 4, 8, 10, DIRTY_NEW);
	assert_int_equal(populated.n, 1);
	expect(&populated, 0, 0, 10, DIRTY_WRITTEN);
	/* there now, not before, and no bit says that they were written: the caller has to compare */
	look(false, LOOK_OWN, &found, &populated);
	assert_int_equal(found.n, 3);
	expect(&found, 1, 4, 6, DIRTY_UNKNOWN);
	look(false, LOOK_OWN | LOOK_UNKNOWN, &found, &populated);
	assert_int_equal(found.n, 1);
	expect(&found, 0, 0, 10, DIRTY_UNKNOWN);
	dirty_free(&found);
	dirty_free(&populated);
}

static void shared_memory(void **state)
{
	struct dirty found = {0}, populated = {0};

	/* an entry that is gone may have been written before */
	look(true, 0, &found, &populated);
	assert_int_equal(found.n, 2);
	expect(&found, 0, 2, 4, DIRTY_UNKNOWN);
	/* reading populates */
	look(true, LOOK_OWN, &found, &populated);
	assert_int_equal(found.n, 0);
	assert_int_equal(populated.n, 1);
	look(true, LOOK_OWN | LOOK_WRITTEN, &found, &populated);
	assert_int_equal(dirty_pages(&found), 10);
	dirty_free(&found);
	dirty_free(&populated);
}

/* Only remembering what is there. */
static void nothing_asked(void **state)
{
	struct dirty populated = {0};
	struct vma v = {.end = 10 * PAGE};
	struct look l = {.before = &before, .v = &v, .populated = &populated};

	assert_int_equal(look_run(&l, PAGE, 2 * PAGE, LOOK_OWN | LOOK_WRITTEN), 0);
	assert_int_equal(look_run(&l, 2 * PAGE, 3 * PAGE, 0), 0);
	assert_int_equal(populated.n, 1);
	expect(&populated, 0, 1, 2, DIRTY_WRITTEN);
	dirty_free(&populated);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(private_memory),
		cmocka_unit_test(shared_memory),
		cmocka_unit_test(nothing_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
