// SPDX-License-Identifier: GPL-2.0
#include "serve/assets.h"

#include <string.h>

const struct asset *asset_find(const char *path)
{
	for (size_t i = 0; i < asset_count; i++)
		if (!strcmp(path, asset_list[i].path))
			return &asset_list[i];
	return NULL;
}
