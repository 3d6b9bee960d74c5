// SPDX-License-Identifier: GPL-2.0
/* `icp-bpf record` of a process that writes known pages. */
#include "obs/rec.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/recording.h"
#include "lib/tracer.h"

#define PAGE 4096ul

/* ---- reading ---- */

struct seen {
	uint8_t taken[PAGES], faulted[PAGES]; /* how often */
	uint64_t takes, pages, outside, faults, counted_faults;
	bool inner; /* each fault there was of that function */
	uint64_t stacked;
};

static void see_take(const struct rec_take *t, struct seen *s)
{
	s->takes += t->interval_us > 0;
	s->counted_faults += t->faults;
	for (size_t i = 0; i < t->n; i++) {
		for (uint64_t at = t->runs[i].start; at < t->runs[i].end; at += PAGE) {
			bool inside = at >= made.memory && at < made.memory + PAGES * PAGE;

			s->pages++;
			if (inside)
				s->taken[(at - made.memory) / PAGE]++;
			else
				s->outside++;
		}
	}
}

static void see_stack(const struct rec_stack *stack, uint32_t faults, struct seen *s)
{
	if (stack->n >= 3 && !strncmp(stack->functions[0], "stripe_inner [", 14) &&
	    !strncmp(stack->functions[1], "stripe_outer [", 14) &&
	    !strncmp(stack->functions[2], "main [", 6))
		s->stacked += faults;
}

/* @cut: its end may be missing. */
static void look(struct seen *s, bool cut)
{
	_cleanup_rec_ struct rec_reader *r = NULL;
	struct rec_item item;

	*s = (struct seen){.inner = true};
	assert_int_equal(rec_open(made.file, &r), 0);
	while (rec_next(r, &item) == 1) {
		if (item.kind == REC_TAKE)
			see_take(&item.take, s);
		if (item.kind == REC_STACKED)
			see_stack(rec_stack_of(r, item.stack), item.faults, s);
		if (item.kind != REC_FAULT)
			continue;
		s->faults++;
		if (item.addr < made.memory || item.addr >= made.memory + PAGES * PAGE)
			continue;
		s->faulted[(item.addr - made.memory) / PAGE]++;
		s->inner &= !strncmp(rec_site_of(r, item.site)->function, "stripe_inner [", 14);
		assert_int_equal(rec_thread_of(r, item.thread)->tid, made.target.pid);
		assert_string_equal(rec_thread_of(r, item.thread)->comm, "striper");
		assert_int_equal(item.addr % PAGE, 0);
	}
	if (!cut || !rec_damage(r) || !strstr(rec_damage(r), "cut off here"))
		assert_null(rec_damage(r));
}

/* One interval: each written page once, no other one, and a fault for each. */
static void what_was_written(void **state)
{
	struct outside before;
	struct seen s;

	start_target();
	write_pages(0, 100);
	outside_look(&before, made.target.pid);
	start_recorder("1h", NULL);
	write_pages(20, 30);
	write_pages(40, 30);
	write_pages(900, 100);
	stop_recorder();
	assert_untouched(made.target.pid, &before, false);
	outside_free(&before);
	look(&s, false);
	assert_int_equal(s.takes, 1);
	for (size_t i = 0; i < PAGES; i++) {
		bool written = (i >= 20 && i < 70) || i >= 900;

		assert_int_equal(s.taken[i], written);
		assert_int_equal(s.faulted[i], written);
	}
	assert_true(s.inner);
	assert_int_equal(s.counted_faults, s.faults);
}

