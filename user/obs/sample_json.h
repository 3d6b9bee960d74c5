/* SPDX-License-Identifier: GPL-2.0 */
/* A process of a sample as JSON, and back: for who asks a session over its control socket. Not for anybody else: docs/json.md is. */
#ifndef ICP_OBS_SAMPLE_JSON_H
#define ICP_OBS_SAMPLE_JSON_H

#include <jansson.h>

#include "base/err.h"
#include "obs/sample.h"

/* @lists: with VMAs, segments and writers. NULL: no memory. */
json_t *process_sample_json(const struct process_sample *p, bool lists);
/* -EINVAL (bare): it makes no sense. The lists are freed by process_sample_clear(). */
int process_sample_parse(json_t *json, struct process_sample *out) _must_use_;

#endif
