// SPDX-License-Identifier: GPL-2.0
#include "cli/background.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>

#include "base/clock.h"
#include "base/log.h"
#include "cli/cli.h"
#include "session/checkpoint.h"

int session_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int session_follow(struct session *s, int signals, uint64_t due_ns)
{
	while (session_alive(s)) {
		struct pollfd fds[2] = {{.fd = signals, .events = POLLIN},
					{.fd = session_fd(s), .events = POLLIN}};
		uint64_t now = now_ns();
		int64_t left = now >= due_ns ? 0 : (int64_t)((due_ns - now) / 1000000) + 1;
		int err;

		if (now >= due_ns)
			return 0;
		if (poll(fds, 2, left > 1000 ? 1000 : (int)left) < 0 && errno != EINTR)
			return fail(-errno, "poll");
		if (fds[0].revents)
			return 1;
		err = session_step(s, NULL, false);
		if (err)
			return err;
	}
	return 1;
}

int background_listen(struct session *s, bool must)
{
	int err = control_open(s);

	if (err != -EACCES)
		return err;
	return must ? refuse(err, "--keep-tracking needs the right to make /run/icp-bpf") : 0;
}

int background_go_on(struct session *s, int signals, int report_fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	note("session %d goes on tracking in the background; icp-bpf checkpoint "
	     "--stop-tracking "
	     "ends it",
	     getpid());
	/* in the background from here on: whoever started us has his result */
	for (int i = 0; i <= 2; i++)
		dup2(null, i);
	close(null);
	if (write(report_fd, "", 1) < 0)
		return -errno;
	close(report_fd);
	return session_follow(s, signals, UINT64_MAX) < 0;
}

int background(int (*work)(const void *arg, int report_fd), const void *arg)
{
	int ends[2];
	char byte;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return cli_failed(fail(-errno, "pipe"));
	pid = fork();
	if (pid < 0)
		return cli_failed(fail(-errno, "fork"));
	if (!pid) {
		int err;

		close(ends[0]);
		setsid();
		err = work(arg, ends[1]);
		_exit(err < 0 ? cli_failed(err) : EXIT_DONE);
	}
	close(ends[1]);
	return read(ends[0], &byte, 1) == 1 ? EXIT_DONE : EXIT_FAILED;
}
