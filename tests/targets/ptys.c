// SPDX-License-Identifier: GPL-2.0
/* ptys SCENE DIR: pseudo-terminals that check themselves after a restart. */
#include "reborn.h"

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>

static int new_master(void)
{
	int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

	check(fd >= 0 && !grantpt(fd) && !unlockpt(fd));
	return fd;
}

static int index_of(int master)
{
	int n = -1;

	check(!ioctl(master, TIOCGPTN, &n));
	return n;
}

static void say(int fd, const char *text)
{
	check(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

static char buf[8192];

/* What comes until @text has come, in buf. */
static void hear(int fd, const char *text)
{
	size_t len = 0;

	memset(buf, 0, sizeof(buf));
	while (!strstr(buf, text)) {
		struct pollfd p = {fd, POLLIN, 0};
		ssize_t got;

		if (poll(&p, 1, 20000) != 1 || len == sizeof(buf) - 1)
			wrong("no '%s' in '%s'", text, buf);
		got = read(fd, buf + len, sizeof(buf) - 1 - len);
		if (got <= 0)
			wrong("'%s', then errno %d, instead of '%s'", buf, errno, text);
		len += (size_t)got;
		for (size_t i = 0; i < len; i++)
			buf[i] = buf[i] ? buf[i] : ' ';
	}
}

static void drain(int fd)
{
	struct pollfd p = {fd, POLLIN, 0};

	while (poll(&p, 1, 0) == 1)
		check(read(fd, buf, sizeof(buf)) > 0);
}

static bool same_file(int fd, const char *path)
{
	struct stat a, b;

	return !fstat(fd, &a) && !stat(path, &b) && a.st_rdev == b.st_rdev &&
	       a.st_ino == b.st_ino;
}

/* ---- settings of a pair ---- */

static void scene_pair(void)
{
	int master = new_master(), packet = new_master(), alone = new_master(),
	    closed = new_master(), one = 1, slave = open(ptsname(master), O_RDWR | O_NOCTTY),
	    other, n = index_of(master), was;
	struct winsize size = {33, 77, 5, 6}, got;
	struct termios raw = {0},
		       now = {0}; /* with what is between the fields: compared as a whole */
	struct stat st;

	check(slave >= 0 && !tcgetattr(slave, &raw));
	cfmakeraw(&raw);
	raw.c_cc[VINTR] = 7;
	cfsetspeed(&raw, B9600);
	check(!tcsetattr(slave, TCSANOW, &raw) && !ioctl(slave, TIOCSWINSZ, &size));
	other = open(ptsname(packet), O_RDWR | O_NOCTTY | O_NONBLOCK);
	check(other >= 0 && !tcsetattr(other, TCSANOW, &raw) && !ioctl(packet, TIOCPKT, &one) &&
	      !ioctl(alone, TIOCSPTLCK, &one));
	was = open(ptsname(closed), O_RDWR | O_NOCTTY);
	close(was);
	check(!fchmod(slave, 0600) && !fchown(slave, 77, 5));
	ready();
	wait_go();
	check(!tcgetattr(slave, &now) && !memcmp(&raw, &now, sizeof(raw)));
	check(!ioctl(slave, TIOCGWINSZ, &got) && !memcmp(&size, &got, sizeof(got)));
	check(index_of(master) == n);
	check(same_file(slave, ptsname(master)) && same_file(other, ptsname(packet)));
	check(!fstat(slave, &st) && st.st_uid == 77 && (st.st_mode & 0777) == 0600);
	check(fcntl(other, F_GETFL) & O_NONBLOCK && !(fcntl(slave, F_GETFL) & O_NONBLOCK));
	check(!ioctl(packet, TIOCGPKT, &one) && one == 1);
	check(!ioctl(alone, TIOCGPTLCK, &one) && one == 1);
	check(open(ptsname(alone), O_RDWR | O_NOCTTY) == -1);
	check(read(closed, &got, 1) == -1 && errno == EIO);
	say(slave, "to the master");
	hear(master, "to the master");
	say(master, "to the slave");
	hear(slave, "to the slave");
	say(other, "packet");
	hear(packet, " packet"); /* TIOCPKT_DATA is 0 */
}

static void scene_waiting(void)
{
	int master = new_master(), slave = open(ptsname(master), O_RDWR | O_NOCTTY);

	say(slave, "not read yet");
	ready();
	wait_go();
	hear(master, "not read yet");
}

static void scene_typed(void)
{
	int master = new_master(), slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	struct termios quiet;

	check(!tcgetattr(slave, &quiet));
	quiet.c_lflag &= ~(tcflag_t)ECHO;
	check(!tcsetattr(slave, TCSANOW, &quiet));
	say(master, "typed ahead\n");
	ready();
	wait_go();
	hear(slave, "typed ahead\n");
}

/* Half a line: DIR/again tells that it is lost by now. */
static void scene_unended(void)
{
	int master = new_master(), slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	const char *want = "half a line\n";
	ssize_t got;

	say(master, "half ");
	hear(master, "half "); /* the echo */
	ready();
	wait_go();
	if (!access(in_dir("again"), F_OK))
		want += strlen("half ");
	say(master, "a line\n");
	got = read(slave, buf, sizeof(buf));
	if (got != (ssize_t)strlen(want) || memcmp(buf, want, (size_t)got))
		wrong("'%.*s' instead of '%s'", (int)got, buf, want);
}

/* ---- a session on it: leader, background, foreground ---- */

static volatile sig_atomic_t ints, hups, winches;

static void on_signal(int sig)
{
	if (sig == SIGINT)
		ints = ints + 1;
	if (sig == SIGHUP)
		hups = hups + 1;
	if (sig == SIGWINCH)
		winches = winches + 1;
}

static void be_foreground(void)
{
	while (!ints)
		poll(NULL, 0, 2); /* a signal may end it */
	check(!hups && !winches && tcgetpgrp(0) == getpid());
	say(1, "interrupted\n");
	_exit(0);
}

static void be_leader(const char *name)
{
	int tty, opened, status;
	pid_t child;

	check(setsid() == getpid());
	tty = open(name, O_RDWR);
	check(tty >= 0 && dup2(tty, 0) == 0 && dup2(tty, 1) == 1 && dup2(tty, 2) == 2);
	signal(SIGTTOU, SIG_IGN);
	opened = open("/dev/tty", O_RDWR);
	child = fork();
	if (!child) {
		check(!setpgid(0, 0) && !tcsetpgrp(0, getpid()));
		say(1, "started\n");
		be_foreground();
	}
	check(waitpid(child, &status, 0) == child && !status);
	check(!ints && !hups && !winches && tcgetsid(0) == getpid());
	check(tcgetpgrp(0) == child);
	say(opened, "as before; ");
	tty = open("/dev/tty", O_RDWR);
	check(tty >= 0 && !tcsetpgrp(tty, getpid()));
	dprintf(tty, "leader on %s\n", ttyname(0));
	_exit(0);
}

static void scene_session(void)
{
	int master = new_master(), status;
	char want[64];
	pid_t leader;

	signal(SIGINT, on_signal);
	signal(SIGHUP, on_signal);
	signal(SIGWINCH, on_signal);
	leader = fork();
	if (!leader)
		be_leader(ptsname(master));
	hear(master, "started\r\n");
	ready();
	wait_go();
	say(master, "\003");
	snprintf(want, sizeof(want), "leader on %s\r\n", ptsname(master));
	hear(master, want);
	check(strstr(buf, "interrupted\r\n") && strstr(buf, "as before; leader"));
	check(waitpid(leader, &status, 0) == leader && !status && !ints && !hups);
}

/* ---- a shell with job control ---- */

static void scene_shell(void)
{
	int master = new_master(), status;
	pid_t shell = fork();

	if (!shell) {
		int tty;

		setsid();
		tty = open(ptsname(master), O_RDWR);
		for (int i = 0; i < 3; i++)
			dup2(tty, i);
		close(tty);
		execlp("bash", "bash", "--norc", "--noprofile", "-i", NULL);
		_exit(127);
	}
	say(master, "PS1='>'; echo be''gin\n");
	hear(master, "begin\r\n");
	say(master, "sleep 1000 & sleep 2000 & echo ba''ck\n");
	hear(master, "back\r\n");
	say(master, "sleep 3000\n");
	hear(master, "3000\r\n");
	/* what the shell has to say comes before the other group is in front */
	while (tcgetpgrp(master) == shell)
		nap_ms(2);
	drain(master);
	ready();
	wait_go();
	say(master, "\032"); /* Ctrl-Z to what is in the foreground */
	hear(master, "Stopped");
	say(master, "jobs; echo li''sted\n");
	hear(master, "listed\r\n");
	check(strstr(buf, "sleep 1000") && strstr(buf, "sleep 2000"));
	say(master, "kill %1 %2 %3; wait; echo en''ded\n");
	hear(master, "ended\r\n");
	say(master, "exit 0\n");
	check(waitpid(shell, &status, 0) == shell && WIFEXITED(status) && !WEXITSTATUS(status));
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	set_dir(argv[2]);
	if (!strcmp(argv[1], "pair"))
		return scene_pair(), 0;
	if (!strcmp(argv[1], "session"))
		return scene_session(), 0;
	if (!strcmp(argv[1], "waiting"))
		return scene_waiting(), 0;
	if (!strcmp(argv[1], "typed"))
		return scene_typed(), 0;
	if (!strcmp(argv[1], "unended"))
		return scene_unended(), 0;
	if (!strcmp(argv[1], "shell"))
		return scene_shell(), 0;
	return 2;
}
