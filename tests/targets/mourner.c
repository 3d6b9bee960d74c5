// SPDX-License-Identifier: GPL-2.0
/*
 * mourner DIR: a process whose children have ended in many ways, and that waits for them only
 * when DIR/go is there. DIR/ready: all are zombies. What is not as it was goes to DIR/wrong.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILDREN 9

struct child {
	pid_t pid, group, session;
	char name[16];
	int code, status;
	uid_t uid;
};

static struct child children[CHILDREN];
static volatile sig_atomic_t told;
static const char *dir;

static const char *in_dir(const char *name)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

__attribute__((noreturn)) static void wrong(const char *fmt, ...)
{
	int fd = open(in_dir("wrong"), O_WRONLY | O_CREAT | O_APPEND, 0666);
	va_list args;

	va_start(args, fmt);
	vdprintf(fd, fmt, args);
	va_end(args);
	exit(1);
}

static void on_child(int sig)
{
	told++;
}

static void end(int i)
{
	static const int signals[CHILDREN] = {[3] = SIGKILL, [4] = SIGTERM, [5] = SIGSEGV};
	char name[16];

	snprintf(name, sizeof(name), "dead (%d)", i);
	prctl(PR_SET_NAME, name);
	if (i == 6)
		setpgid(0, 0);
	if (i == 7)
		setsid();
	if (i == 8 && (setpgid(0, children[6].pid) || setuid(65534)))
		_exit(99);
	if (signals[i])
		kill(getpid(), signals[i]);
	_exit(i == 2 ? 255 : i);
}

static void look(int i, struct child *c)
{
	siginfo_t info = {0};
	char path[64], text[512] = "", *at;
	int fd;

	if (waitid(P_PID, (id_t)children[i].pid, &info, WEXITED | WNOWAIT))
		wrong("child %d is not there\n", i);
	*c = (struct child){.pid = info.si_pid,
			    .code = info.si_code,
			    .status = info.si_status,
			    .uid = info.si_uid};
	snprintf(path, sizeof(path), "/proc/%d/stat", c->pid);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		wrong("%s\n", path);
	close(fd);
	at = strrchr(text, ')');
	if (!at || sscanf(at, ") Z %*d %d %d", &c->group, &c->session) != 2)
		wrong("child %d is no zombie: %s\n", i, text);
	*at = 0;
	snprintf(c->name, sizeof(c->name), "%s", strchr(text, '(') + 1);
}

static void check(int i)
{
	struct child now;
	int status;

	look(i, &now);
	if (memcmp(&now, &children[i], sizeof(now)))
		wrong("child %d (%s): code %d status %d group %d session %d uid %u, was %s: %d "
		      "%d "
		      "%d %d %u\n",
		      i, now.name, now.code, now.status, now.group, now.session, now.uid,
		      children[i].name, children[i].code, children[i].status, children[i].group,
		      children[i].session, children[i].uid);
	if (waitpid(children[i].pid, &status, 0) != children[i].pid)
		wrong("child %d can't be waited for\n", i);
	if (WIFEXITED(status) ? WEXITSTATUS(status) != children[i].status
			      : WTERMSIG(status) != children[i].status)
		wrong("child %d: status %#x\n", i, (unsigned)status);
}

int main(int argc, char **argv)
{
	struct sigaction act = {.sa_handler = on_child};
	int count;

	if (argc < 3)
		return 2;
	dir = argv[2];
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	prctl(PR_SET_DUMPABLE, 0);
	sigaction(SIGCHLD, &act, NULL);
	for (int i = 0; i < CHILDREN; i++) {
		children[i].pid = fork();
		if (children[i].pid < 0)
			return 3;
		if (!children[i].pid)
			end(i);
		look(i, &children[i]);
	}
	prctl(PR_SET_DUMPABLE, 1);
	count = told;
	close(open(in_dir("ready"), O_WRONLY | O_CREAT, 0666));
	while (access(in_dir("go"), F_OK))
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	if (told != count)
		wrong("told %d times more\n", told - count);
	for (int i = 0; i < CHILDREN; i++)
		check(i);
	if (waitpid(-1, NULL, 0) >= 0)
		wrong("there are more children\n");
	return 0;
}
