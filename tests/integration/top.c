// SPDX-License-Identifier: GPL-2.0
/* `icp-bpf top` in a real terminal: tmux, whose screen can be read and whose size changes. */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/robust_procs.h"
#include "lib/scratch.h"
#include "lib/tracer.h"

#define SECONDS (40.0 * patience())

static struct {
	char dir[SCRATCH_MAX], jobs[2][SCRATCH_MAX + 8], repo[SCRATCH_MAX + 8];
	pid_t job[2];
	bool terminal;
} made;

/* ---- jobs that write all the time: tests/targets/writer, a process and its child ---- */

static void start_job(unsigned i)
{
	char ready[SCRATCH_MAX + 16];
	double end = seconds_now() + SECONDS;
	const char *program = built("tests/targets/writer");

	assert_int_equal(mkdir(made.jobs[i], 0700), 0);
	made.job[i] = fork();
	assert_true(made.job[i] >= 0);
	if (!made.job[i]) {
		int null = open("/dev/null", O_RDWR);

		setpgid(0, 0);
		for (int fd = 0; fd <= 2; fd++)
			dup2(null, fd);
		close_range(3, ~0u, 0);
		execl(program, program, made.jobs[i], NULL);
		_exit(127);
	}
	snprintf(ready, sizeof(ready), "%s/ready", made.jobs[i]);
	while (access(ready, F_OK)) {
		assert_true(seconds_now() < end);
		nap_ms(5);
	}
}

/* It says itself whether anything was done to it. */
static void end_job(unsigned i)
{
	char path[SCRATCH_MAX + 16], *wrong;
	int status, fd;

	snprintf(path, sizeof(path), "%s/go", made.jobs[i]);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(waitpid(made.job[i], &status, 0), made.job[i]);
	made.job[i] = 0;
	snprintf(path, sizeof(path), "%s/wrong", made.jobs[i]);
	assert_int_not_equal(access(path, F_OK), 0);
	wrong = WIFEXITED(status) ? NULL : "killed";
	assert_null(wrong);
	assert_int_equal(WEXITSTATUS(status), 7);
}

static void remove_all(const char *path)
{
	const char *argv[] = {"rm", "-rf", path, NULL};
	struct run run;

	run_start(&run, NULL, argv);
	run_wait(&run, 30);
	run_close(&run);
}

/* ---- the terminal ---- */

/* tmux with these arguments; what it says, to be freed. */
static char *tmux(const char *first, ...) __attribute__((sentinel));

static char *tmux(const char *first, ...)
{
	const char *argv[24] = {"tmux", "-S", NULL, "-f", "/dev/null", first}, *arg;
	char socket[SCRATCH_MAX + 8], *text;
	struct run run;
	va_list args;
	int n = 6;

	snprintf(socket, sizeof(socket), "%s/tmux", made.dir);
	argv[2] = socket;
	va_start(args, first);
	while ((arg = va_arg(args, const char *)) && n < 23)
		argv[n++] = arg;
	va_end(args);
	run_start(&run, NULL, argv);
	run_wait(&run, 60);
	text = run_text(run.out);
	run_close(&run);
	return text;
}

#define TMUX(...) free(tmux(__VA_ARGS__, NULL))

static void open_terminal(const char *arguments, const char *columns, const char *rows)
{
	char command[1024];

	/* it stays to be looked at when the program has ended */
	snprintf(command, sizeof(command), "%s top %s; echo status $?; exec sleep 1000",
		 built("icp-bpf"), arguments);
	made.terminal = true;
	TMUX("new-session", "-d", "-x", columns, "-y", rows, command);
}

static char *screen(void)
{
	return tmux("capture-pane", "-p", NULL);
}

/* The screen once it shows @text; to be freed. */
static char *screen_with(const char *text)
{
	double end = seconds_now() + SECONDS;
	char *now = screen();

	while (!strstr(now, text)) {
		if (seconds_now() > end)
			fail_msg("'%s' does not come:\n%s", text, now);
		free(now);
		nap_ms(50);
		now = screen();
	}
	return now;
}

static void expect(const char *text)
{
	free(screen_with(text));
}

/* A line of the table, from its pid on. */
static const char *row_of(const char *text, pid_t pid)
{
	char want[32];

	snprintf(want, sizeof(want), "\n%7d ", pid);
	return strstr(text, want);
}

static char *screen_with_row(pid_t pid)
{
	char want[32];

	snprintf(want, sizeof(want), "\n%7d ", pid);
	return screen_with(want);
}

/* ---- set-up ---- */

static int setup(void **state)
{
	memset(&made, 0, sizeof(made));
	if (!mkdtemp(scratch(made.dir, "top")))
		return -1;
	for (unsigned i = 0; i < 2; i++)
		snprintf(made.jobs[i], sizeof(made.jobs[i]), "%s/job%u", made.dir, i);
	snprintf(made.repo, sizeof(made.repo), "%s/repo", made.dir);
	setenv("LC_ALL", "C.UTF-8", 1);
	unsetenv("TMUX");
	return 0;
}

