// SPDX-License-Identifier: GPL-2.0
/* icp-bpf restart on more programs that nobody here wrote. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/rebirth.h"

/* Checkpoint it in the middle and end it at once: its temporary files must stay. */
static void cut_and_kill(struct job *j)
{
	char pid[16];
	struct run r;

	snprintf(pid, sizeof(pid), "%d", j->pid);
	if (icp(&r, NULL, "checkpoint", "--kill", "--pid", pid, "--dir", j->repo, NULL))
		fail_msg("%s", run_text(r.err));
	run_close(&r);
	kill_job(j);
	assert_no_orphans((const pid_t[]){0}, 60);
}

/* Refused ones have numbers, too. */
static unsigned newest(const struct job *j)
{
	char path[4096];
	unsigned n = 64;

	do
		snprintf(path, sizeof(path), "%s/%06u/0/manifest.pb", j->repo, --n);
	while (n && access(path, F_OK));
	return n;
}

static void run_on(struct job *j, const char *what)
{
	char version[16];
	struct run r;

	cut_and_kill(j);
	touch(j, "go");
	snprintf(version, sizeof(version), "%u", newest(j));
	begin_restart(j, &r, version, "direct", "--files=rewind");
	run_wait(&r, 120);
	if (r.status)
		fail_msg("%s: status %#x, %s%s", what, r.status, run_text(r.err),
			 file_text("%s", in(j, "output")));
	run_close(&r);
}

static void shell(struct job *j, const char *fmt)
{
	char command[1024];

	snprintf(command, sizeof(command), "cd %s && { %s; } >>output 2>&1", j->dir, fmt);
	if (system(command))
		fail_msg("%s: %s", command, file_text("%s", in(j, "output")));
}

