/* SPDX-License-Identifier: GPL-2.0 */
/* Between the two halves of TCP. */
#ifndef ICP_STATE_TCP_H
#define ICP_STATE_TCP_H

#include <netinet/tcp.h>

#include "state/inet.h"

/* tcp_restore.c */
int tcp_verify(struct restore_job *job, const Icp__OpenFile *f) _must_use_;
int tcp_open(struct restore_job *job, const Icp__OpenFile *f) _must_use_;
int tcp_late(struct restore_job *job, const Icp__OpenFile *f, int fd) _must_use_;

/* Data may still come or go. */
static inline bool tcp_is_connected(uint32_t state)
{
	return state == TCP_ESTABLISHED || state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 ||
	       state == TCP_CLOSE_WAIT || state == TCP_LAST_ACK || state == TCP_CLOSING;
}

/* The peer has said that there will be no more. */
static inline bool tcp_read_ended(uint32_t state)
{
	return state == TCP_CLOSE_WAIT || state == TCP_LAST_ACK || state == TCP_CLOSING;
}

/* We have. */
static inline bool tcp_write_ended(uint32_t state)
{
	return state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 || state == TCP_LAST_ACK ||
	       state == TCP_CLOSING;
}

/* Whether connections can be read and made at all. Bare -EPERM. */
int tcp_may_repair(void) _must_use_;

#endif
