// SPDX-License-Identifier: GPL-2.0
/* The control structure against a plain array, its file, and comparison. */
#include "image_test.h"

#define AREA 5000

struct plain {
	struct ctl_entry e[AREA]; /* flags 0: none */
};

/* Three areas far apart, one of them at the very end. */
static uint64_t page_of(size_t i)
{
	if (i < AREA / 3)
		return i;
	return i < AREA / 3 * 2 ? 0x7ffff0000 + i : CTL_PAGES_MAX - AREA + i;
}

static void check_same(struct ctl *c, const struct plain *p, enum ctl_lookup how)
{
	uint64_t page = 0, pages = 0, zeros = 0;
	const struct ctl_entry *e;

	for (size_t i = 0; i < AREA; i++) {
		const struct ctl_entry *want = &p->e[i];

		e = ctl_find(c, page_of(i), how);
		assert_int_equal(!!e, !!want->flags);
		if (!e)
			continue;
		assert_int_equal(e->flags, want->flags);
		if (want->flags & CTL_ZERO) {
			zeros++;
			continue;
		}
		pages++;
		assert_true(hash_equal(&e->hash, &want->hash));
		assert_int_equal(e->slot, want->slot);
		assert_int_equal(e->version, want->version);
		assert_int_equal(e->stream, want->stream);
	}
	assert_int_equal(ctl_pages(c), pages);
	assert_int_equal(ctl_zeros(c), zeros);
	/* in order, and all of them */
	for (size_t i = 0; i < AREA; i++) {
		if (!p->e[i].flags)
			continue;
		e = ctl_next(c, &page);
		assert_non_null(e);
		assert_int_equal(page, page_of(i));
		page++;
	}
	assert_null(ctl_next(c, &page));
}

static void change(uint64_t *rng, struct ctl *c, struct plain *p, uint32_t version)
{
	size_t at = next_random(rng) % AREA, n = 1 + next_random(rng) % 300;
	uint64_t what = next_random(rng) % 4;

	for (size_t i = at; i < at + n && i < AREA; i++) {
		struct ctl_entry e = {
			.version = version,
			.stream = 42 + (uint32_t)(what == 3),
			.slot = (uint32_t)(next_random(rng) % 9 ? i : next_random(rng) % 100),
			.hash = {next_random(rng), next_random(rng)},
			.flags = what == 1 ? CTL_ZERO : 0,
		};

		if (what == 0) {
			model_must(ctl_remove(c, page_of(i), 1));
			p->e[i] = (struct ctl_entry){0};
			continue;
		}
		model_must(ctl_set(c, page_of(i), &e));
		e.flags |= CTL_PRESENT;
		p->e[i] = e;
	}
}

static void test_random(void **state)
{
	static struct plain now;
	uint64_t rng = seed_of_run();
	struct ctl *c, *read = NULL;
	unsigned fulls = 0;

	memset(&now, 0, sizeof(now));
	model_must(ctl_new(42, PAGE, &c));
	for (uint32_t v = 1; v <= 120; v++) {
		struct ctl_image image, parsed;
		void *copy;

		for (size_t i = 0; i < (v == 1 ? 40 : next_random(&rng) % 6); i++)
			change(&rng, c, &now, v);
		if (v % 10 == 0) { /* whole ranges, empty parts included */
			model_must(ctl_remove(c, 100, 700));
			memset(&now.e[100], 0, 700 * sizeof(now.e[0]));
		}
		model_must(ctl_encode(c, v, v % 50 == 0, &image));
		ctl_clean(c, v, &image);
		fulls += image.header->kind == ICP_CTL_FULL;
		copy = malloc(image.size);
		memcpy(copy, image.data, image.size);
		model_must(ctl_parse(copy, image.size, &parsed));
		if (parsed.header->kind == ICP_CTL_FULL) {
			ctl_free(read);
			model_must(ctl_new(42, PAGE, &read));
		}
		model_must(ctl_apply(read, &parsed, 0));
		ctl_image_free(&parsed);
		ctl_image_free(&image);
		check_same(c, &now, CTL_DIRECT);
		check_same(read, &now, CTL_DIRECT);
		model_must(ctl_index(read));
		check_same(read, &now, CTL_RBTREE);
	}
	print_message("%u of 120 were full\n", fulls);
	assert_true(fulls >= 3 && fulls < 110);
	ctl_free(read);
	ctl_free(c);
}

