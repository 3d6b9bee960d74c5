// SPDX-License-Identifier: GPL-2.0
#include "image/store.h"

#include <errno.h>
#include <sys/mman.h>

#define HUGE (2u << 20)

/* A page fault for each 4 KiB of a large one takes longer than reading it. */
static void *new_buffer(size_t size)
{
	void *buf;

	if (size < 2 * HUGE)
		return malloc(size);
	buf = aligned_alloc(HUGE, (size + HUGE - 1) & ~(size_t)(HUGE - 1));
	if (buf)
		madvise(buf, size, MADV_HUGEPAGE);
	return buf;
}

int store_load(struct store *s, const char *name, size_t max, void **data, size_t *len)
{
	_cleanup_obj_ struct store_obj *obj = NULL;
	_cleanup_free_ char *buf = NULL;
	int err = store_open(s, name, &obj);

	if (err)
		return err;
	if (obj->size > max)
		return refuse(-EFBIG, "%s has %llu bytes, more than the %zu it may have", name,
			      (unsigned long long)obj->size, max);
	buf = new_buffer(obj->size + 1);
	if (!buf)
		return fail(-ENOMEM, "read %s", name);
	if (obj->size) {
		err = store_read(obj, buf, obj->size, 0);
		if (err)
			return err;
	}
	buf[obj->size] = 0;
	*len = obj->size;
	*data = take_ptr(buf);
	return 0;
}
