// SPDX-License-Identifier: GPL-2.0
/*
 * Without all of root's rights, and across pid namespaces: what is shown is true, and what
 * can't be had is said.
 */
#include <fcntl.h>
#include <jansson.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/robust_procs.h"

#define NOBODY 65534
#define PAGES 1000ul
#define WRITTEN 137ul

static size_t page;

/* --- a target that writes WRITTEN of its PAGES pages for each byte it is sent --- */

struct writer {
	struct talker t;
	pid_t inner;	/* its pid in its own namespace */
	uint64_t start; /* of the pages */
};

static void write_pages(char *mem)
{
	for (size_t i = 0; i < WRITTEN; i++)
		for (int again = 0; again < 3; again++)
			mem[(i * 7 % PAGES) * page]++;
}

static void serve(void)
{
	/* with a hole on both sides: no other mapping joins it */
	char *mem = mmap(NULL, (PAGES + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0),
	     line[64], byte;

	if (mem == MAP_FAILED || mprotect(mem += page, PAGES * page, PROT_READ | PROT_WRITE))
		_exit(1);
	madvise(mem, PAGES * page, MADV_NOHUGEPAGE);
	memset(mem, 1, PAGES * page);
	do {
		int n = snprintf(line, sizeof(line), "%lx %d\n", (unsigned long)(uintptr_t)mem,
				 getpid());

		if (write(STDOUT_FILENO, line, (size_t)n) != n ||
		    read(STDIN_FILENO, &byte, 1) != 1)
			_exit(0);
		write_pages(mem);
	} while (true);
}

/* With a clone flag the writer is the first process of a new namespace. */
static void writer_start(struct writer *w, unsigned long flags, void (*before)(void *))
{
	int to[2], from[2];
	char line[64];

	page = (size_t)sysconf(_SC_PAGESIZE);
	assert_int_equal(pipe2(to, O_CLOEXEC), 0);
	assert_int_equal(pipe2(from, O_CLOEXEC), 0);
	w->t.pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
	assert_true(w->t.pid >= 0);
	if (!w->t.pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(to[0], STDIN_FILENO);
		dup2(from[1], STDOUT_FILENO);
		close_range(3, ~0u, 0);
		if (before)
			before(NULL);
		prctl(PR_SET_DUMPABLE, 1);
		serve();
	}
	close(to[0]);
	close(from[1]);
	w->t.to = to[1];
	w->t.from = from[0];
	assert_true(talker_line(&w->t, line, sizeof(line)));
	assert_int_equal(sscanf(line, "%lx %d", &w->start, &w->inner), 2);
}

/* --- rights --- */

static void set_caps(uint64_t caps)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	for (int i = 0; i < 2; i++) {
		uint32_t half = (uint32_t)(caps >> (32 * i));

		data[i] = (struct __user_cap_data_struct){half, half, half};
	}
	if (syscall(SYS_capset, &header, data))
		_exit(126);
}

static void become_nobody(void *arg)
{
	uint64_t caps = arg ? *(uint64_t *)arg : 0;

	if (prctl(PR_SET_KEEPCAPS, 1) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY))
		_exit(126);
	set_caps(caps);
	for (unsigned long cap = 0; cap < 64; cap++)
		if (caps >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0))
			_exit(126);
}

/* root, but without CAP_SYS_PTRACE, and not after execve either */
static void without_ptrace(void *arg)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (prctl(PR_CAPBSET_DROP, CAP_SYS_PTRACE) || syscall(SYS_capget, &header, data))
		_exit(126);
	set_caps((((uint64_t)data[1].permitted << 32) | data[0].permitted) &
		 ~(1ull << CAP_SYS_PTRACE));
}

/* --- what icp-bpf said --- */

struct told {
	bool events;
	char no_events[256];
	uint64_t pages, faults;
	uint64_t outer_writers; /* sum over the writers with the right comm and tid */
	bool summary;
};

