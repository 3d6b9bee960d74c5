/* SPDX-License-Identifier: GPL-2.0 */
/* How addresses, keys and names look in JSON: docs/json.md. All give a new value, or NULL without memory. */
#ifndef ICP_OBS_JSON_H
#define ICP_OBS_JSON_H

#include <jansson.h>
#include <stdint.h>

json_t *json_address(uint64_t addr);
json_t *json_key(int32_t key);
/* Names come from files and threads and may hold any bytes: what is not UTF-8 becomes '?'. */
json_t *json_name(const char *name);

#endif
