// SPDX-License-Identifier: GPL-2.0
/* A terminal whose master is not part of the job: the restarter's takes its place. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "state/pty.h"

static int open_terminal(struct restore_job *job, const Icp__OpenFile *f)
{
	char path[PATH_MAX];
	int fd = pty_slave_open(job, f);

	if (fd != -ENOENT)
		return fd;
	for (int ours = 0; ours <= 2; ours++) {
		if (!isatty(ours))
			continue;
		fd = fd_reopen(ours, f->flags);
		return fd < 0 ? fail(-errno, "open the terminal") : fd;
	}
	return refuse(-ENOTTY, "the job has the terminal %s open, and icp-bpf has none",
		      fd_path_of(f, path));
}

const struct fd_kind fd_terminal = {.kind = FILE_TERMINAL,
				    .text = "a terminal",
				    .check_job = pty_slave_check_job,
				    .dump = pty_slave_dump,
				    .finish = pty_finish,
				    .free_note = free,
				    .verify = pty_slave_verify,
				    .open = open_terminal};
