// SPDX-License-Identifier: GPL-2.0
/* What icp-bpf says no to: one line on stderr that says why, exit status 1 (2 for usage), and
 * nothing changed. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/robust_procs.h"
#include "lib/scratch.h"

#define NOBODY 65534

/* A child of ours that does @what, says so, and then sleeps. */
struct kid {
	pid_t pid;
	long value; /* what it told */
};

static void kid_start(struct kid *k, long (*what)(void *), void *arg)
{
	int told[2];

	assert_int_equal(pipe2(told, O_CLOEXEC), 0);
	k->pid = fork();
	assert_true(k->pid >= 0);
	if (!k->pid) {
		long value;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		value = what ? what(arg) : 0;
		if (write(told[1], &value, sizeof(value)) != sizeof(value))
			_exit(1);
		for (;;)
			pause();
	}
	close(told[1]);
	assert_int_equal(read(told[0], &k->value, sizeof(k->value)), sizeof(k->value));
	close(told[0]);
}

static void kid_end(struct kid *k)
{
	kill(k->pid, SIGKILL);
	waitpid(k->pid, NULL, 0);
}

/* One line, "icp-bpf: ..." with each of the words, nothing on stdout. */
static void assert_one_line(struct run *r, int status, int wanted, const char *const *words)
{
	char *err = run_text(r->err), *out = run_text(r->out), *end = strchr(err, '\n');

	print_message("%s", err);
	if (status != wanted)
		fail_msg("exit status %d, not %d: '%s'", status, wanted, err);
	if (strncmp(err, "icp-bpf", 7) || !end || end[1])
		fail_msg("not one line: '%s'", err);
	for (size_t i = 0; words[i]; i++)
		if (!strstr(err, words[i]))
			fail_msg("'%s' is not in '%s'", words[i], err);
	assert_string_equal(out, "");
	free(err);
	free(out);
	run_close(r);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void refuses_pid(const struct run_how *how, long pid, const char *const *words)
{
	struct run r;
	char text[24];
	int status;

	snprintf(text, sizeof(text), "%ld", pid);
	status = icp(&r, how, "trace", "--count", "1", "--interval", "10ms", "--pid", text,
		     NULL);
	assert_one_line(&r, status, 1, words);
}

/* The same of a kid, that is as it was afterwards. */
static void refuses_kid(const struct run_how *how, struct kid *k, const char *const *words)
{
	struct outside before;

	outside_look(&before, k->pid);
	refuses_pid(how, k->pid, words);
	assert_untouched(k->pid, &before, true);
	outside_free(&before);
}

static void test_no_such_process(void **state)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
	refuses_pid(NULL, pid, WORDS("no such process"));
	refuses_pid(NULL, 2147483647, WORDS("no such process"));
}

static void test_zombie(void **state)
{
	siginfo_t info;
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	refuses_pid(NULL, pid, WORDS("zombie"));
	waitpid(pid, NULL, 0);
}

static void test_kernel_thread(void **state)
{
	char *comm = file_text("/proc/2/comm");
	bool is = !strcmp(comm, "kthreadd\n");

	free(comm);
	if (!is)
		skip(); /* in a container */
	refuses_pid(NULL, 2, WORDS("kernel thread"));
}

static void test_itself(void **state)
{
	struct run r;
	char command[600];

	snprintf(command, sizeof(command), "exec %s trace --pid $$", built("icp-bpf"));
	run_start(&r, NULL, WORDS("sh", "-c", command));
	run_wait(&r, 10);
	assert_one_line(&r, WEXITSTATUS(r.status), 1, WORDS("icp-bpf itself"));
}