static int teardown(void **state)
{
	if (made.terminal)
		TMUX("kill-server");
	tracers_kill();
	for (unsigned i = 0; i < 2; i++) {
		if (!made.job[i])
			continue;
		kill(-made.job[i], SIGKILL);
		waitpid(made.job[i], NULL, 0);
	}
	remove_all(made.dir);
	return 0;
}

/* ---- tests ---- */

/* Its own and another session's processes; order; a process opened; another size; the end. */
static void look_around(void **state)
{
	struct outside before;
	struct tracer *t;
	char arguments[64], *text;
	int low, high;

	start_job(0);
	start_job(1);
	outside_look(&before, made.job[0]);
	low = made.job[0] < made.job[1] ? made.job[0] : made.job[1];
	high = low == made.job[0] ? made.job[1] : made.job[0];
	t = tracer_start("--pid", decimal(made.job[1]), "--interval", "100ms", NULL);
	snprintf(arguments, sizeof(arguments), "--interval 200ms --pid %d", made.job[0]);
	open_terminal(arguments, "100", "30");
	free(screen_with_row(made.job[1]));
	text = screen_with("RATEv");
	assert_non_null(row_of(text, made.job[0]));
	assert_non_null(strstr(row_of(text, made.job[0]) + 1, "writer"));
	assert_non_null(strstr(row_of(text, made.job[0]) + 1, " own\n"));
	assert_non_null(strstr(row_of(text, made.job[1]) + 1, decimal(t->pid)));
	free(text);
	TMUX("send-keys", "p");
	text = screen_with("PIDv");
	assert_true(row_of(text, low) < row_of(text, high));
	free(text);
	TMUX("send-keys", "p");
	text = screen_with("PID^");
	assert_true(row_of(text, low) > row_of(text, high));
	free(text);
	/* whichever is first: both are open to the eye, also that of the other session */
	TMUX("send-keys", "Enter");
	free(screen_with("work [writer]"));
	text = screen_with("\xe2\xa3\xbf"); /* a braille pattern, all dots */
	assert_non_null(row_of(text, high));
	assert_non_null(strstr(text, "[anon]"));
	free(text);
	TMUX("send-keys", "Escape");
	expect("PID^");
	TMUX("send-keys", "Down", "Enter");
	free(screen_with_row(low));
	expect("work [writer]");
	/* smaller, and large again */
	TMUX("resize-window", "-x", "50", "-y", "12");
	expect("\nEsc back  c checkpoint  h help  q quit");
	TMUX("resize-window", "-x", "10", "-y", "3");
	TMUX("resize-window", "-x", "120", "-y", "40");
	text = screen_with("work [writer]");
	assert_non_null(row_of(text, low));
	free(text);
	TMUX("send-keys", "h");
	expect("write working set (10 s)");
	TMUX("send-keys", "q");
	expect("status 0");
	assert_untouched(made.job[0], &before, false);
	outside_free(&before);
	tracer_stop(t);
	end_job(0);
	end_job(1);
}

static void type_repo(const char *repo)
{
	TMUX("send-keys", "C-u");
	TMUX("send-keys", "-l", repo);
	TMUX("send-keys", "Enter");
	expect("? y/n");
}

static void cut_here(pid_t pid, const char *version)
{
	char want[64];

	snprintf(want, sizeof(want), "checkpoint of pid %d, directory", pid);
	TMUX("send-keys", "c");
	expect(want);
	type_repo(made.repo);
	TMUX("send-keys", "y");
	expect(version);
}

/* Asked twice before anything is done; by its own session, and by the one that follows the process. */
static void checkpoints(void **state)
{
	char arguments[64];
	struct tracer *t;
	struct run run;

	start_job(0);
	snprintf(arguments, sizeof(arguments), "--tree --interval 200ms --pid %d", made.job[0]);
	open_terminal(arguments, "150", "30");
	free(screen_with_row(made.job[0]));
	TMUX("send-keys", "p"); /* the parent is first */
	expect("PIDv");
	TMUX("send-keys", "c");
	expect("directory");
	type_repo(made.repo);
	TMUX("send-keys", "n");
	expect("no checkpoint");
	TMUX("send-keys", "c");
	expect("directory");
	TMUX("send-keys", "Escape");
	expect("Enter open");
	assert_int_not_equal(access(made.repo, F_OK), 0);
	cut_here(made.job[0], "version 1 (full) of pid");
	cut_here(made.job[0], "version 2 (incremental) of pid");
	TMUX("send-keys", "c");
	expect("directory");
	TMUX("send-keys", "C-u");
	TMUX("send-keys", "-l", "/proc/nowhere");
	TMUX("send-keys", "Enter");
	expect("? y/n");
	TMUX("send-keys", "y");
	expect("no checkpoint: ");
	TMUX("send-keys", "q");
	expect("status 0");
	TMUX("kill-server");
	t = tracer_start("--tree", "--pid", decimal(made.job[0]), "--interval", "200ms", NULL);
	open_terminal("", "150", "30");
	free(screen_with_row(made.job[0]));
	TMUX("send-keys", "p");
	expect("PIDv");
	cut_here(made.job[0], "version 3 (incremental) of pid");
	TMUX("send-keys", "q");
	expect("status 0");
	tracer_stop(t);
	assert_int_equal(icp(&run, NULL, "verify", "--dir", made.repo, NULL), 0);
	assert_true(run_says(&run, "3 versions", 5));
	run_close(&run);
	end_job(0);
}

