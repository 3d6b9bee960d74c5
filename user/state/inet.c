// SPDX-License-Identifier: GPL-2.0
/* Addresses, multicast groups, and the message of a socket. */
#include "state/inet.h"
#include "state/sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWER_MAX (64u << 10)
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

int inet_bytes(ProtobufCBinaryData *out, const void *data, size_t len)
{
	out->data = malloc(len + 1);
	if (!out->data)
		return fail(-ENOMEM, "note a socket");
	if (len)
		memcpy(out->data, data, len);
	out->len = len;
	return 0;
}

void inet_free(void *arg)
{
	Icp__InetSocket *s = arg;

	if (s)
		icp__inet_socket__free_unpacked(s, NULL);
}

static int get_int(int fd, int level, int name, uint32_t *out)
{
	socklen_t len = sizeof(*out);

	return getsockopt(fd, level, name, out, &len) ? fail(-errno, "look at a socket") : 0;
}

/* Of the socket, where the kernel tells (5.14); a process may have it from elsewhere. */
static bool is_in_our_network(const struct state_process *p, int fd)
{
	_cleanup_fd_ int own = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint64_t its_cookie = 0, our_cookie = 0;
	socklen_t len = sizeof(our_cookie);
	struct stat ours, its;

	if (own >= 0 && !getsockopt(own, SOL_SOCKET, SO_NETNS_COOKIE, &our_cookie, &len) &&
	    !getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &its_cookie, &len))
		return its_cookie == our_cookie;
	return stat("/proc/self/ns/net", &ours) ||
	       fstatat(p->target->proc_fd, "ns/net", &its, 0) || ours.st_ino == its.st_ino;
}

int inet_check(struct state_process *p, const struct fd_info *f)
{
	_cleanup_fd_ int fd = fd_borrow(p, f->fd);

	if (fd >= 0 && !is_in_our_network(p, fd))
		return refuse(-EOPNOTSUPP,
			      "a socket of another network namespace than icp-bpf's");
	return fd < 0 ? fd : sock_check(fd);
}

int inet_check_zerocopy(int fd)
{
	uint32_t on = 0;
	int err = get_int(fd, SOL_SOCKET, SO_ZEROCOPY, &on);

	if (err)
		return err;
	return on ? refuse(-EOPNOTSUPP, "a socket that may send with MSG_ZEROCOPY") : 0;
}

static int dump_addresses(int fd, Icp__InetSocket *s)
{
	union address a = {0};
	socklen_t len = sizeof(a);
	int err = 0;

	if (getsockname(fd, &a.any, &len))
		return fail(-errno, "look at a socket");
	/* a port or nothing: an address alone may be bound to, for the port to come later */
	if (s->family == AF_NETLINK || a.v4.sin_port)
		err = inet_bytes(&s->name, &a, len);
	len = sizeof(a);
	if (!err && s->family != AF_NETLINK && !getpeername(fd, &a.any, &len))
		err = inet_bytes(&s->peer, &a, len);
	return err;
}

int inet_dump_names(int fd, Icp__InetSocket **out)
{
	Icp__InetSocket *s = *out = malloc(sizeof(*s));
	int err;

	if (!s)
		return fail(-ENOMEM, "note a socket");
	icp__inet_socket__init(s);
	err = get_int(fd, SOL_SOCKET, SO_DOMAIN, &s->family);
	if (!err)
		err = get_int(fd, SOL_SOCKET, SO_TYPE, &s->type);
	if (!err)
		err = get_int(fd, SOL_SOCKET, SO_PROTOCOL, &s->protocol);
	return err ? err : dump_addresses(fd, s);
}

int inet_dump(int fd, Icp__InetSocket **out)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);
	/* before the addresses: a connection that comes up meanwhile has a peer */
	bool is_tcp = !getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len);
	int err = inet_dump_names(fd, out);
	Icp__InetSocket *s = *out;

	if (!err && is_tcp && s->protocol == IPPROTO_TCP) {
		s->state = info.tcpi_state;
		if (s->state == TCP_LISTEN)
			s->backlog = info.tcpi_sacked;
	}
	return err ? err : inet_dump_options(fd, s);
}

