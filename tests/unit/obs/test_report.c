// SPDX-License-Identifier: GPL-2.0
/* Sums, heatmaps and pictures of recordings whose content is known. */
#include "obs/canvas.h"
#include "obs/heatmap.h"
#include "obs/report.h"
#include "obs/report_text.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/scratch.h"

#define PAGE 4096ull
#define LOW 0x100000ull
#define HIGH 0x7f0000000000ull

static char dir[SCRATCH_MAX], file[SCRATCH_MAX + 16], picture[SCRATCH_MAX + 16];
static struct report report;

static void must(int err)
{
	if (err)
		fail_msg("%s", err_text(err));
}

/*
 * Two mappings far apart. Four intervals of a second: pages 0-3 of the low one in each; of the high one page 0, 64, 128, 192 in turn, and
 * in the last one 256 pages from 1024 on.
 */
static int make_recording(void **state)
{
	struct rec_start start = {.page_size = PAGE, .interval_us = 1000000, .tracker = "uffd"};
	struct rec_vma vmas[] = {{LOW, LOW + 4 * PAGE, "/bin/<low>&", false, true},
				 {HIGH, HIGH + 4096 * PAGE, "", false, true}};
	const char *stack[] = {"inner", "outer"};
	struct rec_writer *w;
	uint32_t p, thread;

	if (!mkdtemp(scratch(dir, "report")))
		return -1;
	snprintf(file, sizeof(file), "%s/a.rec", dir);
	snprintf(picture, sizeof(picture), "%s/a.svg", dir);
	must(rec_create(file, &start, &w));
	must(rec_add_process(w, 7, "seven", &p));
	must(rec_add_thread(w, p, 7, "seven", &thread));
	must(rec_put_maps(w, p, vmas, 2));
	for (uint64_t i = 0; i < 4; i++) {
		struct rec_run runs[] = {
			{LOW, LOW + 4 * PAGE, REC_WRITTEN},
			{HIGH + i * 64 * PAGE, HIGH + (i * 64 + 1) * PAGE, REC_WRITTEN},
			{HIGH + 1024 * PAGE, HIGH + 1280 * PAGE, REC_NEW}};
		struct rec_take take = {.time_us = (i + 1) * 1000000,
					.interval_us = 1000000,
					.process = p,
					.faults = 5,
					.lost = i,
					.runs = runs,
					.n = i == 3 ? 3 : 2};

		must(rec_put_take(w, &take));
	}
	must(rec_put_stack(w, 1, thread, stack, 2, 30));
	must(rec_put_stack(w, 2, thread, stack + 1, 1, 10));
	must(rec_finish(w, 4000000, "duration"));
	must(report_read(file, &report));
	return 0;
}

static int remove_recording(void **state)
{
	report_free(&report);
	memset(&report, 0, sizeof(report));
	unlink(file);
	unlink(picture);
	return rmdir(dir);
}

static void sums(void **state)
{
	struct report_process *p = report_of(&report, 7);

	assert_ptr_equal(p, report_of(&report, 0));
	assert_null(report_of(&report, 8));
	assert_int_equal(p->takes.n, 4);
	assert_int_equal(p->pages, 4 * 5 + 256);
	assert_int_equal(p->faults, 20);
	assert_int_equal(p->lost, 6);
	assert_int_equal(touched_bytes(&p->touched), (4 + 4 + 256) * PAGE);
	assert_int_equal(p->vmas.n, 2);
	assert_int_equal(p->vmas.data[0].pages, 260);
	assert_string_equal(p->vmas.data[0].name, "[anon]");
	assert_int_equal(p->vmas.data[1].pages, 16);
	assert_int_equal(report.end_us, 4000000);
	assert_string_equal(report.reason, "duration");
	assert_string_equal(report.damage, "");
}

