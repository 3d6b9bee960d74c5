/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Views of a trace: lines of text (redrawn in place on a terminal) or JSON Lines. A view writes to stdout only what it is
 * given and keeps nothing.
 */
#ifndef ICP_OBS_VIEW_H
#define ICP_OBS_VIEW_H

#include <stdio.h>

#include "base/err.h"
#include "obs/sample.h"

struct view {
	FILE *out;
	bool redraw; /* a terminal: each sample replaces the one before */
	int rows;    /* of the terminal, 0: unlimited */
};

/* All return 0; -EPIPE (bare) when whoever read the output is gone; a failure when it can't be written. */
struct view_ops {
	int (*start)(const struct view *v, const struct trace_info *info, const pid_t *pids,
		     size_t n);
	int (*sample)(const struct view *v, const struct trace_info *info,
		      const struct sample *s);
	int (*event)(const struct view *v, const struct trace_event *e);
	int (*summary)(const struct view *v, const struct trace_info *info,
		       const struct summary *s);
};

extern const struct view_ops view_text, view_json;

/* What all of them end with: flush the output and tell what became of it, as above. */
int view_flush(const struct view *v) _must_use_;

/* 4096 -> "4.0K", 1536 MiB -> "1.5G"; the buffer is returned. */
const char *human_bytes(double bytes, char buf[16]);
/* 1234567 -> "1,234,567" */
const char *human_count(uint64_t n, char buf[32]);

#endif
