// SPDX-License-Identifier: GPL-2.0
/* What refers to files, processes or signals: inotify, pidfd, /proc, owners; and what is refused. */
#include "events.h"

#include <linux/aio_abi.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>

/* ---- inotify ---- */

static void expect(int fd, int wd, uint32_t mask, const char *name)
{
	_Alignas(struct inotify_event) char buf[4096];
	const struct inotify_event *e = (void *)buf;

	check(read(fd, buf, sizeof(buf)) >= (ssize_t)sizeof(*e));
	if (e->wd != wd || e->mask != mask || strcmp(e->len ? e->name : "", name))
		wrong("watch %d mask %#x name %s, not %d %#x %s", e->wd, e->mask,
		      e->len ? e->name : "", wd, mask, name);
}

static void touch(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);

	check(fd >= 0 && write(fd, "x", 1) == 1);
	close(fd);
}

static int lines(const char *text)
{
	int n = 0;

	for (; (text = strstr(text, "inotify wd:")); text++)
		n++;
	return n;
}

void scene_inotify(void)
{
	int fd = as(inotify_init1(IN_NONBLOCK), 20), empty = as(inotify_init(), 21),
	    full = as(inotify_init(), 22), dir, gone, file;
	char *before, sub[256];

	snprintf(sub, sizeof(sub), "%s", in_dir("sub"));
	check(!mkdir(sub, 0700) || errno == EEXIST);
	touch(in_dir("watched"));
	dir = inotify_add_watch(fd, sub, IN_CREATE | IN_ONLYDIR);
	gone = inotify_add_watch(fd, in_dir(""), IN_DELETE_SELF);
	file = inotify_add_watch(fd, in_dir("watched"), IN_MODIFY | IN_ONESHOT);
	check(dir == 1 && gone == 2 && file == 3 && !inotify_rm_watch(fd, gone));
	expect(fd, gone, IN_IGNORED, "");
	check(inotify_add_watch(full, sub, IN_CREATE | IN_DELETE) == 1);
	touch(in_dir("sub/unread"));
	check(is_ready(full, POLLIN) && !unlink(in_dir("sub/unread")));
	expect(fd, dir, IN_CREATE, "unread");
	before = fd_info(fd);
	ready();
	wait_go();
	expect(full, -1, IN_Q_OVERFLOW, "");
	check(!is_ready(full, POLLIN));
	check(lines(before) == 2 && lines(fd_info(fd)) == 2 && !lines(fd_info(empty)));
	if (strcmp(strstr(before, "inotify wd"), strstr(fd_info(fd), "inotify wd")))
		wrong("was:\n%sis:\n%s", before, fd_info(fd));
	check(!is_ready(fd, POLLIN));
	snprintf(sub, sizeof(sub), "%s/%d", in_dir("sub"), getpid());
	touch(sub);
	expect(fd, dir, IN_CREATE, strrchr(sub, '/') + 1);
	check(!unlink(sub));
	touch(in_dir("watched"));
	check(is_ready(fd, POLLIN));
	expect(fd, file, IN_MODIFY, "");
	check(lines(fd_info(fd)) == 1);
	check(fcntl(fd, F_GETFL) & O_NONBLOCK && !(fcntl(empty, F_GETFL) & O_NONBLOCK));
}

/* ---- pidfd ---- */

static int pidfd(pid_t pid, unsigned flags)
{
	return (int)syscall(SYS_pidfd_open, pid, flags);
}

static void check_pid(int fd, pid_t pid)
{
	char want[32], *info = fd_info(fd);

	snprintf(want, sizeof(want), "Pid:\t%d\n", pid);
	check(strstr(info, want) && !is_ready(fd, POLLIN));
	free(info);
}

static void of_child(int parent, int go, int back)
{
	char byte;

	check(read(go, &byte, 1) == 1);
	check_pid(parent, getppid());
	check_pid(22, getpid());
	check(write(back, "x", 1) == 1);
	pause();
}

