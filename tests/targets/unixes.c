// SPDX-License-Identifier: GPL-2.0
/* unixes SCENE DIR: Unix sockets that check themselves after a restart. */
#include "reborn.h"

#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static void say(int fd, const char *text)
{
	check(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

/* The next that is there is @text; not more of it. */
static void hear(int fd, const char *text)
{
	char buf[256] = "";
	ssize_t got = recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT);

	if (got != (ssize_t)strlen(text) || strcmp(buf, text))
		wrong("heard '%s' (%zd, errno %d) instead of '%s'", buf, got, errno, text);
}

static void silent(int fd)
{
	char byte;

	check(recv(fd, &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
}

static void ended(int fd)
{
	char byte;

	check(recv(fd, &byte, 1, MSG_DONTWAIT) == 0);
}

static void check_alive(int a, int b)
{
	say(a, "there");
	hear(b, "there");
	say(b, "and back");
	hear(a, "and back");
}

static int option(int fd, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	check(!getsockopt(fd, SOL_SOCKET, name, &value, &len));
	return value;
}

static void set(int fd, int name, int value)
{
	check(!setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value)));
}

static void send_fd(int to, const char *text, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {(void *)text, strlen(text)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	check(sendmsg(to, &msg, 0) == (ssize_t)iov.iov_len);
}

/* Reads @text with at most that many bytes; the descriptor that came with it, -1: none. */
static int hear_fd(int from, const char *text, struct ucred *creds)
{
	char control[256], buf[256] = "";
	struct iovec iov = {buf, strlen(text)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	ssize_t got = recvmsg(from, &msg, MSG_DONTWAIT);
	int fd = -1;

	if (got != (ssize_t)strlen(text) || strcmp(buf, text))
		wrong("heard '%s' (%zd, errno %d) instead of '%s'", buf, got, errno, text);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_type == SCM_RIGHTS)
			memcpy(&fd, CMSG_DATA(c), sizeof(fd));
		if (c->cmsg_type == SCM_CREDENTIALS && creds)
			memcpy(creds, CMSG_DATA(c), sizeof(*creds));
	}
	return fd;
}

static struct ucred peer_of(int fd)
{
	struct ucred c;
	socklen_t len = sizeof(c);

	check(!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len));
	return c;
}

/* ---- pairs: content, boundaries, options, ends that are shut or gone ---- */

