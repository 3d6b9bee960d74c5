// SPDX-License-Identifier: GPL-2.0
/*
 *   buckets (hash of the chunk number)        chunk: 512 pages
 *   [ ] -> chunk -> chunk                     stamp[i] = tick of the last write of page i, less
 * base; 0 never [ ] [ ] -> chunk           oldest <-> ... <-> newest: every chunk in the order
 * of its last write
 *
 * recent[t % span] = pages whose last write was in tick t, for the last `span` ticks (the
 * largest window): a page that is written again moves from its old tick to the new one, so a
 * window is the sum of its ticks and no page is counted twice.
 */
#include "obs/wws.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

#define CHUNK_BITS 9
#define CHUNK_PAGES (1u << CHUNK_BITS)

struct chunk {
	uint64_t number;
	uint64_t newest;    /* tick of the last write to any of its pages */
	struct chunk *next; /* in the bucket */
	struct chunk *older, *newer;
	uint32_t stamp[CHUNK_PAGES];
};

struct wws {
	struct chunk **buckets;
	unsigned bucket_bits;
	size_t chunks;
	uint64_t seed; /* the addresses are the target's choice: it must not know the hash */
	struct chunk *oldest, *newest;
	uint64_t *recent;
	uint32_t span;
	uint64_t tick; /* the last one seen */
	uint64_t base; /* stamps are tick - base, never 0 */
	bool started;
	unsigned page_shift;
};

static size_t bucket_of(const struct wws *w, uint64_t number)
{
	uint64_t h = number ^ w->seed;

	h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdull;
	h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53ull;
	return (h ^ (h >> 33)) & (((size_t)1 << w->bucket_bits) - 1);
}

int wws_new(const uint32_t *windows, size_t n, struct wws **out)
{
	_cleanup_wws_ struct wws *w = calloc(1, sizeof(*w));

	if (!w)
		return fail(-ENOMEM, "write working set");
	for (size_t i = 0; i < n; i++) {
		if (!windows[i] || windows[i] > WWS_WINDOW_MAX)
			return fail(-EINVAL, "window of %u ticks", windows[i]);
		if (windows[i] > w->span)
			w->span = windows[i];
	}
	if (!w->span)
		return fail(-EINVAL, "write working set without a window");
	w->page_shift = (unsigned)__builtin_ctzl((unsigned long)sysconf(_SC_PAGESIZE));
	w->bucket_bits = 6;
	w->buckets = calloc((size_t)1 << w->bucket_bits, sizeof(*w->buckets));
	w->recent = calloc(w->span, sizeof(*w->recent));
	if (!w->buckets || !w->recent)
		return fail(-ENOMEM, "write working set");
	if (getrandom(&w->seed, sizeof(w->seed), GRND_NONBLOCK) != sizeof(w->seed))
		w->seed = (uintptr_t)w;
	*out = take_ptr(w);
	return 0;
}

void wws_free(struct wws *w)
{
	if (!w)
		return;
	for (struct chunk *c = w->oldest, *newer; c; c = newer) {
		newer = c->newer;
		free(c);
	}
	free(w->buckets);
	free(w->recent);
	free(w);
}

static void age_unlink(struct wws *w, struct chunk *c)
{
	*(c->older ? &c->older->newer : &w->oldest) = c->newer;
	*(c->newer ? &c->newer->older : &w->newest) = c->older;
}

static void age_append(struct wws *w, struct chunk *c)
{
	c->older = w->newest;
	c->newer = NULL;
	*(w->newest ? &w->newest->newer : &w->oldest) = c;
	w->newest = c;
}

static void chunk_free(struct wws *w, struct chunk *c)
{
	struct chunk **at = &w->buckets[bucket_of(w, c->number)];

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	age_unlink(w, c);
	w->chunks--;
	free(c);
}

/* Twice the buckets once they hold a chunk each; without memory the chains just get longer. */
static void grow(struct wws *w)
{
	struct chunk **buckets = calloc((size_t)2 << w->bucket_bits, sizeof(*buckets));

	if (!buckets)
		return;
	free(w->buckets);
	w->buckets = buckets;
	w->bucket_bits++;
	for (struct chunk *c = w->oldest; c; c = c->newer) {
		struct chunk **bucket = &buckets[bucket_of(w, c->number)];

		c->next = *bucket;
		*bucket = c;
	}
}

static struct chunk *chunk_get(struct wws *w, uint64_t number)
{
	struct chunk *c = w->buckets[bucket_of(w, number)];

	while (c && c->number != number)
		c = c->next;
	if (c)
		return c;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	if (w->chunks >> w->bucket_bits)
		grow(w);
	c->number = number;
	c->next = w->buckets[bucket_of(w, number)];
	w->buckets[bucket_of(w, number)] = c;
	age_append(w, c);
	w->chunks++;
	return c;
}

