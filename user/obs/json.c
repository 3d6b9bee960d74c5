// SPDX-License-Identifier: GPL-2.0
#include "obs/json.h"

#include <inttypes.h>
#include <stdio.h>

json_t *json_address(uint64_t addr)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%" PRIx64, addr);
	return json_string(text);
}

json_t *json_key(int32_t key)
{
	char text[16];

	snprintf(text, sizeof(text), "0x%08x", (unsigned)key);
	return json_string(text);
}

json_t *json_name(const char *name)
{
	json_t *text = json_string(name);
	char clean[512];
	size_t i = 0;

	if (text)
		return text;
	for (; name[i] && i + 1 < sizeof(clean); i++)
		clean[i] = (unsigned char)name[i] < 0x80 ? name[i] : '?';
	clean[i] = 0;
	return json_string(clean);
}
