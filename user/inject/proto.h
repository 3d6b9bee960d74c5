/* SPDX-License-Identifier: GPL-2.0 */
/* What goes over the socket between icp-bpf and its warden: a request, its data; a reply, its
 * data. Same binary, same ABI. */
#ifndef ICP_INJECT_PROTO_H
#define ICP_INJECT_PROTO_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum warden_op {
	WARDEN_UFFD,
	WARDEN_FREEZE,
	WARDEN_THREADS,
	WARDEN_REGSET,
	WARDEN_PTRACE,
	WARDEN_INJECT,
	WARDEN_THAW,
	WARDEN_KILL,
	WARDEN_LEAVE_STOPPED,
	WARDEN_REMOVE, /* data: a path */
	WARDEN_REPAIR, /* id: process, request: descriptor */
	WARDEN_HOLD,   /* data: a table of nft */
};

#define WARDEN_DATA_MAX (16u << 20)

struct warden_request {
	uint32_t op;
	int32_t id;	  /* process or thread */
	uint64_t request; /* ptrace request, register set, or 1 to follow children */
	uint64_t addr;	  /* ptrace address, or the deadline in ms */
	uint32_t room;	  /* most bytes of data to send back */
	uint32_t len;	  /* bytes of data that follow */
};

struct warden_reply {
	int32_t err;
	uint32_t len; /* bytes of data that follow */
	int64_t ret;
	uint64_t ns;
	char text[512]; /* why, when err */
};

/* The server: answers requests from @sock until its end of file or the death of @owner_pidfd.
 */
void warden_serve(int sock, int owner_pidfd, int owner);

/* Both parts at once, like io_write_full() but without SIGPIPE, and with @fd (unless < 0)
 * attached. */
int warden_send(int sock, const void *head, size_t head_len, const void *data, size_t len,
		int fd) _must_use_;

#endif
