// SPDX-License-Identifier: GPL-2.0
/* What `icp-bpf top` shows: order and choice, graphs, and samples that travel as JSON. */
#include "obs/braille.h"
#include "obs/sample_json.h"
#include "obs/top.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct top top;

static int clear(void **state)
{
	top_free(&top);
	memset(&top, 0, sizeof(top));
	top.page_size = 4096;
	return 0;
}

static void see(pid_t session, unsigned index, pid_t pid, const char *comm, double rate)
{
	struct process_sample s = {.pid = pid,
				   .interval_s = 2,
				   .dirty_bytes_per_s = rate,
				   .wws_pages = {1, (uint64_t)pid, 3},
				   .faults = 1000u - (unsigned)pid};

	snprintf(s.comm, sizeof(s.comm), "%s", comm);
	assert_int_equal(top_see(&top, session, index, &s), 0);
}

static void expect_order(pid_t a, pid_t b, pid_t c)
{
	assert_int_equal(top.rows.n, 3);
	assert_int_equal(top.rows.data[0]->s.pid, a);
	assert_int_equal(top.rows.data[1]->s.pid, b);
	assert_int_equal(top.rows.data[2]->s.pid, c);
}

static void three(unsigned index)
{
	top_begin(&top);
	see(0, index, 10, "zebra", 500);
	see(0, index, 20, "ant", 700);
	see(9, index, 30, "mole", 600);
	top_end(&top);
}

static void sorts(void **state)
{
	three(1);
	expect_order(20, 30, 10);
	top_sort_by(&top, TOP_RATE);
	expect_order(10, 30, 20);
	top_sort_by(&top, TOP_NAME);
	expect_order(20, 30, 10);
	top_sort_by(&top, TOP_PID);
	expect_order(10, 20, 30);
	top_sort_by(&top, TOP_PID);
	expect_order(30, 20, 10);
	top_sort_by(&top, TOP_WWS);
	expect_order(30, 20, 10);
	top_sort_by(&top, TOP_FAULTS);
	expect_order(10, 20, 30);
}

/* The choice stays with the process, wherever it goes, and is the first one's when it has gone. */
static void selects(void **state)
{
	assert_int_equal(top_selected(&top), -1);
	assert_null(top_row_selected(&top));
	top_move(&top, 1);
	three(1);
	assert_int_equal(top_selected(&top), 0);
	top_move(&top, 1);
	assert_int_equal(top_row_selected(&top)->s.pid, 30);
	top_sort_by(&top, TOP_PID);
	assert_int_equal(top_selected(&top), 2);
	top_move(&top, 100);
	assert_int_equal(top_selected(&top), 2);
	top_move(&top, -100);
	assert_int_equal(top_selected(&top), 0);
	top_move(&top, 2);
	top_begin(&top);
	see(0, 2, 10, "zebra", 500);
	/* the same pid in another session is another one */
	see(8, 2, 30, "mole", 600);
	top_end(&top);
	assert_int_equal(top.rows.n, 2);
	assert_int_equal(top_selected(&top), 0);
}

static void history(void **state)
{
	three(1);
	three(1); /* the same sample again */
	assert_int_equal(top.rows.data[0]->n_history, 1);
	for (unsigned i = 2; i < TOP_HISTORY + 100; i++)
		three(i);
	assert_int_equal(top.rows.data[0]->n_history, TOP_HISTORY);
	top_begin(&top);
	see(0, 0, 10, "zebra", 0); /* no sample */
	top_end(&top);
	assert_int_equal(top.rows.n, 1);
	assert_int_equal(top.rows.data[0]->n_history, TOP_HISTORY);
}