/* Many intervals: every write is in one of them. */
static void every_interval(void **state)
{
	uint64_t in_csv = 0, faults = 0, lines = 0, twice = 0;
	struct run run;
	struct seen s;
	char *csv;

	start_target();
	start_recorder("20ms", NULL);
	for (size_t i = 0; i < 50; i++) {
		write_pages(i * 20, 20);
		nap_ms(5);
	}
	stop_recorder();
	look(&s, false);
	assert_true(s.takes > 1);
	/* one that was looked at between its fault and the store, which then faults again, is in both */
	for (size_t i = 0; i < PAGES; i++) {
		assert_true(s.taken[i] == 1 || s.taken[i] == 2);
		twice += s.taken[i] == 2;
	}
	assert_true(twice <= s.takes);
	assert_int_equal(icp(&run, NULL, "report", made.file, "--csv", NULL), 0);
	csv = run_text(run.out);
	assert_int_equal(strncmp(csv, "time_s,pid,comm,interval_s,dirty_pages,", 39), 0);
	for (char *line = strchr(csv, '\n') + 1; *line; line = strchr(line, '\n') + 1) {
		unsigned long pages, its_faults;
		double time, interval, rate;
		int pid;

		assert_int_equal(sscanf(line, "%lf,%d,\"striper\",%lf,%lu,%lf,%lu", &time, &pid,
					&interval, &pages, &rate, &its_faults),
				 6);
		assert_int_equal(pid, made.target.pid);
		assert_true(interval > 0 && rate >= 0);
		assert_true(pages * PAGE / interval > rate * 0.99 - 1 &&
			    pages * PAGE / interval < rate * 1.01 + 1);
		in_csv += pages;
		faults += its_faults;
		lines++;
	}
	assert_int_equal(in_csv, s.pages);
	assert_int_equal(faults, s.faults);
	assert_int_equal(lines, s.takes);
	free(csv);
	run_close(&run);
}

/* execve: another program, with memory and functions of its own, and the same pid. Children are in it, too. */
static void children_and_programs(void **state)
{
	static const char script[] = "echo ready; read go; /bin/true; exec \"$0\" 10";
	bool sh = false, striper = false, exec = false, child = false, inner = false;
	uint64_t pages = 0;
	struct rec_reader *r;
	struct rec_item item;
	char line[128];

	talker_start(&made.target, "/bin/sh", "-c", script, built("tests/targets/striper"),
		     NULL);
	assert_true(talker_line(&made.target, line, sizeof(line)));
	start_recorder("50ms", "--tree");
	talker_ask(&made.target, "go\n", "0x");
	for (unsigned i = 0; i < 10; i++) {
		write_pages(0, 10);
		nap_ms(20);
	}
	stop_recorder();
	assert_int_equal(rec_open(made.file, &r), 0);
	while (rec_next(r, &item) == 1) {
		const struct rec_process *p;

		if (item.kind == REC_END)
			continue;
		p = rec_process_of(r, item.process);
		child |= p->pid != made.target.pid;
		sh |= !strcmp(p->comm, "sh");
		striper |= p->pid == made.target.pid && !strcmp(p->comm, "striper");
		exec |= item.kind == REC_EVENT && item.event == REC_EXEC &&
			p->pid == made.target.pid;
		inner |= item.kind == REC_FAULT && !strcmp(p->comm, "striper") &&
			 !strncmp(rec_site_of(r, item.site)->function, "stripe_inner [", 14);
		pages += item.kind == REC_TAKE && !strcmp(p->comm, "striper") ? item.take.n : 0;
	}
	assert_null(rec_damage(r));
	rec_close(r);
	assert_true(sh && striper && exec && child && inner);
	assert_true(pages > 0);
}

