// SPDX-License-Identifier: GPL-2.0
/* System calls that we interrupt go on: no EINTR, no early return, no signal lost. */
#include "unit/inject/helpers.h"
#include "inject/arch.h"
#include "lib/scratch.h"

#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/ptrace.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>

#define ROUNDS 100
#define SLEEP_S 4
#define MAXCALLS 40

struct call {
	const char *name;
	long nr;
	void (*prepare)(struct call *c);
	long (*block)(struct call *c);
	void (*wake)(struct call *c);
	bool eintr_earned;
	int a, b;
	unsigned long aio;
	struct timespec until;
	pthread_t thread;
};

struct result {
	_Atomic pid_t tid;
	_Atomic int done;
	long ret;
	int err;
	double took;
	int ipc; /* System V id, outlives the target */
};

struct board {
	struct result result[MAXCALLS];
	_Atomic int go, handled, sent_done, eintr;
	_Atomic pid_t waiter;
};

static struct board *board;
static char tmp_name[SCRATCH_MAX];

static void mkpipe(struct call *c)
{
	int p[2];

	if (pipe(p))
		abort();
	c->a = p[0];
	c->b = p[1];
}

static void mkepoll(struct call *c)
{
	struct epoll_event ev = {.events = EPOLLIN};
	int ep = epoll_create1(0);

	mkpipe(c);
	epoll_ctl(ep, EPOLL_CTL_ADD, c->a, &ev);
	c->a = ep;
}

static void wake_byte(struct call *c)
{
	if (write(c->b, "x", 1) != 1)
		abort();
}

static void wake_usr(struct call *c)
{
	pthread_kill(c->thread, SIGUSR2);
}

static void no_wake(struct call *c)
{
}

static void no_prepare(struct call *c)
{
}

static long do_nanosleep(struct call *c)
{
	struct timespec ts = {SLEEP_S, 0};

	return nanosleep(&ts, NULL);
}

static void mkuntil(struct call *c)
{
	clock_gettime(CLOCK_MONOTONIC, &c->until);
	c->until.tv_sec += SLEEP_S;
}

static long do_clock_nanosleep(struct call *c)
{
	errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &c->until, NULL);
	return errno ? -1 : 0;
}

static long do_poll(struct call *c)
{
	struct pollfd p = {.fd = c->a, .events = POLLIN};

	return poll(&p, 1, 100000) - 1;
}

static long do_ppoll(struct call *c)
{
	struct pollfd p = {.fd = c->a, .events = POLLIN};
	sigset_t all;

	sigfillset(&all);
	return ppoll(&p, 1, NULL, &all) - 1;
}

static long do_select(struct call *c)
{
	struct timeval tv = {1000, 0};
	fd_set set;

	FD_ZERO(&set);
	FD_SET(c->a, &set);
	return syscall(SYS_select, c->a + 1, &set, NULL, NULL, &tv) - 1;
}

static long do_epoll_wait(struct call *c)
{
	struct epoll_event ev;

	return syscall(SYS_epoll_wait, c->a, &ev, 1, -1) - 1;
}

static long do_epoll_pwait(struct call *c)
{
	struct epoll_event ev;
	sigset_t all;

	sigfillset(&all);
	return epoll_pwait(c->a, &ev, 1, 1000000, &all) - 1;
}

static long do_futex(struct call *c)
{
	return syscall(SYS_futex, &c->a, FUTEX_WAIT, 0, NULL);
}

static void wake_futex(struct call *c)
{
	c->a = 1;
	syscall(SYS_futex, &c->a, FUTEX_WAKE, 1);
}

static long do_read(struct call *c)
{
	char b[256];

	return read(c->a, b, sizeof(b)) > 0 ? 0 : -1;
}

static void mkinotify(struct call *c)
{
	c->a = inotify_init1(0);
	inotify_add_watch(c->a, tmp_name, IN_ATTRIB);
}

static void wake_inotify(struct call *c)
{
	chmod(tmp_name, 0640);
}

static void mksem(struct call *c)
{
	c->a = semget(IPC_PRIVATE, 1, 0600);
}

static long do_semop(struct call *c)
{
	struct sembuf op = {0, -1, 0};

	return syscall(SYS_semop, c->a, &op, 1);
}

static long do_semtimedop(struct call *c)
{
	struct sembuf op = {0, -1, 0};
	struct timespec ts = {1000, 0};

	return semtimedop(c->a, &op, 1, &ts);
}

static void wake_sem(struct call *c)
{
	semctl(c->a, 0, SETVAL, 1);
}

static void mkmsg(struct call *c)
{
	c->a = msgget(IPC_PRIVATE, 0600);
}

