/* SPDX-License-Identifier: GPL-2.0 */
/* sock_diag(7): what it tells of sockets that nothing else does. */
#ifndef ICP_STATE_SOCK_DIAG_H
#define ICP_STATE_SOCK_DIAG_H

#include <linux/netlink.h>
#include <stddef.h>

#include "state/inet.h"

/* Each answer to @ask, of our network namespace, to @take, until that says other than 0: what it
 * said, or a bare negative errno that the kernel said. */
int sock_diag_ask(const struct nlmsghdr *ask, int (*take)(const struct nlmsghdr *h, void *arg),
		  void *arg) _must_use_;

/* Of a TCP socket with these addresses: the bytes that were received and not read yet, whatever
 * stands between them; a FIN counts. Bare -ENOENT: there is none. */
int tcp_diag_received(const Icp__InetSocket *s, uint32_t *out) _must_use_;
/* Whom a socket in state SYN_SENT connects to, which getpeername(2) doesn't tell. Bare -ENOENT. */
int tcp_diag_peer(uint64_t inode, uint32_t family, union address *out) _must_use_;

#endif
