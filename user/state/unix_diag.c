// SPDX-License-Identifier: GPL-2.0
/* Who a Unix socket's peer is, and who waits: /proc has no word of it. */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "state/fd_unix.h"

#define ANSWER_MAX 65536

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

static int take_answer(const struct nlmsghdr *h, size_t got, struct unix_diag *out)
{
	const struct unix_diag_msg *msg = NLMSG_DATA(h);
	int left, err = 0;

	if (!NLMSG_OK(h, got))
		return refuse(-EPROTO, "the kernel's answer about a socket makes no sense");
	if (h->nlmsg_type == NLMSG_ERROR)
		err = ((struct nlmsgerr *)NLMSG_DATA(h))->error;
	if (err)
		return err == -ENOENT ? err : fail(err, "ask for a socket's peer");
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
	_cleanup_fd_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	_cleanup_free_ char *answer = malloc(ANSWER_MAX);
	ssize_t got;

	*out = (struct unix_diag){0};
	if (!answer)
		return fail(-ENOMEM, "note a socket");
	if (fd < 0 || send(fd, &ask, sizeof(ask), 0) != sizeof(ask))
		return fail(-errno, "ask for a socket's peer");
	got = recv(fd, answer, ANSWER_MAX, 0);
	if (got < 0)
		return fail(-errno, "ask for a socket's peer");
	return take_answer((const struct nlmsghdr *)answer, (size_t)got, out);
}
