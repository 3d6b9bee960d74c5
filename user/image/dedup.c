// SPDX-License-Identifier: GPL-2.0
/* Open addressing under one lock per 1/64 of the table: two writers seldom meet. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "image/pages.h"

#define SHARDS 64

struct slot {
	struct icp_hash hash; /* lo is never 0 in a used one */
	uint32_t stream, slot;
};

struct shard {
	pthread_mutex_t lock;
	struct slot *slots;
	size_t used, size; /* size: a power of two */
};

struct dedup {
	struct shard shard[SHARDS];
	size_t max; /* per shard */
};

int dedup_new(size_t max_pages, struct dedup **out)
{
	struct dedup *d = calloc(1, sizeof(*d));

	if (!d)
		return fail(-ENOMEM, "make the table of page hashes");
	d->max = (max_pages ? max_pages : 1u << 20) / SHARDS + 1;
	for (int i = 0; i < SHARDS; i++)
		pthread_mutex_init(&d->shard[i].lock, NULL);
	*out = d;
	return 0;
}

void dedup_free(struct dedup *d)
{
	if (!d)
		return;
	for (int i = 0; i < SHARDS; i++) {
		pthread_mutex_destroy(&d->shard[i].lock);
		free(d->shard[i].slots);
	}
	free(d);
}

static struct slot *probe(struct slot *slots, size_t size, const struct icp_hash *hash)
{
	size_t i = (size_t)(hash->hi & (size - 1));

	while (slots[i].hash.lo && !hash_equal(&slots[i].hash, hash))
		i = (i + 1) & (size - 1);
	return &slots[i];
}

static bool grow(struct shard *s)
{
	size_t size = s->size ? s->size * 2 : 256;
	struct slot *slots = calloc(size, sizeof(*slots));

	if (!slots)
		return false;
	for (size_t i = 0; i < s->size; i++) {
		if (s->slots[i].hash.lo)
			*probe(slots, size, &s->slots[i].hash) = s->slots[i];
	}
	free(s->slots);
	s->slots = slots;
	s->size = size;
	return true;
}

bool dedup_find(struct dedup *d, const struct icp_hash *hash, uint32_t *stream, uint32_t *slot)
{
	struct shard *s = &d->shard[hash->hi >> 58];
	struct slot *at = NULL;
	bool found = false;

	if (!hash->lo) /* marks a free slot: such a page is merely not shared */
		return false;
	pthread_mutex_lock(&s->lock);
	/* without memory the table just stops learning */
	if (s->used * 2 < s->size || s->used >= d->max || grow(s))
		at = s->size ? probe(s->slots, s->size, hash) : NULL;
	if (at && at->hash.lo) {
		*stream = at->stream;
		*slot = at->slot;
		found = true;
	} else if (at && s->used < d->max && s->used * 2 < s->size) {
		*at = (struct slot){*hash, *stream, *slot};
		s->used++;
	}
	pthread_mutex_unlock(&s->lock);
	return found;
}
