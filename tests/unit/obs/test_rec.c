// SPDX-License-Identifier: GPL-2.0
/* Recordings: what was put in comes out again; of a damaged or cut file all that is before the damage, and never anything else. */
#include "base/io.h"
#include "obs/rec.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/scratch.h"
#include "obs/rec_format.h"

#define PAGE 4096ull
#define VMAS 200
#define RUNS 70000 /* more than fit into one record */

static char dir[SCRATCH_MAX], file[SCRATCH_MAX + 16];

static int make_dir(void **state)
{
	if (!mkdtemp(scratch(dir, "rec")))
		return -1;
	snprintf(file, sizeof(file), "%s/a.rec", dir);
	return 0;
}

static int remove_dir(void **state)
{
	unlink(file);
	return rmdir(dir);
}

static void must(int err)
{
	if (err)
		fail_msg("%s", err_text(err));
}

/* ---- every item as a line of text, so that two readings can be compared ---- */

static void say_table(const struct rec_process *p, FILE *out)
{
	vec_each (v, &p->maps.vmas)
		fprintf(out, " %" PRIx64 "-%" PRIx64 "%c%c%s", v->start, v->end,
			v->shared ? 's' : 'p', v->writable ? 'w' : 'r', v->name);
}

static void say(const struct rec_reader *r, const struct rec_item *i, FILE *out)
{
	fprintf(out, "%d %" PRIu64 " %u", i->kind, i->time_us, i->process);
	switch (i->kind) {
	case REC_FAULT:
		fprintf(out, " %d/%s %s %" PRIx64 " %" PRIx64 " %d",
			rec_thread_of(r, i->thread)->tid, rec_thread_of(r, i->thread)->comm,
			rec_site_of(r, i->site)->function, rec_site_of(r, i->site)->ip, i->addr,
			i->kernel);
		break;
	case REC_TAKE:
		fprintf(out, " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64,
			i->take.interval_us, i->take.faults, i->take.kernel_faults,
			i->take.lost);
		for (size_t n = 0; n < i->take.n; n++)
			fprintf(out, " %" PRIx64 "-%" PRIx64 "/%d", i->take.runs[n].start,
				i->take.runs[n].end, i->take.runs[n].kind);
		break;
	case REC_MAPS:
		say_table(rec_process_of(r, i->process), out);
		break;
	case REC_STACKED:
		fprintf(out, " %u", i->faults);
		for (uint32_t n = 0; n < rec_stack_of(r, i->stack)->n; n++)
			fprintf(out, " %s", rec_stack_of(r, i->stack)->functions[n]);
		break;
	case REC_EVENT:
		fprintf(out, " %d %" PRIu64, i->event, i->arg);
		break;
	case REC_END:
		fprintf(out, " %s", i->reason);
		break;
	}
	fputc('\n', out);
}

/* Read all of a stream; *@damaged: it says that something is wrong. */
static char *read_all(FILE *from, bool *damaged)
{
	struct rec_reader *r;
	struct rec_item item;
	char *text;
	size_t len;
	FILE *out;
	int got;

	if (rec_open_file(from, &r)) {
		fclose(from);
		*damaged = true;
		return NULL;
	}
	out = open_memstream(&text, &len);
	while ((got = rec_next(r, &item)) == 1)
		say(r, &item, out);
	assert_int_equal(got, 0);
	assert_int_equal(rec_next(r, &item), 0);
	*damaged = rec_damage(r);
	fclose(out);
	rec_close(r);
	return text;
}

/* ---- a recording of everything ---- */

static struct rec_writer *begin(void)
{
	struct rec_start start = {.start_ns = 1795375000123456789u,
				  .interval_us = 500000,
				  .page_size = PAGE,
				  .tracker = "uffd"};
	struct rec_writer *w;

	must(rec_create(file, &start, &w));
	return w;
}