int inet_finish(const struct description *d, Icp__OpenFile *out)
{
	Icp__InetSocket *s = d->note;

	return s ? fd_pack_detail(out, &s->base) : 0;
}

/* ---- multicast ---- */

/* A member of the group? The kernel says so only when it is asked for that very one. */
static int ask_group(int fd, Icp__InetSocket *s, const union address *group, unsigned index)
{
	_cleanup_free_ struct group_filter *f = calloc(1, ANSWER_MAX);
	socklen_t len = ANSWER_MAX;
	int level = group->any.sa_family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
	ProtobufCBinaryData *list;

	if (!f)
		return fail(-ENOMEM, "note a socket");
	f->gf_interface = index;
	f->gf_group = group->room;
	f->gf_numsrc = 256;
	if (getsockopt(fd, level, MCAST_MSFILTER, f, &len))
		return 0;
	list = realloc(s->groups, (s->n_groups + 1) * sizeof(*list));
	if (!list)
		return fail(-ENOMEM, "note a socket");
	s->groups = list;
	list[s->n_groups] = (ProtobufCBinaryData){0};
	return inet_bytes(&list[s->n_groups++], f, len);
}

/*
 * /proc/net/igmp: "1  lo : 1 V3" then lines that begin with "  010000E0", as it is in memory.
 */
static int groups_of_4(int fd, Icp__InetSocket *s, char *text)
{
	unsigned index = 0, address;
	int err = 0;

	for (char *line = strtok_r(text, "\n", &text); line && !err;
	     line = strtok_r(NULL, "\n", &text)) {
		union address group = {.v4.sin_family = AF_INET};

		if (line[0] != '\t' && line[0] != ' ') {
			index = (unsigned)strtoul(line, NULL, 10);
		} else if (index && sscanf(line, " %8x", &address) == 1) {
			group.v4.sin_addr.s_addr = address;
			err = ask_group(fd, s, &group, index);
		}
	}
	return err;
}

/* /proc/net/igmp6: "1    lo              ff020000000000000000000000000001     1 0000000C 0" */
static int groups_of_6(int fd, Icp__InetSocket *s, char *text)
{
	char hex[33];
	unsigned index;
	int err = 0;

	for (char *line = strtok_r(text, "\n", &text); line && !err;
	     line = strtok_r(NULL, "\n", &text)) {
		union address group = {.v6.sin6_family = AF_INET6};
		bool good = sscanf(line, "%u %*s %32[0-9a-f]", &index, hex) == 2;

		for (int i = 0; good && i < 16; i++)
			good = sscanf(hex + 2 * i, "%2hhx", &group.v6.sin6_addr.s6_addr[i]) ==
			       1;
		if (good)
			err = ask_group(fd, s, &group, index);
	}
	return err;
}

int inet_dump_groups(int fd, Icp__InetSocket *s)
{
	_cleanup_free_ char *v4 = NULL, *v6 = NULL;
	int err = 0;

	if (!io_read_file(AT_FDCWD, "/proc/net/igmp", &v4, NULL))
		err = groups_of_4(fd, s, v4);
	if (!err && s->family == AF_INET6 &&
	    !io_read_file(AT_FDCWD, "/proc/net/igmp6", &v6, NULL))
		err = groups_of_6(fd, s, v6);
	return err;
}

