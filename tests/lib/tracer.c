// SPDX-License-Identifier: GPL-2.0
#include "lib/tracer.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/robust_procs.h"

static struct tracer tracers[16];

const char *decimal(long n)
{
	static char texts[8][24];
	static unsigned next;
	char *slot = texts[next++ % 8];

	snprintf(slot, 24, "%ld", n);
	return slot;
}

/* One line into its list. False at the end. */
static bool take_line(struct tracer *t)
{
	static char line[1 << 20];
	json_error_t error;
	json_t *json;
	const char *type;

	alarm(40u * (unsigned)patience()); /* a hang is a failure, not a wait */
	if (!fgets(line, sizeof(line), t->out))
		return false;
	json = json_loads(line, 0, &error);
	if (!json)
		fail_msg("not JSON: %s: %s", error.text, line);
	type = text(json, "type");
	if (!strcmp(type, "sample"))
		json_array_append_new(t->samples, json);
	else if (!strcmp(type, "summary"))
		t->summary = json;
	else
		json_array_append_new(t->events, json);
	return true;
}

struct tracer *tracer_start(const char *first, ...)
{
	const char *argv[32] = {built("icp-bpf"), "trace", "--json", "--top", "1000000", first},
		   *arg;
	struct tracer *t = tracers;
	int out[2], n = 6;
	va_list args;

	va_start(args, first);
	while ((arg = va_arg(args, const char *)) && n < 31)
		argv[n++] = arg;
	va_end(args);
	while (t->out) /* an ended one still has what it said */
		t++;
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	t->pid = fork();
	assert_true(t->pid >= 0);
	if (!t->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(out[1], 1);
		execv(argv[0], (char **)argv);
		_exit(127);
	}
	close(out[1]);
	t->out = fdopen(out[0], "r");
	t->samples = json_array();
	t->events = json_array();
	t->summary = NULL;
	assert_true(take_line(t));
	assert_int_equal(json_array_size(t->events), 1);
	assert_string_equal(text(json_array_get(t->events, 0), "type"), "start");
	json_array_clear(t->events);
	return t;
}

void tracer_forget(struct tracer *t)
{
	json_array_clear(t->samples);
	json_array_clear(t->events);
}

void tracer_catch_up(struct tracer *t)
{
	struct timespec ts;
	double now, seen = 0;

	clock_gettime(CLOCK_REALTIME, &ts);
	now = (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
	/* the second one: the first may be of one process among several */
	for (int later = 0; later < 2;) {
		size_t before = json_array_size(t->samples);
		double time;

		assert_true(take_line(t));
		if (json_array_size(t->samples) == before)
			continue;
		time = json_real_value(
			json_object_get(json_array_get(t->samples, before), "time"));
		if (time > now && time != seen) {
			seen = time;
			later++;
		}
	}
}

void tracer_end(struct tracer *t)
{
	int status;

	while (take_line(t))
		;
	assert_int_equal(waitpid(t->pid, &status, 0), t->pid);
	t->pid = 0;
	t->status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
	assert_int_equal(t->status, 0);
	assert_non_null(t->summary);
}

void tracer_stop(struct tracer *t)
{
	kill(t->pid, SIGINT);
	tracer_end(t);
}

void tracers_kill(void)
{
	for (struct tracer *t = tracers; t < tracers + 16; t++) {
		if (t->pid) {
			kill(t->pid, SIGKILL);
			waitpid(t->pid, NULL, 0);
		}
		if (t->out)
			fclose(t->out);
		json_decref(t->samples);
		json_decref(t->events);
		json_decref(t->summary);
		*t = (struct tracer){0};
	}
	alarm(0);
}

uint64_t number(const json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

uint64_t hex(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? strtoull(value, NULL, 16) : 0;
}

const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

uint64_t tracer_dirty(const struct tracer *t, pid_t pid, uint64_t start, uint64_t end)
{
	uint64_t pages = 0;
	json_t *sample, *vma;
	size_t i, k;

	json_array_foreach(t->samples, i, sample)
	{
		if ((pid_t)number(sample, "pid") != pid)
			continue;
		json_array_foreach(json_object_get(sample, "vmas"), k, vma)
		{
			if (hex(vma, "start") >= start && hex(vma, "start") < end)
				pages += number(vma, "dirty_pages");
		}
	}
	return pages;
}

json_t *tracer_last(const struct tracer *t, pid_t pid)
{
	for (size_t i = json_array_size(t->samples); i--;)
		if ((pid_t)number(json_array_get(t->samples, i), "pid") == pid)
			return json_array_get(t->samples, i);
	return NULL;
}

static bool tracker_is(const char *name)
{
	const char *forced = getenv("ICP_TRACKER");

	return forced && !strcmp(forced, name);
}

bool tracer_splits_huge_pages(void)
{
	return !tracker_is("kmod") && !tracker_is("softdirty");
}

uint64_t tracer_slack(uint64_t whole)
{
	if (!getenv("ICP_GUEST"))
		return 0;
	return tracker_is("softdirty") ? whole : 10;
}

void tracer_expect(const struct tracer *t, pid_t pid, uint64_t start, uint64_t end,
		   uint64_t pages)
{
	assert_in_range(tracer_dirty(t, pid, start, end), pages,
			pages + tracer_slack(4 * (end - start) / 4096));
}