static long do_msgrcv(struct call *c)
{
	struct {
		long type;
		char text[8];
	} m;

	return msgrcv(c->a, &m, sizeof(m.text), 0, 0) == 1 ? 0 : -1;
}

static void wake_msg(struct call *c)
{
	struct {
		long type;
		char text[8];
	} m = {1, "x"};

	msgsnd(c->a, &m, 1, 0);
}

static long do_sigtimedwait(struct call *c)
{
	struct timespec ts = {1000, 0};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	return syscall(SYS_rt_sigtimedwait, &set, NULL, c->a ? &ts : NULL, 8) == SIGUSR2 ? 0
											 : -1;
}

static void mkone(struct call *c)
{
	c->a = 1;
}

static void mkaio(struct call *c)
{
	if (syscall(SYS_io_setup, 4, &c->aio))
		abort();
}

static long do_getevents(struct call *c)
{
	struct io_event ev;

	return syscall(SYS_io_getevents, c->aio, 1, 1, &ev, NULL) - 1;
}

static void wake_aio(struct call *c)
{
	char buf[8];
	struct iocb cb = {.aio_lio_opcode = IOCB_CMD_PREAD,
			  .aio_fildes = (unsigned)open("/proc/self/exe", O_RDONLY),
			  .aio_buf = (uintptr_t)buf,
			  .aio_nbytes = 8};
	struct iocb *list = &cb;

	if (syscall(SYS_io_submit, c->aio, 1, &list) != 1)
		abort();
}

static void mklisten(struct call *c)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};

	c->a = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(c->a, (void *)&sa, sizeof(sa)) || listen(c->a, 1))
		abort();
}

static long do_accept(struct call *c)
{
	return accept(c->a, NULL, NULL) >= 0 ? 0 : -1;
}

static void wake_accept(struct call *c)
{
	struct sockaddr_in sa;
	socklen_t len = sizeof(sa);

	getsockname(c->a, (void *)&sa, &len);
	if (connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&sa, len))
		abort();
}

static void mksockets(struct call *c)
{
	struct timeval tv = {1000, 0};
	int p[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, p))
		abort();
	setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	c->a = p[0];
	c->b = p[1];
}

static long do_recv(struct call *c)
{
	char b;

	return recv(c->a, &b, 1, 0) - 1;
}

static long do_wait4(struct call *c)
{
	return waitpid(c->a, NULL, 0) == c->a ? 0 : -1;
}

/* A child that holds the record lock of @c and dies when woken. */
static void mkholder(struct call *c)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = c->nr, .l_len = 1};
	int p[2];
	char b;

	if (pipe(p))
		abort();
	c->a = fork();
	if (!c->a) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fcntl(open(tmp_name, O_RDWR), F_SETLK, &lock);
		if (write(p[1], "x", 1) == 1)
			pause();
		_exit(0);
	}
	if (read(p[0], &b, 1) != 1)
		abort();
}

static void wake_holder(struct call *c)
{
	kill(c->a, SIGKILL);
}

static long do_setlkw(struct call *c)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = c->nr, .l_len = 1};

	return fcntl(open(tmp_name, O_RDWR), F_SETLKW, &lock);
}

static void mkflock(struct call *c)
{
	c->a = open(tmp_name, O_RDWR);
	flock(c->a, LOCK_EX);
}

static long do_flock(struct call *c)
{
	return flock(open(tmp_name, O_RDWR), LOCK_EX);
}

static void wake_flock(struct call *c)
{
	flock(c->a, LOCK_UN);
}

static void mkmq(struct call *c)
{
	struct mq_attr attr = {.mq_maxmsg = 1, .mq_msgsize = 8};
	char name[64];

	snprintf(name, sizeof(name), "/icp-restart-%d", getpid());
	c->a = mq_open(name, O_RDWR | O_CREAT, 0600, &attr);
	if (c->a < 0)
		abort();
	mq_unlink(name);
}

static long do_mq(struct call *c)
{
	struct timespec ts = {2000000000, 0};
	char b[8];

	return mq_timedreceive(c->a, b, sizeof(b), NULL, &ts) == 1 ? 0 : -1;
}

static void wake_mq(struct call *c)
{
	mq_send(c->a, "x", 1, 0);
}

static void on_usr1(int sig)
{
}

static void wake_usr1(struct call *c)
{
	pthread_kill(c->thread, SIGUSR1);
}

static long do_pause(struct call *c)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	return syscall(SYS_pause);
}

static long do_sigsuspend(struct call *c)
{
	sigset_t set;

	sigfillset(&set);
	sigdelset(&set, SIGUSR1);
	return sigsuspend(&set);
}

#define CALL(n, number, p, b, w, e)                                                            \
	{                                                                                      \
		.name = n, .nr = number, .prepare = p, .block = b, .wake = w,                  \
		.eintr_earned = e                                                              \
	}
