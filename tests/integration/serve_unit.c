// SPDX-License-Identifier: GPL-2.0
/*
 * `icp-bpf serve` with exactly the rights of systemd/icp-bpf.service, read from there: it follows a process of another user, and
 * checkpoints it. systemd itself is not needed: what it would do is done here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/kid.h"
#include "lib/scratch.h"
#include "lib/server.h"
#include "lib/tracer.h"

#define NOBODY 65534
#define UNIT "systemd/icp-bpf.service"

static const char *const names[] = {
	"CHOWN",
	"DAC_OVERRIDE",
	"DAC_READ_SEARCH",
	"FOWNER",
	"FSETID",
	"KILL",
	"SETGID",
	"SETUID",
	"SETPCAP",
	"LINUX_IMMUTABLE",
	"NET_BIND_SERVICE",
	"NET_BROADCAST",
	"NET_ADMIN",
	"NET_RAW",
	"IPC_LOCK",
	"IPC_OWNER",
	"SYS_MODULE",
	"SYS_RAWIO",
	"SYS_CHROOT",
	"SYS_PTRACE",
	"SYS_PACCT",
	"SYS_ADMIN",
	"SYS_BOOT",
	"SYS_NICE",
	"SYS_RESOURCE",
	"SYS_TIME",
	"SYS_TTY_CONFIG",
	"MKNOD",
	"LEASE",
	"AUDIT_WRITE",
	"AUDIT_CONTROL",
	"SETFCAP",
	"MAC_OVERRIDE",
	"MAC_ADMIN",
	"SYSLOG",
	"WAKE_ALARM",
	"BLOCK_SUSPEND",
	"AUDIT_READ",
	"PERFMON",
	"BPF",
	"CHECKPOINT_RESTORE",
};

static struct server server;
static pid_t target;
static int segment = -1, notify = -1;
static char dir[SCRATCH_MAX], notify_path[SCRATCH_MAX];
static uint64_t caps;

static int clean(void **state)
{
	struct run r;

	if (server.r.pid)
		run_close(&server.r);
	memset(&server, 0, sizeof(server));
	if (target) {
		kill(target, SIGKILL);
		waitpid(target, NULL, 0);
	}
	target = 0;
	if (segment >= 0)
		shmctl(segment, IPC_RMID, NULL);
	segment = -1;
	if (dir[0]) {
		run_start(&r, NULL, (const char *[]){"rm", "-rf", dir, NULL});
		run_wait(&r, 60);
		run_close(&r);
	}
	dir[0] = 0;
	if (notify >= 0)
		close(notify);
	notify = -1;
	unlink(notify_path);
	return 0;
}

/* What the unit says of @key; fails the test when it says nothing. To be freed. */
static char *setting(const char *key)
{
	char *text = file_text(UNIT), *line = text, *value = NULL;
	size_t len = strlen(key);

	for (; line && !value; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, key, len) && line[len] == '=')
			value = strndup(line + len + 1, strcspn(line + len + 1, "\n"));
	}
	if (!value)
		fail_msg(UNIT " does not set %s", key);
	free(text);
	return value;
}

static void expect_setting(const char *key, const char *wanted)
{
	char *value = setting(key);

	assert_string_equal(value, wanted);
	free(value);
}

static uint64_t capabilities(void)
{
	char *list = setting("CapabilityBoundingSet"), *save = NULL;
	uint64_t set = 0;

	for (char *word = strtok_r(list, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		size_t i = 0;

		while (i < sizeof(names) / sizeof(names[0]) && strcmp(word + 4, names[i]))
			i++;
		if (i == sizeof(names) / sizeof(names[0]))
			fail_msg("what is %s?", word);
		set |= 1ull << i;
	}
	free(list);
	return set;
}

static void read_only(const char *path)
{
	if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) ||
	    mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL))
		_exit(121);
}

#define REFUSE(e) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (e))
#define IS(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (yes), (no))
#define FIELD(name) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, name))

/* RestrictAddressFamilies, LockPersonality, SystemCallArchitectures. */
static void filter_calls(void)
{
	struct sock_filter code[] = {
		FIELD(arch),
		IS(AUDIT_ARCH_X86_64, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		FIELD(nr),
		IS(SYS_personality, 0, 1),
		REFUSE(EPERM),
		IS(SYS_socket, 0, 6),
		FIELD(args[0]),
		IS(AF_UNIX, 4, 0),
		IS(AF_INET, 3, 0),
		IS(AF_INET6, 2, 0),
		IS(AF_NETLINK, 1, 0),
		REFUSE(EAFNOSUPPORT),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};

	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		_exit(122);
}

/* In the child, before the daemon: what systemd does. */
static void confine(void *arg)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
		_exit(120);
	read_only("/usr"); /* ProtectSystem=full */
	read_only("/etc");
	read_only("/proc/sys"); /* ProtectKernelTunables */
	read_only("/sys/kernel");
	read_only("/sys/fs/cgroup");
	umask(077);
	setenv("NOTIFY_SOCKET", notify_path, 1);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		_exit(123);
	for (unsigned long cap = 0; cap < 64; cap++)
		if (!(caps & 1ull << cap) && prctl(PR_CAPBSET_READ, cap) == 1 &&
		    prctl(PR_CAPBSET_DROP, cap))
			_exit(124);
	for (int i = 0; i < 2; i++) {
		uint32_t half = (uint32_t)(caps >> (32 * i));

		data[i] = (struct __user_cap_data_struct){half, half, 0};
	}
	if (syscall(SYS_capset, &header, data))
		_exit(125);
	filter_calls();
}