static void put_faults(struct rec_writer *w, uint32_t thread, unsigned n, unsigned *seed)
{
	for (unsigned i = 0; i < n; i++) {
		struct rec_fault f = {
			.time_us = 1000 + i * 3 - i % 5,
			.addr = 0x7f0000000000 + (uint64_t)rand_r(seed) % 5000 * PAGE +
				(uint64_t)rand_r(seed) % 512 * 8,
			.thread = thread,
			.kernel = i % 7 == 0,
		};
		char function[32];

		snprintf(function, sizeof(function), "f%u [prog]", i % 3);
		if (!rec_find_site(w, 0, 0x400000 + i % 3, &f.site))
			must(rec_add_site(w, 0, 0x400000 + i % 3, function, &f.site));
		if (i == n / 2)
			f.addr = UINT64_MAX;
		must(rec_put_fault(w, &f));
	}
}

static void put_take(struct rec_writer *w, uint64_t time_us, size_t n)
{
	struct rec_run *runs = calloc(n + 1, sizeof(*runs));
	struct rec_take take = {.time_us = time_us,
				.interval_us = 500,
				.faults = n * 2,
				.kernel_faults = 3,
				.lost = n % 4,
				.runs = runs,
				.n = n};

	for (size_t i = 0; i < n; i++)
		runs[i] = (struct rec_run){(0x1000 + i * 3) * PAGE, (0x1002 + i * 3) * PAGE,
					   (enum rec_run_kind)(1 + i % 3)};
	must(rec_put_take(w, &take));
	free(runs);
}

static void put_maps(struct rec_writer *w, uint32_t process, size_t skip, size_t n)
{
	struct rec_vma vmas[VMAS];
	size_t put = 0;

	for (size_t i = 0; i < n; i++)
		if (i != skip)
			vmas[put++] = (struct rec_vma){.start = (0x5500 + i * 0x100) * PAGE,
						       .end = (0x5580 + i * 0x100) * PAGE,
						       .name = i % 5 ? "/usr/lib/\xff<x>" : "",
						       .shared = i % 2,
						       .writable = i % 3};
	must(rec_put_maps(w, process, vmas, put));
}

static void put_everything(struct rec_writer *w, unsigned faults, size_t runs)
{
	const char *stack[] = {"memset [libc]", "fill [prog]", "main [prog]"};
	uint32_t process, other, thread, second;
	unsigned seed = 7;

	must(rec_add_process(w, 4711, "first", &process));
	must(rec_add_process(w, 4712, "", &other));
	must(rec_add_thread(w, process, 4711, "first", &thread));
	must(rec_add_thread(w, other, 4799, "worker", &second));
	put_maps(w, process, 1000, VMAS);
	put_faults(w, thread, faults, &seed);
	put_maps(w, process, 77, VMAS); /* one in the middle is gone */
	put_take(w, 2000, runs);
	must(rec_put_stack(w, 2100, thread, stack, 3, 11));
	must(rec_put_stack(w, 2200, second, stack + 1, 2, 1));
	must(rec_put_stack(w, 2300, second, stack, 0, 1));
	must(rec_flush(w));
	put_maps(w, process, 77, VMAS - 50);
	put_maps(w, process, 77, VMAS - 50); /* nothing new: no item */
	must(rec_put_event(w, 2400, process, REC_FORK, 4712));
	put_faults(w, second, faults / 2, &seed);
	put_take(w, 4000, 0);
	must(rec_put_event(w, 5000, other, REC_EXIT, 0));
	must(rec_finish(w, 6000, "duration"));
}

static size_t lines(const char *text, const char *begins)
{
	size_t n = 0;

	for (; text && *text; text = strchr(text, '\n') + 1)
		n += !strncmp(text, begins, strlen(begins));
	return n;
}

