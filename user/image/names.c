// SPDX-License-Identifier: GPL-2.0
#include "image/names.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct name format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static struct name format(const char *fmt, ...)
{
	struct name name;
	va_list args;

	va_start(args, fmt);
	vsnprintf(name.s, sizeof(name.s), fmt, args);
	va_end(args);
	return name;
}

struct name name_version(uint32_t version)
{
	return format("%06u", version);
}

struct name name_in(uint32_t version, const char *last)
{
	return format("%06u/%.60s", version, last);
}

struct name name_rank(uint32_t version)
{
	return format("%06u/0", version);
}

struct name name_manifest(uint32_t version)
{
	return format("%06u/0/manifest.pb", version);
}

struct name name_keep(uint32_t version, uint32_t generation)
{
	return format("%06u/keep.%u", version, generation);
}

struct name name_file(enum icp_file_kind kind, uint32_t version, uint32_t stream,
		      uint32_t generation)
{
	static const char *const names[][2] = {
		[ICP_OF_PROCESS] = {"task_mm", "ctl"},
		[ICP_OF_SEGMENT] = {"shm", "ctl_shm"},
		[ICP_OF_FILE] = {"file", "ctl_file"},
	};
	const char *what = names[icp_stream_kind(stream)][kind == ICP_FILE_CTL];
	uint32_t id = icp_stream_id(stream);

	if (generation)
		return format("%06u/0/%s_%u.%u.g%u.bin", version, what, id, version,
			      generation);
	return format("%06u/0/%s_%u.%u.bin", version, what, id, version);
}

uint32_t name_parse_version(const char *s)
{
	unsigned long n;
	char *end;

	if (strlen(s) < 6 || strlen(s) > 10 || strspn(s, "0123456789") != strlen(s))
		return 0;
	n = strtoul(s, &end, 10);
	/* only the one spelling that we would use ourselves */
	if (n >= UINT32_MAX || strcmp(name_version((uint32_t)n).s, s))
		return 0;
	return (uint32_t)n;
}

uint32_t name_parse_keep(const char *s)
{
	char again[32];
	unsigned long n;

	if (strncmp(s, "keep.", 5) || strlen(s) > 15)
		return 0;
	n = strtoul(s + 5, NULL, 10);
	snprintf(again, sizeof(again), "keep.%lu", n);
	return n < UINT32_MAX && !strcmp(again, s) ? (uint32_t)n : 0;
}
