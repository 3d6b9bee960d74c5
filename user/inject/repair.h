/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What only TCP_REPAIR tells of a connection. It is a state of the socket that would stay: a
 * socket in it can't be written to. So it is the warden that switches it on and, some
 * microseconds later, off; should it be killed just then, its second (second.h) and whoever asked it call repair_end().
 */
#ifndef ICP_INJECT_REPAIR_H
#define ICP_INJECT_REPAIR_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* struct tcp_repair_window of <linux/tcp.h>, which doesn't go with <netinet/tcp.h>. */
struct repair_window {
	uint32_t snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup;
};

struct repair_state {
	uint32_t rcv_nxt, write_seq; /* each counts a FIN */
	uint32_t to_read;	     /* bytes that are received and not read */
	uint32_t to_send;	     /* bytes that are written and not acknowledged: the data */
	uint32_t unsent;	     /* how many at their end were never sent */
	uint32_t mss;
	struct repair_window window;
};

/*
 * Of a socket whose owners are frozen. @data, of @room bytes, gets what is to send. -E2BIG: there
 * is no room for it.
 */
int repair_read(int sock, struct repair_state *out, void *data, size_t room) _must_use_;

/* Off, without sending anything; what being in it did to SO_REUSEADDR is put right. */
void repair_end(int sock, int reuse);

#endif
