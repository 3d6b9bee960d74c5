// SPDX-License-Identifier: GPL-2.0
#include "inject/repair.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#ifndef TCP_REPAIR_OFF_NO_WP
#define TCP_REPAIR_OFF_NO_WP (-1)
#endif
#define REPAIR_ON 1
#define REPAIR_WINDOW 29 /* TCP_REPAIR_WINDOW */
#define TRIES 1000

enum { NO_QUEUE, RECV_QUEUE, SEND_QUEUE };

static int get(int sock, int name, void *out, socklen_t len)
{
	return getsockopt(sock, IPPROTO_TCP, name, out, &len) ? -errno : 0;
}

static int set(int sock, int name, int value)
{
	return setsockopt(sock, IPPROTO_TCP, name, &value, sizeof(value)) ? -errno : 0;
}

void repair_end(int sock, int reuse)
{
	int on = 0;

	if (get(sock, TCP_REPAIR, &on, sizeof(on)) || !on)
		return;
	if (set(sock, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP))
		errno = 0;
	setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
}

/* The network goes on meanwhile: both numbers of one moment. */
static int read_received(int sock, struct repair_state *out)
{
	uint32_t again = 0;
	int bytes = 0, err = set(sock, TCP_REPAIR_QUEUE, RECV_QUEUE);

	for (int i = 0; i < TRIES && !err; i++) {
		err = get(sock, TCP_QUEUE_SEQ, &out->rcv_nxt, sizeof(out->rcv_nxt));
		if (!err && ioctl(sock, SIOCINQ, &bytes))
			err = -errno;
		if (!err)
			err = get(sock, TCP_QUEUE_SEQ, &again, sizeof(again));
		if (!err && again == out->rcv_nxt) {
			out->to_read = (uint32_t)bytes;
			return 0;
		}
	}
	return err ? err : -EAGAIN;
}

/* Not longer than needed: with this queue selected what an acknowledgement would let out is
 * marked as sent, and goes out only when its timer says that it was lost. */
static int read_sent(int sock, struct repair_state *out, void *data, size_t room)
{
	int bytes = 0, unsent = 0, err;
	ssize_t got = 0;

	if (ioctl(sock, SIOCOUTQ, &bytes) || ioctl(sock, SIOCOUTQNSD, &unsent))
		return -errno;
	if ((size_t)bytes > room)
		return -E2BIG;
	err = set(sock, TCP_REPAIR_QUEUE, SEND_QUEUE);
	if (!err)
		err = get(sock, TCP_QUEUE_SEQ, &out->write_seq, sizeof(out->write_seq));
	if (!err && bytes)
		got = recv(sock, data, room, MSG_PEEK | MSG_DONTWAIT);
	if (got < 0 && errno != EAGAIN)
		err = -errno;
	out->to_send = got < 0 ? 0 : (uint32_t)got;
	out->unsent = (uint32_t)unsent;
	return err ? err : set(sock, TCP_REPAIR_QUEUE, NO_QUEUE);
}

int repair_read(int sock, struct repair_state *out, void *data, size_t room)
{
	socklen_t len = sizeof(int);
	int reuse = 0, err;

	*out = (struct repair_state){0};
	memset(data, 0, room); /* no fault later */
	if (getsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &reuse, &len))
		return -errno;
	err = set(sock, TCP_REPAIR, REPAIR_ON);
	if (err)
		return err;
	err = read_received(sock, out);
	if (!err)
		err = get(sock, REPAIR_WINDOW, &out->window, sizeof(out->window));
	if (!err)
		err = get(sock, TCP_MAXSEG, &out->mss, sizeof(out->mss));
	if (!err)
		err = read_sent(sock, out, data, room);
	repair_end(sock, reuse);
	return err;
}