/* pause() for i386, by hand: nothing here needs a 32-bit compiler or library. */
static int make_i386(char *path)
{
	static const unsigned char code[] = {0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7};
	const Elf32_Ehdr header = {
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_386,
		.e_version = EV_CURRENT,
		.e_entry = 0x8048000 + sizeof(Elf32_Ehdr) + sizeof(Elf32_Phdr),
		.e_phoff = sizeof(Elf32_Ehdr),
		.e_ehsize = sizeof(Elf32_Ehdr),
		.e_phentsize = sizeof(Elf32_Phdr),
		.e_phnum = 1,
	};
	const Elf32_Phdr load = {
		.p_type = PT_LOAD,
		.p_vaddr = 0x8048000,
		.p_filesz = sizeof(header) + sizeof(load) + sizeof(code),
		.p_memsz = sizeof(header) + sizeof(load) + sizeof(code),
		.p_flags = PF_R | PF_X,
		.p_align = 0x1000,
	};
	int fd = mkstemp(path);

	if (fd < 0 || write(fd, &header, sizeof(header)) < 0 ||
	    write(fd, &load, sizeof(load)) < 0 || write(fd, code, sizeof(code)) < 0 ||
	    fchmod(fd, 0700))
		return -1;
	return close(fd);
}

static void test_32_bit(void **state)
{
	char path[SCRATCH_MAX], *what;
	struct outside before;
	struct run r;

	assert_int_equal(make_i386(scratch(path, "i386")), 0);
	run_start(&r, NULL, WORDS(path));
	do { /* until it has executed, and sleeps in its own pause() */
		what = file_text("/proc/%d/syscall", r.pid);
		if (waitpid(r.pid, &r.status, WNOHANG) == r.pid)
			r.pid = 0;
		if (r.pid && strncmp(what, "29 0x", 5))
			nap_ms(1);
		else
			break;
		free(what);
	} while (true);
	free(what);
	unlink(path);
	if (!r.pid) {
		run_close(&r);
		print_message("no 32-bit programs here\n");
		skip();
	}
	outside_look(&before, r.pid);
	refuses_pid(NULL, r.pid, WORDS("32-bit"));
	assert_untouched(r.pid, &before, true);
	outside_free(&before);
	run_close(&r);
}

static void *sleep_thread(void *arg)
{
	*(_Atomic long *)arg = gettid();
	for (;;)
		pause();
	return NULL;
}

static long start_thread(void *arg)
{
	static _Atomic long tid;
	pthread_t thread;

	if (pthread_create(&thread, NULL, sleep_thread, (void *)&tid))
		return -1;
	while (!tid)
		usleep(100);
	return tid;
}

static void test_thread_id(void **state)
{
	struct outside before;
	char owner[24];
	struct kid k;

	kid_start(&k, start_thread, NULL);
	snprintf(owner, sizeof(owner), "%d", k.pid);
	outside_look(&before, k.pid);
	refuses_pid(NULL, k.value, WORDS("thread", owner));
	assert_untouched(k.pid, &before, true);
	outside_free(&before);
	kid_end(&k);
}

static long seize(void *arg)
{
	prctl(PR_SET_NAME, "some-tracer");
	return ptrace(PTRACE_SEIZE, ((struct kid *)arg)->pid, NULL, NULL);
}

static void test_traced(void **state)
{
	struct kid target, tracer;
	char pid[24];

	kid_start(&target, NULL, NULL);
	kid_start(&tracer, seize, &target);
	assert_int_equal(tracer.value, 0);
	snprintf(pid, sizeof(pid), "%d", tracer.pid);
	refuses_pid(NULL, target.pid, WORDS("traced", pid, "some-tracer"));
	assert_int_equal(status_number(target.pid, "TracerPid"), tracer.pid);
	kid_end(&tracer);
	kid_end(&target);
}

/* Another icp-bpf on it is a second userfaultfd as well. */
static void test_traced_by_another_icp(void **state)
{
	struct run first;
	struct kid target;
	char pid[24];

	kid_start(&target, NULL, NULL);
	snprintf(pid, sizeof(pid), "%d", target.pid);
	run_start(
		&first, NULL,
		WORDS(built("icp-bpf"), "trace", "--json", "--interval", "50ms", "--pid", pid));
	assert_true(run_says(&first, "\"sample\"", 10));
	refuses_pid(NULL, target.pid, WORDS("another icp-bpf"));
	/* the first one goes on */
	kill(first.pid, SIGINT);
	run_wait(&first, 5);
	assert_int_equal(first.status, 0);
	run_close(&first);
	kid_end(&target);
}

