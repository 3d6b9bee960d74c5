// SPDX-License-Identifier: GPL-2.0
/* Is a running process one of an image, restarted? */
#include <string.h>

#include "state/creds.h"

#define STAT_FIRST 26 /* start_code */
#define STAT_LAST 48  /* arg_start */

bool state_origin_read(const struct target *t, struct state_origin *out)
{
	_cleanup_free_ char *stat = procfs_text(t, "stat"), *status = procfs_text(t, "status");
	int64_t fields[STAT_LAST - STAT_FIRST + 1];
	uint32_t pids[32];
	size_t n = status ? procfs_numbers(status, "NSpid", pids, 32) : 0;

	if (!stat || procfs_stat(stat, STAT_FIRST, STAT_LAST, fields)) {
		err_clear();
		return false;
	}
	*out = (struct state_origin){
		.mm = {(uint64_t)fields[0], (uint64_t)fields[28 - STAT_FIRST],
		       (uint64_t)fields[48 - STAT_FIRST]},
		.pid = n && n <= 32 ? pids[n - 1] : (uint32_t)t->pid,
	};
	return out->mm[1] && out->mm[2]; /* a kernel may hide them */
}

bool state_origin_is(const struct state_origin *o, const Icp__Process *image)
{
	const Icp__StateBlob *blob = state_find_blob(image->blobs, image->n_blobs, "ids");
	uint32_t pid = image->n_nspids ? image->nspids[image->n_nspids - 1] : image->pid;
	Icp__ProcessState *msg;
	bool same;

	if (pid != o->pid || image->no_memory || !blob || blob->version != IDS_VERSION)
		return false;
	msg = icp__process_state__unpack(NULL, blob->data.len, blob->data.data);
	if (!msg)
		return false;
	same = msg->mm && msg->mm->start_code == o->mm[0] && msg->mm->start_stack == o->mm[1] &&
	       msg->mm->arg_start == o->mm[2];
	icp__process_state__free_unpacked(msg, NULL);
	return same;
}