int inet_set_groups(int fd, const Icp__InetSocket *s)
{
	for (size_t i = 0; i < s->n_groups; i++) {
		const struct group_filter *f = (const void *)s->groups[i].data;
		struct group_req join = {0};
		int level;

		if (s->groups[i].len < GROUP_FILTER_SIZE(0) ||
		    s->groups[i].len < GROUP_FILTER_SIZE(f->gf_numsrc))
			return refuse(-EBADMSG, "a multicast group makes no sense");
		level = f->gf_group.ss_family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
		join.gr_interface = f->gf_interface;
		join.gr_group = f->gf_group;
		if (setsockopt(fd, level, MCAST_JOIN_GROUP, &join, sizeof(join)) ||
		    ((f->gf_numsrc || f->gf_fmode == MCAST_INCLUDE) &&
		     setsockopt(fd, level, MCAST_MSFILTER, f, (socklen_t)s->groups[i].len)))
			return fail(-errno, "join a multicast group");
	}
	return 0;
}

/* ---- restart ---- */

socklen_t inet_address(const ProtobufCBinaryData *data, union address *out)
{
	memset(out, 0, sizeof(*out));
	if (data->len > sizeof(*out))
		return 0;
	if (data->len)
		memcpy(out, data->data, data->len);
	return (socklen_t)data->len;
}

const char *inet_text(const ProtobufCBinaryData *data, char text[80])
{
	char ip[INET6_ADDRSTRLEN] = "?";
	union address a;

	if (!inet_address(data, &a))
		snprintf(text, 80, "no address");
	else if (a.any.sa_family == AF_INET)
		snprintf(text, 80, "%s:%u", inet_ntop(AF_INET, &a.v4.sin_addr, ip, sizeof(ip)),
			 ntohs(a.v4.sin_port));
	else
		snprintf(text, 80, "[%s]:%u",
			 inet_ntop(AF_INET6, &a.v6.sin6_addr, ip, sizeof(ip)),
			 ntohs(a.v6.sin6_port));
	return text;
}

static bool address_fits(const ProtobufCBinaryData *data, uint32_t family)
{
	union address a;
	socklen_t len = inet_address(data, &a);

	if (!data->len)
		return true;
	return a.any.sa_family == family &&
	       len == (family == AF_INET    ? sizeof(a.v4)
		       : family == AF_INET6 ? sizeof(a.v6)
					    : sizeof(struct sockaddr_nl));
}

int inet_unpack(const Icp__OpenFile *f, Icp__InetSocket **out)
{
	int err = fd_unpack_detail(f, &icp__inet_socket__descriptor, out);
	const Icp__InetSocket *s = *out;

	if (err)
		return err;
	if ((s->family != AF_INET && s->family != AF_INET6 && s->family != AF_NETLINK) ||
	    !address_fits(&s->name, s->family) || !address_fits(&s->peer, s->family))
		return refuse(-EBADMSG, "a socket of the image makes no sense");
	return 0;
}

/* Binding a datagram socket to it, any port: nobody notices. */
int inet_check_address(const Icp__InetSocket *s)
{
	_cleanup_fd_ int fd = -1;
	union address a;
	socklen_t len = inet_address(&s->name, &a);
	char text[80];

	for (size_t i = 0; i < s->n_options; i++)
		if ((s->options[i]->level == IPPROTO_IP &&
		     (s->options[i]->name == IP_FREEBIND ||
		      s->options[i]->name == IP_TRANSPARENT)) ||
		    (s->options[i]->level == SOL_SOCKET &&
		     s->options[i]->name == SO_BINDTODEVICE))
			return 0;
	fd = socket((int)s->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(-errno, "make a socket");
	if (!len)
		return 0;
	a.v4.sin_port = 0;
	if (!bind(fd, &a.any, len) || errno != EADDRNOTAVAIL)
		return 0;
	inet_text(&s->name, text);
	return refuse(-EADDRNOTAVAIL,
		      "a socket of it has the address %s, which this machine has not: add it "
		      "(ip address add)",
		      text);
}

int inet_bind(int fd, const Icp__InetSocket *s)
{
	union address a;
	socklen_t len = inet_address(&s->name, &a);
	char text[80];

	if (!len || !bind(fd, &a.any, len))
		return 0;
	if (s->family == AF_NETLINK)
		return fail(-errno, "bind a netlink socket");
	return fail(-errno, "bind a socket to %s", inet_text(&s->name, text));
}
