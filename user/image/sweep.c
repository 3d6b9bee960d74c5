// SPDX-License-Identifier: GPL-2.0
/* Reading everything in file order. */
#include <errno.h>
#include <stdlib.h>

#include "image/names.h"

#define BATCH 64

struct item {
	uint32_t version, stream, slot, pad;
	uint64_t page;
};

struct sweep {
	struct reader *reader;
	const struct ctl *ctl;
	struct item *items;
	size_t n, at;
	uint64_t pages[BATCH];
	uint8_t *buf;  /* what was read: slots in a row */
	uint8_t *data; /* what is handed out: differs where one slot is wanted several times */
};

static int compare(const void *x, const void *y)
{
	const struct item *a = x, *b = y;

	if (a->version != b->version)
		return a->version < b->version ? -1 : 1;
	if (a->stream != b->stream)
		return a->stream < b->stream ? -1 : 1;
	if (a->slot != b->slot)
		return a->slot < b->slot ? -1 : 1;
	return a->page < b->page ? -1 : a->page > b->page;
}

int sweep_open(struct reader *rd, const struct ctl *c, struct sweep **out)
{
	_cleanup_sweep_ struct sweep *s = calloc(1, sizeof(*s));
	size_t bytes = (size_t)BATCH * ctl_page_size(c);
	const struct ctl_entry *e;
	bool sorted = true;

	if (!s)
		return fail(-ENOMEM, "plan the reading");
	s->reader = rd;
	s->ctl = c;
	s->items = malloc((ctl_pages(c) + 1) * sizeof(*s->items));
	s->buf = aligned_alloc(ctl_page_size(c), bytes);
	s->data = aligned_alloc(ctl_page_size(c), bytes);
	if (!s->items || !s->buf || !s->data)
		return fail(-ENOMEM, "plan the reading");
	for (uint64_t page = 0; (e = ctl_next(c, &page)); page++) {
		if (e->flags & CTL_ZERO)
			continue;
		s->items[s->n] = (struct item){e->version, e->stream, e->slot, 0, page};
		sorted = sorted && (!s->n || compare(&s->items[s->n - 1], &s->items[s->n]) < 0);
		s->n++;
	}
	if (!sorted)
		qsort(s->items, s->n, sizeof(*s->items), compare);
	*out = take_ptr(s);
	return 0;
}

/* How many items from @at on lie in slots in a row (or the same one again); @slots: how many
 * slots those are. */
static size_t group(const struct sweep *s, uint32_t *slots)
{
	const struct item *first = &s->items[s->at];
	size_t n = 1;

	*slots = 1;
	while (s->at + n < s->n && n < BATCH) {
		const struct item *i = &first[n];

		if (i->version != first->version || i->stream != first->stream ||
		    i->slot - first->slot > *slots)
			break;
		*slots = i->slot - first->slot + 1;
		n++;
	}
	return n;
}

void sweep_only(struct sweep *s, bool (*want)(void *arg, uint64_t page), void *arg)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++)
		if (want(arg, s->items[i].page))
			s->items[n++] = s->items[i];
	s->n = n;
}

void sweep_part(struct sweep *s, unsigned part, unsigned parts)
{
	size_t n = s->n;

	s->at = n / parts * part;
	s->n = part + 1 == parts ? n : n / parts * (part + 1);
}

int sweep_next(struct sweep *s, const uint64_t **pages, const uint8_t **data)
{
	const struct item *first = &s->items[s->at];
	uint32_t page_size = ctl_page_size(s->ctl), slots;
	struct icp_hash hash = {0};
	size_t n;
	int err;

	if (s->at == s->n)
		return 0;
	n = group(s, &slots);
	err = reader_slots(s->reader, ctl_find(s->ctl, first->page, CTL_DIRECT), slots,
			   page_size, s->buf);
	if (err)
		return reader_wrong(ctl_find(s->ctl, first->page, CTL_DIRECT),
				    first->page * page_size, err);
	for (size_t i = 0; i < n; i++) {
		const struct ctl_entry *e = ctl_find(s->ctl, first[i].page, CTL_DIRECT);
		const uint8_t *from = s->buf + (size_t)(e->slot - first->slot) * page_size;

		if (!i || e->slot != first[i - 1].slot)
			hash = page_hash(from, page_size);
		if (!hash_equal(&hash, &e->hash))
			return reader_wrong(e, first[i].page * page_size, 0);
		s->pages[i] = first[i].page;
		if (n != slots)
			memcpy(s->data + i * page_size, from, page_size);
	}
	s->at += n;
	*pages = s->pages;
	*data = n == slots ? s->buf : s->data;
	return (int)n;
}

void sweep_close(struct sweep *s)
{
	if (!s)
		return;
	free(s->items);
	free(s->buf);
	free(s->data);
	free(s);
}
