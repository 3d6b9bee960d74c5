/* SPDX-License-Identifier: GPL-2.0 */
/* Numbers for byte strings, from 0, each for ever: the same bytes have the same number. */
#ifndef ICP_OBS_INTERN_H
#define ICP_OBS_INTERN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/vec.h"

struct intern_key {
	size_t at;
	uint32_t len, hash;
};

/* All zero is an empty one. */
struct intern {
	VEC(char) bytes;
	VEC(struct intern_key) keys; /* by number */
	uint32_t *slots;	     /* number + 1; 0: free */
	size_t cap;		     /* a power of two */
};

/* The number of @key, if it has one. */
bool intern_find(const struct intern *t, const void *key, uint32_t len, uint32_t *number);
/* The same, and give it the next number if it has none. *@fresh: it had none; may be NULL. -ENOMEM. */
int intern_add(struct intern *t, const void *key, uint32_t len, uint32_t *number,
	       bool *fresh) _must_use_;
void intern_free(struct intern *t);

#endif
