// SPDX-License-Identifier: GPL-2.0
/* gdb on exported cores. */
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/cut.h"
#include "lib/robust_procs.h"
#include "targets/core_target.h"
#include "lib/scratch.h"

struct job {
	char dir[SCRATCH_MAX]; /* with the program, its library, the repository, the core */
	char program[128], library[128], repo[128], core[128];
	struct talker t;
	char pid[16];
};

static int run_program(struct run *r, const char *const *argv)
{
	run_start(r, NULL, argv);
	run_wait(r, 120);
	return r->status;
}

static void copy_to(const char *from, const char *to)
{
	struct run r;

	assert_int_equal(run_program(&r, (const char *[]){"/bin/cp", from, to, NULL}), 0);
	run_close(&r);
}

static int setup(void **state)
{
	struct job *j = *state = calloc(1, sizeof(*j));
	char line[64];

	assert_non_null(mkdtemp(scratch(j->dir, "export")));
	snprintf(j->program, sizeof(j->program), "%s/core_target", j->dir);
	snprintf(j->library, sizeof(j->library), "%s/libcore_target.so", j->dir);
	snprintf(j->repo, sizeof(j->repo), "%s/repo", j->dir);
	snprintf(j->core, sizeof(j->core), "%s/core", j->dir);
	copy_to(built("tests/targets/core_target"), j->program);
	copy_to(built("tests/targets/libcore_target.so"), j->library);
	talker_start(&j->t, j->program, NULL);
	assert_true(talker_line(&j->t, line, sizeof(line)));
	snprintf(j->pid, sizeof(j->pid), "%d", (int)j->t.pid);
	cut_version(j->t.pid, j->repo);
	return 0;
}

static int teardown(void **state)
{
	struct job *j = *state;
	struct run r;

	talker_end(&j->t);
	run_program(&r, (const char *[]){"/bin/rm", "-rf", j->dir, NULL});
	run_close(&r);
	free(j);
	return 0;
}

/* Export to j->core; the text on stderr, to be freed. */
static char *export(const struct job *j, int wanted)
{
	struct run r;
	int status = icp(&r, NULL, "export", "--dir", j->repo, "--version", "1", "--core",
			 j->core, NULL);
	char *err = run_text(r.err);

	if (status != wanted)
		fail_msg("exit status %d: %s", status, err);
	run_close(&r);
	return err;
}

/* What gdb prints for these commands (NULL at the end), both streams; to be freed. */
static char *gdb(const struct job *j, const char *const *commands)
{
	const char *argv[64] = {"/usr/bin/gdb",
				"-nx",
				"-batch",
				"-iex",
				"set debuginfod enabled off",
				"-iex",
				"set auto-load off",
				"-iex",
				"set width 0"};
	size_t n = 9;
	struct run r;
	char *out, *err, *all;

	for (size_t i = 0; commands[i] && n < 60; i++) {
		argv[n++] = "-ex";
		argv[n++] = commands[i];
	}
	argv[n++] = j->program;
	argv[n] = j->core;
	run_program(&r, argv);
	out = run_text(r.out);
	err = run_text(r.err);
	assert_true(asprintf(&all, "%s\n--- stderr ---\n%s", out, err) > 0);
	free(out);
	free(err);
	run_close(&r);
	return all;
}

static void expect(const char *text, const char *const *words)
{
	for (size_t i = 0; words[i]; i++)
		if (!strstr(text, words[i])) {
			fprintf(stderr, "%s\n", text);
			fail_msg("'%s' is not in what is above", words[i]);
		}
}

static void expect_not(const char *text, const char *word)
{
	if (strstr(text, word)) {
		fprintf(stderr, "%s\n", text);
		fail_msg("'%s' is in what is above", word);
	}
}

static void test_variables(void **state)
{
	const struct job *j = *state;
	char *text;

	talker_end(
		(struct talker *)&j
			->t); /* the core is of the version, whatever becomes of the process */
	free(export(j, 0));
	text = gdb(j, (const char *[]){"print/x global_data", "print global_bss",
				       "print table[4999]", "print never_touched[4321]",
				       "print constant", "print list->next->next->name",
				       "print list->value", "print library_counter",
				       "print shared_memory + 8192", "print segment + 4096",
				       "print huge[1ul << 39]", "print huge[1ul << 38]",
				       "print (char *)library_text", "x/2i main",
				       "x/i __vdso_clock_gettime", "info proc mappings", NULL});
	expect(text,
	       (const char *[]){"$1 = 0x4321", "$2 = 77", "$3 = 14997", "$4 = 0",
				"\"constant in the program\"", "$6 = \"node 7", "$7 = 81",
				"$8 = 1003", "\"in shared memory\"", "\"in a segment\"",
				"$11 = 104 'h'", "$12 = 0 '\\000'", "constant in a library",
				"<main+", "<clock_gettime>", NULL});
	expect_not(text, "warning");
	expect_not(text, "Cannot access");
	free(text);
}