static void add_sample(struct told *t, json_t *line, const struct writer *w, pid_t tid)
{
	json_t *item;
	size_t i;

	t->faults += (uint64_t)json_integer_value(json_object_get(line, "faults"));
	json_array_foreach(json_object_get(line, "vmas"), i, item)
	{
		uint64_t start =
			strtoull(json_string_value(json_object_get(item, "start")), NULL, 16);

		if (start == w->start)
			t->pages += (uint64_t)json_integer_value(
				json_object_get(item, "dirty_pages"));
	}
	json_array_foreach(json_object_get(line, "writers"), i,
			   item) if (json_integer_value(json_object_get(item, "tid")) == tid)
		t->outer_writers +=
		(uint64_t)json_integer_value(json_object_get(item, "faults"));
}

static void understand(struct run *r, const struct writer *w, pid_t tid, struct told *t)
{
	char *text = run_text(r->out), *rest = text, *line;

	memset(t, 0, sizeof(*t));
	while ((line = strsep(&rest, "\n")) && *line) {
		json_t *json = json_loads(line, 0, NULL);
		const char *type = json_string_value(json_object_get(json, "type"));

		if (!type)
			fail_msg("not JSON: %s", line);
		if (!strcmp(type, "start")) {
			const char *why = json_string_value(json_object_get(json, "no_events"));

			t->events = json_is_true(json_object_get(json, "events"));
			snprintf(t->no_events, sizeof(t->no_events), "%s", why ? why : "");
		} else if (!strcmp(type, "sample")) {
			add_sample(t, json, w, tid);
		} else if (!strcmp(type, "summary")) {
			t->summary = true;
		}
		json_decref(json);
	}
	free(text);
}

/* Trace @pid while the writer writes once. */
static void trace_once(struct writer *w, pid_t pid, const struct run_how *how, struct told *t)
{
	char text[16], line[64], *err;
	const char *argv[] = {
		built("icp-bpf"), "trace",	"--json", "--top", "100000", "--interval",
		"100ms",	  "--duration", "1s",	  "--pid", text,     NULL};
	struct run r;

	snprintf(text, sizeof(text), "%d", pid);
	run_start(&r, how, argv);
	if (!run_says(&r, "\"start\"", 10)) {
		err = run_text(r.err);
		fail_msg("did not start: %s", err);
	}
	assert_int_equal(write(w->t.to, "w", 1), 1);
	assert_true(talker_line(&w->t, line, sizeof(line)));
	run_wait(&r, 10);
	err = run_text(r.err);
	assert_string_equal(err, "");
	free(err);
	assert_true(WIFEXITED(r.status));
	assert_int_equal(WEXITSTATUS(r.status), 0);
	understand(&r, w, pid, t);
	run_close(&r);
	assert_true(t->summary);
	assert_int_equal(t->pages, WRITTEN);
}

static void expect_events(const struct told *t)
{
	if (!t->events)
		fail_msg("no events: %s", t->no_events);
	/* its stack and its C library are written too, but not much */
	assert_in_range(t->faults, WRITTEN, WRITTEN + 50);
	assert_in_range(t->outer_writers, WRITTEN, WRITTEN + 50);
}

static void test_root(void **state)
{
	struct writer w;
	struct told t;

	writer_start(&w, 0, NULL);
	trace_once(&w, w.t.pid, NULL, &t);
	expect_events(&t);
	talker_end(&w.t);
}

static void test_nobody(void **state)
{
	struct run_how how = {.before = become_nobody};
	struct outside before;
	struct writer w;
	struct told t;

	writer_start(&w, 0, become_nobody);
	outside_look(&before, w.t.pid);
	trace_once(&w, w.t.pid, &how, &t);
	assert_false(t.events);
	assert_non_null(strstr(t.no_events, "CAP_BPF"));
	assert_int_equal(t.faults, 0);
	assert_untouched(w.t.pid, &before, true);
	outside_free(&before);
	talker_end(&w.t);
}

/* The text says it too. */
static void test_nobody_text(void **state)
{
	struct run_how how = {.before = become_nobody};
	struct writer w;
	struct run r;
	char pid[16], *out, *err;
	int status;

	writer_start(&w, 0, become_nobody);
	snprintf(pid, sizeof(pid), "%d", w.t.pid);
	status = icp(&r, &how, "trace", "--count", "2", "--interval", "20ms", "--pid", pid,
		     NULL);
	out = run_text(r.out);
	err = run_text(r.err);
	assert_int_equal(status, 0);
	if (!strstr(out, "CAP_BPF") && !strstr(err, "CAP_BPF"))
		fail_msg("nothing says what is missing: '%s' '%s'", out, err);
	free(out);
	free(err);
	run_close(&r);
	talker_end(&w.t);
}

