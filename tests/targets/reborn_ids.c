// SPDX-License-Identifier: GPL-2.0
/* Who the process is, and what it has open. */
#include <dirent.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/resource.h>

#include "reborn.h"

extern char **environ;

/* ---- ids ---- */

/* Everything /proc says that shall be the same. */
static char *portrait(void)
{
	static const char *const keys[] = {"Name:",
					   "Umask:",
					   "Pid:",
					   "Uid:",
					   "Gid:",
					   "Groups:",
					   "NStgid:",
					   "SigQ:",
					   "SigBlk:",
					   "SigIgn:",
					   "SigCgt:",
					   "CapInh:",
					   "CapPrm:",
					   "CapEff:",
					   "CapBnd:",
					   "CapAmb:",
					   "NoNewPrivs:",
					   "Seccomp:",
					   "Seccomp_filters:",
					   "Cpus_allowed:",
					   "THP_enabled:"};
	static const char *const files[] = {"limits",	     "cmdline",		"environ",
					    "auxv",	     "coredump_filter", "personality",
					    "oom_score_adj", "timerslack_ns"};
	char *out = calloc(1, 1 << 17), *at = out, *text = slurp("/proc/self/status");
	char link[512], path[64];

	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		for (size_t k = 0; k < sizeof(keys) / sizeof(*keys); k++)
			if (!strncmp(line, keys[k], strlen(keys[k])) &&
			    strcmp(keys[k], "SigQ:"))
				at += sprintf(at, "%s\n", line);
	free(text);
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		snprintf(path, sizeof(path), "/proc/self/%s", files[i]);
		if (access(path, R_OK))
			continue;
		text = slurp(path);
		at += sprintf(at, "%s: %s\n", files[i], text);
		free(text);
	}
	for (const char *const *name = (const char *const[]){"exe", "cwd", "root", NULL}; *name;
	     name++) {
		ssize_t len;

		snprintf(path, sizeof(path), "/proc/self/%s", *name);
		len = readlink(path, link, sizeof(link) - 1);
		at += sprintf(at, "%s: %.*s\n", *name, len > 0 ? (int)len : 0, link);
	}
	at += sprintf(at, "nice %d, policy %d, ", getpriority(PRIO_PROCESS, 0),
		      sched_getscheduler(0));
	sprintf(at, "dumpable %d, securebits %d\n", prctl(PR_GET_DUMPABLE),
		prctl(PR_GET_SECUREBITS));
	return out;
}

