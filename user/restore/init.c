// SPDX-License-Identifier: GPL-2.0
/* The first process of a pid namespace that was made for a job: what init is for orphans. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "restore/builder.h"

/* Out of the way of the pids that the job wants. */
static pid_t fork_high(void)
{
	_cleanup_free_ char *text = NULL;
	pid_t high = io_read_file(AT_FDCWD, "/proc/sys/kernel/pid_max", &text, NULL)
			     ? 0
			     : (pid_t)atoi(text) - 1;
	struct clone_args args = {
		.exit_signal = SIGCHLD,
		.set_tid = (uint64_t)(uintptr_t)&high,
		.set_tid_size = high > 1,
	};

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

/* The builder died before all was ready, or icp-bpf did: whoever is in the namespace goes with us. */
static void wait_for_go(const struct init_ends *ends)
{
	struct pollfd peer = {.fd = ends->status};
	char byte;

	if (read(ends->go, &byte, 1) != 1)
		_exit(1);
	/* icp-bpf may die from now on */
	prctl(PR_SET_PDEATHSIG, 0);
	if (poll(&peer, 1, 0) > 0 || write(ends->pass, &byte, 1) != 1)
		_exit(1);
	close(ends->go);
	close(ends->pass);
}

void init_main(const struct init_ends *ends, void (*build)(void *arg), void *arg)
{
	int keep = ends->status, null;
	struct init_status s;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	if (!fork_high())
		build(arg);
	wait_for_go(ends);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd <= 2; fd++)
		dup2(null, fd);
	if (keep != 3)
		dup2(keep, 3);
	syscall(SYS_close_range, 4, ~0u, 0);
	while ((s.pid = waitpid(-1, &s.status, WUNTRACED | __WALL)) > 0 || errno == EINTR)
		if (s.pid > 0 && write(3, &s, sizeof(s)) < 0)
			continue; /* nobody listens any more */
	_exit(0);
}