static void round_trip(void **state)
{
	struct rec_start start;
	struct rec_reader *r;
	bool damaged;
	char *text;
	struct stat st;

	put_everything(begin(), 100000, RUNS);
	must(rec_open(file, &r));
	start = *rec_started(r);
	rec_close(r);
	assert_int_equal(start.start_ns, 1795375000123456789u);
	assert_int_equal(start.interval_us, 500000);
	assert_int_equal(start.page_size, PAGE);
	assert_string_equal(start.tracker, "uffd");
	text = read_all(fopen(file, "r"), &damaged);
	assert_false(damaged);
	assert_int_equal(lines(text, "1 "), 150000);
	assert_int_equal(lines(text, "2 "), (RUNS + REC_PART - 1) / REC_PART + 1);
	assert_int_equal(lines(text, "3 "), 3);
	assert_int_equal(lines(text, "4 "), 3);
	assert_int_equal(lines(text, "5 "), 2);
	assert_int_equal(lines(text, "6 6000 0 duration"), 1);
	assert_non_null(strstr(text, "\n4 2100 0 11 memset [libc] fill [prog] main [prog]\n"));
	assert_non_null(strstr(text, "\n5 2400 0 1 4712\n"));
	assert_non_null(strstr(text, "/usr/lib/\xff<x>"));
	assert_non_null(strstr(text, " ffffffffffffffff "));
	free(text);
	/* random addresses and all: some bytes a fault */
	assert_int_equal(stat(file, &st), 0);
	assert_true(st.st_size < 150000 * 7 + RUNS * 3);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(unlink(file), 0);
}

/* The times, and the first and last faults, exactly. */
static void exact_values(void **state)
{
	struct rec_writer *w = begin();
	struct rec_fault f[3] = {{.time_us = 12345678901, .addr = 0x7ffffffff008},
				 {.time_us = 12345678900, .addr = 8, .kernel = true},
				 {.time_us = 0, .addr = UINT64_MAX}};
	uint32_t process;
	struct rec_reader *r;
	struct rec_item item;

	must(rec_add_process(w, 1, "init", &process));
	must(rec_add_thread(w, process, 1, "init", &f[0].thread));
	must(rec_add_site(w, process, UINT64_MAX, "?", &f[0].site));
	for (size_t i = 0; i < 3; i++)
		must(rec_put_fault(w, &f[i]));
	must(rec_finish(w, 1, ""));
	must(rec_open(file, &r));
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(rec_next(r, &item), 1);
		assert_int_equal(item.kind, REC_FAULT);
		assert_int_equal(item.time_us, f[i].time_us);
		assert_int_equal(item.addr, f[i].addr);
		assert_int_equal(item.kernel, f[i].kernel);
		assert_int_equal(rec_site_of(r, item.site)->ip, UINT64_MAX);
	}
	assert_int_equal(rec_next(r, &item), 1);
	assert_int_equal(item.kind, REC_END);
	assert_int_equal(rec_next(r, &item), 0);
	assert_null(rec_damage(r));
	rec_close(r);
	assert_int_equal(unlink(file), 0);
}

/* ---- damage ---- */

static char *whole;
static size_t whole_len;

static int small_file(void **state)
{
	if (make_dir(state))
		return -1;
	put_everything(begin(), 60, 50);
	return io_read_file(AT_FDCWD, file, &whole, &whole_len);
}

static int forget_file(void **state)
{
	free(whole);
	return remove_dir(state);
}

/* What is read must be a beginning of @right, by whole lines. */
static void assert_begins(const char *right, const char *text)
{
	size_t len = text ? strlen(text) : 0;

	assert_true(len < strlen(right));
	assert_int_equal(strncmp(right, text ? text : "", len), 0);
}

static void damage_everywhere(void **state)
{
	char *copy = malloc(whole_len), *right;
	bool damaged;

	right = read_all(fmemopen(whole, whole_len, "r"), &damaged);
	assert_false(damaged);
	assert_true(whole_len > 500);
	for (size_t at = 0; at < whole_len; at++) {
		for (unsigned bit = 0; bit < 8; bit += at < 120 ? 1 : 3) {
			char *text;

			memcpy(copy, whole, whole_len);
			copy[at] ^= (char)(1u << bit);
			text = read_all(fmemopen(copy, whole_len, "r"), &damaged);
			assert_true(damaged);
			assert_begins(right, text);
			free(text);
		}
	}
	free(right);
	free(copy);
}

