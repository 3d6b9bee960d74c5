// SPDX-License-Identifier: GPL-2.0
/*
 * barred SCENE DIR: holds something that can't be restarted, and says so (DIR/ready; DIR/missing:
 * this machine has no such thing). Then it sleeps, without waking up by itself, until SIGUSR1, and
 * checks that nobody took anything away.
 */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "reborn.h"

static void missing(void)
{
	close(open(in_dir("missing"), O_WRONLY | O_CREAT, 0666));
}

static void sleep_until_told(void)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	ready();
	check(!sigwait(&set, &sig));
}

static void expect(int fd, const char *text, int flags)
{
	char buf[64] = "";
	size_t len = strlen(text);

	check(recv(fd, buf, sizeof(buf), MSG_DONTWAIT | flags) == (ssize_t)len);
	check(!memcmp(buf, text, len));
}

static void say(int fd, const char *text)
{
	check(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

/* ---- who is outside ---- */

/* A process that is not part of the job: it ends with the pipe that it gets. */
static pid_t outsider(void)
{
	int told[2], life[2];
	pid_t pid = 0, child;

	check(!pipe(told) && !pipe(life));
	child = fork();
	if (!child) {
		pid = fork();
		if (pid)
			_exit(0);
		setsid();
		pid = getpid();
		close(life[1]);
		check(write(told[1], &pid, sizeof(pid)) == sizeof(pid));
		poll(&(struct pollfd){.fd = life[0]}, 1, -1);
		_exit(0);
	}
	check(waitpid(child, NULL, 0) == child);
	check(read(told[0], &pid, sizeof(pid)) == sizeof(pid));
	close(told[0]);
	close(told[1]);
	/* the other end of a pipe must not be what stands in the way */
	check(dup2(life[1], 1) == 1);
	close(life[0]);
	close(life[1]);
	return pid;
}

static void scene_epoll(void)
{
	int e = epoll_create1(0), target = eventfd(0, 0);
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 77};

	check(!epoll_ctl(e, EPOLL_CTL_ADD, target, &event));
	outsider();
	close(target);
	sleep_until_told();
}

static void scene_pidfd(void)
{
	check(syscall(SYS_pidfd_open, outsider(), 0) >= 0);
	sleep_until_told();
}

static void scene_proc(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/stat", outsider());
	check(open(path, O_RDONLY) >= 0);
	sleep_until_told();
}

/* A pair of which the other process has one end. */
static void scene_unix(void)
{
	int ends[2];

	check(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends));
	outsider();
	close(ends[1]);
	sleep_until_told();
}

static void scene_pipe(void)
{
	int ends[2];

	check(!pipe(ends));
	outsider();
	close(ends[0]);
	sleep_until_told();
}

/* ---- Unix sockets ---- */

static int listener(const char *name, struct sockaddr_un *a, socklen_t *len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(a->sun_path, sizeof(a->sun_path), "%s", in_dir(name));
	*len = sizeof(*a);
	check(!bind(fd, (void *)a, *len) && !listen(fd, 5));
	return fd;
}

static void scene_unaccepted(void)
{
	struct sockaddr_un a;
	socklen_t len;
	int l = listener("socket", &a, &len), c = socket(AF_UNIX, SOCK_STREAM, 0);

	check(!connect(c, (void *)&a, len));
	say(c, "hello");
	sleep_until_told();
	expect(accept(l, NULL, NULL), "hello", 0);
}

static void scene_hung_up(void)
{
	struct sockaddr_un a;
	socklen_t len;
	int l = listener("socket", &a, &len), c = socket(AF_UNIX, SOCK_STREAM, 0);

	check(!connect(c, (void *)&a, len));
	close(c);
	sleep_until_told();
	expect(accept(l, NULL, NULL), "", 0);
}

