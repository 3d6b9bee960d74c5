// SPDX-License-Identifier: GPL-2.0
/* Processes outside a job that attach its segments: their writes are part of the job's memory. */
#include <errno.h>
#include <string.h>

#include "proc/sysvshm.h"
#include "session/internal.h"

static bool is_in(const pid_list *list, pid_t pid)
{
	vec_each (p, list)
		if (*p == pid)
			return true;
	return false;
}

static bool of_job(const struct sysvshm_attachment *a, size_t n, const pid_list *pids)
{
	for (size_t i = 0; i < n; i++)
		if (is_in(pids, a[i].pid))
			return true;
	return false;
}

static int take_peer(const struct checkpoint_request *r, const struct sysvshm_segment *s,
		     pid_t pid, pid_list *roots, struct dump_result *out)
{
	struct dump_peer peer = {.pid = pid, .key = s->key, .shmid = s->shmid};
	pid_t *slot;

	if (!tasks_comm(pid, peer.comm)) /* it has ended */
		return 0;
	switch (r->shm_peers) {
	case SHM_PEERS_REFUSE:
		return refuse(
			-EBUSY,
			"pid %d (%s) attaches the segment with key %#x (id %d) and is not "
			"part of the job: name it with --pid, too, or use --shm-peers",
			pid, peer.comm, (unsigned)s->key, s->shmid);
	case SHM_PEERS_INCLUDE:
		slot = is_in(roots, pid) ? NULL : vec_push(roots);
		if (!slot && !is_in(roots, pid))
			return fail(-ENOMEM, "processes of the job");
		if (slot)
			*slot = pid;
		return 0;
	default:
		if (out->n_peers < DUMP_PEERS)
			out->peers[out->n_peers++] = peer;
		return 0;
	}
}

/* How often the processes @pids attach segment @shmid, as the kernel counts it. */
static uint64_t attachments(struct session *s, const pid_list *pids, int32_t shmid)
{
	uint64_t n = 0;

	vec_each (pid, pids) {
		struct tracked *p = session_find(s, *pid);

		for (size_t i = 0; p && i < p->maps.n; i++)
			n += p->maps.data[i].kind == VMA_SHM &&
			     (int32_t)p->maps.data[i].inode == shmid;
	}
	return n;
}

/* Reading the maps of every process of the machine takes a while: only if there must be others. */
static bool has_others(struct session *s, const pid_list *pids, const struct sysvshm *list)
{
	vec_each (seg, list) {
		uint64_t ours = attachments(s, pids, seg->shmid);

		if (ours && ours != seg->nattch)
			return true;
	}
	return false;
}

int peers_look(struct session *s, const struct checkpoint_request *r, const pid_list *pids,
	       pid_list *roots, struct dump_result *out)
{
	_cleanup_sysvshm_ struct sysvshm list = {0};
	_cleanup_sysvshm_attachments_ struct sysvshm_attachments all = {0};
	int err = sysvshm_read(&list);

	out->n_peers = 0;
	if (err || !has_others(s, pids, &list))
		return err;
	err = sysvshm_attachments(&all);
	for (size_t i = 0; i < list.n && !err; i++) {
		size_t n;
		const struct sysvshm_attachment *a =
			sysvshm_attachments_of(&all, list.data[i].shmid, &n);

		for (size_t k = 0; of_job(a, n, pids) && k < n && !err; k++)
			if ((!k || a[k].pid != a[k - 1].pid) && !is_in(pids, a[k].pid))
				err = take_peer(r, &list.data[i], a[k].pid, roots, out);
	}
	return err;
}
