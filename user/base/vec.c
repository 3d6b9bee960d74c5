// SPDX-License-Identifier: GPL-2.0
#include "base/vec.h"

#include <errno.h>
#include <stdlib.h>

int vec_grow(void **data, size_t *cap, size_t need, size_t size)
{
	size_t want = *cap ? *cap : 16;
	void *grown;

	if (need <= *cap)
		return 0;
	while (want < need)
		want *= 2;
	grown = reallocarray(*data, want, size);
	if (!grown)
		return -ENOMEM;
	*data = grown;
	*cap = want;
	return 0;
}
