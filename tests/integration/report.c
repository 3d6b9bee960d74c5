// SPDX-License-Identifier: GPL-2.0
/* `icp-bpf report` of recordings of a process that writes known pages. */
#include <fcntl.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/recording.h"

#define PAGE 4096ul

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

/* The boxes of callers hold those they call. */
static void flames(void **state)
{
	const char *inner, *outer;
	unsigned long n_inner, n_outer;
	char *text;

	start_target();
	start_recorder("50ms", NULL);
	for (size_t i = 0; i < 40; i++) {
		write_pages(0, PAGES);
		nap_ms(10);
	}
	stop_recorder();
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, recording_setup, recording_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(summary), TEST(heatmap_text), TEST(pictures), TEST(flames), TEST(damaged),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
