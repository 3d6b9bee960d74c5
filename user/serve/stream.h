/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Server-sent events: one publisher, many readers. Messages are kept for a moment in a ring; a reader who does not keep up misses
 * some. Bounded: STREAMS_MAX readers, MESSAGES_MAX messages.
 */
#ifndef ICP_SERVE_STREAM_H
#define ICP_SERVE_STREAM_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "serve/mhd.h"

#define STREAMS_MAX 64

struct streams;

int streams_new(struct streams **out) _must_use_;
void streams_free(struct streams *s);

/* Does anybody listen? */
bool streams_wanted(struct streams *s);
/* To all readers; @data is given away. */
void streams_publish(struct streams *s, const char *event, json_t *data);
/* A comment when nothing was said for a while, so that connections that are gone are noticed. */
void streams_keep(struct streams *s);
/* Readers come to their end: nobody new. */
void streams_end(struct streams *s);

/* The endless response for @connection, which begins with event hello and @hello (given away); NULL: too many, or no memory. */
struct MHD_Response *streams_response(struct streams *s, struct MHD_Connection *connection,
				      json_t *hello);
unsigned streams_count(struct streams *s);

#endif
