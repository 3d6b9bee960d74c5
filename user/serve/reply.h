/* SPDX-License-Identifier: GPL-2.0 */
/* From a request to its answer. */
#ifndef ICP_SERVE_REPLY_H
#define ICP_SERVE_REPLY_H

#include "serve/mhd.h"
#include "serve/model.h"
#include "serve/stream.h"
#include "serve/versions.h"

struct replies {
	struct model *model;
	struct session *session; /* its progress only */
	struct streams *streams;
	struct versions *versions;
	char *token; /* NULL: none is needed */
};

/* Queue the answer; *@endless: it is an event stream. */
enum MHD_Result reply(struct replies *r, struct MHD_Connection *connection, const char *method,
		      const char *url, bool *endless);

#endif