static void scene_pairs(void)
{
	int s[2], q[2], d[2], shut[2], gone[2], reset[2], big[2], n;
	struct timeval timeout = {7, 250000}, got;
	struct linger linger = {1, 9}, got_linger;
	socklen_t len = sizeof(got);
	char *much = malloc(150000), buf[256], *all = malloc(150000);

	check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
	check(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, q));
	check(!socketpair(AF_UNIX, SOCK_DGRAM, 0, d) &&
	      !socketpair(AF_UNIX, SOCK_STREAM, 0, shut));
	check(!socketpair(AF_UNIX, SOCK_STREAM, 0, gone) &&
	      !socketpair(AF_UNIX, SOCK_STREAM, 0, reset) &&
	      !socketpair(AF_UNIX, SOCK_STREAM, 0, big));
	say(s[0], "one ");
	say(s[0], "two");
	say(q[0], "packet");
	say(q[0], "second packet");
	say(d[1], "datagram");
	say(d[1], "another");
	say(d[0], "the other way");
	say(shut[0], "last words");
	check(!shutdown(shut[0], SHUT_WR));
	say(gone[1], "my will");
	close(gone[1]);
	say(reset[0], "never read");
	close(reset[1]);
	for (int i = 0; i < 150000; i++)
		much[i] = (char)(i * 7919 >> 3);
	n = 0;
	while (n < 150000)
		n += (int)write(big[0], much + n, 30000);
	set(s[0], SO_SNDBUF, 30000);
	set(s[1], SO_PASSCRED, 1);
	set(d[0], SO_PEEK_OFF, 2);
	set(d[1], SO_PRIORITY, 5);
	check(!setsockopt(q[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)));
	check(!setsockopt(q[1], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	ready();
	wait_go();
	check(option(s[0], SO_SNDBUF) == 60000 && option(s[1], SO_PASSCRED) == 1);
	check(option(s[1], SO_SNDBUF) == option(d[0], SO_SNDBUF));
	check(option(d[0], SO_PEEK_OFF) == 2 && option(d[1], SO_PRIORITY) == 5);
	check(option(d[1], SO_PEEK_OFF) == -1);
	check(!getsockopt(q[0], SOL_SOCKET, SO_RCVTIMEO, &got, &len) && got.tv_sec == 7);
	len = sizeof(got_linger);
	check(!getsockopt(q[1], SOL_SOCKET, SO_LINGER, &got_linger, &len));
	check(got_linger.l_onoff == 1 && got_linger.l_linger == 9);
	check(option(q[0], SO_TYPE) == SOCK_SEQPACKET);
	check(fcntl(q[0], F_GETFL) & O_NONBLOCK && !(fcntl(d[0], F_GETFL) & O_NONBLOCK));
	check(fcntl(s[0], F_GETFD) == FD_CLOEXEC && !fcntl(q[0], F_GETFD));
	check(peer_of(s[0]).pid == getpid() && peer_of(s[1]).uid == geteuid());
	set(s[1], SO_PASSCRED, 0);
	hear(s[1], "one two");
	silent(s[1]);
	hear(q[1], "packet");
	hear(q[1], "second packet");
	silent(q[1]);
	set(d[0], SO_PEEK_OFF, -1);
	hear(d[0], "datagram");
	hear(d[0], "another");
	silent(d[0]);
	hear(d[1], "the other way");
	hear(shut[1], "last words");
	ended(shut[1]);
	check(send(shut[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	say(shut[1], "still");
	hear(shut[0], "still");
	hear(gone[0], "my will");
	ended(gone[0]);
	check(send(gone[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	check(option(reset[0], SO_ERROR) == ECONNRESET);
	ended(reset[0]);
	for (n = 0; n < 150000;)
		n += (int)read(big[1], all + n, (size_t)(150000 - n));
	check(!memcmp(all, much, 150000));
	check(recv(big[1], buf, 1, MSG_DONTWAIT) == -1);
	check_alive(s[0], s[1]);
	check_alive(q[0], q[1]);
	check_alive(d[0], d[1]);
	check_alive(big[0], big[1]);
	free(all);
	free(much);
}

/* ---- names ---- */

static socklen_t address(struct sockaddr_un *out, const char *name)
{
	size_t len = strlen(name);

	*out = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(out->sun_path + (*name == '@'), name + (*name == '@'), len - (*name == '@'));
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (*name != '@'));
}

static int bound(int type, const char *name)
{
	int fd = socket(AF_UNIX, type, 0);
	struct sockaddr_un a;
	socklen_t len = address(&a, name);

	check(fd >= 0 && !bind(fd, (struct sockaddr *)&a, len));
	return fd;
}

static void dial(int fd, const char *name)
{
	struct sockaddr_un a;
	socklen_t len = address(&a, name);

	check(!connect(fd, (struct sockaddr *)&a, len));
}

static int dialled(int type, const char *name)
{
	int fd = socket(AF_UNIX, type, 0);

	check(fd >= 0);
	dial(fd, name);
	return fd;
}

static void is_name(int fd, bool of_peer, const char *name)
{
	struct sockaddr_un a = {0}, want;
	socklen_t len = sizeof(a), want_len = address(&want, name);

	check(!(of_peer ? getpeername : getsockname)(fd, (struct sockaddr *)&a, &len));
	if (len != want_len || memcmp(&a, &want, len))
		wrong("%s is '%s%s' (%u), not '%s'", of_peer ? "peer" : "name",
		      a.sun_path[0] ? "" : "@", a.sun_path + !a.sun_path[0], len, name);
}

static int accepted(int listener)
{
	int fd = accept(listener, NULL, NULL);

	check(fd >= 0);
	return fd;
}

static void scene_names(void)
{
	const char *path = strdup(in_dir("listener")), *old = strdup(in_dir("deleted"));
	char hidden[64];
	int l, a, in[3], out[3], waits, del, d_in, rel, rel_out, lone, a_new;
	struct stat st;

	snprintf(hidden, sizeof(hidden), "@reborn-%d", getpid());
	check(!chdir(in_dir("")));
	unlink(path);
	unlink("relative");
	umask(027);
	l = bound(SOCK_STREAM, path);
	check(!chmod(path, 0741) && !chown(path, 77, 88) && !listen(l, 5));
	a = bound(SOCK_SEQPACKET, hidden);
	check(!listen(a, 3));
	out[0] = dialled(SOCK_STREAM, path);
	in[0] = accepted(l);
	out[1] = dialled(SOCK_SEQPACKET, hidden);
	in[1] = accepted(a);
	rel = bound(SOCK_STREAM, "relative");
	check(!listen(rel, 1));
	rel_out = socket(AF_UNIX, SOCK_STREAM, 0);
	dial(rel_out, "./relative");
	waits = dialled(SOCK_STREAM, path);
	/* who listened is gone, and so is its name */
	del = bound(SOCK_STREAM, old);
	check(!listen(del, 1));
	out[2] = dialled(SOCK_STREAM, old);
	in[2] = accepted(del);
	close(del);
	check(!unlink(old));
	d_in = bound(SOCK_DGRAM, old);
	check(!unlink(old));
	lone = socket(AF_UNIX, SOCK_DGRAM, 0);
	say(out[0], "to be read");
	say(in[2], "from the deleted");
	ready();
	wait_go();
	is_name(l, false, path);
	is_name(in[0], false, path);
	is_name(out[0], true, path);
	is_name(a, false, hidden);
	is_name(out[1], true, hidden);
	is_name(rel, false, "relative");
	is_name(out[2], true, old);
	is_name(d_in, false, old);
	check(access(old, F_OK) && !stat(path, &st));
	check((st.st_mode & 07777) == 0741 && st.st_uid == 77 && st.st_gid == 88);
	check(option(l, SO_ACCEPTCONN) == 1 && !option(out[0], SO_ACCEPTCONN));
	check(peer_of(out[0]).pid == getpid() && peer_of(in[1]).pid == getpid());
	hear(in[0], "to be read");
	hear(out[2], "from the deleted");
	for (int i = 0; i < 3; i++)
		check_alive(in[i], out[i]);
	check_alive(accepted(l), waits);
	check_alive(accepted(rel), rel_out);
	/* new ones come by the old names */
	a_new = dialled(SOCK_STREAM, path);
	check_alive(a_new, accepted(l));
	a_new = dialled(SOCK_SEQPACKET, hidden);
	check_alive(a_new, accepted(a));
	a_new = dialled(SOCK_STREAM, "relative");
	check_alive(a_new, accepted(rel));
	check(lone >= 0);
}

/* ---- datagrams ---- */

static void scene_datagrams(void)
{
	const char *server = strdup(in_dir("server")), *client = strdup(in_dir("client"));
	int s, c, u, gone, left, own;
	struct sockaddr_un from;
	socklen_t len = sizeof(from);
	char buf[64] = "", hidden[64];

	unlink(server);
	unlink(client);
	snprintf(hidden, sizeof(hidden), "@datagrams-%d", getpid());
	s = bound(SOCK_DGRAM, server);
	c = bound(SOCK_DGRAM, client);
	dial(c, server);
	u = socket(AF_UNIX, SOCK_DGRAM, 0);
	dial(u, server);
	gone = bound(SOCK_DGRAM, hidden);
	left = dialled(SOCK_DGRAM, hidden);
	dial(gone, server);
	say(c, "from client");
	say(u, "from nobody");
	say(gone, "from the dead");
	close(gone);
	own = bound(SOCK_DGRAM, hidden);
	dial(own, hidden);
	say(own, "to myself");
	ready();
	wait_go();
	check(recvfrom(s, buf, sizeof(buf), MSG_DONTWAIT, (struct sockaddr *)&from, &len) ==
	      11);
	check(!strcmp(from.sun_path, client) && !memcmp(buf, "from client", 11));
	hear(s, "from nobody");
	len = sizeof(from);
	check(recvfrom(s, buf, sizeof(buf), MSG_DONTWAIT, (struct sockaddr *)&from, &len) ==
	      13);
	check(!memcmp(from.sun_path + 1, hidden + 1, strlen(hidden) - 1));
	hear(own, "to myself");
	is_name(c, true, server);
	is_name(left, true, hidden);
	check(send(left, "x", 1, 0) == -1 && errno == ECONNREFUSED);
	say(u, "again");
	hear(s, "again");
	dial(s, client);
	check_alive(s, c);
}

/* ---- descriptors in flight, credentials ---- */

static void scene_passing(void)
{
	int s[2], d[2], inner[2], ends[2], file = open(in_dir("file"), O_RDWR | O_CREAT, 0600),
					   got;
	struct ucred creds = {0};
	char buf[16];

	check(!socketpair(AF_UNIX, SOCK_STREAM, 0, s) &&
	      !socketpair(AF_UNIX, SOCK_DGRAM, 0, d) &&
	      !socketpair(AF_UNIX, SOCK_STREAM, 0, inner) && !pipe(ends));
	check(file >= 0 && !ftruncate(file, 0) && write(file, "content", 7) == 7);
	check(lseek(file, 3, SEEK_SET) == 3);
	say(s[0], "plain");
	send_fd(s[0], "file", file);
	say(s[0], "more");
	send_fd(s[0], "inner", inner[1]);
	say(inner[0], "inside");
	send_fd(inner[0], "deep", ends[1]);
	set(d[1], SO_PASSCRED, 1);
	say(d[0], "mine");
	send_fd(d[0], "end", ends[0]);
	close(inner[1]);
	close(ends[0]);
	close(ends[1]);
	ready();
	wait_go();
	/* not a byte too early */
	check(hear_fd(s[1], "plain", NULL) == -1);
	got = hear_fd(s[1], "file", NULL);
	check(got >= 0 && lseek(got, 0, SEEK_CUR) == 3 && lseek(file, 5, SEEK_SET) == 5);
	check(lseek(got, 0, SEEK_CUR) == 5); /* one description */
	check(hear_fd(s[1], "more", NULL) == -1);
	got = hear_fd(s[1], "inner", NULL);
	check(got >= 0);
	check(hear_fd(got, "inside", NULL) == -1);
	ends[1] = hear_fd(got, "deep", NULL);
	check(hear_fd(d[1], "mine", &creds) == -1);
	check(creds.pid == getpid() && creds.uid == geteuid() && creds.gid == getegid());
	ends[0] = hear_fd(d[1], "end", NULL);
	check(ends[0] >= 0 && ends[1] >= 0 && write(ends[1], "pipe", 4) == 4);
	check(read(ends[0], buf, sizeof(buf)) == 4);
	set(d[1], SO_PASSCRED, 0);
	check_alive(inner[0], got);
	check_alive(s[0], s[1]);
	check_alive(d[0], d[1]);
}

/* ---- a server and its clients, each a process; one of another user ---- */

static void serve(const char *path)
{
	int l = bound(SOCK_STREAM, path), clients[3];

	check(!chmod(path, 0777) && !listen(l, 8));
	for (int i = 0; i < 3; i++)
		clients[i] = accepted(l);
	for (int i = 0; i < 3; i++)
		say(clients[i], "welcome");
	ready();
	wait_go();
	for (int i = 0; i < 3; i++) {
		struct ucred c = peer_of(clients[i]);
		char buf[64] = "", want[64];
		struct pollfd p = {clients[i], POLLIN, 0};

		check(poll(&p, 1, 20000) == 1);
		check(recv(clients[i], buf, sizeof(buf) - 1, 0) > 0);
		snprintf(want, sizeof(want), "I am %d of %u", c.pid, c.uid);
		if (strcmp(buf, want))
			wrong("%s, by its credentials %s", buf, want);
	}
	for (int i = 0; i < 3; i++)
		say(clients[i], "good bye");
}

static void be_client(const char *path, uid_t uid)
{
	struct sockaddr_un a;
	socklen_t len = address(&a, path);
	char text[64], buf[16] = "";
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	check(!uid || (!setresgid(uid, uid, uid) && !setresuid(uid, uid, uid)));
	while (connect(fd, (struct sockaddr *)&a, len))
		nap_ms(2);
	wait_go();
	check(recv(fd, buf, 7, MSG_WAITALL) == 7 && !strcmp(buf, "welcome"));
	check(peer_of(fd).pid == getppid() && !peer_of(fd).uid);
	snprintf(text, sizeof(text), "I am %d of %u", getpid(), getuid());
	say(fd, text);
	check(recv(fd, buf, 8, MSG_WAITALL) == 8 && !memcmp(buf, "good bye", 8));
	check(recv(fd, buf, 1, 0) == 0);
	_exit(0);
}

static void scene_server(void)
{
	const char *path = strdup(in_dir("server"));
	pid_t pids[3];

	unlink(path);
	for (int i = 0; i < 3; i++) {
		pids[i] = fork();
		if (!pids[i])
			be_client(path, i == 2 ? 12345 : 0);
	}
	serve(path);
	for (int i = 3; i < 1024; i++)
		close(i);
	for (int i = 0; i < 3; i++) {
		int status;

		check(waitpid(pids[i], &status, 0) == pids[i]);
		check(WIFEXITED(status) && !WEXITSTATUS(status));
	}
}

/* ---- connections that lead out of the job: to DIR/outside and its datagram twin ---- */

static void scene_outside(void)
{
	int c = dialled(SOCK_STREAM, in_dir("outside"));
	char buf[16] = "";

	check(recv(c, buf, 5, MSG_WAITALL | MSG_PEEK) == 5);
	ready();
	wait_go();
	hear(c, "hello");
	ended(c);
	check(send(c, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
}

static void scene_log(void)
{
	int d = dialled(SOCK_DGRAM, in_dir("log"));

	say(d, "before");
	ready();
	wait_go();
	say(d, "after");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*play)(void);
	} scenes[] = {{"pairs", scene_pairs},
		      {"names", scene_names},
		      {"datagrams", scene_datagrams},
		      {"passing", scene_passing},
		      {"server", scene_server},
		      {"outside", scene_outside},
		      {"log", scene_log}};

	if (argc < 3)
		return 2;
	set_dir(argv[2]);
	for (size_t i = 0; i < sizeof(scenes) / sizeof(*scenes); i++)
		if (!strcmp(argv[1], scenes[i].name))
			return scenes[i].play(), 0;
	return 2;
}
