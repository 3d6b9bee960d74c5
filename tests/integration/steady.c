// SPDX-License-Identifier: GPL-2.0
/* Thousands of samples of a busy target: icp-bpf's memory and descriptors stay what they were.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/robust_procs.h"

#define SAMPLES 2000
#define EARLY 300 /* everything that is ever needed was allocated by then */
#define MIDDLE 1100
/* Buffers grow once more when a slow machine makes a larger sample; a leak is there in both halves. */
#define MAY_GROW_KB (128 + KEPT_KB)

struct use {
	long rss_kb;
	char *fds;
};

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What the descriptors are open on. Not their numbers: what is opened for each sample takes the lowest free one. */
static char *targets_of(char *fds)
{
	char *line[512], *out = calloc(1, strlen(fds) + 2), *save;
	size_t n = 0;

	assert_non_null(out);
	for (char *l = strtok_r(fds, "\n", &save); l && n < 512;
	     l = strtok_r(NULL, "\n", &save))
		line[n++] = l + strspn(l, "0123456789 ");
	qsort(line, n, sizeof(*line), by_text);
	for (size_t i = 0; i < n; i++)
		strcat(strcat(out, line[i]), "\n");
	return out;
}

static void look(struct run *r, struct use *u)
{
	char *fds = list_fds(r->pid); /* as they are: each sample opens and closes some */

	u->rss_kb = status_number(r->pid, "RssAnon");
	u->fds = targets_of(fds);
	free(fds);
}

static void wait_sample(struct run *r, unsigned index)
{
	char want[32];

	snprintf(want, sizeof(want), "\"index\":%u,", index);
	if (!run_says(r, want, 120))
		fail_msg("no sample %u", index);
}

static size_t lines(const char *text)
{
	size_t n = 0;

	for (; (text = strchr(text, '\n')); text++)
		n++;
	return n;
}

/* The target forks, makes threads and writes all the time; the last look is near the end. */
static void trace_long(const char *more)
{
	struct talker target;
	struct use early = {0}, middle = {0}, late = {0};
	struct run r;
	char pid[16], *err;
	const char *argv[] = {built("icp-bpf"), "trace", "--json", "--interval", "10ms",
			      "--pid",		pid,	 more,	   NULL};

	talker_start(&target, built("tests/targets/checksum"), NULL);
	talker_ask(&target, "", "ok threads");
	snprintf(pid, sizeof(pid), "%d", target.pid);
	run_start(&r, NULL, argv);
	for (unsigned i = 100; i < SAMPLES; i += 100) {
		talker_ask(&target, "f", "ok forks");
		talker_ask(&target, "t", "ok threads");
		wait_sample(&r, i);
		if (i == EARLY)
			look(&r, &early);
		if (i == MIDDLE)
			look(&r, &middle);
	}
	look(&r, &late);
	kill(r.pid, SIGINT);
	run_wait(&r, 60);
	print_message("RssAnon %ld kB at sample %d, %ld kB at %d, %ld kB at %d\n", early.rss_kb,
		      EARLY, middle.rss_kb, MIDDLE, late.rss_kb, SAMPLES - 100);
	err = run_text(r.err);
	assert_string_equal(err, "");
	assert_int_equal(r.status, 0);
	assert_true(early.rss_kb > 0 && middle.rss_kb > 0 && late.rss_kb > 0);
	assert_true(middle.rss_kb <= early.rss_kb + MAY_GROW_KB ||
		    late.rss_kb <= middle.rss_kb + MAY_GROW_KB);
	/* one may be open for a moment at either look (pagemap); a leak is one for each of 1600 samples or 16 forks */
	assert_in_range(lines(late.fds), 1, lines(early.fds) + 4);
	free(err);
	free(early.fds);
	free(middle.fds);
	free(late.fds);
	run_close(&r);
	talker_ask(&target, "?", "ok");
	talker_end(&target);
}

static void test_one_process(void **state)
{
	trace_long(NULL);
}

static void test_tree(void **state)
{
	trace_long("--tree");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_process),
		cmocka_unit_test(test_tree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
