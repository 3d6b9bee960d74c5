/* SPDX-License-Identifier: GPL-2.0 */
/* Between control.c and control_look.c only. */
#ifndef ICP_SESSION_CONTROL_PRIV_H
#define ICP_SESSION_CONTROL_PRIV_H

#include <jansson.h>

#include "session/internal.h"

#define RUN_DIR "/run/icp-bpf"

/* Ask the socket @name; NULL when there is no answer within @ms (0: as long as it takes). Takes @request. */
json_t *control_ask(const char *name, json_t *request, unsigned ms);
/* Is it the name of a socket in RUN_DIR? */
bool control_is_socket(const char *name);

/* What the last sample saw; of process "pid" with its lists. */
json_t *control_answer_look(const struct session *s, const json_t *request);

#endif
