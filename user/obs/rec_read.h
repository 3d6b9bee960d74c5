/* SPDX-License-Identifier: GPL-2.0 */
/* Between rec_read.c (blocks) and rec_parse.c (records) only. */
#ifndef ICP_OBS_REC_READ_H
#define ICP_OBS_REC_READ_H

#include "obs/rec.h"
#include "obs/rec_format.h"

struct rec_reader {
	FILE *file;
	struct rec_start start;
	VEC(char *) strings;
	VEC(struct rec_process) processes;
	VEC(struct rec_thread) threads;
	VEC(struct rec_site) sites;
	VEC(struct rec_stack *) stacks;
	VEC(struct rec_run) runs; /* of the TAKE that was returned last */
	VEC(uint8_t) raw;	  /* the block */
	VEC(uint8_t) stored;
	size_t at; /* in raw */
	uint64_t blocks, offset;
	/* where deltas start from */
	VEC(uint64_t) last_addr; /* by process */
	uint64_t last_time;
	uint32_t last_thread, last_site;
	bool ended, over;
	char damage[160];
};

/* One record: 1 when it is an item, 0 when only a table has grown, -EINVAL when it makes no sense, -ENOMEM. */
int rec_parse(struct rec_reader *r, struct rec_item *out) _must_use_;

#endif