static void cut_everywhere(void **state)
{
	char *right;
	bool damaged;
	size_t longest = 0;

	right = read_all(fmemopen(whole, whole_len, "r"), &damaged);
	for (size_t len = 1; len < whole_len; len++) {
		char *text = read_all(fmemopen(whole, len, "r"), &damaged);

		assert_true(damaged);
		assert_begins(right, text);
		longest = text && strlen(text) > longest ? strlen(text) : longest;
		free(text);
	}
	assert_true(longest >
		    strlen(right) / 4); /* the first block is read without the second */
	free(right);
}

static void swapped_and_doubled_blocks(void **state)
{
	size_t first = sizeof(struct rec_header), len;
	char *copy = malloc(2 * whole_len), *right, *text;
	struct rec_block b;
	bool damaged;

	right = read_all(fmemopen(whole, whole_len, "r"), &damaged);
	memcpy(&b, whole + first, sizeof(b));
	len = sizeof(b) + b.stored;
	assert_true(first + len < whole_len);
	/* the first block twice */
	memcpy(copy, whole, first + len);
	memcpy(copy + first + len, whole + first, whole_len - first);
	text = read_all(fmemopen(copy, whole_len + len, "r"), &damaged);
	assert_true(damaged);
	assert_begins(right, text);
	free(text);
	/* without the first */
	memcpy(copy + first, whole + first + len, whole_len - first - len);
	text = read_all(fmemopen(copy, whole_len - len, "r"), &damaged);
	assert_true(damaged);
	assert_string_equal(text, "");
	free(text);
	/* something after the end */
	memcpy(copy, whole, whole_len);
	memset(copy + whole_len, 0, 40);
	text = read_all(fmemopen(copy, whole_len + 40, "r"), &damaged);
	assert_true(damaged);
	assert_string_equal(text, right);
	free(text);
	free(right);
	free(copy);
}

/* ---- files ---- */

static void refusals(void **state)
{
	struct rec_start start = {.page_size = PAGE};
	struct rec_writer *w;
	struct rec_reader *r;

	must(rec_finish(begin(), 5, "x"));
	assert_int_equal(rec_create(file, &start, &w), -EEXIST);
	assert_non_null(strstr(err_text(-EEXIST), "exists already"));
	assert_int_equal(unlink(file), 0);
	assert_int_equal(rec_open(file, &r), -ENOENT);
	assert_int_equal(rec_open("/dev/null", &r), -EINVAL);
	assert_non_null(strstr(err_text(-EINVAL), "no recording"));
	assert_int_equal(rec_create("/dev/full", &start, &w), -ENOSPC);
}

/* A limit stands for a full disk: what was written before stays, whole, with its end. */
static void no_room(void **state)
{
	struct rlimit was, limit;
	struct rec_writer *w = begin();
	uint32_t process, thread;
	unsigned seed = 1, rounds = 0;
	bool damaged;
	char *text;
	int err = 0;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	limit = (struct rlimit){.rlim_cur = 100000, .rlim_max = was.rlim_max};
	must(rec_add_process(w, 1, "init", &process));
	must(rec_add_thread(w, process, 1, "init", &thread));
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	for (; !err && rounds < 1000; rounds++) {
		put_faults(w, thread, 1000, &seed);
		err = rec_flush(w);
	}
	assert_int_equal(err, -EFBIG);
	assert_true(rounds > 5);
	must(rec_finish(w, 9, "no room"));
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	text = read_all(fopen(file, "r"), &damaged);
	assert_false(damaged);
	assert_int_equal(lines(text, "1 "), (rounds - 1) * 1000);
	assert_int_equal(lines(text, "6 9 0 no room"), 1);
	free(text);
	assert_int_equal(unlink(file), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(round_trip, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(exact_values, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(damage_everywhere, small_file, forget_file),
		cmocka_unit_test_setup_teardown(cut_everywhere, small_file, forget_file),
		cmocka_unit_test_setup_teardown(swapped_and_doubled_blocks, small_file,
						forget_file),
		cmocka_unit_test_setup_teardown(refusals, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(no_room, make_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
