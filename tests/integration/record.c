// SPDX-License-Identifier: GPL-2.0
/* `icp-bpf record` and `report` against a process that writes known pages. */
#include "obs/rec.h"

#include <fcntl.h>
#include <png.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/kid.h"
#include "lib/robust_procs.h"
#include "lib/scratch.h"
#include "lib/tracer.h"

#define PAGE 4096ul
#define PAGES 1000ul

static struct {
	struct talker target;
	struct run recorder;
	char dir[SCRATCH_MAX], file[SCRATCH_MAX + 16];
	uint64_t memory;
	bool mounted;
} made;

static int setup(void **state)
{
	memset(&made, 0, sizeof(made));
	if (!mkdtemp(scratch(made.dir, "record")))
		return -1;
	snprintf(made.file, sizeof(made.file), "%s/a.rec", made.dir);
	return 0;
}

static const char *in_dir(const char *name)
{
	static char path[4][SCRATCH_MAX + 32];
	static unsigned next;
	char *slot = path[next++ % 4];

	snprintf(slot, sizeof(path[0]), "%s/%s", made.dir, name);
	return slot;
}

static int teardown(void **state)
{
	static const char *const files[] = {"a.rec", "b.rec", "a.svg", "b.svg", "a.png"};

	if (made.recorder.pid)
		run_close(&made.recorder);
	if (made.target.pid)
		talker_end(&made.target);
	kids_end();
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		unlink(in_dir(files[i]));
	if (made.mounted)
		umount2(made.dir, MNT_DETACH);
	return rmdir(made.dir);
}

static void start_target(void)
{
	char line[128];

	talker_start(&made.target, built("tests/targets/striper"), decimal(PAGES), NULL);
	assert_true(talker_line(&made.target, line, sizeof(line)));
	made.memory = strtoull(line, NULL, 16);
	assert_true(made.memory > 0);
}

static void write_pages(size_t first, size_t n)
{
	char line[64];

	snprintf(line, sizeof(line), "write %zu %zu\n", first, n);
	talker_ask(&made.target, line, "done");
}

/* Returns when it is attached: then the file has its header. */
/* @more: one more argument, or NULL. */
static void start_recorder(const char *interval, const char *more)
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

static int end_recorder(int sig)
{
	int status;

	kill(made.recorder.pid, sig);
	run_wait(&made.recorder, 60);
	status = made.recorder.status;
	made.recorder.pid = 0;
	return status;
}

static void stop_recorder(void)
{
	assert_int_equal(end_recorder(SIGINT), 0);
	run_close(&made.recorder);
}

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

/* ---- report ---- */

static char *report_ok(const char *option, const char *value)
{
	struct run run;
	char *text;

	assert_int_equal(icp(&run, NULL, "report", made.file, option, value, NULL), 0);
	text = run_text(run.err);
	assert_string_equal(text, "");
	free(text);
	text = run_text(run.out);
	run_close(&run);
	return text;
}

static void record_some(void)
{
	start_target();
	start_recorder("1h", NULL);
	write_pages(100, 50);
	write_pages(700, 200);
	stop_recorder();
}

static void summary(void **state)
{
	char want[128], *text;

	record_some();
	text = report_ok(NULL, NULL);
	snprintf(want, sizeof(want), "pid %d striper: 1 takes", made.target.pid);
	assert_non_null(strstr(text, want));
	snprintf(want, sizeof(want), "%012lx-%012lx        [anon]\n", made.memory,
		 made.memory + PAGES * PAGE);
	assert_non_null(strstr(text, want));
	assert_non_null(strstr(text, "\n         250  "));
	assert_non_null(strstr(text, "stripe_inner [striper]\n"));
	assert_non_null(strstr(text, "ended by interrupted\n"));
	free(text);
	text = report_ok("--top", "0");
	assert_null(strstr(text, "stripe_inner"));
	free(text);
}

/* Rows are where something was written, and nowhere else. */
static void heatmap_text(void **state)
{
	uint64_t low = made.memory, rows = 0, last = 0;
	char *text;

	record_some();
	low = made.memory;
	text = report_ok("--heatmap", "-");
	assert_null(strchr(text, '\033')); /* not a terminal: no colours */
	for (char *line = strchr(text, '\n') + 1; strchr(line, '|');
	     line = strchr(line, '\n') + 1) {
		uint64_t addr = strtoull(strchr(line, '|') - 13, NULL, 16);

		assert_true(addr > last);
		last = addr;
		assert_non_null(strchr(line, '|')[1] == '@' ? line : NULL);
		if (addr < low || addr >= low + PAGES * PAGE)
			continue;
		rows++;
		assert_true((addr >= low + 100 * PAGE && addr < low + 150 * PAGE) ||
			    (addr >= low + 700 * PAGE && addr < low + 900 * PAGE));
	}
	assert_true(rows > 2);
	free(text);
}

