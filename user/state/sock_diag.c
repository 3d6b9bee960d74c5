// SPDX-License-Identifier: GPL-2.0
#include "state/sock_diag.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWER_MAX 65536

/* 1: that was the last. */
static int take_all(const struct nlmsghdr *h, size_t got, bool dump,
		    int (*take)(const struct nlmsghdr *h, void *arg), void *arg)
{
	int err = dump ? 0 : 1;

	if (!NLMSG_OK(h, got))
		return refuse(-EPROTO, "the kernel's answer about a socket makes no sense");
	for (; NLMSG_OK(h, got); h = NLMSG_NEXT(h, got)) {
		int said;

		if (h->nlmsg_type == NLMSG_DONE)
			return 1;
		said = h->nlmsg_type == NLMSG_ERROR ? ((struct nlmsgerr *)NLMSG_DATA(h))->error
						    : take(h, arg);
		if (said)
			return said;
	}
	return err;
}

int sock_diag_ask(const struct nlmsghdr *ask, int (*take)(const struct nlmsghdr *h, void *arg),
		  void *arg)
{
	_cleanup_fd_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	_cleanup_free_ char *answer = malloc(ANSWER_MAX);
	int said = 0;

	if (!answer)
		return fail(-ENOMEM, "ask about a socket");
	if (fd < 0 || send(fd, ask, ask->nlmsg_len, 0) != (ssize_t)ask->nlmsg_len)
		return fail(-errno, "ask about a socket");
	while (!said) {
		ssize_t got = recv(fd, answer, ANSWER_MAX, 0);

		if (got < 0)
			return fail(-errno, "ask about a socket");
		said = take_all((const struct nlmsghdr *)answer, (size_t)got,
				(ask->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP, take, arg);
	}
	return said < 0 ? said : 0;
}

/* ---- TCP ---- */

struct ask_inet {
	struct nlmsghdr h;
	struct inet_diag_req_v2 r;
};

static struct ask_inet ask_tcp(uint32_t family, int flags)
{
	return (struct ask_inet){
		.h = {.nlmsg_len = sizeof(struct ask_inet),
		      .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		      .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags)},
		.r = {.sdiag_family = (uint8_t)family,
		      .sdiag_protocol = IPPROTO_TCP,
		      .id.idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}},
	};
}

static void put_address(const union address *a, __be16 *port, __be32 ip[4])
{
	*port = a->v4.sin_port;
	if (a->any.sa_family == AF_INET)
		ip[0] = a->v4.sin_addr.s_addr;
	else
		memcpy(ip, &a->v6.sin6_addr, sizeof(a->v6.sin6_addr));
}

static int take_received(const struct nlmsghdr *h, void *out)
{
	*(uint32_t *)out = ((const struct inet_diag_msg *)NLMSG_DATA(h))->idiag_rqueue;
	return 0;
}

int tcp_diag_received(const Icp__InetSocket *s, uint32_t *out)
{
	struct ask_inet ask = ask_tcp(s->family, 0);
	union address a;

	*out = 0;
	ask.r.idiag_states = ~0u;
	if (!inet_address(&s->name, &a))
		return -ENOENT;
	put_address(&a, &ask.r.id.idiag_sport, ask.r.id.idiag_src);
	if (!inet_address(&s->peer, &a))
		return -ENOENT;
	put_address(&a, &ask.r.id.idiag_dport, ask.r.id.idiag_dst);
	return sock_diag_ask(&ask.h, take_received, out);
}

struct looked_for {
	uint64_t inode;
	union address *out;
	bool found;
};

static int take_peer(const struct nlmsghdr *h, void *arg)
{
	const struct inet_diag_msg *msg = NLMSG_DATA(h);
	struct looked_for *l = arg;

	if (msg->idiag_inode != l->inode)
		return 0;
	l->found = true;
	memset(l->out, 0, sizeof(*l->out));
	l->out->any.sa_family = msg->idiag_family;
	l->out->v4.sin_port = msg->id.idiag_dport;
	if (msg->idiag_family == AF_INET)
		l->out->v4.sin_addr.s_addr = msg->id.idiag_dst[0];
	else
		memcpy(&l->out->v6.sin6_addr, msg->id.idiag_dst, sizeof(l->out->v6.sin6_addr));
	if (msg->idiag_family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&l->out->v6.sin6_addr))
		l->out->v6.sin6_scope_id = msg->id.idiag_if;
	return 0;
}

int tcp_diag_peer(uint64_t inode, uint32_t family, union address *out)
{
	struct ask_inet ask = ask_tcp(family, NLM_F_DUMP);
	struct looked_for l = {inode, out, false};
	int err;

	ask.r.idiag_states = 1u << TCP_SYN_SENT;
	err = sock_diag_ask(&ask.h, take_peer, &l);
	return err ? err : l.found ? 0 : -ENOENT;
}