static void small(void **state)
{
	double end = seconds_now() + 30 * patience();
	off_t size = 0;
	struct seen s;
	struct stat st;

	start_target();
	start_recorder("10ms", NULL);
	for (size_t grown = 0; grown < 5 && seconds_now() < end;) {
		write_pages(0, PAGES);
		assert_int_equal(stat(made.file, &st), 0);
		grown += st.st_size > size;
		size = st.st_size;
	}
	stop_recorder();
	look(&s, false);
	assert_int_equal(stat(made.file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_true(s.faults > 2 * PAGES);
	/* takes included; a sweep packs well below that */
	assert_true((uint64_t)st.st_size < s.faults * 5 + s.takes * 100 + 20000);
}

/* The callers are there, since the target has frame pointers. */
static void stacks(void **state)
{
	struct seen s;

	start_target();
	start_recorder("50ms", NULL);
	for (size_t i = 0; i < 40; i++) {
		write_pages(0, PAGES);
		nap_ms(10);
	}
	stop_recorder();
	look(&s, false);
	assert_true(s.stacked > PAGES);
}

/* ---- what goes wrong ---- */

/* kill -9: what was written up to the last take is there, and the target never knew. */
static void killed(void **state)
{
	double end = seconds_now() + 30 * patience();
	struct outside before;
	struct stat st;

	start_target();
	write_pages(0, 10);
	outside_look(&before, made.target.pid);
	start_recorder("20ms", NULL);
	do {
		write_pages(0, 100);
		nap_ms(5);
		assert_int_equal(stat(made.file, &st), 0);
	} while (st.st_size < 3000 && seconds_now() < end);
	assert_true(WIFSIGNALED(end_recorder(SIGKILL)));
	run_close(&made.recorder);
	write_pages(0, 10);
	assert_untouched(made.target.pid, &before, false);
	outside_free(&before);
	assert_int_equal(icp(&made.recorder, NULL, "report", made.file, NULL), 1);
	assert_true(run_says(&made.recorder, "stripe_inner", 1));
	run_close(&made.recorder);
}

static bool has_ended(pid_t pid)
{
	siginfo_t info = {0};

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid;
}

/* In a mount namespace of our own, which goes with us. */
static void full_disk(void **state)
{
	struct seen s;
	char *text;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("icp-test", made.dir, "tmpfs", 0, "size=64k"))
		fail_msg("no tmpfs of our own");
	made.mounted = true;
	start_target();
	start_recorder("10ms", NULL);
	/* random enough that it doesn't pack into nothing */
	srand(1);
	while (!has_ended(made.recorder.pid))
		for (size_t i = 0; i < 50; i++)
			write_pages((size_t)rand() % PAGES, 1);
	run_wait(&made.recorder, 60);
	made.recorder.pid = 0;
	assert_int_equal(WEXITSTATUS(made.recorder.status), 1);
	text = run_text(made.recorder.err);
	assert_non_null(strstr(text, "icp-bpf: the recording ends after "));
	assert_non_null(strstr(text, "No space left on device"));
	assert_int_equal(strchr(text, '\n') - text, strlen(text) - 1);
	free(text);
	run_close(&made.recorder);
	write_pages(0, 10);
	look(&s, true); /* the few bytes that say the end may not have found room */
	assert_true(s.takes > 0 && s.faults > 0);
}

static void refusals(void **state)
{
	struct run run;
	char *text;

	start_target();
	start_recorder("1h", NULL);
	stop_recorder();
	assert_int_equal(icp(&run, NULL, "record", "--pid", decimal(made.target.pid), "-o",
			     made.file, NULL),
			 1);
	text = run_text(run.err);
	assert_non_null(strstr(text, "exists already"));
	free(text);
	run_close(&run);
	assert_int_equal(icp(&run, NULL, "record", "--pid", decimal(made.target.pid), NULL), 2);
	run_close(&run);
	assert_int_equal(icp(&run, NULL, "report", "/dev/null", NULL), 1);
	text = run_text(run.err);
	assert_string_equal(text, "icp-bpf: /dev/null: this is no recording of icp-bpf\n");
	free(text);
	run_close(&run);
	assert_int_equal(icp(&run, NULL, "report", made.file, "--heatmap", "x.gif", NULL), 1);
	text = run_text(run.err);
	assert_non_null(strstr(text, ".svg or .png"));
	free(text);
	run_close(&run);
	assert_int_equal(icp(&run, NULL, "report", made.file, "--pid", "1", NULL), 1);
	run_close(&run);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, recording_setup, recording_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_written),
		TEST(every_interval),
		TEST(children_and_programs),
		TEST(small),
		TEST(stacks),
		TEST(killed),
		TEST(full_disk),
		TEST(refusals),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
