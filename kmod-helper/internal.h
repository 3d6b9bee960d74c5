/* SPDX-License-Identifier: GPL-2.0 */
/* Between main.c (files, rights, ioctls) and walk.c (page tables) only. */
#ifndef ICP_INTERNAL_H
#define ICP_INTERNAL_H

#include <linux/list.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>

#include "icp_uapi.h"

struct icp_file {
	struct mutex lock;	/* one operation at a time */
	struct mm_struct *mm;	/* held by mm_count: NULL until it is bound */
	struct list_head bound; /* of all bound files */
	struct icp_run *runs;	/* ICP_RUNS_MAX */
	bool lost;		/* an answer could not be delivered */
	struct icp_stats stats;
};

/* One call of TAKE; the memory's lock is taken and released in here. */
int icp_walk(struct icp_file *f, struct icp_take *take);
/* One call of FRESH. */
int icp_fresh(struct icp_file *f, struct icp_take *take);

#endif