static void scene_unix_oob(void)
{
	int ends[2];

	check(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	if (send(ends[0], "!", 1, MSG_OOB) != 1)
		missing();
	sleep_until_told();
}

/* ---- filters ---- */

static int filter_program(void)
{
	struct {
		uint32_t type, n;
		uint64_t insns, license;
		char rest[96];
	} attr = {.type = 1, .n = 2};
	/* r0 = -1; exit */
	uint64_t code[2] = {0xffffffff000000b7u, 0x95};

	attr.insns = (uint64_t)(uintptr_t)code;
	attr.license = (uint64_t)(uintptr_t) "GPL";
	return (int)syscall(SYS_bpf, 5 /* BPF_PROG_LOAD */, &attr, sizeof(attr));
}

static void filtered(int fd)
{
	int prog = filter_program();

	check(fd >= 0);
	if (prog < 0 || setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &prog, sizeof(prog)))
		missing();
	close(prog);
	sleep_until_told();
}

static void scene_unix_filter(void)
{
	int ends[2];

	check(!socketpair(AF_UNIX, SOCK_DGRAM, 0, ends));
	filtered(ends[0]);
}

static void scene_udp_filter(void)
{
	filtered(socket(AF_INET, SOCK_DGRAM, 0));
}

/* ---- network namespaces: of the socket, not of the process ---- */

static void elsewhere(int family, int type)
{
	int here = open("/proc/self/ns/net", O_RDONLY), fd;

	check(here >= 0 && !unshare(CLONE_NEWNET));
	fd = socket(family, type, 0);
	check(fd >= 0 && !setns(here, CLONE_NEWNET));
	close(here);
	sleep_until_told();
}

static void scene_unix_elsewhere(void)
{
	elsewhere(AF_UNIX, SOCK_STREAM);
}

static void scene_tcp_elsewhere(void)
{
	elsewhere(AF_INET, SOCK_STREAM);
}

static void scene_netlink_elsewhere(void)
{
	elsewhere(AF_NETLINK, SOCK_RAW);
}

/* ---- protocols ---- */

static void scene_netlink(void)
{
	static const int protocols[] = {NETLINK_NETFILTER, NETLINK_XFRM, NETLINK_AUDIT,
					NETLINK_CONNECTOR, NETLINK_CRYPTO};
	int fd = -1;

	for (size_t i = 0; i < sizeof(protocols) / sizeof(*protocols) && fd < 0; i++)
		fd = socket(AF_NETLINK, SOCK_RAW, protocols[i]);
	if (fd < 0)
		missing();
	sleep_until_told();
}

static void protocol(int family, int type, int number)
{
	if (socket(family, type, number) < 0)
		missing();
	sleep_until_told();
}

static void scene_mptcp(void)
{
	protocol(AF_INET, SOCK_STREAM, 262);
}

static void scene_sctp(void)
{
	protocol(AF_INET, SOCK_STREAM, IPPROTO_SCTP);
}

static void scene_vsock(void)
{
	protocol(40 /* AF_VSOCK */, SOCK_STREAM, 0);
}

static void scene_raw(void)
{
	protocol(AF_INET, SOCK_RAW, IPPROTO_ICMP);
}

static void scene_packet(void)
{
	protocol(AF_PACKET, SOCK_RAW, 0);
}

/* ---- TCP ---- */

static void connected(int *a, int *b)
{
	struct sockaddr_in name = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(name);
	int l = socket(AF_INET, SOCK_STREAM, 0);

	*a = socket(AF_INET, SOCK_STREAM, 0);
	check(!bind(l, (void *)&name, len) && !listen(l, 1));
	check(!getsockname(l, (void *)&name, &len) && !connect(*a, (void *)&name, len));
	*b = accept(l, NULL, NULL);
	check(*b >= 0);
	close(l);
}

static void scene_ulp(void)
{
	int a, b;

	connected(&a, &b);
	if (setsockopt(a, IPPROTO_TCP, 31 /* TCP_ULP */, "tls", sizeof("tls")))
		missing();
	sleep_until_told();
}

static void send_urgent(int a, int b)
{
	struct pollfd p = {.fd = b, .events = POLLPRI};

	say(a, "before");
	check(send(a, "!", 1, MSG_OOB) == 1);
	say(a, "after");
	check(poll(&p, 1, 10000) == 1);
	while (recv(b, &(char[16]){0}, 16, MSG_PEEK | MSG_DONTWAIT) != 6)
		nap_ms(1);
	nap_ms(20); /* what comes after it can't be seen */
}

