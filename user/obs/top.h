/* SPDX-License-Identifier: GPL-2.0 */
/* What `icp-bpf top` shows: the processes that are traced, their order, which one is meant. Knows no terminal. */
#ifndef ICP_OBS_TOP_H
#define ICP_OBS_TOP_H

#include <stdio.h>

#include "obs/sample.h"

#define TOP_HISTORY 600 /* samples */

enum top_sort { TOP_RATE, TOP_WWS, TOP_FAULTS, TOP_PID, TOP_NAME, TOP_SORTS };

struct top_row {
	pid_t session; /* whose it is; 0: our own */
	struct process_sample s;
	unsigned
		index; /* of the last sample, 0: there is none, its session only cuts checkpoints */
	bool seen;     /* in this round */
	double history[TOP_HISTORY]; /* bytes per second, the newest last */
	size_t n_history;
};

struct top {
	VEC(struct top_row *) rows; /* sorted */
	enum top_sort sort;
	bool reverse;
	pid_t selected, selected_session;
	uint64_t page_size;
};

/* A round: begin, each process, end. Who was not seen has gone. */
void top_begin(struct top *t);
/* A sample that was seen already (the same @index) changes nothing but the lists, if it has them. */
int top_see(struct top *t, pid_t session, unsigned index,
	    const struct process_sample *s) _must_use_;
void top_end(struct top *t);
void top_free(struct top *t);

/* Again in order, by @sort; a second time the same: in the opposite one. */
void top_sort_by(struct top *t, enum top_sort sort);
/* The row that is selected, -1: there are none. */
int top_selected(const struct top *t);
/* Select the row @by further down. */
void top_move(struct top *t, int by);
struct top_row *top_row_selected(const struct top *t);

/* Lines of the table, without the end of the line. At most @len bytes; printable ASCII. */
void top_header(const struct top *t, char *out, size_t len);
void top_line(const struct top *t, const struct top_row *r, char *out, size_t len);
/* @text with every byte that a terminal could take for something else as '?'. */
void top_clean(const char *text, char *out, size_t len);

#endif
