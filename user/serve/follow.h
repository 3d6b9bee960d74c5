/* SPDX-License-Identifier: GPL-2.0 */
/* Who is to be followed: pids, cgroups, names. They come and go. */
#ifndef ICP_SERVE_FOLLOW_H
#define ICP_SERVE_FOLLOW_H

#include "serve/model.h"
#include "serve/serve.h"

struct follow;

/* -EINVAL with a message: the pattern, or a cgroup that is not there. */
int follow_new(const struct serve_config *c, struct follow **out) _must_use_;
void follow_free(struct follow *f);

/*
 * Attach to those that are there now and not followed. Who can't be followed is said once, in one line, and tried again later. With
 * @first also counts: -ESRCH with a message when only pids were named and none of them can be followed.
 */
int follow_look(struct follow *f, struct session *s, struct model *m, bool first) _must_use_;

#endif