static void scene_urgent(void)
{
	int a, b;

	connected(&a, &b);
	send_urgent(a, b);
	sleep_until_told();
	expect(b, "before", 0);
	expect(b, "!", MSG_OOB);
	expect(b, "after", 0);
}

/* The byte itself was read, what was in front of it wasn't. */
static void scene_urgent_read(void)
{
	int a, b;

	connected(&a, &b);
	send_urgent(a, b);
	expect(b, "!", MSG_OOB);
	sleep_until_told();
	expect(b, "before", 0);
	expect(b, "after", 0);
}

static void scene_urgent_inline(void)
{
	int a, b, on = 1;

	connected(&a, &b);
	check(!setsockopt(b, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on)));
	send_urgent(a, b);
	sleep_until_told();
	expect(b, "before", 0);
	expect(b, "!after", 0);
}

static void scene_zerocopy(void)
{
	int a, b, on = 1;

	connected(&a, &b);
	check(!setsockopt(a, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)));
	sleep_until_told();
}

static void scene_udp_zerocopy(void)
{
	int fd = socket(AF_INET6, SOCK_DGRAM, 0), on = 1;

	check(!setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)));
	sleep_until_told();
}

static void scene_too_much(void)
{
	int a, b, room = 64 << 20;
	char *data = calloc(1, 1 << 20);
	ssize_t put, all = 0;

	connected(&a, &b);
	if (setsockopt(a, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)))
		missing();
	while ((put = send(a, data, 1 << 20, MSG_DONTWAIT)) > 0)
		all += put;
	check(all > 20 << 20);
	sleep_until_told();
}

/* ---- memory ---- */

static void scene_memfd(void)
{
	int fd = (int)syscall(SYS_memfd_create, "half", 0);

	check(!ftruncate(fd, 2 * PAGE));
	check(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED);
	sleep_until_told();
}

/* The descriptor is closed; the mapping is what stays. */
static void scene_mapping(void)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
				       .size = sizeof(attr),
				       .config = PERF_COUNT_SW_DUMMY,
				       .exclude_kernel = 1};
	int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);

	if (fd < 0 ||
	    mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED)
		missing();
	close(fd);
	sleep_until_told();
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*play)(void);
	} scenes[] = {{"epoll", scene_epoll},
		      {"pidfd", scene_pidfd},
		      {"proc", scene_proc},
		      {"unix", scene_unix},
		      {"pipe", scene_pipe},
		      {"unaccepted", scene_unaccepted},
		      {"hung_up", scene_hung_up},
		      {"unix_oob", scene_unix_oob},
		      {"unix_filter", scene_unix_filter},
		      {"udp_filter", scene_udp_filter},
		      {"unix_elsewhere", scene_unix_elsewhere},
		      {"tcp_elsewhere", scene_tcp_elsewhere},
		      {"netlink_elsewhere", scene_netlink_elsewhere},
		      {"netlink", scene_netlink},
		      {"mptcp", scene_mptcp},
		      {"sctp", scene_sctp},
		      {"vsock", scene_vsock},
		      {"raw", scene_raw},
		      {"packet", scene_packet},
		      {"ulp", scene_ulp},
		      {"urgent", scene_urgent},
		      {"urgent_read", scene_urgent_read},
		      {"urgent_inline", scene_urgent_inline},
		      {"zerocopy", scene_zerocopy},
		      {"udp_zerocopy", scene_udp_zerocopy},
		      {"too_much", scene_too_much},
		      {"memfd", scene_memfd},
		      {"mapping", scene_mapping}};
	sigset_t set;

	if (argc < 3)
		return 2;
	set_dir(argv[2]);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (size_t i = 0; i < sizeof(scenes) / sizeof(*scenes); i++)
		if (!strcmp(argv[1], scenes[i].name))
			return scenes[i].play(), 0;
	return 2;
}