static void valid_xml(const char *path)
{
	const char *argv[] = {"xmllint", "--noout", path, NULL};
	struct run run;
	char *text;

	run_start(&run, NULL, argv);
	run_wait(&run, 30);
	text = run_text(run.err);
	if (run.status)
		fail_msg("%s: %s", path, text);
	free(text);
	run_close(&run);
}

/* A program may call itself whatever it likes. */
static void pictures(void **state)
{
	png_image png = {.version = PNG_IMAGE_VERSION};
	char *text;

	start_target();
	talker_ask(&made.target, "name <a&\"\xff']]>\x01\n", "done");
	start_recorder("1h", NULL);
	write_pages(0, 300);
	write_pages(400, 1);
	stop_recorder();
	free(report_ok("--heatmap", in_dir("a.svg")));
	free(report_ok("--flamegraph", in_dir("b.svg")));
	free(report_ok("--heatmap", in_dir("a.png")));
	valid_xml(in_dir("a.svg"));
	valid_xml(in_dir("b.svg"));
	text = file_text("%s", in_dir("a.svg"));
	assert_non_null(strstr(text, "&lt;a&amp;&quot;?&apos;]]&gt;?"));
	assert_non_null(strstr(text, "<title>[anon] "));
	free(text);
	assert_true(png_image_begin_read_from_file(&png, in_dir("a.png")));
	assert_true(png.width > 800 && png.height > 100);
	png_image_free(&png);
}

/* The callers are there, since the target has frame pointers, and their boxes hold those they call. */
static void flames(void **state)
{
	const char *inner, *outer;
	unsigned long n_inner, n_outer;
	struct seen s;
	char *text;

	start_target();
	start_recorder("50ms", NULL);
	for (size_t i = 0; i < 40; i++) {
		write_pages(0, PAGES);
		nap_ms(10);
	}
	stop_recorder();
	look(&s, false);
	assert_true(s.stacked > PAGES);
	free(report_ok("--flamegraph", in_dir("a.svg")));
	valid_xml(in_dir("a.svg"));
	text = file_text("%s", in_dir("a.svg"));
	inner = strstr(text, "<title>stripe_inner [striper]: ");
	outer = strstr(text, "<title>stripe_outer [striper]: ");
	assert_non_null(inner);
	assert_non_null(outer);
	n_inner = strtoul(inner + 31, NULL, 10);
	n_outer = strtoul(outer + 31, NULL, 10);
	assert_true(n_inner > 0 && n_outer >= n_inner);
	free(text);
}

/* ---- what goes wrong ---- */

static void change_file(off_t at, bool cut)
{
	int fd = open(made.file, O_RDWR);
	char byte;

	assert_true(fd >= 0);
	if (cut) {
		assert_int_equal(ftruncate(fd, at), 0);
	} else {
		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	}
	close(fd);
}

static void report_damaged(const char *what)
{
	struct run run;
	char *text;

	assert_int_equal(icp(&run, NULL, "report", made.file, NULL), 1);
	text = run_text(run.err);
	assert_non_null(strstr(text, what));
	assert_non_null(strstr(text, "what is before that was shown"));
	assert_int_equal(strchr(text, '\n') - text, strlen(text) - 1);
	free(text);
	text = run_text(run.out);
	assert_non_null(strstr(text, "striper"));
	assert_non_null(strstr(text, "stripe_inner"));
	free(text);
	run_close(&run);
}

static void damaged(void **state)
{
	struct stat st;

	start_target();
	start_recorder("20ms", NULL);
	for (size_t i = 0; i < 100; i++) {
		write_pages(i, 10);
		nap_ms(3);
	}
	stop_recorder();
	assert_int_equal(stat(made.file, &st), 0);
	change_file(st.st_size - 100, false);
	report_damaged("checksum");
	change_file(st.st_size - 101, true);
	report_damaged("cut off");
}

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
	report_damaged("cut off");
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_written),
		TEST(every_interval),
		TEST(children_and_programs),
		TEST(small),
		TEST(summary),
		TEST(heatmap_text),
		TEST(pictures),
		TEST(flames),
		TEST(damaged),
		TEST(killed),
		TEST(full_disk),
		TEST(refusals),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