static void test_threads(void **state)
{
	const struct job *j = *state;
	char *text;

	free(export(j, 0));
	text = gdb(j, (const char *[]){"info threads", "thread apply all bt full",
				       "info sharedlibrary", NULL});
	expect(text,
	       (const char *[]){j->pid, "spin (worker=2)", "spin (worker=3)",
				"wait_here (worker=1)", "wait_here (worker=2)", "local = 41",
				"local = 42", "local = 43", "library_local = 7001",
				"library_local = 7003", "worker_main (arg=0x3)", "in main ()",
				"name = \"on the stack", "libcore_target.so", "libm.so",
				"libc.so", "ld-linux", NULL});
	expect_not(text, "warning");
	expect_not(text, "corrupt");
	expect_not(text, "No   ");
	free(text);
	text = gdb(j, (const char *[]){"thread apply all -q print thread_number",
				       "print $_siginfo.si_signo", "info auxv",
				       "thread apply all -q print $_thread", NULL});
	expect(text,
	       (const char *[]){"= -1", "= 1", "= 2", "= 3", "AT_PHDR", "AT_ENTRY", NULL});
	expect_not(text, "warning");
	free(text);
}

static void test_registers(void **state)
{
#if defined(__x86_64__)
	const struct job *j = *state;
	char *text;

	if (!__builtin_cpu_supports("avx")) {
		print_message("SKIP: this CPU has no AVX\n");
		skip();
	}
	free(export(j, 0));
	text = gdb(j, (const char *[]){"thread apply all -q info registers ymm0",
				       "thread apply all -q print/x $ymm9.v8_int32",
				       "thread apply all -q print $st0",
				       "thread apply all -q print $mxcsr",
				       "print $_siginfo.si_signo",
				       "info registers rip fs_base orig_rax", NULL});
	expect(text,
	       (const char *[]){"v8_int32 = {0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}",
				"= {0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}", "= 9.5",
				"[ ", "= 0", "fs_base", NULL});
	free(text);
#else
	skip();
#endif
}

/* A library that was replaced: we say so, gdb does not show the bytes of the new one as the old one's. */
static void test_replaced(void **state)
{
	const struct job *j = *state;
	char *text, other[160];
	FILE *f;

	snprintf(other, sizeof(other), "%s/new", j->dir);
	copy_to(j->library, other);
	f = fopen(other, "a");
	fputs("some more", f);
	fclose(f);
	assert_int_equal(rename(other, j->library), 0);
	text = export(j, 0);
	expect(text, (const char *[]){j->library, "is not what it was", NULL});
	free(text);
	/* its data that was written is in the image, and so is all of the rest */
	text = gdb(j, (const char *[]){"print library_counter", "thread apply all bt",
				       "print/x global_data", NULL});
	expect(text, (const char *[]){"$1 = 1003", "$2 = 0x4321", "spin (worker=2)",
				      "(changed)", NULL});
	free(text);
	/* the same bytes, another time: nothing to say */
	copy_to(built("tests/targets/libcore_target.so"), other);
	assert_int_equal(rename(other, j->library), 0);
	assert_int_equal(unlink(j->core), 0);
	text = export(j, 0);
	assert_string_equal(text, "");
	free(text);
}

static void assert_nothing_beside(const struct job *j, bool core)
{
	struct run r;
	char *text;

	run_program(&r, (const char *[]){"/bin/ls", j->dir, NULL});
	text = run_text(r.out);
	assert_string_equal(text, core ? "core\ncore_target\nlibcore_target.so\nrepo\n"
				       : "core_target\nlibcore_target.so\nrepo\n");
	free(text);
	run_close(&r);
}