static void lines(void **state)
{
	char text[512];

	top_begin(&top);
	see(0, 1, 10, "a\033[31m\xff", 1048576);
	see(77, 0, 20, "idle", 0);
	top_end(&top);
	top_line(&top, top.rows.data[0], text, sizeof(text));
	assert_string_equal(text,
			    "     10 a?[31m?            1.0M/s    4.0K   40.0K   12.0K     "
			    " 495     0 own");
	top_line(&top, top.rows.data[1], text, sizeof(text));
	assert_non_null(strstr(text, " - "));
	assert_non_null(strstr(text, " 77"));
	top_header(&top, text, sizeof(text));
	assert_true(strlen(text) <= 80);
	for (char *c = text; *c; c++)
		assert_true(*c >= ' ' && *c <= '~');
}

static void graph(void **state)
{
	const double values[] = {0, 1, 2, 4, 8};
	char text[64];

	/* two rows of four steps; columns of two values, the newest at the right */
	braille_row(values, 5, 8, 2, 4, 0, true, text);
	assert_string_equal(text, "\u2800\u2800\u2800\u28b8");
	braille_row(values, 5, 8, 2, 4, 1, true, text);
	assert_string_equal(text, "\u2800\u2800\u28e0\u28ff");
	braille_row(values, 5, 8, 1, 6, 0, false, text);
	assert_string_equal(text, "  ..:#");
	braille_row(values, 0, 8, 1, 3, 0, false, text);
	assert_string_equal(text, "   ");
	braille_row(values, 5, 0, 1, 3, 0, false, text);
	assert_string_equal(text, "   ");
}

static void json(void **state)
{
	struct process_sample s = {.pid = 42,
				   .comm = "redis",
				   .ended = true,
				   .interval_s = 0.5,
				   .dirty_pages = 1ull << 40,
				   .dirty_bytes_per_s = 1.25e9,
				   .wws_pages = {1, 2, 3},
				   .faults = 7,
				   .kernel_faults = 6,
				   .lost_events = 5,
				   .events_complete = true},
			      back;
	struct vma_stat vma = {0xffffffffff600000, 0xffffffffff601000, 9, "/a b"};
	struct segment_stat seg = {.key = -5, .id = 3, .size = 4096, .attach_count = 2};
	struct writer_stat writer = {43, "bio", "memset [libc]", 99, 98};
	json_t *out;

	s.vmas.data = &vma;
	s.segments.data = &seg;
	s.writers.data = &writer;
	s.vmas.n = s.segments.n = s.writers.n = 1;
	out = process_sample_json(&s, true);
	assert_int_equal(process_sample_parse(out, &back), 0);
	json_decref(out);
	assert_int_equal(back.pid, 42);
	assert_string_equal(back.comm, "redis");
	assert_true(back.ended && back.events_complete);
	assert_true(back.interval_s == 0.5 && back.dirty_bytes_per_s == 1.25e9);
	assert_int_equal(back.dirty_pages, 1ull << 40);
	assert_int_equal(back.wws_pages[2], 3);
	assert_int_equal(back.lost_events, 5);
	assert_int_equal(back.vmas.n, 1);
	assert_memory_equal(&back.vmas.data[0].start, &vma.start, 24);
	assert_string_equal(back.vmas.data[0].name, "/a b");
	assert_int_equal(back.segments.data[0].key, -5);
	assert_int_equal(back.segments.data[0].attach_count, 2);
	assert_string_equal(back.writers.data[0].function, "memset [libc]");
	assert_int_equal(back.writers.data[0].kernel_faults, 98);
	process_sample_clear(&back);
	out = process_sample_json(&s, false);
	assert_int_equal(process_sample_parse(out, &back), 0);
	assert_int_equal(back.vmas.n, 0);
	json_decref(out);
	/* from whoever listens on such a socket */
	out = json_pack("{s:s, s:i, s:[i]}", "comm", "x", "pid", -3, "vmas", 5);
	assert_true(process_sample_parse(out, &back) < 0);
	json_decref(out);
	assert_true(process_sample_parse(NULL, &back) < 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, clear, clear)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(sorts), TEST(selects), TEST(history),
					   TEST(lines), TEST(graph),   TEST(json)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
