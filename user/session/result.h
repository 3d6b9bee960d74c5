/* SPDX-License-Identifier: GPL-2.0 */
#ifndef ICP_SESSION_RESULT_H
#define ICP_SESSION_RESULT_H

#include <jansson.h>

#include "dump/dump.h"

/* A new object, or NULL without memory. Documented in docs/json.md. */
json_t *result_to_json(const struct dump_result *r);
/* -EPROTO with a message when it isn't one. */
int result_from_json(const json_t *from, struct dump_result *r) _must_use_;

#endif