/* As many rows as are wanted, none where nothing was written. */
static void rows(void **state)
{
	struct report_process *p = report_of(&report, 7);
	struct heatmap h;

	must(heatmap_make(file, &report, p, 1000, 100, &h));
	assert_int_equal(h.columns, 4); /* there is no more to tell them apart */
	assert_int_equal(h.bin, PAGE);
	assert_int_equal(h.rows.n, 4 + 4 + 256);
	assert_true(h.rows.data[0].begins && h.rows.data[4].begins);
	assert_false(h.rows.data[1].begins || h.rows.data[5].begins);
	assert_int_equal(h.rows.data[5].start, HIGH + 64 * PAGE);
	for (unsigned c = 0; c < 4; c++) {
		assert_true(h.cells[c] == 1);
		for (unsigned i = 0; i < 4; i++)
			assert_true(h.cells[(4 + i) * 4 + c] == (i == c));
		assert_true(h.cells[8 * 4 + c] == (c == 3));
	}
	heatmap_free(&h);
	must(heatmap_make(file, &report, p, 10, 2, &h));
	assert_int_equal(h.columns, 2);
	assert_true(h.rows.n <= 10 && h.rows.n > 4);
	vec_each (r, &h.rows) {
		assert_true(r->start < r->end);
		assert_true((r->start >= LOW && r->end <= LOW + 4 * PAGE) ||
			    (r->start >= HIGH && r->end <= HIGH + 193 * PAGE) ||
			    (r->start >= HIGH + 1024 * PAGE && r->end <= HIGH + 1280 * PAGE));
	}
	/* the low one is full in both, the end of the high one in the second only */
	assert_true(h.cells[0] == 1 && h.cells[1] == 1);
	assert_true(h.cells[h.rows.n * 2 - 2] == 0 && h.cells[h.rows.n * 2 - 1] == 1);
	heatmap_free(&h);
	must(heatmap_make(file, &report, p, 1, 1, &h)); /* fewer rows than names: one */
	assert_int_equal(h.rows.n, 1);
	heatmap_free(&h);
}

static char *printed(const struct heatmap *h, bool colour)
{
	size_t len;
	char *text;
	FILE *out = open_memstream(&text, &len);

	heatmap_print(h, out, colour);
	fclose(out);
	return text;
}

static void as_text(void **state)
{
	struct heatmap h;
	char *text;

	must(heatmap_make(file, &report, report_of(&report, 7), 12, 4, &h));
	text = printed(&h, false);
	assert_non_null(strstr(text, "/bin/<low>&            000000100000 |@@@@|\n"));
	assert_non_null(strstr(text, "[anon]                 7f0000000000 |"));
	assert_null(strchr(text, '\033'));
	free(text);
	text = printed(&h, true);
	assert_non_null(strstr(text, "\033[48;5;228m "));
	assert_null(strchr(text, '|'));
	free(text);
	heatmap_free(&h);
	assert_int_equal(heat_level(0, 8), 0);
	assert_int_equal(heat_level(0.00001f, 8), 1);
	assert_int_equal(heat_level(0.25f, 8), 4);
	assert_int_equal(heat_level(1, 8), 8);
}

static char *read_picture(void)
{
	FILE *f = fopen(picture, "r");
	char *text = calloc(1, 1 << 20);

	assert_non_null(f);
	assert_true(fread(text, 1, (1 << 20) - 1, f) > 0);
	fclose(f);
	return text;
}

static void flames(void **state)
{
	struct report_process *p = report_of(&report, 7);
	double width, height;
	struct canvas *c;
	char *text;

	flamegraph_size(&p->stacks, &width, &height);
	must(canvas_open(picture, width, height, &c));
	assert_int_not_equal(access(picture, F_OK), 0);
	must(canvas_close(c, flamegraph_draw(&p->stacks, "a < b", "faults", c)));
	text = read_picture();
	assert_non_null(strstr(text, "a &lt; b"));
	assert_non_null(strstr(text, "<title>all: 40 faults, 100.0 %</title>"));
	assert_non_null(strstr(text, "<title>outer: 40 faults, 100.0 %</title>"));
	assert_non_null(strstr(text, "<title>inner: 30 faults, 75.0 %</title>"));
	free(text);
}

static void escapes(void **state)
{
	static const struct {
		const char *in, *out;
	} texts[] = {{"", ""},
		     {"a<b>&\"'", "a&lt;b&gt;&amp;&quot;&apos;"},
		     {"\x01\x1b\x7f\n", "????"},
		     {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
		     {"\xc3", "?"},
		     {"\xff\xfe<", "??&lt;"},
		     {"\xed\xa0\x80", "???"}, /* a surrogate */
		     {"\xef\xbf\xbf", "???"}, /* no character */
		     {"\xf0\x9f\x94\xa5", "\xf0\x9f\x94\xa5"},
		     {"\xc0\x80", "??"},
		     {"\xc2\x85", "??"}};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		char *out = canvas_escape(texts[i].in);

		assert_string_equal(out, texts[i].out);
		free(out);
	}
}

static void csv(void **state)
{
	size_t len;
	char *text;
	FILE *out = open_memstream(&text, &len);

	report_csv(&report, 0, out);
	fclose(out);
	assert_non_null(strstr(text, "\n4.000000,7,\"seven\",1.000000,261,1069056.0,5,0,3\n"));
	free(text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_recording, remove_recording)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(sums),	 TEST(rows),	TEST(as_text),
					   TEST(flames), TEST(escapes), TEST(csv)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