static void test_output(void **state)
{
	const struct job *j = *state;
	struct stat st;
	struct run r;
	char *text;

	free(export(j, 0));
	assert_nothing_beside(j, true);
	assert_int_equal(stat(j->core, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_true(st.st_blocks * 512 < 32 << 20); /* with a terabyte of address space */
	text = export(j, 1);
	expect(text, (const char *[]){"exists", "--force", NULL});
	free(text);
	assert_int_equal(truncate(j->core, 3), 0);
	assert_int_equal(icp(&r, NULL, "export", "--dir", j->repo, "--version", "1", "--pid",
			     j->pid, "--core", j->core, "--force", "--json", NULL),
			 0);
	text = run_text(r.out);
	expect(text, (const char *[]){"\"threads\":4", j->pid, "\"changed_files\":[]", NULL});
	free(text);
	run_close(&r);
	assert_nothing_beside(j, true);
	assert_int_equal(stat(j->core, &st), 0);
	assert_true(st.st_size > 4096);
	assert_int_equal(icp(&r, NULL, "export", "--dir", j->repo, "--version", "2", "--core",
			     "/dev/null", "--force", NULL),
			 1);
	run_close(&r);
	assert_int_equal(icp(&r, NULL, "export", "--dir", j->repo, "--version", "1", "--core",
			     "/dev/null", "--force", NULL),
			 1);
	run_close(&r);
	assert_int_equal(icp(&r, NULL, "export", "--dir", j->repo, "--version", "1", "--pid",
			     "1", "--core", j->core, "--force", NULL),
			 1);
	run_close(&r);
	assert_int_equal(icp(&r, NULL, "export", "--dir", j->repo, "--version", "1", NULL), 2);
	run_close(&r);
}

static void small_files(void *arg)
{
	struct rlimit limit = {256 << 10, 256 << 10};

	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &limit);
}

/* No room for it: one line, and nothing is left; nor is an existing file harmed. */
static void test_no_room(void **state)
{
	const struct run_how how = {.before = small_files};
	const struct job *j = *state;
	struct stat st;
	struct run r;
	char *text;
	int fd;

	assert_int_equal(icp(&r, &how, "export", "--dir", j->repo, "--version", "1", "--core",
			     j->core, NULL),
			 1);
	text = run_text(r.err);
	expect(text,
	       (const char *[]){"icp-bpf: export process", j->pid, "File too large", NULL});
	assert_ptr_equal(strchr(text, '\n') + 1, text + strlen(text));
	free(text);
	run_close(&r);
	assert_nothing_beside(j, false);
	fd = open(j->core, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, "mine", 4), 4);
	close(fd);
	assert_int_equal(icp(&r, &how, "export", "--dir", j->repo, "--version", "1", "--core",
			     j->core, "--force", NULL),
			 1);
	run_close(&r);
	assert_int_equal(stat(j->core, &st), 0);
	assert_int_equal(st.st_size, 4);
	assert_nothing_beside(j, true);
}

/* The same with a version that the checkpoint verb made; and the process changes afterwards. */
static void test_checkpoint(void **state)
{
	struct job *j = *state;
	struct run r;
	char *text;

	snprintf(j->repo, sizeof(j->repo), "%s/repo2", j->dir);
	if (icp(&r, NULL, "checkpoint", "--no-restart", "--pid", j->pid, "--dir", j->repo,
		NULL)) {
		text = run_text(r.err);
		fail_msg("%s", text);
	}
	run_close(&r);
	assert_int_equal(write(j->t.to, "xyz", 3), 3); /* global_data counts */
	free(export(j, 0));
	text = gdb(j, (const char *[]){"print/x global_data", "print list->next->next->name",
				       "print segment + 4096", "print shared_memory + 8192",
				       "print huge[1ul << 39]", "thread apply all bt",
				       "thread apply all -q print/x $ymm9.v8_int32",
				       "info sharedlibrary", NULL});
	expect(text, (const char *[]){"$1 = 0x4321", "node 7", "\"in a segment\"",
				      "\"in shared memory\"", "104 'h'", "spin (worker=2)",
				      "wait_here (worker=1)", "library_wait", "in main ()",
				      "libcore_target.so", NULL});
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx"))
		expect(text,
		       (const char *[]){"= {0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}",
					NULL});
#endif
	expect_not(text, "warning");
	free(text);
}

/* A flipped bit in the pages: one line that says where, and no core. */
static void test_damage(void **state)
{
	const struct job *j = *state;
	char path[256], *text, byte;
	int fd;

	snprintf(path, sizeof(path), "%s/000001/0/task_mm_%s.1.bin", j->repo, j->pid);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, 5 * 4096 + 77), 1);
	byte ^= 4;
	assert_int_equal(pwrite(fd, &byte, 1, 5 * 4096 + 77), 1);
	close(fd);
	text = export(j, 1);
	expect(text, (const char *[]){"icp-bpf: export process", j->pid, "page 0x", NULL});
	assert_ptr_equal(strchr(text, '\n') + 1, text + strlen(text));
	free(text);
	assert_nothing_beside(j, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_variables, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_registers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_replaced, setup, teardown),
		cmocka_unit_test_setup_teardown(test_output, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
		cmocka_unit_test_setup_teardown(test_checkpoint, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
