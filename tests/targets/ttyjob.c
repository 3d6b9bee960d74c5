// SPDX-License-Identifier: GPL-2.0
/*
 * ttyjob DIR: says in files what it hears of its terminal (standard input): "int" and "winch" for
 * those signals, and when "check" is there "fore" or "back". "go": ends with status 3.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const char *dir;

static const char *in_dir(const char *name)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void say(const char *name)
{
	int fd = open(in_dir(name), O_WRONLY | O_CREAT, 0666);

	if (fd < 0)
		_exit(4);
	close(fd);
}

static volatile sig_atomic_t heard[NSIG];

static void hear(int sig)
{
	heard[sig] = 1;
}

int main(int argc, char **argv)
{
	struct sigaction act = {.sa_handler = hear};

	if (argc != 2 || !isatty(0))
		return 2;
	dir = argv[1];
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGWINCH, &act, NULL);
	say("ready");
	while (access(in_dir("go"), F_OK)) {
		if (heard[SIGINT])
			heard[SIGINT] = 0, say("int");
		if (heard[SIGWINCH])
			heard[SIGWINCH] = 0, say("winch");
		if (!unlink(in_dir("check")))
			say(tcgetpgrp(0) == getpgrp() ? "fore" : "back");
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	}
	return 3;
}
