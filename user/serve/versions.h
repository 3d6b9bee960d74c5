/* SPDX-License-Identifier: GPL-2.0 */
/* The time line of versions: those that this daemon cut, and what else their repositories hold. */
#ifndef ICP_SERVE_VERSIONS_H
#define ICP_SERVE_VERSIONS_H

#include <jansson.h>

#include "serve/model.h"

/* Manifests that were read: a version never changes. Of the server's thread. */
struct versions;

int versions_new(struct versions **out) _must_use_;
void versions_free(struct versions *v);

/* /api/versions. Takes the model's lock itself, not while it reads storage. */
json_t *versions_json(struct versions *v, struct model *m, struct session *s, size_t limit);

#endif
