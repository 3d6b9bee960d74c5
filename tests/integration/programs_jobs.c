// SPDX-License-Identifier: GPL-2.0
/* A shell with job control under script(1) and in tmux, and make(1) on this very project. */
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/program.h"

/* ---- a shell ---- */

struct shell {
	struct job *j;
	int to;		  /* -1: tmux sends what is typed */
	const char *tmux; /* its socket */
};

static void type_(const struct shell *s, const char *text)
{
	if (s->to >= 0) {
		assert_int_equal(write(s->to, text, strlen(text)), strlen(text));
		return;
	}
	succeeds((const char *[]){"tmux", "-S", s->tmux, "send-keys", "-l", "--", text, NULL});
}

/* A command whose end is seen by the file that it makes. */
static void does(const struct shell *s, const char *command, const char *makes)
{
	double end = seconds_now() + 30;
	char line[300];

	unlink(in(s->j, makes));
	snprintf(line, sizeof(line), "%s; : >>%s\r", command, makes);
	type_(s, line);
	while (!exists(s->j, makes)) {
		if (seconds_now() > end)
			fail_msg("'%s' is not done: %s", command,
				 file_text("%s", in(s->j, "output")));
		nap_ms(5);
	}
}

/* The file is there before what is in it. */
static pid_t pid_in(const struct shell *s, const char *name)
{
	double end = seconds_now() + 30;
	long pid;

	do {
		char *text = file_text("%s", in(s->j, name));

		pid = strtol(text, NULL, 10);
		free(text);
		if (seconds_now() > end)
			fail_msg("nothing in %s", name);
		nap_ms(1);
	} while (pid <= 0);
	return (pid_t)pid;
}

/* The process group in the foreground of @pid's terminal. */
static pid_t foreground(pid_t pid)
{
	char *text = file_text("/proc/%d/stat", pid), *at = strrchr(text, ')');
	int group = 0;

	assert_int_equal(sscanf(at, ") %*c %*d %*d %*d %*d %d", &group), 1);
	free(text);
	return group;
}

/* Until it is in the foreground (@is), or not any more. */
static void wait_front(const struct shell *s, pid_t group, bool is)
{
	pid_t shell = pid_in(s, "shell");
	double end = seconds_now() + 30;

	while ((foreground(shell) == group) != is) {
		if (seconds_now() > end)
			fail_msg("group %d %s the foreground (%d is)", group,
				 is ? "doesn't come to" : "stays in", foreground(shell));
		nap_ms(5);
	}
}

static void wait_file(const struct shell *s, const char *name)
{
	for (double end = seconds_now() + 30; !exists(s->j, name); nap_ms(5))
		if (seconds_now() > end)
			fail_msg("no %s: %s", name, file_text("%s", in(s->j, "output")));
}

static bool runs(pid_t pid, char state)
{
	char *text = file_text("/proc/%d/stat", pid), *at = strrchr(text, ')');
	bool is = at && at[2] == state;

	free(text);
	return is;
}

static void wait_state(pid_t pid, char state)
{
	for (double end = seconds_now() + 30; !runs(pid, state); nap_ms(5))
		if (seconds_now() > end)
			fail_msg("process %d is not in state %c", pid, state);
}

/* One in the background, one that is stopped, one in front that counts its Ctrl-C. */
static void begin_jobs(const struct shell *s)
{
	static const char front[] = "trap 'echo int >>ints' INT\ntrap 'kill $!' EXIT\nsleep "
				    "1003 &\necho $$ >front\n"
				    "while [ ! -e leave ]; do wait $!; done\n";
	FILE *f = fopen(in(s->j, "front.sh"), "w");
	char line[100];

	assert_non_null(f);
	assert_true(fputs(front, f) >= 0);
	assert_int_equal(fclose(f), 0);
	snprintf(line, sizeof(line), " cd %s; echo $$ >shell", s->j->dir);
	does(s, line, "begun");
	does(s, "sleep 1001 & echo $! >back", "begun");
	type_(s, "sh -c 'echo $$ >stopped; exec sleep 1002'\r");
	wait_file(s, "stopped");
	wait_front(s, pid_in(s, "stopped"), true);
	type_(s, "\032");
	wait_state(pid_in(s, "stopped"), 'T');
	type_(s, "sh front.sh\r");
	wait_file(s, "front");
	wait_front(s, pid_in(s, "front"), true);
}

/* All of it is there, and each key goes where it should. */
static void end_jobs(const struct shell *s, const char *last)
{
	pid_t front = pid_in(s, "front"), stopped = pid_in(s, "stopped"),
	      back = pid_in(s, "back");

	assert_int_equal(foreground(pid_in(s, "shell")), front);
	assert_true(runs(stopped, 'T') && runs(back, 'S'));
	assert_false(exists(s->j, "ints"));
	type_(s, "\003");
	wait_file(s, "ints");
	touch(s->j, "leave");
	type_(s, "\003");
	wait_front(s, front, false);
	does(s, "jobs >list", "listed");
	assert_non_null(strstr(file_text("%s", in(s->j, "list")), "sleep 1001"));
	assert_non_null(strstr(file_text("%s", in(s->j, "list")), "Stopped"));
	type_(s, "fg %2\r");
	wait_front(s, stopped, true);
	wait_state(stopped, 'S');
	type_(s, "\032");
	wait_state(stopped, 'T');
	wait_front(s, stopped, false);
	type_(s, "fg\r");
	wait_front(s, stopped, true);
	type_(s, "\003");
	wait_front(s, stopped, false);
	assert_true(runs(back, 'S')); /* none of this was for it */
	does(s, "kill %1; wait; jobs >list", "ended");
	type_(s, last);
}