static struct call calls[] = {
	CALL("nanosleep", SYS_clock_nanosleep, no_prepare, do_nanosleep, no_wake, false),
	CALL("clock_nanosleep", SYS_clock_nanosleep, mkuntil, do_clock_nanosleep, no_wake,
	     false),
	CALL("poll", SYS_poll, mkpipe, do_poll, wake_byte, false),
	CALL("ppoll", SYS_ppoll, mkpipe, do_ppoll, wake_byte, false),
	CALL("select", SYS_select, mkpipe, do_select, wake_byte, false),
	CALL("epoll_wait", SYS_epoll_wait, mkepoll, do_epoll_wait, wake_byte, false),
	CALL("epoll_pwait", SYS_epoll_pwait, mkepoll, do_epoll_pwait, wake_byte, false),
	CALL("futex", SYS_futex, no_prepare, do_futex, wake_futex, false),
	CALL("read pipe", SYS_read, mkpipe, do_read, wake_byte, false),
	CALL("read inotify", SYS_read, mkinotify, do_read, wake_inotify, false),
	CALL("semop", SYS_semop, mksem, do_semop, wake_sem, false),
	CALL("semtimedop", SYS_semtimedop, mksem, do_semtimedop, wake_sem, false),
	CALL("msgrcv", SYS_msgrcv, mkmsg, do_msgrcv, wake_msg, false),
	CALL("sigtimedwait", SYS_rt_sigtimedwait, mkone, do_sigtimedwait, wake_usr, false),
	CALL("sigwaitinfo", SYS_rt_sigtimedwait, no_prepare, do_sigtimedwait, wake_usr, false),
	CALL("io_getevents", SYS_io_getevents, mkaio, do_getevents, wake_aio, false),
	CALL("accept", SYS_accept, mklisten, do_accept, wake_accept, false),
	CALL("recv with timeout", SYS_recvfrom, mksockets, do_recv, wake_byte, false),
	CALL("wait4", SYS_wait4, mkholder, do_wait4, wake_holder, false),
	CALL("fcntl SETLKW", SYS_fcntl, mkholder, do_setlkw, wake_holder, false),
	CALL("flock", SYS_flock, mkflock, do_flock, wake_flock, false),
	CALL("mq_timedreceive", SYS_mq_timedreceive, mkmq, do_mq, wake_mq, false),
	CALL("pause", SYS_pause, no_prepare, do_pause, wake_usr1, true),
	CALL("sigsuspend", SYS_rt_sigsuspend, no_prepare, do_sigsuspend, wake_usr1, true),
};
#define NCALLS (sizeof(calls) / sizeof(*calls))

static void *call_thread(void *arg)
{
	struct call *c = arg;
	struct result *r = &board->result[c - calls];
	double begin = clock_s();

	r->tid = gettid();
	r->ret = c->block(c);
	r->err = errno;
	r->took = clock_s() - begin;
	r->done = 1;
	return NULL;
}

static void on_rt(int sig)
{
	board->handled++;
}

static void *spinner(void *arg)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	board->waiter = gettid();
	for (;;)
		sched_yield();
	return NULL;
}

static void target(void *arg)
{
	pthread_t t;
	sigset_t all;

	/* Only what a thread unblocks itself reaches it: an EINTR it did not ask for is ours.
	 */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	signal(SIGUSR1, on_usr1);
	signal(SIGRTMIN, on_rt);
	pthread_create(&t, NULL, spinner, NULL);
	for (size_t i = 0; i < NCALLS; i++) {
		calls[i].prepare(&calls[i]);
		board->result[i].ipc = calls[i].a;
		pthread_create(&calls[i].thread, NULL, call_thread, &calls[i]);
	}
	while (!board->go)
		usleep(1000);
	for (size_t i = 0; i < NCALLS; i++)
		calls[i].wake(&calls[i]);
	for (;;)
		pause();
}

