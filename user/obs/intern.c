// SPDX-License-Identifier: GPL-2.0
#include "obs/intern.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

static bool is_key(const struct intern *t, uint32_t number, const void *key, uint32_t len,
		   uint32_t hash)
{
	const struct intern_key *k = &t->keys.data[number];

	return k->hash == hash && k->len == len && !memcmp(t->bytes.data + k->at, key, len);
}

static uint32_t hash_of(const void *key, uint32_t len)
{
	return (uint32_t)XXH3_64bits(key, len);
}

bool intern_find(const struct intern *t, const void *key, uint32_t len, uint32_t *number)
{
	uint32_t hash = hash_of(key, len);

	for (size_t i = hash; t->cap; i++) {
		uint32_t slot = t->slots[i & (t->cap - 1)];

		if (!slot)
			break;
		if (!is_key(t, slot - 1, key, len, hash))
			continue;
		*number = slot - 1;
		return true;
	}
	return false;
}

static void place(uint32_t *slots, size_t cap, uint32_t hash, uint32_t number)
{
	size_t i = hash;

	while (slots[i & (cap - 1)])
		i++;
	slots[i & (cap - 1)] = number + 1;
}

static int grow(struct intern *t)
{
	size_t cap = t->cap ? t->cap * 2 : 64;
	uint32_t *slots = calloc(cap, sizeof(*slots));

	if (!slots)
		return fail(-ENOMEM, "names");
	for (uint32_t i = 0; i < t->keys.n; i++)
		place(slots, cap, t->keys.data[i].hash, i);
	free(t->slots);
	t->slots = slots;
	t->cap = cap;
	return 0;
}

int intern_add(struct intern *t, const void *key, uint32_t len, uint32_t *number, bool *fresh)
{
	struct intern_key *k;
	int err;

	if (fresh)
		*fresh = false;
	if (intern_find(t, key, len, number))
		return 0;
	if (t->keys.n * 2 >= t->cap) {
		err = grow(t);
		if (err)
			return err;
	}
	if (vec_reserve(&t->bytes, t->bytes.n + len + 1))
		return fail(-ENOMEM, "names");
	k = vec_push(&t->keys);
	if (!k)
		return fail(-ENOMEM, "names");
	*k = (struct intern_key){.at = t->bytes.n, .len = len, .hash = hash_of(key, len)};
	memcpy(t->bytes.data + k->at, key, len);
	t->bytes.data[k->at + len] = 0;
	t->bytes.n += len + 1;
	*number = (uint32_t)(t->keys.n - 1);
	place(t->slots, t->cap, k->hash, *number);
	if (fresh)
		*fresh = true;
	return 0;
}

void intern_free(struct intern *t)
{
	vec_free(&t->bytes);
	vec_free(&t->keys);
	free(t->slots);
	t->slots = NULL;
	t->cap = 0;
}
