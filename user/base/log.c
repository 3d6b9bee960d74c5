// SPDX-License-Identifier: GPL-2.0
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void put(const char *fmt, va_list args)
{
	char line[1200];

	vsnprintf(line, sizeof(line), fmt, args);
	fprintf(stderr, "icp-bpf: %s\n", line);
}

void note(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	put(fmt, args);
	va_end(args);
}

void debug(const char *fmt, ...)
{
	va_list args;

	if (!getenv("ICP_DEBUG"))
		return;
	va_start(args, fmt);
	put(fmt, args);
	va_end(args);
}
