// SPDX-License-Identifier: GPL-2.0
#include "serve/mhd.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#define LIBRARY "libmicrohttpd.so.12"

struct mhd mhd;

int mhd_load(void)
{
	static const char *const names[] = {
#define X(function) #function,
		MHD_FUNCTIONS(X)
#undef X
	};
	void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

	static_assert(sizeof(mhd) == sizeof(names), "a pointer for each name");
	if (!library)
		return refuse(-ENOENT, "%s: install Debian's libmicrohttpd12", dlerror());
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		void *found = dlsym(library, names[i]);

		if (!found)
			return refuse(-ENOENT, "%s: a newer one is needed", dlerror());
		memcpy((char *)&mhd + i * sizeof(found), &found, sizeof(found));
	}
	return 0;
}
