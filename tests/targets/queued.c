// SPDX-License-Identifier: GPL-2.0
/*
 * queued SCENE DIR [MORE]: what is under way when a checkpoint comes. As with reborn: DIR/ready,
 * DIR/go, DIR/wrong. DIR/again tells that it was restarted, not just looked at.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <linux/errqueue.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "reborn.h"

static bool restarted(void)
{
	return !access(in_dir("again"), F_OK);
}

static void say(int fd, const char *text)
{
	check(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

static void hear(int fd, const char *text)
{
	char buf[64] = "";
	ssize_t got = recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT);

	if (got != (ssize_t)strlen(text) || strcmp(buf, text))
		wrong("heard '%s' (%zd, errno %d) instead of '%s'", buf, got, errno, text);
}

static void silent(int fd)
{
	char byte;

	check(recv(fd, &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
}

static void write_number(const char *name, unsigned n)
{
	int fd = open(in_dir("number"), O_WRONLY | O_CREAT | O_TRUNC, 0666);

	check(fd >= 0 && dprintf(fd, "%u", n) > 0);
	close(fd);
	check(!rename(in_dir("number"), in_dir(name)));
}

/* ---- descriptors: each kind of socket, each direction, several at once ---- */

#define RIGHTS 4

static void send_fds(int to, const char *text, const int *fds, size_t n)
{
	char control[CMSG_SPACE(RIGHTS * sizeof(int))] = {0};
	struct iovec iov = {(void *)text, strlen(text)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	check(sendmsg(to, &msg, 0) == (ssize_t)iov.iov_len);
}

/* How many came with it. */
static size_t hear_fds(int from, const char *text, int fds[RIGHTS])
{
	char control[CMSG_SPACE(RIGHTS * sizeof(int))], buf[64] = "";
	struct iovec iov = {buf, strlen(text)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	ssize_t got = recvmsg(from, &msg, MSG_DONTWAIT);
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	if (got != (ssize_t)strlen(text) || strcmp(buf, text))
		wrong("heard '%s' (%zd, errno %d) instead of '%s'", buf, got, errno, text);
	if (!c)
		return 0;
	memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	return (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
}

struct way {
	int ends[2], held; /* one we keep of what is in flight */
};

/* A connection by name, or a pair. */
static void open_way(struct way *w, int type, bool named)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int l;

	if (!named) {
		check(!socketpair(AF_UNIX, type, 0, w->ends));
		return;
	}
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", in_dir("way"));
	unlink(a.sun_path);
	l = socket(AF_UNIX, type, 0);
	check(!bind(l, (void *)&a, sizeof(a)) && !listen(l, 1));
	w->ends[0] = socket(AF_UNIX, type, 0);
	check(!connect(w->ends[0], (void *)&a, sizeof(a)));
	w->ends[1] = accept(l, NULL, NULL);
	check(w->ends[1] >= 0);
	close(l);
}

/* Both directions: a pipe and a counter, with text before and after. */
static void fill_way(struct way *w)
{
	for (int i = 0; i < 2; i++) {
		int fds[RIGHTS], pipe_ends[2];

		check(!pipe(pipe_ends) && write(pipe_ends[1], "inside", 6) == 6);
		fds[0] = pipe_ends[0];
		fds[1] = pipe_ends[1];
		fds[2] = eventfd(41 + (unsigned)i, 0);
		fds[3] = w->ends[i]; /* itself */
		say(w->ends[i], "before");
		send_fds(w->ends[i], "four", fds, 4);
		send_fds(w->ends[i], "one", fds + 2, 1);
		say(w->ends[i], "after");
		close(fds[0]);
		close(fds[1]);
		if (i)
			close(fds[2]);
		else
			w->held = fds[2];
	}
}

static void check_way(struct way *w)
{
	for (int i = 0; i < 2; i++) {
		int from = w->ends[!i], fds[RIGHTS], one[RIGHTS];
		char buf[16] = "";
		uint64_t count = 0;

		check(hear_fds(from, "before", fds) == 0);
		check(hear_fds(from, "four", fds) == 4);
		check(hear_fds(from, "one", one) == 1);
		hear(from, "after");
		check(read(fds[0], buf, sizeof(buf)) == 6 && !strcmp(buf, "inside"));
		check(write(fds[1], "x", 1) == 1 && read(fds[0], buf, 1) == 1);
		check(read(one[0], &count, 8) == 8 && count == 41 + (uint64_t)i);
		/* one description, also the one that was kept */
		count = 7;
		check(write(i ? fds[2] : w->held, &count, 8) == 8);
		check(read(one[0], &count, 8) == 8 && count == 7);
		say(fds[3], "through itself");
		hear(from, "through itself");
		for (int k = 0; k < RIGHTS; k++)
			close(fds[k]);
		close(one[0]);
	}
}

static void scene_rights(const char *more)
{
	struct way ways[5];

	open_way(&ways[0], SOCK_STREAM, false);
	open_way(&ways[1], SOCK_SEQPACKET, false);
	open_way(&ways[2], SOCK_DGRAM, false);
	open_way(&ways[3], SOCK_STREAM, true);
	open_way(&ways[4], SOCK_SEQPACKET, true);
	for (int i = 0; i < 5; i++)
		fill_way(&ways[i]);
	ready();
	wait_go();
	for (int i = 0; i < 5; i++)
		check_way(&ways[i]);
}

/* ---- TCP ---- */

static int listen_here(struct sockaddr_in *a)
{
	int l = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	socklen_t len = sizeof(*a);

	*a = (struct sockaddr_in){.sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	check(!setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
	check(!bind(l, (void *)a, len) && !listen(l, 5) && !getsockname(l, (void *)a, &len));
	return l;
}

/* Two wait to be accepted, one of which has said something. */
static void scene_accept(const char *more)
{
	struct sockaddr_in a;
	int l = listen_here(&a), fd;
	struct pollfd p = {l, POLLIN, 0};

	write_number("port", ntohs(a.sin_port));
	ready();
	wait_go();
	if (restarted()) {
		check(fcntl(l, F_SETFL, O_NONBLOCK) == 0);
		check(poll(&p, 1, 0) == 0 && accept(l, NULL, NULL) == -1 && errno == EAGAIN);
		write_number("empty", 1);
	}
	check(poll(&p, 1, 20000) == 1);
	fd = accept(l, NULL, NULL);
	check(fd >= 0);
	say(fd, "welcome");
}

/* Nobody answers until DIR/go: the connection comes up then. */
static void scene_connect(const char *more)
{
	struct sockaddr_in a;
	int l = listen_here(&a), fds[2], error;
	socklen_t len = sizeof(error);

	write_number("port", ntohs(a.sin_port));
	while (access(in_dir("closed"), F_OK)) /* the road */
		nap_ms(2);
	for (int i = 0; i < 2; i++) {
		struct sockaddr_in6 b = {.sin6_family = AF_INET6, .sin6_port = a.sin_port};

		/* ::ffff:127.0.0.1 */
		memcpy((char *)&b.sin6_addr + 10, "\xff\xff\x7f\0\0\1", 6);
		fds[i] = socket(i ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		check(connect(fds[i], i ? (void *)&b : (void *)&a, i ? sizeof(b) : sizeof(a)) ==
			      -1 &&
		      errno == EINPROGRESS);
	}
	ready();
	wait_go();
	for (int i = 0; i < 2; i++) {
		struct pollfd p = {fds[i], POLLOUT, 0};

		check(poll(&p, 1, 30000) == 1 && p.revents == POLLOUT);
		check(!getsockopt(fds[i], SOL_SOCKET, SO_ERROR, &error, &len) && !error);
		say(fds[i], "here I am");
	}
	for (int i = 0; i < 2; i++) {
		int fd = accept(l, NULL, NULL);

		check(fd >= 0 && recv(fd, &(char[16]){0}, 9, MSG_WAITALL) == 9);
	}
}

/* ---- UDP ---- */

static int bound_udp(struct sockaddr_in *a)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	socklen_t len = sizeof(*a);

	*a = (struct sockaddr_in){.sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	check(!bind(fd, (void *)a, len) && !getsockname(fd, (void *)a, &len));
	return fd;
}

static void wait_readable(int fd, short events)
{
	struct pollfd p = {fd, events, 0};

	check(poll(&p, 1, 10000) == 1);
}

/* Two datagrams, half of one that is corked, and an error that was not told. */
static void scene_udp(const char *more)
{
	struct sockaddr_in a, nobody;
	int s = bound_udp(&a), c = socket(AF_INET, SOCK_DGRAM, 0), e, gone = bound_udp(&nobody);
	char control[512];
	struct msghdr msg = {.msg_control = control, .msg_controllen = sizeof(control)};
	int on = 1;

	check(!connect(c, (void *)&a, sizeof(a)));
	say(c, "first");
	say(c, "second");
	check(send(c, "half ", 5, MSG_MORE) == 5);
	close(gone);
	e = socket(AF_INET, SOCK_DGRAM, 0);
	check(!setsockopt(e, IPPROTO_IP, 11 /* IP_RECVERR */, &on, sizeof(on)));
	check(!connect(e, (void *)&nobody, sizeof(nobody)));
	say(e, "anybody?");
	wait_readable(e, 0); /* POLLERR */
	wait_readable(s, POLLIN);
	ready();
	wait_go();
	if (restarted()) {
		silent(s);
		check(recvmsg(e, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) == -1 && errno == EAGAIN);
		say(c, "whole");
		wait_readable(s, POLLIN);
		hear(s, "whole");
	} else {
		hear(s, "first");
		hear(s, "second");
		check(recvmsg(e, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0);
		check(send(c, "whole", 5, 0) == 5);
		wait_readable(s, POLLIN);
		hear(s, "half whole");
	}
	/* it still asks for errors, and knows where to send to */
	on = 0;
	check(!getsockopt(e, IPPROTO_IP, 11, &on, &(socklen_t){sizeof(on)}) && on == 1);
}

/* ---- an empty datagram, of which every look leaves a mark ---- */

static void scene_empty(const char *more)
{
	int d[2];

	check(!socketpair(AF_UNIX, SOCK_DGRAM, 0, d));
	check(send(d[0], "", 0, 0) == 0);
	say(d[0], "something");
	ready();
	wait_go();
	if (!restarted()) {
		hear(d[1], "");
	} else { /* it may be lost */
		char buf[64] = "";
		ssize_t got = recv(d[1], buf, sizeof(buf), MSG_DONTWAIT);

		check(!got || (got == 9 && !memcmp(buf, "something", 9)));
		if (got) {
			silent(d[1]);
			return;
		}
	}
	hear(d[1], "something");
	silent(d[1]);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*play)(const char *more);
	} scenes[] = {{"rights", scene_rights},
		      {"accept", scene_accept},
		      {"connect", scene_connect},
		      {"udp", scene_udp},
		      {"empty", scene_empty}};

	if (argc < 3)
		return 2;
	set_dir(argv[2]);
	for (size_t i = 0; i < sizeof(scenes) / sizeof(*scenes); i++)
		if (!strcmp(argv[1], scenes[i].name))
			return scenes[i].play(argc > 3 ? argv[3] : NULL), 0;
	return 2;
}
