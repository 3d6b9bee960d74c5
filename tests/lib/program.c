// SPDX-License-Identifier: GPL-2.0
#include "lib/program.h"

#include <arpa/inet.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char scripts[PATH_MAX];

bool program_scripts(const char *file)
{
	char here[PATH_MAX], up[PATH_MAX + 32];

	snprintf(here, sizeof(here), "%s", file);
	snprintf(up, sizeof(up), "%s/../programs", dirname(here));
	return realpath(up, scripts);
}

const char *program_script(const char *name)
{
	static char paths[2][PATH_MAX + 64];
	static unsigned next;
	char *path = paths[next++ % 2];

	snprintf(path, sizeof(paths[0]), "%s/%s", scripts, name);
	return path;
}

void cut_more(const struct job *j, const char *const *more)
{
	const char *argv[16] = {built("icp-bpf"), "checkpoint", "--dir", j->repo, "--pid"};
	size_t n = 5;
	char pid[16];
	struct run r;

	snprintf(pid, sizeof(pid), "%d", j->pid);
	argv[n++] = pid;
	while (*more)
		argv[n++] = *more++;
	run_start(&r, NULL, argv);
	run_wait(&r, 60);
	if (!WIFEXITED(r.status) || WEXITSTATUS(r.status))
		fail_msg("%s", run_text(r.err));
	run_close(&r);
}

void end_group(struct job *j)
{
	pid_t group = j->pid;

	kill_job(j);
	/* its children are ours now, and have their pids until we reap them */
	nap_ms(50);
	while (waitpid(-group, NULL, 0) > 0)
		;
}

void begin_version(const struct job *j, struct run *r, const char *version, const char *more)
{
	begin_restart(j, r, version, "direct", more);
	if (!run_says(r, "\"phases\"", 60))
		fail_msg("%s", run_text(r->err));
}

void ends_well(struct run *r)
{
	run_wait(r, 60);
	if (!WIFEXITED(r->status) || WEXITSTATUS(r->status))
		fail_msg("status %#x: %s%s", r->status, run_text(r->out), run_text(r->err));
	run_close(r);
}

void succeeds(const char *const *argv)
{
	struct run r;

	run_start(&r, NULL, argv);
	ends_well(&r);
}

void free_port(char text[8])
{
	struct sockaddr_in name = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(name);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&name, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &len), 0);
	snprintf(text, 8, "%d", ntohs(name.sin_port));
	close(fd);
}
