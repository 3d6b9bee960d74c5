// SPDX-License-Identifier: GPL-2.0
#include "image/store.h"

#include <errno.h>

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
	buf = malloc(obj->size + 1);
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
