/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Errors are negative errno with one message, printed once, at the top.
 *
 * The place that finds a failure calls fail() (the text of the errno is added) or refuse() (the
 * message says it all); each outer layer may add identity once with wrap(). Only a verb or a request
 * handler prints, with err_text(). The message lives in a fixed thread-local buffer, is never
 * allocated, and is cut when too long. Answers (-ENOENT, -EAGAIN, a probe's -EOPNOTSUPP) are returned
 * bare and set no message.
 */
#ifndef ICP_BASE_ERR_H
#define ICP_BASE_ERR_H

#include "base/cleanup.h"

/* All three return @err, which must be negative. */
int fail(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int refuse(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int wrap(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The message of the last failure of this thread for @err; the errno's text when none was set. */
const char *err_text(int err);

/* Forget the message: for callers that handle a failure instead of passing it on. */
void err_clear(void);

/* For clean-up after a failure, where a second one changes nothing. */
static inline void ignore_failure(int err)
{
	(void)err;
}

#endif
