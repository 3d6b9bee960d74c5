// SPDX-License-Identifier: GPL-2.0
/*
 * wire SCENE DIR [MORE]: sockets. As with reborn: DIR/ready, DIR/go, DIR/wrong.
 *
 *   serve 4|6|m   listen (IPv4, IPv6, IPv4 on an IPv6 socket); DIR/port says where. Exchange
 *                 streams with the first client until it ends its own; DIR/total: how much
 *   both          the same between two processes of the job
 *   sockets       everything that stands still: half closed, reset, listening, UDP...
 *   packet, raw   a socket that is refused
 *   address A     listen on that address
 *   quiet 4|6|m   accept one client, receive nothing; it must be closed after "go"
 */
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "lib/stream.h"
#include "reborn.h"

static int get_int(int fd, int level, int name)
{
	socklen_t len = sizeof(int);
	int value = 0;

	check(!getsockopt(fd, level, name, &value, &len));
	return value;
}

static void set_int(int fd, int level, int name, int value)
{
	check(!setsockopt(fd, level, name, &value, sizeof(value)));
}

static unsigned port_of(int fd)
{
	struct sockaddr_in6 a;
	socklen_t len = sizeof(a);

	check(!getsockname(fd, (struct sockaddr *)&a, &len));
	return ntohs(a.sin6_port);
}

static int listen_on(const char *how, int backlog, bool reuse)
{
	bool v4 = how[0] == '4';
	int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in a4 = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6};

	if (how[0] == '6')
		a6.sin6_addr = in6addr_loopback;
	set_int(fd, SOL_SOCKET, SO_REUSEADDR, reuse);
	check(fd >= 0 &&
	      !(v4 ? bind(fd, (void *)&a4, sizeof(a4)) : bind(fd, (void *)&a6, sizeof(a6))));
	check(!listen(fd, backlog));
	return fd;
}

/* ---- streams ---- */

static void write_number(const char *name, uint64_t n)
{
	int fd = open(in_dir("number"), O_WRONLY | O_CREAT | O_TRUNC, 0666);

	check(fd >= 0);
	dprintf(fd, "%lu", n);
	close(fd);
	check(!rename(in_dir("number"), in_dir(name)));
}

/* Listening for one client, whose port is told at once. */
static int accept_one(const char *how)
{
	/* what is left of a connection may stand in the way of a server without it */
	int listener = listen_on(how, 5, true), fd;

	write_number("port", port_of(listener));
	ready();
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	check(fd >= 0);
	return fd;
}

static void scene_serve(const char *how)
{
	struct stream s = {.fd = accept_one(how), .out_seed = 1, .in_seed = 2};

	while (!s.ended)
		if (!stream_step(&s, true, 1000))
			wrong("byte %lu is wrong (errno %d)", s.received, errno);
	check(!shutdown(s.fd, SHUT_WR));
	write_number("sent", s.sent);
	write_number("received", s.received);
	nap_ms(10);
}

/* It is killed first. */
static bool parent_lives(pid_t ppid)
{
	for (int i = 0; errno == ECONNRESET && i < 100; i++) {
		if (getppid() != ppid)
			pause();
		nap_ms(5);
	}
	return true;
}

/* The parent ends the stream when it is told; the child answers with its own end. */
static void scene_both(const char *how)
{
	int listener = listen_on("4", 5, false), fd = socket(AF_INET, SOCK_STREAM, 0), status;
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)port_of(listener)),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	bool parent, told = false;
	struct stream s;
	pid_t child, ppid;

	check(!connect(fd, (void *)&a, sizeof(a)));
	check(!fcntl(fd, F_SETFL, O_NONBLOCK));
	child = fork();
	parent = child != 0;
	ppid = getppid();
	s = (struct stream){.fd = fd, .out_seed = 3, .in_seed = 4};
	if (!parent) {
		close(fd);
		s = (struct stream){.fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK),
				    .out_seed = 4,
				    .in_seed = 3};
	}
	close(listener);
	while (!s.ended) {
		errno = 0;
		if (!stream_step(&s, !told, 20) && parent_lives(ppid))
			wrong("%s: byte %lu is wrong, %lu were sent (errno %d)",
			      parent ? "parent" : "child", s.received, s.sent, errno);
		if (parent && s.received > 100000)
			ready();
		if (parent && !told && !access(in_dir("go"), F_OK)) {
			check(!shutdown(fd, SHUT_WR));
			told = true;
		}
	}
	if (!parent)
		_exit(shutdown(s.fd, SHUT_WR) ? 1 : 0);
	check(waitpid(child, &status, 0) == child && !status);
}