/* Before the 32 bits of a stamp run out: count from just before the largest window; older
 * stamps become "never". */
static void rebase(struct wws *w, uint64_t tick)
{
	uint64_t delta = tick - w->span - w->base;

	for (struct chunk *c = w->oldest; c; c = c->newer)
		for (unsigned i = 0; i < CHUNK_PAGES; i++)
			c->stamp[i] = c->stamp[i] > delta ? (uint32_t)(c->stamp[i] - delta) : 0;
	w->base += delta;
}

static void advance(struct wws *w, uint64_t tick)
{
	uint64_t steps = tick - w->tick;

	for (uint64_t i = 1; i <= steps && i <= w->span; i++)
		w->recent[(w->tick + i) % w->span] = 0;
	while (w->oldest && tick - w->oldest->newest >= w->span)
		chunk_free(w, w->oldest);
	if (tick - w->base > UINT32_MAX)
		rebase(w, tick);
	w->tick = tick;
}

static void start_at(struct wws *w, uint64_t tick)
{
	w->started = true;
	w->tick = tick;
	w->base = tick - 1; /* wraps for tick 0, as tick - base does back */
}

/* Pages [first, last] of one chunk, as indices. */
static void stamp_pages(struct wws *w, struct chunk *c, unsigned first, unsigned last)
{
	uint32_t now = (uint32_t)(w->tick - w->base);
	uint64_t slot = w->tick % w->span;

	for (unsigned i = first; i <= last; i++) {
		uint32_t old = c->stamp[i];

		if (old == now)
			continue;
		if (old && now - old < w->span)
			w->recent[(w->base + old) % w->span]--;
		w->recent[slot]++;
		c->stamp[i] = now;
	}
}

int wws_add(struct wws *w, uint64_t start, uint64_t end, uint64_t tick)
{
	uint64_t first = start >> w->page_shift, last = (end - 1) >> w->page_shift;

	if (start >= end)
		return fail(-EINVAL, "dirty run %#lx-%#lx", start, end);
	if (!w->started)
		start_at(w, tick);
	if (tick < w->tick)
		return fail(-EINVAL, "tick %lu after tick %lu", tick, w->tick);
	if (tick > w->tick)
		advance(w, tick);
	for (uint64_t number = first >> CHUNK_BITS; number <= last >> CHUNK_BITS; number++) {
		uint64_t base = number << CHUNK_BITS;
		struct chunk *c = chunk_get(w, number);

		if (!c)
			return fail(-ENOMEM, "write working set of %zu pages",
				    w->chunks * CHUNK_PAGES);
		stamp_pages(w, c, first > base ? (unsigned)(first - base) : 0,
			    last - base < CHUNK_PAGES ? (unsigned)(last - base)
						      : CHUNK_PAGES - 1);
		c->newest = tick;
		if (c != w->newest) {
			age_unlink(w, c);
			age_append(w, c);
		}
	}
	return 0;
}

uint64_t wws_count(struct wws *w, uint64_t tick, uint32_t window)
{
	uint64_t pages = 0;

	if (!w->started)
		return 0;
	if (tick > w->tick)
		advance(w, tick);
	for (uint32_t i = 0; i < window && i < w->span && i <= w->tick; i++)
		pages += w->recent[(w->tick - i) % w->span];
	return pages;
}

/* The first range that ends above @page. */
static size_t range_from(const struct wws_range *ranges, size_t n, uint64_t page,
			 unsigned shift)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (ranges[middle].end >> shift <= page)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void wws_count_in(const struct wws *w, const uint32_t *windows, size_t n_windows,
		  const struct wws_range *ranges, size_t n, uint64_t *pages)
{
	uint32_t now = (uint32_t)(w->tick - w->base);

	memset(pages, 0, n * n_windows * sizeof(*pages));
	for (struct chunk *c = w->oldest; w->started && c; c = c->newer) {
		uint64_t first = c->number << CHUNK_BITS;
		size_t at = range_from(ranges, n, first, w->page_shift);

		for (unsigned i = 0; i < CHUNK_PAGES && at < n; i++) {
			if (!c->stamp[i])
				continue;
			while (at < n && ranges[at].end >> w->page_shift <= first + i)
				at++;
			if (at == n || ranges[at].start >> w->page_shift > first + i)
				continue;
			for (size_t k = 0; k < n_windows; k++)
				pages[at * n_windows + k] += now - c->stamp[i] < windows[k];
		}
	}
}

size_t wws_memory(const struct wws *w)
{
	return w->chunks * sizeof(struct chunk);
}