void scene_pidfd(void)
{
	int go[2], back[2], self = as(pidfd(getpid(), 0), 20), epoll = as(epoll_create1(0), 24),
			    of;
	struct epoll_event e = {.events = EPOLLIN, .data.u64 = 77}, got;
	siginfo_t info;
	pid_t child;
	char byte;

	check(!pipe(go) && !pipe(back));
	child = fork();
	if (!child) {
		as(pidfd(getpid(), 0), 22);
		of_child(self, go[0], back[1]);
	}
	of = as(pidfd(child, O_NONBLOCK), 21);
	check(fcntl(of, F_SETFD, FD_CLOEXEC) == 0);
	check(dup2(of, 23) == 23);
	check(!epoll_ctl(epoll, EPOLL_CTL_ADD, of, &e));
	ready();
	wait_go();
	check_pid(self, getpid());
	check_pid(of, child);
	check_pid(23, child);
	check(fcntl(of, F_GETFD) == FD_CLOEXEC && fcntl(of, F_GETFL) & O_NONBLOCK);
	check(!epoll_wait(epoll, &got, 1, 0));
	check(write(go[1], "x", 1) == 1 && read(back[0], &byte, 1) == 1);
	check(!syscall(SYS_pidfd_send_signal, of, SIGTERM, NULL, 0));
	check(epoll_wait(epoll, &got, 1, -1) == 1 && got.data.u64 == 77);
	check(is_ready(23, POLLIN));
	check(!waitid((idtype_t)3 /* P_PIDFD */, (id_t)of, &info, WEXITED));
	check(info.si_pid == child && info.si_code == CLD_KILLED && info.si_status == SIGTERM);
}

/* ---- /proc and namespaces ---- */

void scene_proc(void)
{
	char path[64], buf[4096], was[256], *whole;
	int general = as(open("/proc/cpuinfo", O_RDONLY), 20),
	    own = as(open("/proc/self/status", O_RDONLY), 21),
	    dir = as(open("/proc/self", O_RDONLY | O_DIRECTORY), 22),
	    ns = as(open("/proc/self/ns/net", O_RDONLY), 23), of, at, status;
	struct stat before, now, real;
	pid_t child = fork();
	ssize_t got;

	if (!child) {
		for (;;)
			pause();
	}
	snprintf(path, sizeof(path), "/proc/%d/stat", child);
	of = as(open(path, O_RDONLY | O_CLOEXEC), 24);
	whole = slurp("/proc/cpuinfo");
	check(read(general, buf, 100) == 100 && read(own, buf, 6) == 6);
	check(!fstat(ns, &before));
	ready();
	wait_go();
	got = read(general, buf, 50);
	check(got == 50 && lseek(general, 0, SEEK_CUR) == 150);
	check(!memcmp(buf, whole + 100, 50));
	got = read(own, buf, sizeof(buf) - 1);
	check(got > 0);
	buf[got] = 0;
	/* "Name:\tevents": six bytes were read */
	check(!strncmp(buf, "events\n", 7) && strstr(buf, "VmRSS"));
	got = read(of, buf, sizeof(buf) - 1);
	check(got > 0);
	buf[got] = 0;
	check(atoi(buf) == child);
	at = openat(dir, "stat", O_RDONLY);
	got = read(at, buf, sizeof(buf) - 1);
	check(got > 0 && atoi(buf) == getpid());
	close(at);
	check(readlink("/proc/self/fd/22", was, sizeof(was)) > 0);
	snprintf(path, sizeof(path), "/proc/%d", getpid());
	check(!strncmp(was, path, strlen(path)));
	check(!fstat(ns, &now) && !stat("/proc/self/ns/net", &real) &&
	      now.st_ino == real.st_ino && before.st_ino == now.st_ino);
	check(!kill(child, SIGKILL) && waitpid(child, &status, 0) == child);
}

/* ---- who gets signals ---- */

void scene_owner(void)
{
	struct f_owner_ex owner = {F_OWNER_PID, getpid()}, now;
	int a[2], b[2], sig = SIGRTMIN + 2;
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	sigaddset(&set, SIGIO);
	check(!sigprocmask(SIG_BLOCK, &set, NULL));
	check(!pipe(a) && !pipe2(b, O_NONBLOCK));
	check(!fcntl(a[0], F_SETOWN_EX, &owner) && !fcntl(a[0], F_SETSIG, sig));
	check(!fcntl(a[0], F_SETFL, fcntl(a[0], F_GETFL) | O_ASYNC));
	owner.type = F_OWNER_TID;
	check(!fcntl(b[0], F_SETOWN_EX, &owner)); /* not O_ASYNC yet */
	ready();
	wait_go();
	check(!sigpending(&set) && !sigismember(&set, sig) && !sigismember(&set, SIGIO));
	sigemptyset(&set);
	sigaddset(&set, sig);
	check(!fcntl(a[0], F_GETOWN_EX, &now) && now.type == F_OWNER_PID &&
	      now.pid == getpid() && fcntl(a[0], F_GETSIG) == sig);
	check(fcntl(a[0], F_GETFL) & O_ASYNC && !(fcntl(a[1], F_GETFL) & O_ASYNC));
	check(write(a[1], "x", 1) == 1 && sigwaitinfo(&set, &info) == sig);
	check(info.si_fd == a[0] && info.si_code == POLL_IN);
	check(!fcntl(b[0], F_GETOWN_EX, &now) && now.type == F_OWNER_TID &&
	      now.pid == getpid() && !fcntl(b[0], F_GETSIG));
	check(!fcntl(b[0], F_SETFL, fcntl(b[0], F_GETFL) | O_ASYNC));
	check(write(b[1], "x", 1) == 1);
	sigaddset(&set, SIGIO);
	check(sigwaitinfo(&set, &info) == SIGIO);
}