/* ---- what stands still ---- */

struct pair {
	int a, b;
};

static struct pair connected(const char *how)
{
	int listener = listen_on(how, 5, false);
	bool v4 = how[0] == '4';
	struct pair p = {socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM, 0), -1};
	struct sockaddr_in6 a;
	socklen_t len = sizeof(a);

	check(!getsockname(listener, (void *)&a, &len));
	if (how[0] == 'm')
		check(inet_pton(AF_INET6, "::ffff:127.0.0.1", &a.sin6_addr) == 1);
	check(!connect(p.a, (void *)&a, len));
	p.b = accept(listener, NULL, NULL);
	check(p.b >= 0);
	close(listener);
	return p;
}

static void expect(int fd, const char *text)
{
	char buf[64] = "";
	size_t len = strlen(text), n = 0;
	ssize_t got;

	while (n < len && (got = recv(fd, buf + n, len - n, 0)) > 0)
		n += (size_t)got;
	if (n != len || memcmp(buf, text, len))
		wrong("'%.*s' instead of '%s' (errno %d)", (int)n, buf, text, errno);
}

static void expect_end(int fd)
{
	char byte;

	check(recv(fd, &byte, 1, 0) == 0);
}

static short look(int fd)
{
	struct pollfd p = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};

	check(poll(&p, 1, 0) >= 0);
	return p.revents;
}

static void say(int fd, const char *text)
{
	check(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

struct still {
	struct pair queued[3], half, rests, shut;
	int reset, ended, fresh, bound;
	int listen4, listen6, udp, udp_peer, mcast, netlink;
	uint16_t port;
};

static void make_tcp(struct still *s)
{
	static const char *const ways[] = {"4", "6", "m"};
	struct linger rst = {1, 0};
	struct pair p;

	for (int i = 0; i < 3; i++) {
		s->queued[i] = connected(ways[i]);
		set_int(s->queued[i].a, IPPROTO_TCP, TCP_NODELAY, 1);
		set_int(s->queued[i].a, SOL_SOCKET, SO_KEEPALIVE, 1);
		set_int(s->queued[i].a, IPPROTO_TCP, TCP_KEEPIDLE, 77);
		set_int(s->queued[i].a, IPPROTO_TCP, TCP_USER_TIMEOUT, 12345);
		say(s->queued[i].a, "from a to b");
		say(s->queued[i].b, "from b to a");
	}
	s->half = connected("4"); /* FIN_WAIT2, CLOSE_WAIT */
	say(s->half.a, "last words");
	check(!shutdown(s->half.a, SHUT_WR));
	s->shut = connected("4"); /* both have said all */
	say(s->shut.a, "one");
	say(s->shut.b, "two");
	check(!shutdown(s->shut.a, SHUT_WR) && !shutdown(s->shut.b, SHUT_WR));
	s->rests = connected("6");
	check(!shutdown(s->rests.a, SHUT_RD));
	p = connected("4");
	s->reset = p.a;
	check(!setsockopt(p.b, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst)));
	close(p.b);
	p = connected("6");
	s->ended = p.a;
	check(!setsockopt(p.b, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst)));
	close(p.b);
	nap_ms(50);
	check(recv(s->ended, &p, 1, 0) == -1 && errno == ECONNRESET);
	s->fresh = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	s->bound = socket(AF_INET6, SOCK_STREAM, 0);
	check(!bind(s->bound,
		    (void *)&(struct sockaddr_in6){.sin6_family = AF_INET6,
						   .sin6_addr = IN6ADDR_LOOPBACK_INIT},
		    sizeof(struct sockaddr_in6)));
	s->port = (uint16_t)port_of(s->bound);
	s->listen4 = listen_on("4", 7, false);
	set_int(s->listen4, IPPROTO_TCP, TCP_DEFER_ACCEPT, 5);
	set_int(s->listen4, IPPROTO_TCP, TCP_FASTOPEN, 9);
}

static void make_v6only(struct still *s)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6};
	struct sockaddr_in b = {.sin_family = AF_INET};
	int other = -1;

