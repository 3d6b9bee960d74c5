// SPDX-License-Identifier: GPL-2.0
/* Who a Unix socket's peer is, and who waits: /proc has no word of it. */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stdlib.h>
#include <string.h>

#include "state/fd_unix.h"
#include "state/sock_diag.h"

static uint32_t number_of(const struct rtattr *a, size_t at)
{
	uint32_t value = 0;

	if (RTA_PAYLOAD(a) >= (at + 1) * sizeof(value))
		memcpy(&value, (char *)RTA_DATA(a) + at * sizeof(value), sizeof(value));
	return value;
}

static int take(const struct rtattr *a, struct unix_diag *out)
{
	switch (a->rta_type) {
	case UNIX_DIAG_PEER:
		out->peer = number_of(a, 0);
		break;
	case UNIX_DIAG_RQLEN:
		out->received = number_of(a, 0);
		out->room = number_of(a, 1);
		break;
	case UNIX_DIAG_SHUTDOWN:
		out->shutdown = *(uint8_t *)RTA_DATA(a);
		break;
	case UNIX_DIAG_ICONS:
		out->n_waiting = RTA_PAYLOAD(a) / sizeof(uint32_t);
		out->waiting = malloc(RTA_PAYLOAD(a) + 1);
		if (!out->waiting)
			return fail(-ENOMEM, "note a socket");
		memcpy(out->waiting, RTA_DATA(a), out->n_waiting * sizeof(uint32_t));
		break;
	}
	return 0;
}

static int take_answer(const struct nlmsghdr *h, void *arg)
{
	const struct unix_diag_msg *msg = NLMSG_DATA(h);
	struct unix_diag *out = arg;
	int left, err = 0;

	out->state = msg->udiag_state;
	left = (int)(h->nlmsg_len - NLMSG_LENGTH(sizeof(*msg)));
	for (const struct rtattr *a = (const struct rtattr *)(msg + 1); RTA_OK(a, left) && !err;
	     a = RTA_NEXT(a, left))
		err = take(a, out);
	return err;
}

int unix_diag(uint32_t inode, struct unix_diag *out)
{
	struct {
		struct nlmsghdr h;
		struct unix_diag_req r;
	} ask = {.h = {.nlmsg_len = sizeof(ask),
		       .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		       .nlmsg_flags = NLM_F_REQUEST},
		 .r = {.sdiag_family = AF_UNIX,
		       .udiag_states = ~0u,
		       .udiag_ino = inode,
		       .udiag_show = UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN,
		       .udiag_cookie = {~0u, ~0u}}};
	int err;

	*out = (struct unix_diag){0};
	err = sock_diag_ask(&ask.h, take_answer, out);
	return err && err != -ENOENT ? fail(err, "ask for a socket's peer") : err;
}
