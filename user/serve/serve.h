/* SPDX-License-Identifier: GPL-2.0 */
/*
 * icp-bpf serve: one session over all processes that are to be followed, and an HTTP server that shows what it learns. Two threads: the
 * loop owns the session and fills the model; the server's reads it. Nothing that comes over HTTP reaches the session.
 */
#ifndef ICP_SERVE_SERVE_H
#define ICP_SERVE_SERVE_H

#include <stdbool.h>

#include "base/err.h"
#include "base/vec.h"
#include "proc/tasks.h"

#define SERVE_LISTEN "127.0.0.1:9477"

typedef VEC(char *) string_list;

struct serve_config {
	char *listen, *match, *token_file, *tracker; /* NULL: none, the default */
	pid_list pids;
	string_list cgroups, dirs;
	bool tree;
	double interval_s, mtbf_s;
};

void serve_config_init(struct serve_config *c);
void serve_config_free(struct serve_config *c);

/*
 * Set @name (as the long option: "listen", "pid", "cgroup"...) to @value. -ENOENT (bare): there is no such setting; -EINVAL with a
 * message.
 */
int serve_config_set(struct serve_config *c, const char *name, const char *value) _must_use_;
/* Lines "name = value"; # begins a comment. */
int serve_config_read(struct serve_config *c, const char *path) _must_use_;
/* Is something to be followed? */
int serve_config_check(const struct serve_config *c) _must_use_;

/* Until SIGINT or SIGTERM. */
int serve_run(const struct serve_config *c) _must_use_;

#endif
