/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The write working set: how many different pages were dirtied in the last so many ticks. A
 * tick is whatever the caller samples at (an interval); ticks never go backwards. One struct
 * wws is one address space; plain data, it knows no process.
 *
 * Adding costs O(pages dirtied), counting O(ticks of the window). Memory is 4 bytes for every
 * page of every chunk of 512 pages that was dirtied within the largest window, whatever the
 * size of the address space; older chunks are freed when the tick advances. Nothing is done for
 * an unmapped page: it ages out.
 */
#ifndef ICP_OBS_WWS_H
#define ICP_OBS_WWS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct wws;

#define WWS_WINDOW_MAX (1u << 20) /* ticks */

/* @windows: the lengths, in ticks, that will be asked for; each in [1, WWS_WINDOW_MAX].
 * -EINVAL, -ENOMEM. */
int wws_new(const uint32_t *windows, size_t n, struct wws **out) _must_use_;
void wws_free(struct wws *w);

static inline void cleanup_wws(struct wws **w)
{
	wws_free(*w);
}
#define _cleanup_wws_ _cleanup_(cleanup_wws)

/*
 * The pages of [start, end) (bytes; pages touched in part count) were dirtied in @tick. Runs
 * may overlap and come in any order. -EINVAL: an empty run, or a tick before the last one.
 * -ENOMEM: part of the run may have been added.
 */
int wws_add(struct wws *w, uint64_t start, uint64_t end, uint64_t tick) _must_use_;

/*
 * Unique pages dirtied in the ticks (tick - window, tick]. A @tick before the last one seen
 * counts as that one; a later one advances (for intervals in which nothing was dirtied). A
 * @window above the largest declared one is cut to it.
 */
uint64_t wws_count(struct wws *w, uint64_t tick, uint32_t window);

/*
 * The same for each of @n ranges (ascending, disjoint): pages[i * n_windows + k] of ranges[i] and windows[k]. Costs O(pages of all
 * chunks). Does not advance.
 */
struct wws_range {
	uint64_t start, end; /* bytes, page aligned */
};
void wws_count_in(const struct wws *w, const uint32_t *windows, size_t n_windows,
		  const struct wws_range *ranges, size_t n, uint64_t *pages);

/* Bytes held in chunks now. */
size_t wws_memory(const struct wws *w);

#endif