static void test_compare(void **state)
{
	static struct plain a, b;
	struct ctl_diffs diffs = {0};
	uint64_t rng = seed_of_run(), differing = 0, listed = 0;
	struct ctl *ca, *cb;

	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	model_must(ctl_new(42, PAGE, &ca));
	model_must(ctl_new(42, PAGE, &cb));
	for (int i = 0; i < 40; i++)
		change(&rng, ca, &a, 1);
	for (size_t i = 0; i < AREA; i++) { /* the same content elsewhere is the same */
		struct ctl_entry e = a.e[i];

		if (!e.flags)
			continue;
		e.version = 9;
		e.slot = 1;
		model_must(ctl_set(cb, page_of(i), &e));
		b.e[i] = e;
	}
	model_must(ctl_compare(ca, cb, &diffs));
	assert_int_equal(diffs.n, 0);
	for (int i = 0; i < 9; i++)
		change(&rng, cb, &b, 2);
	model_must(ctl_compare(ca, cb, &diffs));
	for (size_t i = 0; i < AREA; i++) {
		enum ctl_change want = !a.e[i].flags && b.e[i].flags   ? CTL_ADDED
				       : a.e[i].flags && !b.e[i].flags ? CTL_GONE
								       : CTL_MODIFIED;
		bool same =
			!a.e[i].flags == !b.e[i].flags &&
			(!a.e[i].flags ||
			 ((a.e[i].flags & CTL_ZERO) == (b.e[i].flags & CTL_ZERO) &&
			  (a.e[i].flags & CTL_ZERO || hash_equal(&a.e[i].hash, &b.e[i].hash))));
		bool found = false;

		for (size_t k = 0; k < diffs.n; k++)
			found |= page_of(i) >= diffs.data[k].page &&
				 page_of(i) < diffs.data[k].page + diffs.data[k].n &&
				 diffs.data[k].what == want;
		assert_int_equal(found, !same);
		differing += !same;
	}
	vec_each (d, &diffs)
		listed += d->n;
	assert_int_equal(listed, differing);
	assert_true(differing > 0);
	vec_free(&diffs);
	ctl_free(ca);
	ctl_free(cb);
}

static void test_limits(void **state)
{
	struct ctl_entry e = {.version = 1};
	struct ctl_image image, parsed;
	struct ctl *c, *small;
	void *copy;

	model_must(ctl_new(42, PAGE, &c));
	assert_int_equal(ctl_set(c, CTL_PAGES_MAX, &e), -ERANGE);
	assert_int_equal(ctl_remove(c, CTL_PAGES_MAX - 1, 2), -ERANGE);
	assert_int_equal(ctl_remove(c, 5, UINT64_MAX), -ERANGE);
	e.flags = CTL_ZERO;
	for (uint64_t i = 0; i < 100000; i++)
		model_must(ctl_set(c, i, &e));
	model_must(ctl_encode(c, 1, true, &image));
	assert_true(image.size < 200); /* zero pages are one run */
	copy = malloc(image.size);
	memcpy(copy, image.data, image.size);
	model_must(ctl_parse(copy, image.size, &parsed));
	model_must(ctl_new(42, PAGE, &small));
	assert_int_equal(ctl_apply(small, &parsed, 1 << 20), -E2BIG);
	ctl_free(small);
	ctl_image_free(&parsed);
	ctl_image_free(&image);
	ctl_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_compare),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