again:
	close(other);
	other = socket(AF_INET, SOCK_STREAM, 0);
	s->listen6 = socket(AF_INET6, SOCK_STREAM, 0);
	set_int(s->listen6, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	set_int(s->listen6, SOL_SOCKET, SO_REUSEADDR, 1);
	check(!bind(s->listen6, (void *)&a, sizeof(a)) && !listen(s->listen6, 3));
	b.sin_port = htons((uint16_t)port_of(s->listen6));
	/* the same port of IPv4 is another's */
	if (bind(other, (void *)&b, sizeof(b))) { /* it is somebody's already */
		close(s->listen6);
		goto again;
	}
	check(!listen(other, 1));
}

static void make_others(struct still *s)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct ip_mreqn group = {.imr_ifindex = 1};
	struct sock_filter code = BPF_STMT(BPF_RET | BPF_K, 0xffff);
	struct sock_fprog all = {1, &code};
	struct sockaddr_nl nl = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
	socklen_t len = sizeof(a);

	s->udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	s->udp_peer = socket(AF_INET, SOCK_DGRAM, 0);
	check(!bind(s->udp, (void *)&a, sizeof(a)));
	check(!getsockname(s->udp, (void *)&a, &len));
	check(!connect(s->udp_peer, (void *)&a, sizeof(a)));
	set_int(s->udp, IPPROTO_IP, IP_PKTINFO, 1);
	set_int(s->udp, IPPROTO_IP, IP_TTL, 33);
	set_int(s->udp, SOL_SOCKET, SO_BROADCAST, 1);
	set_int(s->udp, SOL_SOCKET, SO_RCVBUF, 30000);
	set_int(s->udp, SOL_SOCKET, SO_PEEK_OFF, 3);
	check(!setsockopt(s->udp, SOL_SOCKET, SO_ATTACH_FILTER, &all, sizeof(all)));
	s->mcast = socket(AF_INET, SOCK_DGRAM, 0);
	group.imr_multiaddr.s_addr = inet_addr("239.7.7.7");
	check(!setsockopt(s->mcast, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof(group)));
	set_int(s->mcast, IPPROTO_IP, IP_MULTICAST_TTL, 3);
	s->netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	check(!bind(s->netlink, (void *)&nl, sizeof(nl)));
	set_int(s->netlink, SOL_SOCKET, SO_PASSCRED, 1);
}

static void check_queued(const struct pair *p)
{
	check(get_int(p->a, IPPROTO_TCP, TCP_NODELAY) == 1);
	check(get_int(p->a, SOL_SOCKET, SO_KEEPALIVE) == 1);
	check(get_int(p->a, IPPROTO_TCP, TCP_KEEPIDLE) == 77);
	check(get_int(p->a, IPPROTO_TCP, TCP_USER_TIMEOUT) == 12345);
	check(get_int(p->b, IPPROTO_TCP, TCP_NODELAY) == 0);
	check(get_int(p->a, SOL_SOCKET, SO_REUSEADDR) == 0);
	expect(p->b, "from a to b");
	expect(p->a, "from b to a");
	say(p->a, "again");
	say(p->b, "and again");
	expect(p->b, "again");
	expect(p->a, "and again");
	close(p->a);
	expect_end(p->b);
}

