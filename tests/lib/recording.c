// SPDX-License-Identifier: GPL-2.0
#include "lib/recording.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/tracer.h"

struct recording made;

int recording_setup(void **state)
{
	memset(&made, 0, sizeof(made));
	if (!mkdtemp(scratch(made.dir, "record")))
		return -1;
	snprintf(made.file, sizeof(made.file), "%s/a.rec", made.dir);
	return 0;
}

const char *in_dir(const char *name)
{
	static char path[4][SCRATCH_MAX + 32];
	static unsigned next;
	char *slot = path[next++ % 4];

	snprintf(slot, sizeof(path[0]), "%s/%s", made.dir, name);
	return slot;
}

int recording_teardown(void **state)
{
	static const char *const files[] = {"a.rec", "b.rec", "a.svg", "b.svg", "a.png"};

	if (made.recorder.pid)
		run_close(&made.recorder);
	if (made.target.pid)
		talker_end(&made.target);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		unlink(in_dir(files[i]));
	if (made.mounted)
		umount2(made.dir, MNT_DETACH);
	return rmdir(made.dir);
}

void start_target(void)
{
	char line[128];

	talker_start(&made.target, built("tests/targets/striper"), decimal(PAGES), NULL);
	assert_true(talker_line(&made.target, line, sizeof(line)));
	made.memory = strtoull(line, NULL, 16);
	assert_true(made.memory > 0);
}

void write_pages(size_t first, size_t n)
{
	char line[64];

	snprintf(line, sizeof(line), "write %zu %zu\n", first, n);
	talker_ask(&made.target, line, "done");
}

void start_recorder(const char *interval, const char *more)
{
	const char *argv[] = {built("icp-bpf"),
			      "record",
			      "--pid",
			      decimal(made.target.pid),
			      "--interval",
			      interval,
			      "-o",
			      made.file,
			      more,
			      NULL};
	double end = seconds_now() + 30 * patience();
	struct stat st;

	run_start(&made.recorder, NULL, argv);
	while (stat(made.file, &st) || st.st_size < 64) {
		if (waitpid(made.recorder.pid, NULL, WNOHANG) || seconds_now() > end)
			fail_msg("no recording: %s", run_text(made.recorder.err));
		nap_ms(5);
	}
}

int end_recorder(int sig)
{
	int status;

	kill(made.recorder.pid, sig);
	run_wait(&made.recorder, 60);
	status = made.recorder.status;
	made.recorder.pid = 0;
	return status;
}

void stop_recorder(void)
{
	assert_int_equal(end_recorder(SIGINT), 0);
	run_close(&made.recorder);
}