static void write_file(struct job *j, const char *name, const char *text)
{
	FILE *f = fopen(in(j, name), "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* A child behind a pipe, a handler, a hash of 20000 keys, a file read line by line. */
static void test_perl(void **state)
{
	struct job *j = *state;
	static const char script[] =
		"use strict; my $d = shift; chdir $d or die; my %h; my $usr = 0;\n"
		"$SIG{USR1} = sub { $usr++ };\n"
		"$h{$_} = $_ * 3 for 1 .. 20000;\n"
		"open my $in, '<', 'lines' or die; my $sum = 0;\n"
		"for (1 .. 1000) { $sum += <$in> }\n"
		"pipe my $r, my $w or die; my $kid = fork;\n"
		"if (!$kid) { close $r; until (-e 'go') { select undef, undef, undef, .01 }\n"
		"  kill 'USR1', getppid; syswrite $w, \"kid $$\\n\"; exit 9 }\n"
		"close $w; open my $f, '>', 'ready'; close $f;\n"
		"my $said = <$r>; $said eq \"kid $kid\\n\" or die \"kid: $said\";\n"
		"waitpid($kid, 0) == $kid && $? == 9 << 8 or die \"status $?\";\n"
		"$usr == 1 or die 'no signal';\n"
		"while (<$in>) { $sum += $_ } $sum == 5000 * 5001 / 2 or die \"sum $sum\";\n"
		"$h{$_} == $_ * 3 or die for 1 .. 20000;\n";
	const char *argv[] = {"perl", "-e", script, j->dir, NULL};

	shell(j, "seq 1 5000 >lines");
	start(j, argv);
	wait_for(j, "ready");
	run_on(j, "perl");
}

/* As the issue has it; gzip -t reads all of what came of it. */
static void test_bash(void **state)
{
	struct job *j = *state;
	static const char script[] =
		"cd \"$1\"; trap 'echo ended >trap' EXIT\n"
		"sleep 0.3 & nap=$!; yes | head -c 40000000 | gzip >packed & pipe=$!\n"
		": >ready; until [ -e go ]; do sleep 0.05; done\n"
		"wait $nap || exit 3; wait $pipe || exit 4\n"
		"gzip -t packed || exit 5\n"
		"[ $(gzip -dc packed | grep -c '^y$') = 20000000 ] || exit 6\n";
	const char *argv[] = {"bash", "-c", script, "bash", j->dir, NULL};

	start(j, argv);
	wait_for(j, "ready");
	run_on(j, "bash");
	assert_string_equal(file_text("%s", in(j, "trap")), "ended\n");
}

/* Compiled here: threads of libgomp, with barriers, reductions and a critical section. */
static void test_openmp(void **state)
{
	struct job *j = *state;
	static const char source[] =
		"#include <omp.h>\n#include <stdio.h>\n#include <unistd.h>\n"
		"static unsigned long a[1 << 16], in_order;\n"
		"int main(void) {\n"
		"  unsigned long want = 0, rounds = 0, left = 200, all; int go = 0;\n"
		"  omp_set_num_threads(4);\n"
		"  while (!go || left--) {\n"
		"    unsigned long sum = 0; rounds++;\n"
		"#pragma omp parallel\n    {\n"
		"#pragma omp for schedule(dynamic, 512) reduction(+ : sum)\n"
		"    for (int i = 0; i < 1 << 16; i++) sum += a[i] += i ^ rounds;\n"
		"#pragma omp critical\n"
		"    in_order++;\n"
		"#pragma omp barrier\n    }\n"
		"    all = 0; for (int i = 0; i < 1 << 16; i++) all += a[i];\n"
		"    for (int i = 0; i < 1 << 16; i++) want += i ^ rounds;\n"
		"    if (all != want || sum != want || in_order != 4 * rounds) return 1;\n"
		"    if (rounds == 3) fclose(fopen(\"ready\", \"w\"));\n"
		"    go |= !access(\"go\", F_OK);\n"
		"  }\n  return 0;\n}\n";
	const char *argv[] = {"sh", "-c", "cd \"$1\" && exec ./program", "sh", j->dir, NULL};

	write_file(j, "program.c", source);
	shell(j, "gcc -O1 -fopenmp -o program program.c");
	start(j, argv);
	wait_for(j, "ready");
	run_on(j, "OpenMP");
}

/* Ten files, the third of which is done or in work. */
static void test_gcc(void **state)
{
	struct job *j = *state;
	static const char makefile[] = "export TMPDIR = .\n"
				       "names := 1 2 3 4 5 6 7 8 9 10\n"
				       "program: $(names:%=f%.o) main.o\n"
				       "\tgcc -o $@ $^\n"
				       "%.o: %.c\n"
				       "\tgcc -O1 -c -o $@ $<; : >ready.$*\n"
				       ".DELETE_ON_ERROR:\n";
	const char *argv[] = {"make", "-j2", "-C", j->dir, NULL};

	write_file(j, "Makefile", makefile);
	shell(j, "for i in 1 2 3 4 5 6 7 8 9 10; do\n"
		 "{ echo '#include <stdio.h>'; for k in $(seq 1 500); do\n"
		 "echo \"static int g$k(int x) { for (int i = 0; i < x; i++) x ^= i * $k; "
		 "return x; }\"; done\n"
		 "echo \"int f$i(int x) { return 0\"; for k in $(seq 1 500); do\n"
		 "echo \"+ g$k(x)\"; done; echo '; }'; } >f$i.c; done");
	write_file(
		j, "main.c",
		"#include <stdio.h>\n"
		"int f1(int), f2(int), f3(int), f4(int), f5(int), f6(int), f7(int), f8(int), "
		"f9(int), f10(int);\n"
		"int main(void) { printf(\"%d\\n\", f1(7) + f2(7) + f3(7) + f4(7) + f5(7) + "
		"f6(7) + f7(7) + f8(7) + f9(7) + f10(7)); return 0; }\n");
	start(j, argv);
	for (double end = seconds_now() + 120; !exists(j, "ready.f2"); nap_ms(2))
		if (seconds_now() > end || waitpid(j->pid, NULL, WNOHANG))
			fail_msg("make: %s", file_text("%s", in(j, "output")));
	run_on(j, "make");
	shell(j, "./program >got; rm -f program *.o; make -s && "
		 "./program | cmp - got");
}

int main(void)
{
#define PROGRAM(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		PROGRAM(test_perl),
		PROGRAM(test_bash),
		PROGRAM(test_openmp),
		PROGRAM(test_gcc),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