static long use_uffd(void *arg)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.range.len = 1 << 16,
				      .mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	void *mem = mmap(NULL, reg.range.len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	reg.range.start = (uintptr_t)mem;
	return fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg)
		       ? -errno
		       : 0;
}

static void test_userfaultfd(void **state)
{
	struct outside before, after;
	struct kid k;
	char *smaps;

	kid_start(&k, use_uffd, NULL);
	assert_int_equal(k.value, 0);
	outside_look(&before, k.pid);
	refuses_pid(NULL, k.pid, WORDS("userfaultfd"));
	outside_look(&after, k.pid);
	assert_string_equal(after.fds, before.fds);
	assert_string_equal(after.maps, before.maps);
	smaps = file_text("/proc/%d/smaps", k.pid);
	assert_non_null(strstr(smaps, " um")); /* its own use goes on */
	assert_null(strstr(smaps, " uw"));
	free(smaps);
	outside_free(&before);
	outside_free(&after);
	kid_end(&k);
}

static long filter_calls(void *arg)
{
	struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
	struct sock_filter deny[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = 1, .filter = allow};

	if (arg)
		prog = (struct sock_fprog){.len = 4, .filter = deny};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		return -errno;
	return 0;
}

static void become_nobody(void *arg)
{
	if (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY))
		_exit(126);
}

/* Out of the bounding set too, so that execve does not bring it back. */
static void drop_cap(void *arg)
{
	if (prctl(PR_CAPBSET_DROP, (long)(intptr_t)arg))
		_exit(126);
}

/* A filter that kills for userfaultfd: with the right to suspend it the process is traced and
 * lives, without it it is refused and lives. */
static void test_seccomp(void **state)
{
	struct run_how without = {.before = drop_cap, .arg = (void *)21 /* CAP_SYS_ADMIN */};
	struct kid k;
	struct run r;
	char pid[24];

	kid_start(&k, filter_calls, (void *)1);
	assert_int_equal(k.value, 0);
	refuses_kid(&without, &k, WORDS("seccomp", "CAP_SYS_ADMIN"));
	snprintf(pid, sizeof(pid), "%d", k.pid);
	if (icp(&r, NULL, "trace", "--count", "1", "--interval", "10ms", "--pid", pid, NULL))
		assert_one_line(&r, 1, 1, WORDS("seccomp"));
	else
		run_close(&r);
	assert_int_equal(kill(k.pid, 0), 0);
	assert_int_equal(waitpid(k.pid, NULL, WNOHANG), 0);
	kid_end(&k);
}

static void test_other_user(void **state)
{
	struct run_how nobody = {.before = become_nobody};
	struct kid k;

	kid_start(&k, NULL, NULL);
	refuses_kid(&nobody, &k, WORDS("CAP_SYS_PTRACE"));
	kid_end(&k);
}

static void test_usage(void **state)
{
	static const char *const lines[][6] = {
		{"trace"},
		{"trace", "--wrong"},
		{"trace", "--pid"},
		{"trace", "--pid", "x"},
		{"trace", "--pid", "0"},
		{"trace", "--pid", "-1"},
		{"trace", "--pid", "1x"},
		{"trace", "--pid", "99999999999"},
		{"trace", "1"},
		{"trace", "-x"},
		{"trace", "--pid", "1", "--interval", "0"},
		{"trace", "--pid", "1", "--interval", "1ms"},
		{"trace", "--pid", "1", "--interval", "-1s"},
		{"trace", "--pid", "1", "--interval", "nan"},
		{"trace", "--pid", "1", "--interval", "1e999"},
		{"trace", "--pid", "1", "--duration", "1y"},
		{"trace", "--pid", "1", "--duration", ""},
		{"trace", "--pid", "1", "--count", "0"},
		{"trace", "--pid", "1", "--count", "1.5"},
		{"trace", "--pid", "1", "--top", "-1"},
		{"trace", "--pid", "1", "--json=yes"},
		{"check", "--wrong"},
		{"check", "it"},
		{"tracer"},
		{"help", "tracer"},
		{"--wrong"},
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		const char *const *l = lines[i];
		struct run r;
		int status = icp(&r, NULL, l[0], l[1], l[2], l[3], l[4], NULL);

		assert_one_line(&r, status, 2, WORDS("help"));
	}
}