static void cut_jobs(struct job *j)
{
	CUT(j, ROUNDS);
	CUT(j, "--kill");
	kill_job(j);
	assert_no_orphans((const pid_t[]){0}, 60);
}

static void test_script(void **state)
{
	struct job *j = *state;
	struct shell s = {.j = j};
	char command[300];
	const char *argv[] = {"sh", "-c", command, NULL};
	struct run r;

	assert_int_equal(mkfifo(in(j, "keys"), 0600), 0);
	s.to = open(in(j, "keys"), O_RDWR | O_CLOEXEC);
	assert_true(s.to >= 0);
	snprintf(command, sizeof(command),
		 "cd %s && exec script -q -e -c 'exec bash --norc --noprofile -i' typescript "
		 "<keys",
		 j->dir);
	start(j, argv);
	begin_jobs(&s);
	cut_jobs(j);
	begin_version(j, &r, "4", NULL);
	end_jobs(&s, "exit 0\r");
	ends_well(&r);
	close(s.to);
}

static void test_tmux(void **state)
{
	struct job *j = *state;
	char path[100];
	struct shell s = {.j = j, .to = -1, .tmux = path};
	const char *server[] = {"tmux", "-D", "-S", path, "-f", "/dev/null", NULL};
	struct run r;

	snprintf(path, sizeof(path), "%s/tmux", j->dir);
	start(j, server);
	wait_for(j, "tmux");
	succeeds((const char *[]){"tmux", "-S", path, "new-session", "-d", "-x", "100", "-y",
				  "30", "exec bash --norc --noprofile -i", NULL});
	begin_jobs(&s);
	cut_jobs(j);
	begin_version(j, &r, "4", NULL);
	end_jobs(&s, "\r");
	/* what it shows is what was typed before and after */
	succeeds((const char *[]){"sh", "-c",
				  "tmux -S \"$0\" capture-pane -p -S - | tee \"$0.txt\" | grep "
				  "-q 'sh front.sh' && "
				  "grep -q 'fg %2' \"$0.txt\"",
				  path, NULL});
	succeeds((const char *[]){"tmux", "-S", path, "kill-server", NULL});
	ends_well(&r);
}

/* ---- make ---- */

/* Without what this machine may put between make and the compiler. */
#define MAKE "cd \"$0\" && PATH=/usr/sbin:/usr/bin:/sbin:/bin && export PATH && "
#define PARTS                                                                                  \
	"set -- $(cd user && ls base/*.c proc/*.c image/*.c inject/*.c) && "                   \
	"make -j2 $(printf 'build/user/%s ' \"$@\" | sed 's/\\.c /.o /g')"

static void copy_sources(struct job *j)
{
	char root[PATH_MAX], up[PATH_MAX + 16], here[PATH_MAX] = __FILE__;

	snprintf(up, sizeof(up), "%s/../..", dirname(here));
	assert_non_null(realpath(up, root));
	assert_int_equal(mkdir(in(j, "src"), 0777), 0);
	succeeds((const char *[]){"sh", "-c",
				  "cd \"$0\" && cp -r Makefile bpf user vmlinux scripts "
				  "kmod-helper \"$1\"",
				  root, in(j, "src"), NULL});
}

static unsigned objects(struct job *j)
{
	FILE *f;
	char command[200];
	unsigned n = 0;

	snprintf(command, sizeof(command), "find %s/build/user -name '*.o' 2>/dev/null | wc -l",
		 in(j, "src"));
	f = popen(command, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%u", &n), 1);
	pclose(f);
	return n;
}

/* Twice: undisturbed, and moved in the middle. */
static void test_make(void **state)
{
	struct job *j = *state;
	char *src = strdup(in(j, "src"));
	const char *argv[] = {"sh", "-c", MAKE PARTS, src, NULL};
	unsigned all;
	struct run r;

	copy_sources(j);
	succeeds(argv);
	all = objects(j);
	assert_true(all > 20);
	succeeds((const char *[]){"mv", in(j, "src/build"), in(j, "undisturbed"), NULL});
	start(j, argv);
	for (double end = seconds_now() + 60; objects(j) < all / 4; nap_ms(20))
		if (seconds_now() > end || waitpid(j->pid, NULL, WNOHANG))
			fail_msg("%s", file_text("%s", in(j, "output")));
	CUT(j, ROUNDS);
	CUT(j, "--kill");
	assert_true(objects(j) < all);
	kill_job(j);
	assert_no_orphans((const pid_t[]){0}, 60);
	begin_version(j, &r, "4", NULL);
	ends_well(&r);
	succeeds((const char *[]){"diff", "-rq", in(j, "src/build"), in(j, "undisturbed"),
				  NULL});
}

int main(int argc, char **argv)
{
#define PROGRAM(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		PROGRAM(test_script),
		PROGRAM(test_tmux),
		PROGRAM(test_make),
	};

	if (!program_scripts(__FILE__))
		return 1;
	adopt_orphans();
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