static void test_calls_go_on(void **state)
{
	_cleanup_warden_ struct warden *w = NULL;
	int sent = 0, fd, tmp = mkstemp(scratch(tmp_name, "restart"));
	pid_t pid;

	board = shared(sizeof(*board));
	assert_true(tmp >= 0);
	assert_ok(warden_open(&w));
	pid = spawn(target, NULL);
	wait_for(board->waiter);
	for (size_t i = 0; i < NCALLS; i++) {
		wait_for(board->result[i].tid);
		wait_for(syscall_of(pid, board->result[i].tid) == calls[i].nr);
	}
	for (int round = 0; round < ROUNDS; round++) {
		kill(pid, SIGRTMIN);
		assert_ok(warden_uffd(w, pid, &fd, NULL));
		close(fd);
		kill(pid, SIGRTMIN);
		assert_ok(warden_freeze(w, &pid, 1, false, 10000, NULL));
		kill(pid, SIGRTMIN);
		assert_ok(warden_thaw(w, NULL));
		sent += 3;
	}
	wait_for(board->handled == sent);
	for (size_t i = 0; i < NCALLS; i++)
		if (board->result[i].done && calls[i].wake != no_wake)
			fail_msg("%s came back early: %ld %s", calls[i].name,
				 board->result[i].ret, strerror(board->result[i].err));
	/* a thread that has yet to go back into futex() would find the word changed, and be right */
	for (size_t i = 0; i < NCALLS; i++)
		wait_for(board->result[i].done ||
			 syscall_of(pid, board->result[i].tid) == calls[i].nr ||
			 syscall_of(pid, board->result[i].tid) == SYS_restart_syscall);
	board->go = 1;
	for (size_t i = 0; i < NCALLS; i++) {
		struct result *r = &board->result[i];

		wait_for(r->done);
		if (calls[i].eintr_earned ? r->ret != -1 || r->err != EINTR : r->ret != 0)
			fail_msg("%s: %ld %s", calls[i].name, r->ret, strerror(r->err));
		if (calls[i].wake == no_wake)
			assert_true(r->took > SLEEP_S - 0.1 && r->took < SLEEP_S + 3);
	}
	assert_int_equal(count_threads(pid, true, 0), 0);
	end(pid);
	for (size_t i = 0; i < NCALLS; i++) {
		if (calls[i].prepare == mksem)
			semctl(board->result[i].ipc, 0, IPC_RMID);
		else if (calls[i].prepare == mkmsg)
			msgctl(board->result[i].ipc, IPC_RMID, NULL);
	}
	close(tmp);
	unlink(tmp_name);
}

static void waiter(void *arg)
{
	struct epoll_event ev;
	int ep = epoll_create1(0);

	signal(SIGRTMIN, on_rt);
	board->waiter = gettid();
	for (;;)
		if (syscall(SYS_epoll_wait, ep, &ev, 1, -1) < 0 && errno == EINTR)
			board->eintr++;
}

/* A handler that runs during a stop still ends the call with EINTR, exactly once: programs wait
 * for that. */
static void test_earned_eintr_is_kept(void **state)
{
	_cleanup_warden_ struct warden *w = NULL;
	pid_t pid;

	board = shared(sizeof(*board));
	assert_ok(warden_open(&w));
	pid = spawn(waiter, NULL);
	wait_for(board->waiter);
	for (int i = 0; i < ROUNDS; i++) {
		wait_for(syscall_of(pid, pid) == SYS_epoll_wait);
		assert_ok(warden_freeze(w, &pid, 1, false, 10000, NULL));
		kill(pid, SIGRTMIN);
		assert_ok(warden_thaw(w, NULL));
		wait_for(board->handled == i + 1 && board->eintr == i + 1);
	}
	end(pid);
}

static void sleeper(void *arg)
{
	nanosleep(&(struct timespec){.tv_sec = 1000}, NULL);
}

/*
 * Let go and stopped again before it got there, a thread is about to call restart_syscall(2),
 * which is of no use to a thread of another process: it would say EINTR. The moment takes a
 * preemption in the kernel, so its registers are made here.
 */
static void test_sleep_is_named(void **state)
{
	pid_t pid = spawn(sleeper, NULL);
	struct arch_regs regs, about;
	unsigned long nr;

	wait_for(syscall_of(pid, pid) == SYS_clock_nanosleep);
	assert_int_equal(ptrace(PTRACE_SEIZE, pid, NULL, NULL), 0);
	assert_int_equal(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0);
	assert_int_equal(waitpid(pid, NULL, __WALL), pid);
	assert_ok(arch_regs_get(pid, &regs));
	nr = regs.user.orig_rax;
	assert_int_equal(nr, SYS_clock_nanosleep);

	about = regs;
	about.user.rax = SYS_restart_syscall;
	about.user.rip -= arch_syscall_len;
	regs = about;
	arch_restart_anew(pid, &regs); /* nothing is noted: by its code */
	assert_int_equal(regs.user.rax, nr);
	assert_int_equal(regs.user.rip, about.user.rip);
	assert_int_equal(regs.user.orig_rax, -1);

	assert_ok(arch_unearned_eintr(pid));
	arch_name_call(pid, &about);
	assert_int_equal(about.user.rax, nr);
	assert_int_equal(about.user.orig_rax, -1);
	end(pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls_go_on),
		cmocka_unit_test(test_earned_eintr_is_kept),
		cmocka_unit_test(test_sleep_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
