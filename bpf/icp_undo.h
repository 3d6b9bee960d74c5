/* SPDX-License-Identifier: GPL-2.0 */
/* Between bpf/undo.bpf.c and user/track/undo.c. */
#ifndef ICP_UNDO_H
#define ICP_UNDO_H

#define ICP_UNDO_SETS 32768
#define ICP_UNDO_VALUES 65536

struct icp_undo_key {
	int tgid; /* in the initial pid namespace */
	int semid;
	unsigned int num;
};

#endif