/* Of another user, with memory, a segment that only he may open, and a file that is deleted. */
static void start_target(void)
{
	int ready[2];

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	target = fork();
	assert_true(target >= 0);
	if (!target) {
		char path[SCRATCH_MAX], *mem, *seg;
		int id, fd;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY))
			_exit(1);
		prctl(PR_SET_DUMPABLE, 1);
		snprintf(path, sizeof(path), "/tmp/icp-unit-%d", getpid());
		fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
		if (fd < 0 || unlink(path) || write(fd, "something", 9) != 9)
			_exit(1);
		id = shmget(IPC_PRIVATE, 65536, 0600);
		seg = shmat(id, NULL, 0);
		mem = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);
		(void)!write(ready[1], &id, sizeof(id));
		dup2(fd, 100);
		for (int std = 0; std <= 2; std++)
			dup2(open("/dev/null", O_RDWR | O_CLOEXEC), std);
		close_range(3, 99, 0);
		close_range(101, ~0u, 0);
		for (unsigned i = 0;; i++) {
			mem[(i * 4096) % (1 << 20)]++;
			seg[(i * 4096) % 65536]++;
			usleep(1000);
		}
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &segment, sizeof(segment)), sizeof(segment));
	close(ready[0]);
}

static void open_notify(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	snprintf(notify_path, sizeof(notify_path), "/tmp/icp-notify-%d", getpid());
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", notify_path);
	notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(notify, (struct sockaddr *)&addr, sizeof(addr)), 0);
}

static json_t *cut(const char *more)
{
	struct run r;
	char *text;
	json_t *json;
	int status = icp(&r, NULL, "checkpoint", "--pid", decimal(target), "--dir", dir,
			 "--json", more, NULL);

	text = run_text(status ? r.err : r.out);
	if (status)
		fail_msg("checkpoint: %s", text);
	json = json_loads(text, 0, NULL);
	free(text);
	run_close(&r);
	return json;
}

static void under_its_rights(void **state)
{
	struct run_how how = {.before = confine};
	char said[64] = "", caps_line[64], *status;
	json_t *json, *process;
	int left;

	caps = capabilities();
	assert_true(caps & 1ull << CAP_SYS_PTRACE);
	assert_false(caps & 1ull << CAP_SYS_ADMIN);
	expect_setting("NoNewPrivileges", "yes");
	expect_setting("ProtectSystem", "full");
	expect_setting("ProtectKernelTunables", "yes");
	expect_setting("ProtectControlGroups", "yes");
	expect_setting("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK");
	expect_setting("LockPersonality", "yes");
	expect_setting("SystemCallArchitectures", "native");
	expect_setting("Type", "notify");
	assert_non_null(mkdtemp(scratch(dir, "unit")));
	start_target();
	open_notify();
	server_start_as(&server, &how,
			(const char *[]){built("icp-bpf"), "serve", "--listen", "127.0.0.1:0",
					 "--pid", decimal(target), "--interval", "200ms",
					 NULL});
	/* nothing but that */
	status = file_text("/proc/%d/status", server.r.pid);
	snprintf(caps_line, sizeof(caps_line), "CapEff:\t%016lx\nCapBnd:\t%016lx\n",
		 (unsigned long)caps, (unsigned long)caps);
	assert_non_null(strstr(status, caps_line));
	assert_non_null(strstr(status, "NoNewPrivs:\t1\n"));
	assert_non_null(strstr(status, "Seccomp:\t2\n"));
	free(status);
	assert_true(recv(notify, said, sizeof(said) - 1, 0) > 0);
	assert_string_equal(said, "READY=1");
	/* all of what it can do is there */
	server_wait_pid(&server, target, true);
	server_catch_up(&server);
	server_catch_up(&server);
	json = server_json(&server, "/api/status");
	assert_true(json_is_true(json_object_get(json, "events")));
	json_decref(json);
	json = server_json(&server, "/api/processes");
	process = json_array_get(json_object_get(json, "processes"), 0);
	assert_true(number(process, "faults") > 0);
	assert_true(number(json_object_get(process, "totals"), "dirty_pages") > 0);
	json_decref(json);
	json = server_json(&server, "/api/segments");
	assert_int_equal(json_array_size(json_object_get(json, "segments")), 1);
	json_decref(json);
	json_decref(cut(NULL));
	json = cut("--kill");
	assert_string_equal(text(json, "type"), "incremental");
	json_decref(json);
	assert_int_equal(waitpid(target, &left, 0), target);
	assert_true(WIFSIGNALED(left) && WTERMSIG(left) == SIGKILL);
	target = 0;
	server_stop(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(under_its_rights, clean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