/* ---- seals ---- */

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE)

void scene_memfd(void)
{
	int fd = as(memfd_create("sealed", MFD_ALLOW_SEALING), 20),
	    none = as(memfd_create("not to be sealed", 0), 21),
	    empty = as(memfd_create("empty", MFD_ALLOW_SEALING), 22);
	char *mem, byte;

	check(!ftruncate(fd, 4 * PAGE));
	mem = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(mem != MAP_FAILED);
	paint(mem + PAGE, 7);
	check(!fcntl(fd, F_ADD_SEALS, SEALS) &&
	      !fcntl(empty, F_ADD_SEALS, SEALS | F_SEAL_WRITE));
	ready();
	wait_go();
	check(fcntl(fd, F_GET_SEALS) == SEALS && fcntl(none, F_GET_SEALS) == F_SEAL_SEAL);
	check(fcntl(empty, F_GET_SEALS) == (SEALS | F_SEAL_WRITE));
	check(painted(mem + PAGE, 7));
	mem[0] = 'm'; /* the mapping was there before the seal */
	check(pread(fd, &byte, 1, 0) == 1 && byte == 'm');
	check(pwrite(fd, "x", 1, 0) == -1 && errno == EPERM);
	check(ftruncate(fd, 5 * PAGE) == -1 && ftruncate(fd, PAGE) == -1);
	check(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
}

/* ---- what is refused ---- */

static int sealed(void)
{
	int fd = memfd_create("sealed", MFD_ALLOW_SEALING);

	check(fd >= 0 && write(fd, "content", 7) == 7);
	check(!fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	return fd;
}

static int bpf_map(void)
{
	union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY,
			       .key_size = 4,
			       .value_size = 4,
			       .max_entries = 1};

	return (int)syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
}

static int perf(void)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
				       .size = sizeof(attr),
				       .config = PERF_COUNT_SW_TASK_CLOCK,
				       .exclude_kernel = 1};

	return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
}

static int uring(void)
{
	struct io_uring_params params = {0};

	return (int)syscall(SYS_io_uring_setup, 4, &params);
}

static int aio(void)
{
	aio_context_t id = 0;

	return (int)syscall(SYS_io_setup, 4, &id);
}

static int ended(void)
{
	pid_t child = fork();
	int fd;

	if (!child)
		_exit(0);
	fd = pidfd(child, 0);
	check(waitpid(child, NULL, 0) == child);
	return fd;
}

static int other_namespace(void)
{
	int fd = -1, ours = open("/proc/self/ns/uts", O_RDONLY);

	if (!unshare(CLONE_NEWUTS)) {
		fd = open("/proc/self/ns/uts", O_RDONLY);
		check(!setns(ours, CLONE_NEWUTS));
	}
	close(ours);
	return fd;
}

static int unlinked(void)
{
	int fd = inotify_init(), file = open(in_dir("gone"), O_RDWR | O_CREAT, 0600);

	check(fd >= 0 && inotify_add_watch(fd, in_dir("gone"), IN_MODIFY) == 1);
	check(!unlink(in_dir("gone")));
	(void)file; /* it stays open: the watch, too */
	return fd;
}

void refuse(const char *what)
{
	int fd = !strcmp(what, "fanotify")	 ? fanotify_init(FAN_CLASS_NOTIF, O_RDONLY)
		 : !strcmp(what, "userfaultfd")	 ? (int)syscall(SYS_userfaultfd, O_CLOEXEC)
		 : !strcmp(what, "io_uring")	 ? uring()
		 : !strcmp(what, "perf")	 ? perf()
		 : !strcmp(what, "bpf")		 ? bpf_map()
		 : !strcmp(what, "aio")		 ? aio()
		 : !strcmp(what, "device")	 ? open("/dev/net/tun", O_RDWR)
		 : !strcmp(what, "kvm")		 ? open("/dev/kvm", O_RDWR)
		 : !strcmp(what, "ended")	 ? ended()
		 : !strcmp(what, "outside")	 ? pidfd(getppid(), 0)
		 : !strcmp(what, "outside_proc") ? open("/proc/1/status", O_RDONLY)
		 : !strcmp(what, "namespace")	 ? other_namespace()
		 : !strcmp(what, "sealed")	 ? sealed()
		 : !strcmp(what, "unlinked")	 ? unlinked()
						 : -1;

	if (fd < 0)
		close(open(in_dir("missing"), O_WRONLY | O_CREAT, 0600));
	ready();
	wait_go();
}