/* getpgid() says "no such process" from now on: a call that nobody makes. */
static void install_filter(int errno_value)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)errno_value),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(*code), code};

	check(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	check(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
}

void scene_ids(void)
{
	const gid_t groups[] = {5, 6, 77};
	struct rlimit files = {333, 777}, core = {0, 0};
	char *before, *now;
	cpu_set_t cpus;

	umask(027);
	check(!mkdir(in_dir("sub"), 0777) || errno == EEXIST);
	check(!chmod(in_dir(""), 0777) && !chdir(in_dir("sub")));
	check(!setrlimit(RLIMIT_NOFILE, &files) && !setrlimit(RLIMIT_CORE, &core));
	check(!setpriority(PRIO_PROCESS, 0, 5));
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	check(!sched_setaffinity(0, sizeof(cpus), &cpus));
	prctl(PR_SET_NAME, "new (name) ");
	prctl(PR_SET_TIMERSLACK, 123456);
	if (!getuid()) {
		check(!setgroups(3, groups) && !setresgid(1001, 1002, 1003));
		check(!prctl(PR_CAPBSET_DROP, 25)); /* CAP_SYS_TIME */
		check(!setresuid(2001, 2002, 2003));
	}
	install_filter(ESRCH);
	install_filter(ENOENT);
	before = portrait();
	ready();
	wait_go();
	now = portrait();
	if (strcmp(before, now))
		wrong("before:\n%s\nafter:\n%s", before, now);
	check(getpgid(0) == -1 && (errno == ENOENT || errno == ESRCH));
	free(before);
	free(now);
}

/* ---- files ---- */

static int at(int fd, int number, int flags)
{
	check(fd >= 0 && dup3(fd, number, flags) == number);
	close(fd);
	return number;
}

/* Numbers, links, flags and offsets. */
static char *descriptors(void)
{
	char *out = calloc(1, 1 << 16), *end = out;
	struct dirent *e;
	DIR *dir = opendir("/proc/self/fd");

	check(dir);
	while ((e = readdir(dir))) {
		int fd = atoi(e->d_name);
		char path[64], link[512] = "", *info;
		ssize_t len;

		if (e->d_name[0] == '.' || fd == dirfd(dir) || fd <= 2)
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		len = readlink(path, link, sizeof(link) - 1);
		if (!strncmp(link, "pipe:", 5))
			len = 5; /* has another inode now */
		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
		info = slurp(path);
		info[strcspn(info, "m")] = 0; /* pos, flags; mnt_id may change */
		end += sprintf(end, "%d %.*s %s\n", fd, (int)len, link, info);
		free(info);
	}
	closedir(dir);
	return out;
}

void scene_files(void)
{
	char buf[PAGE], *before, *now, *mem;
	int plain = at(open(in_dir("plain"), O_RDWR | O_CREAT | O_TRUNC, 0600), 20, O_CLOEXEC);
	int append, ends[2], packets[2], fifo, memfd, dir;
	off_t size;

	check(write(plain, "0123456789", 10) == 10 && lseek(plain, 4, SEEK_SET) == 4);
	check(dup2(plain, 21) == 21 && dup3(plain, 300, 0) == 300);
	append = at(open(in_dir("log"), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600), 22, 0);
	check(write(append, "first\n", 6) == 6);
	at(open(in_dir("plain"), O_RDONLY | O_NONBLOCK), 23, 0);
	dir = at(open(in_dir(""), O_RDONLY | O_DIRECTORY), 24, O_CLOEXEC);
	at(open(in_dir("plain"), O_PATH), 25, 0);
	at(open("/dev/null", O_RDWR), 26, 0);
	at(open("/dev/urandom", O_RDONLY), 27, 0);
	check(!pipe2(ends, O_NONBLOCK) && !pipe2(packets, O_DIRECT));
	check(fcntl(ends[1], F_SETPIPE_SZ, 1 << 18) == 1 << 18);
	memset(buf, 'p', sizeof(buf));
	for (int i = 0; i < 30; i++)
		check(write(ends[1], buf, sizeof(buf)) == sizeof(buf));
	check(write(packets[1], "one", 3) == 3 && write(packets[1], "three", 5) == 5);
	check(!mkfifo(in_dir("fifo"), 0600) || errno == EEXIST);
	fifo = at(open(in_dir("fifo"), O_RDWR), 40, 0);
	check(write(fifo, "in the fifo", 11) == 11);
	memfd = at(memfd_create("some memory", MFD_ALLOW_SEALING), 41, 0);
	check(!ftruncate(memfd, 8 * PAGE));
	mem = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	check(mem != MAP_FAILED);
	paint(mem + 2 * PAGE, 99);
	check(!fcntl(memfd, F_ADD_SEALS, F_SEAL_GROW));
	free(descriptors());
	before = descriptors();
	ready();
	wait_go();
	now = descriptors();
	if (strcmp(before, now))
		wrong("before:\n%s\nafter:\n%s", before, now);
	check(read(21, buf, 3) == 3 && !memcmp(buf, "456", 3));
	check(lseek(300, 0, SEEK_CUR) == 7 && lseek(23, 0, SEEK_CUR) == 0);
	size = lseek(append, 0, SEEK_END); /* it may have been restarted before */
	check(size >= 6 && write(append, "second\n", 7) == 7);
	check(lseek(append, 0, SEEK_END) == size + 7);
	check(!faccessat(dir, "plain", F_OK, 0));
	for (int i = 0; i < 30; i++)
		check(read(ends[0], buf, sizeof(buf)) == sizeof(buf) && buf[77] == 'p');
	check(read(ends[0], buf, 1) == -1 && errno == EAGAIN);
	check(fcntl(ends[0], F_GETPIPE_SZ) == 1 << 18);
	check(read(packets[0], buf, 100) == 3 && read(packets[0], buf, 100) == 5);
	check(read(fifo, buf, 100) == 11 && !memcmp(buf, "in the fifo", 11));
	check(painted(mem + 2 * PAGE, 99) && pread(memfd, buf, PAGE, 2 * PAGE) == PAGE);
	check(painted(buf, 99));
	mem[0] = 'm';
	check(pread(memfd, buf, 1, 0) == 1 && buf[0] == 'm');
	check(fcntl(memfd, F_GET_SEALS) == F_SEAL_GROW && ftruncate(memfd, 9 * PAGE) == -1);
	free(before);
	free(now);
}