static void test_no_verb(void **state)
{
	struct run r;
	char *err;

	assert_int_equal(icp(&r, NULL, NULL), 2);
	err = run_text(r.err);
	assert_non_null(strstr(err, "usage"));
	free(err);
	run_close(&r);
}

static void refuses_tracker(struct kid *k, const char *name, const char *const *words)
{
	struct run r;
	char pid[24];
	int status;

	snprintf(pid, sizeof(pid), "%d", k->pid);
	status = icp(&r, NULL, "trace", "--count", "1", "--pid", pid, "--tracker", name, NULL);
	assert_one_line(&r, status, 1, words);
}

static void test_trackers(void **state)
{
	struct kid k;

	kid_start(&k, NULL, NULL);
	refuses_tracker(&k, "kmod", WORDS("kmod"));
	refuses_tracker(&k, "softdirty", WORDS("softdirty"));
	refuses_tracker(&k, "wrong", WORDS("wrong", "check"));
	kid_end(&k);
}

static void close_stdout(void *arg)
{
	close(STDOUT_FILENO);
}

/* What can't be written is an error and not a silence; and the target goes on. */
static void test_no_place_to_write(void **state)
{
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	const struct run_how hows[] = {{.out_fd = full}, {.before = close_stdout}};
	static const char *const forms[][4] = {
		{"trace", "--json"}, {"trace", "--top=3"}, {"trace", "--events"},
		{"check"},	     {"check", "--json"},  {"help"},
		{"help", "trace"},   {"--version"},	   {"trace", "--help"},
	};
	struct kid k;
	char pid[24];

	assert_true(full > 0);
	kid_start(&k, NULL, NULL);
	snprintf(pid, sizeof(pid), "--pid=%d", k.pid);
	for (size_t i = 0; i < 2; i++) {
		for (size_t j = 0; j < sizeof(forms) / sizeof(forms[0]); j++) {
			bool trace = j < 3;
			struct run r;
			int status = trace ? icp(&r, &hows[i], forms[j][0], forms[j][1], pid,
						 "--interval=10ms", "--count=3", NULL)
					   : icp(&r, &hows[i], forms[j][0], forms[j][1], NULL);

			print_message("%s %s: ", forms[j][0], forms[j][1] ? forms[j][1] : "");
			assert_one_line(&r, status, 1, WORDS("write"));
		}
	}
	close(full);
	assert_int_equal(waitpid(k.pid, NULL, WNOHANG), 0);
	kid_end(&k);
}

/* `icp-bpf trace | head -1` is no error, and ends. */
static void test_reader_gone(void **state)
{
	struct run_how how = {0};
	struct kid k;
	struct run r;
	char pid[24], *err;
	int ends[2];

	kid_start(&k, NULL, NULL);
	snprintf(pid, sizeof(pid), "%d", k.pid);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	close(ends[0]);
	how.out_fd = ends[1];
	assert_int_equal(icp(&r, &how, "trace", "--interval", "10ms", "--pid", pid, NULL), 0);
	close(ends[1]);
	err = run_text(r.err);
	assert_string_equal(err, "");
	free(err);
	run_close(&r);
	kid_end(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_such_process),
		cmocka_unit_test(test_zombie),
		cmocka_unit_test(test_kernel_thread),
		cmocka_unit_test(test_itself),
		cmocka_unit_test(test_32_bit),
		cmocka_unit_test(test_thread_id),
		cmocka_unit_test(test_traced),
		cmocka_unit_test(test_traced_by_another_icp),
		cmocka_unit_test(test_userfaultfd),
		cmocka_unit_test(test_seccomp),
		cmocka_unit_test(test_other_user),
		cmocka_unit_test(test_usage),
		cmocka_unit_test(test_no_verb),
		cmocka_unit_test(test_trackers),
		cmocka_unit_test(test_no_place_to_write),
		cmocka_unit_test(test_reader_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
