// SPDX-License-Identifier: GPL-2.0
#include "base/err.h"

#include <stdarg.h>
#include <string.h>

static _Thread_local char message[1024];

static void put(const char *fmt, va_list args, const char *tail)
{
	char text[sizeof(message)];

	vsnprintf(text, sizeof(text), fmt, args);
	snprintf(message, sizeof(message), "%s%s%s", text, tail ? ": " : "", tail ? tail : "");
}

int fail(int err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	put(fmt, args, strerror(-err));
	va_end(args);
	return err;
}

int refuse(int err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	put(fmt, args, NULL);
	va_end(args);
	return err;
}

int wrap(int err, const char *fmt, ...)
{
	char inner[sizeof(message)];
	va_list args;

	snprintf(inner, sizeof(inner), "%s", err_text(err));
	va_start(args, fmt);
	put(fmt, args, inner);
	va_end(args);
	return err;
}

const char *err_text(int err)
{
	return message[0] ? message : strerror(-err);
}

void err_clear(void)
{
	message[0] = 0;
}
