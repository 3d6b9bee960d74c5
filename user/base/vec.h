/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Growing arrays. A vector is any struct with the fields `data` (T *), `n` and `cap` (size_t); all zero
 * is an empty one. vec_push() returns a pointer to the new, zeroed element, or NULL without memory.
 */
#ifndef ICP_BASE_VEC_H
#define ICP_BASE_VEC_H

#include <stddef.h>

#define VEC(type)                                                                              \
	struct {                                                                               \
		type *data;                                                                    \
		size_t n, cap;                                                                 \
	}

/* Make room for @need elements of @size bytes. Returns 0 or -ENOMEM (and leaves the array as it was). */
int vec_grow(void **data, size_t *cap, size_t need, size_t size);

#define vec_reserve(v, need)                                                                   \
	vec_grow((void **)&(v)->data, &(v)->cap, (need), sizeof(*(v)->data))

#define vec_push(v)                                                                            \
	(vec_reserve((v), (v)->n + 1)                                                          \
		 ? NULL                                                                        \
		 : (__typeof__((v)->data))memset(&(v)->data[(v)->n++], 0, sizeof(*(v)->data)))

#define vec_each(it, v)                                                                        \
	for (__typeof__((v)->data + 0) it = (v)->data; (v)->n && it < (v)->data + (v)->n; it++)

#define vec_free(v)                                                                            \
	do {                                                                                   \
		free((v)->data);                                                               \
		(v)->data = NULL;                                                              \
		(v)->n = (v)->cap = 0;                                                         \
	} while (0)

#endif
