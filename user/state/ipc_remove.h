/* SPDX-License-Identifier: GPL-2.0 */
/* Removing the System V objects of a job that is over. */
#ifndef ICP_STATE_IPC_REMOVE_H
#define ICP_STATE_IPC_REMOVE_H

#include "image/manifest.h"

struct ipc_removed {
	int kind;
	uint32_t key;
	int id;
};
struct ipc_removed_list {
	struct ipc_removed *data;
	size_t n, cap;
};

/*
 * Remove what a version and its restarts have left, and list it in @out. Refused, before anything is removed, when a process of
 * the job may live, or anybody uses one of the objects.
 */
int ipc_remove_left(const Icp__Manifest *m, const char *note_path,
		    struct ipc_removed_list *out) _must_use_;
const char *ipc_removed_kind(const struct ipc_removed *r); /* "segment" */

/* Where restarts of version @version of the repository @id leave their note. */
void ipc_note_path(const uint8_t id[16], uint32_t version, char path[128]);

#endif
