// SPDX-License-Identifier: GPL-2.0
/* Do the connections of a job's Unix sockets stay within the job? */
#include <errno.h>
#include <stdlib.h>

#include "state/fd_unix.h"

static int by_inode(const void *a, const void *b)
{
	uint64_t x = ((const struct unix_end *)a)->inode,
		 y = ((const struct unix_end *)b)->inode;

	return (x > y) - (x < y);
}

void unix_ends_sort(struct unix_ends *all)
{
	if (all->n)
		qsort(all->data, all->n, sizeof(*all->data), by_inode);
}

const struct unix_end *unix_ends_find(const struct unix_ends *all, uint64_t inode)
{
	struct unix_end key = {.inode = inode};

	return inode && all->n ? bsearch(&key, all->data, all->n, sizeof(*all->data), by_inode)
			       : NULL;
}

static int outside(const struct unix_end *e, const char *what)
{
	if (e->fd == UINT32_MAX)
		return refuse(-EOPNOTSUPP,
			      "a socket in flight %s: --no-restart saves the "
			      "data only, --tcp-close saves it as closed",
			      what);
	return refuse(-EOPNOTSUPP,
		      "pid %u: descriptor %u is a Unix socket %s, which can't be restarted: "
		      "--tcp-close saves it as closed, --no-restart saves the data only",
		      e->pid, e->fd, what);
}

static int check_waiting(const struct unix_ends *all, const struct unix_end *e)
{
	for (size_t i = 0; i < e->u->n_waiting; i++) {
		const struct unix_end *client = unix_ends_find(all, e->u->waiting[i]);

		if (!e->u->waiting[i] || (client && client->u && client->u->unread))
			return refuse(-EAGAIN,
				      "a connection to a Unix socket has sent something and "
				      "wasn't accepted yet: try again");
		if (!client)
			return outside(e, "that a process outside of the job waits to be "
					  "connected to");
	}
	return 0;
}

static bool waits(const struct unix_ends *all, uint64_t inode)
{
	for (size_t i = 0; i < all->n; i++) {
		const Icp__UnixSocket *u = all->data[i].u;

		for (size_t k = 0; u && u->listening && k < u->n_waiting; k++)
			if (u->waiting[k] == inode)
				return true;
	}
	return false;
}

int unix_ends_check(const struct unix_ends *all, const struct unix_end *e)
{
	bool has_peer = unix_ends_find(all, e->u->peer);

	if (e->u->listening)
		return check_waiting(all, e);
	if (e->u->peer && !has_peer && (e->type != SOCK_DGRAM || !e->u->peer_name.len))
		return outside(e, "connected to a process outside of the job");
	if (e->type != SOCK_DGRAM && e->u->connected && !e->u->peer && !(e->u->shutdown & 1) &&
	    !waits(all, e->inode))
		return outside(e, "that waits for a process outside of the job");
	return 0;
}