static void check_ends(struct still *s)
{
	check(!(look(s->half.a) & (POLLRDHUP | POLLHUP)));
	expect(s->half.b, "last words");
	expect_end(s->half.b);
	check(look(s->half.b) & POLLRDHUP && !(look(s->half.b) & POLLHUP));
	say(s->half.b, "not yet");
	expect(s->half.a, "not yet");
	check(send(s->half.a, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	close(s->half.b);
	expect_end(s->half.a);

	expect(s->shut.a, "two");
	expect_end(s->shut.a);
	expect(s->shut.b, "one");
	expect_end(s->shut.b);
	check(look(s->shut.a) & POLLHUP);
	check(send(s->shut.b, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);

	expect_end(s->rests.a);
	say(s->rests.a, "one way");
	expect(s->rests.b, "one way");
}

static void check_closed(int fd, bool told)
{
	char byte;

	check(look(fd) & POLLHUP && look(fd) & POLLRDHUP);
	check(!!(look(fd) & POLLERR) == !told);
	if (!told)
		check(recv(fd, &byte, 1, 0) == -1 && errno == ECONNRESET);
	expect_end(fd);
	check(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
}

static void check_unconnected(struct still *s)
{
	struct sockaddr_in6 a;
	socklen_t len = sizeof(a);
	struct tcp_info info;
	int fd;

	check(fcntl(s->fresh, F_GETFL) & O_NONBLOCK);
	check(!getsockname(s->listen4, (void *)&a, &len));
	check(connect(s->fresh, (void *)&a, len) == -1 && errno == EINPROGRESS);
	check(send(s->fresh, "x", 1, MSG_NOSIGNAL) == 1); /* not accepted without data */
	fd = accept(s->listen4, NULL, NULL);
	check(fd >= 0);
	expect(fd, "x");
	close(s->fresh); /* first: it keeps its own port busy, not the listener's */
	nap_ms(5);
	close(fd);
	len = sizeof(info);
	check(!getsockopt(s->listen4, IPPROTO_TCP, TCP_INFO, &info, &len));
	check(info.tcpi_sacked == 7);
	check(get_int(s->listen4, IPPROTO_TCP, TCP_FASTOPEN) == 9);
	check(get_int(s->listen4, IPPROTO_TCP, TCP_DEFER_ACCEPT) > 0);
	check(get_int(s->listen4, SOL_SOCKET, SO_REUSEADDR) == 0);
	check(get_int(s->listen6, SOL_SOCKET, SO_REUSEADDR) == 1);
	check(get_int(s->listen6, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
	check(port_of(s->bound) == s->port && !listen(s->bound, 1));
}

static void check_others(struct still *s)
{
	struct ip_mreqn group = {.imr_ifindex = 1};
	struct sock_filter code[4];
	uint32_t groups = 0;
	socklen_t len = 4;

	check(get_int(s->udp, IPPROTO_IP, IP_PKTINFO) == 1);
	check(get_int(s->udp, IPPROTO_IP, IP_TTL) == 33);
	check(get_int(s->udp, SOL_SOCKET, SO_BROADCAST) == 1);
	check(get_int(s->udp, SOL_SOCKET, SO_RCVBUF) == 60000);
	check(get_int(s->udp, SOL_SOCKET, SO_PEEK_OFF) == 3);
	check(get_int(s->netlink, SOL_SOCKET, SO_PASSCRED) == 1);
	check(!getsockopt(s->udp, SOL_SOCKET, SO_GET_FILTER, code, &len));
	check(len == 1 && code[0].code == (BPF_RET | BPF_K) && code[0].k == 0xffff);
	check(recv(s->udp, &len, 1, 0) == -1 && errno == EAGAIN);
	say(s->udp_peer, "datagram");
	nap_ms(5);
	expect(s->udp, "datagram");
	group.imr_multiaddr.s_addr = inet_addr("239.7.7.7");
	check(!setsockopt(s->mcast, IPPROTO_IP, IP_DROP_MEMBERSHIP, &group, sizeof(group)));
	check(get_int(s->mcast, IPPROTO_IP, IP_MULTICAST_TTL) == 3);
	len = sizeof(groups);
	check(!getsockopt(s->netlink, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, &groups, &len));
	check(groups == 1);
}

static void scene_sockets(const char *how)
{
	struct still s = {0};

	make_tcp(&s);
	make_v6only(&s);
	make_others(&s);
	ready();
	wait_go();
	for (int i = 0; i < 3; i++)
		check_queued(&s.queued[i]);
	check_ends(&s);
	check_closed(s.reset, false);
	check_closed(s.ended, true);
	check_unconnected(&s);
	check_others(&s);
}

static void scene_quiet(const char *how)
{
	int fd = accept_one(how);

	write_number("accepted", 1);
	wait_go();
	while (!(look(fd) & POLLERR)) /* as soon as the peer has answered */
		nap_ms(5);
	check_closed(fd, false);
}

static void scene_packet(const char *how)
{
	check(socket(AF_PACKET, SOCK_RAW, 0) >= 0);
	ready();
	wait_go();
}

static void scene_raw(const char *how)
{
	check(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) >= 0);
	ready();
	wait_go();
}

/* An address that will not be there any more. */
static void scene_address(const char *how)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(how)};

	check(!bind(fd, (void *)&a, sizeof(a)) && !listen(fd, 1));
	ready();
	wait_go();
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*play)(const char *how);
	} scenes[] = {{"serve", scene_serve},	  {"both", scene_both},
		      {"sockets", scene_sockets}, {"quiet", scene_quiet},
		      {"packet", scene_packet},	  {"raw", scene_raw},
		      {"address", scene_address}};

	if (argc < 3)
		return 2;
	set_dir(argv[2]);
	for (size_t i = 0; i < sizeof(scenes) / sizeof(*scenes); i++)
		if (!strcmp(argv[1], scenes[i].name))
			return scenes[i].play(argc > 3 ? argv[3] : "4"), 0;
	return 2;
}