static void test_only_bpf_and_perfmon(void **state)
{
	uint64_t caps = 1ull << CAP_BPF | 1ull << CAP_PERFMON;
	struct run_how how = {.before = become_nobody, .arg = &caps};
	struct writer w;
	struct told t;

	writer_start(&w, 0, become_nobody);
	trace_once(&w, w.t.pid, &how, &t);
	expect_events(&t);
	talker_end(&w.t);
}

static void test_root_without_ptrace(void **state)
{
	struct run_how how = {.before = without_ptrace};
	struct writer w;
	struct told t;

	writer_start(&w, 0, without_ptrace);
	trace_once(&w, w.t.pid, &how, &t);
	expect_events(&t);
	talker_end(&w.t);
}

/* A target with more rights than ours, or another user. */
static void refuse_without_ptrace(void (*before)(void *))
{
	struct run_how how = {.before = without_ptrace};
	struct outside was;
	struct writer w;
	struct run r;
	char pid[16], *err;

	writer_start(&w, 0, before);
	outside_look(&was, w.t.pid);
	snprintf(pid, sizeof(pid), "%d", w.t.pid);
	assert_int_equal(icp(&r, &how, "trace", "--count", "1", "--pid", pid, NULL), 1);
	err = run_text(r.err);
	print_message("%s", err);
	assert_non_null(strstr(err, "CAP_SYS_PTRACE"));
	assert_string_equal(strchr(err, '\n'), "\n");
	free(err);
	run_close(&r);
	assert_untouched(w.t.pid, &was, true);
	outside_free(&was);
	talker_end(&w.t);
}

static void test_refused_without_ptrace(void **state)
{
	refuse_without_ptrace(NULL);
	refuse_without_ptrace(become_nobody);
}

/* --- pid namespaces --- */

static void test_target_in_a_namespace(void **state)
{
	struct writer w;
	struct told t;

	writer_start(&w, CLONE_NEWPID, NULL);
	assert_int_equal(w.inner, 1);
	trace_once(&w, w.t.pid, NULL, &t);
	expect_events(&t);
	talker_end(&w.t);
}

static void mount_proc(void *arg)
{
	/* not "/", which in a chroot is no mount */
	if (mount(NULL, "/proc", NULL, MS_PRIVATE, NULL) ||
	    mount("proc", "/proc", "proc", 0, NULL))
		_exit(125);
}

/* Into the namespaces of the process *@arg; a child of ours runs on as one of them. */
static void go_inside(void *arg)
{
	int pidfd = (int)syscall(SYS_pidfd_open, *(pid_t *)arg, 0), root, status;
	char path[64];
	pid_t child;

	/* setns() goes to the root of the mounts: back into the chroot that the tests may run in */
	snprintf(path, sizeof(path), "/proc/%d/root", *(pid_t *)arg);
	root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 || setns(pidfd, CLONE_NEWPID | CLONE_NEWNS) || fchdir(root) || chroot("."))
		_exit(124);
	child = fork();
	if (!child)
		return;
	waitpid(child, &status, 0);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 123);
}

static void test_both_in_a_namespace(void **state)
{
	struct writer w;
	struct told t;
	struct run_how how = {.before = go_inside, .arg = &w.t.pid};

	writer_start(&w, CLONE_NEWPID | CLONE_NEWNS, mount_proc);
	assert_int_equal(w.inner, 1);
	trace_once(&w, 1, &how, &t);
	expect_events(&t);
	talker_end(&w.t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_root),
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_nobody_text),
		cmocka_unit_test(test_only_bpf_and_perfmon),
		cmocka_unit_test(test_root_without_ptrace),
		cmocka_unit_test(test_refused_without_ptrace),
		cmocka_unit_test(test_target_in_a_namespace),
		cmocka_unit_test(test_both_in_a_namespace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