/* Who ends while he is looked at. */
static void it_ends(void **state)
{
	char arguments[64], want[64];

	start_job(0);
	snprintf(arguments, sizeof(arguments), "--interval 200ms --pid %d", made.job[0]);
	open_terminal(arguments, "100", "30");
	free(screen_with_row(made.job[0]));
	TMUX("send-keys", "Enter");
	expect("work [writer]");
	end_job(0);
	expect("it has ended, or is no longer traced");
	TMUX("send-keys", "Escape");
	expect("nothing is traced");
	snprintf(want, sizeof(want), "there is no process");
	TMUX("send-keys", "c");
	expect(want);
	TMUX("send-keys", "C-c");
	expect("status 0");
}

static void set_term(void *arg)
{
	setenv("TERM", arg, 1);
}

static void terminals(void **state)
{
	const struct run_how how = {.before = set_term, .arg = "xterm"};
	const char *graph;
	struct run run;
	char *text;

	assert_int_equal(icp(&run, &how, "top", NULL), 1);
	text = run_text(run.err);
	assert_string_equal(text, "icp-bpf: top needs a terminal; top --batch prints once\n");
	free(text);
	run_close(&run);
	setenv("ICP_TOP", built("icp-bpf"), 1);
	made.terminal = true;
	TMUX("new-session", "-d", "-x", "120", "-y", "20",
	     "TERM=no-such-terminal $ICP_TOP top; echo status $?; exec sleep 1000");
	text = screen_with("status 1");
	assert_non_null(strstr(text, "icp-bpf: the terminal 'no-such-terminal' (TERM) is not "
				     "known here"));
	assert_int_equal(strncmp(text, "icp-bpf: ", 9), 0);
	free(text);
	TMUX("kill-server");
	/* one that can do very little, and no UTF-8 */
	start_job(0);
	setenv("ICP_JOB", decimal(made.job[0]), 1);
	TMUX("new-session", "-d", "-x", "80", "-y", "24",
	     "LC_ALL=C TERM=vt100 $ICP_TOP top --interval 100ms --pid $ICP_JOB; echo status "
	     "$?; "
	     "exec sleep 1000");
	free(screen_with_row(made.job[0]));
	TMUX("send-keys", "Enter");
	expect("work [writer]");
	text = screen_with("\n         0 ");
	graph = strstr(text, "\n         0 ") + 12;
	assert_true(strcspn(graph, ".:|#") < strcspn(graph, "\n"));
	assert_null(strchr(text, '\xe2')); /* no braille */
	free(text);
	TMUX("send-keys", "q");
	expect("status 0");
	end_job(0);
}

static void once(void **state)
{
	struct tracer *t;
	struct run run;
	char *text;

	start_job(0);
	start_job(1);
	t = tracer_start("--pid", decimal(made.job[1]), "--interval", "100ms", NULL);
	tracer_catch_up(t);
	assert_int_equal(icp(&run, NULL, "top", "--batch", "--interval", "300ms", "--pid",
			     decimal(made.job[0]), NULL),
			 0);
	text = run_text(run.out);
	assert_non_null(strstr(text, "RATEv"));
	assert_non_null(row_of(text, made.job[0]));
	assert_non_null(strstr(row_of(text, made.job[0]) + 1, " own\n"));
	assert_non_null(row_of(text, made.job[1]));
	assert_non_null(strstr(row_of(text, made.job[1]) + 1, decimal(t->pid)));
	assert_null(strchr(text, '\033'));
	free(text);
	text = run_text(run.err);
	assert_string_equal(text, "");
	free(text);
	run_close(&run);
	/* one that is followed already */
	assert_int_equal(icp(&run, NULL, "top", "--batch", "--pid", decimal(made.job[1]), NULL),
			 0);
	text = run_text(run.out);
	assert_non_null(row_of(text, made.job[1]));
	assert_non_null(strstr(row_of(text, made.job[1]) + 1, decimal(t->pid)));
	assert_null(row_of(text, made.job[0]));
	free(text);
	run_close(&run);
	tracer_stop(t);
	end_job(0);
	end_job(1);
}

/* Sessions of others on this machine are none of our business, nor ours theirs: a /run/icp-bpf of our own, which goes with us. */
static int be_alone(void **state)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -1;
	mkdir("/run/icp-bpf", 0700);
	return mount("icp-test", "/run/icp-bpf", "tmpfs", 0, "mode=700");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(look_around), TEST(checkpoints), TEST(it_ends),
		TEST(terminals),   TEST(once),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, be_alone, NULL);
}
