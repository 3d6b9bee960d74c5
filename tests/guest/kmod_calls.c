// SPDX-License-Identifier: GPL-2.0
/*
 * The module icp_helper in a guest: calls that must be refused, missing rights, loading and unloading, holders of its file that are
 * killed, processes that end and execute while they are looked at.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/kmod.h"

#define MODULE "/run/modules/icp_helper.ko"

/* Processes that end and execute while they are looked at. */
static void exit_and_exec(void **state)
{
	double end = kmod_now() + kmod_seconds();
	unsigned long n = 0;

	while (kmod_now() < end) {
		struct icp_run runs[256];
		struct icp_bind bind;
		struct icp_take all = {.end = EVERYWHERE,
				       .runs = (uintptr_t)runs,
				       .n_runs = 256,
				       .report = ICP_PAGE_ALL,
				       .flags = ICP_TAKE_RESET};
		int fd = open(ICP_DEVICE, O_RDWR | O_CLOEXEC), err = 0;
		pid_t pid = fork();

		if (!pid) {
			memset(malloc(1 << 20), 1, 1 << 20);
			if (n % 2)
				execl("/bin/true", "true", NULL);
			_exit(0);
		}
		bind = (struct icp_bind){.pid = (uint32_t)pid};
		err = ioctl(fd, ICP_IOC_BIND, &bind);
		while (!err) {
			err = ioctl(fd, ICP_IOC_TAKE, &all);
			all.start = all.next < all.end ? all.next : 0;
		}
		assert_int_equal(errno, ESRCH);
		waitpid(pid, NULL, 0);
		close(fd);
		n++;
	}
	print_message("%lu processes\n", n);
	assert_true(n > 0);
	kernel_is_content();
}

/* --- calls that must be refused --- */

static int refused(int fd, unsigned long op, void *arg)
{
	errno = 0;
	return ioctl(fd, op, arg) ? errno : 0;
}

static int refused_take(int fd, struct icp_take take)
{
	return refused(fd, ICP_IOC_TAKE, &take);
}

static int refused_bind(int fd, uint32_t pid)
{
	return refused(fd, ICP_IOC_BIND, &(struct icp_bind){.pid = pid});
}

static void bad_calls(void **state)
{
	static char page[4 * PAGE] __attribute__((aligned(4096)));
	uint64_t at = (uintptr_t)page, end = at + 4 * PAGE;
	struct icp_run runs[8];
	struct icp_take good = {.start = at,
				.end = end,
				.runs = (uintptr_t)runs,
				.n_runs = 8,
				.report = ICP_PAGE_ALL},
			bad;
	int fd = open(ICP_DEVICE, O_RDWR | O_CLOEXEC),
	    other = open(ICP_DEVICE, O_RDWR | O_CLOEXEC);

	memset(page, 1, sizeof(page));
	assert_true(fd >= 0 && other >= 0);
	assert_int_equal(refused_take(fd, good), ENOTCONN);
	assert_int_equal(refused(fd, ICP_IOC_BIND, NULL), EFAULT);
	assert_int_equal(refused(fd, ICP_IOC_BIND, &(struct icp_bind){1, 1}), EINVAL);
	assert_int_equal(refused_bind(fd, 0), EINVAL);
	assert_int_equal(refused_bind(fd, UINT32_MAX), EINVAL);
	assert_int_equal(refused_bind(fd, INT32_MAX), ESRCH);
	assert_int_equal(refused_bind(fd, 2), ESRCH); /* kthreadd */
	assert_int_equal(refused_bind(fd, (uint32_t)getpid()), 0);
	assert_int_equal(refused_bind(fd, (uint32_t)getpid()), EBUSY);
	assert_int_equal(refused_bind(other, (uint32_t)getpid()), EBUSY);
	for (unsigned nr = 0; nr < 256; nr++)
		for (unsigned size = 0; size < 128; size += 4) {
			unsigned long op = _IOC(_IOC_READ | _IOC_WRITE, 'i', nr, size);

			if (op != ICP_IOC_TAKE && op != ICP_IOC_FRESH)
				assert_int_equal(refused(fd, op, page), ENOTTY);
		}
	assert_int_equal(refused(fd, ICP_IOC_VERSION, NULL), EFAULT);
	assert_int_equal(refused(fd, ICP_IOC_STATS, (void *)-8), EFAULT);
	assert_int_equal(refused(fd, ICP_IOC_TAKE, (void *)8), EFAULT);
#define BAD(field, value)                                                                      \
	bad = good;                                                                            \
	bad.field = value;                                                                     \
	assert_int_equal(refused_take(fd, bad), EINVAL)
	BAD(start, at + 1);
	BAD(end, end - 1);
	BAD(start, end + PAGE);
	BAD(end, UINT64_MAX);
	BAD(n_runs, ICP_RUNS_MAX + 1);
	BAD(n_runs, UINT32_MAX);
	BAD(n_runs, 0);
	BAD(report, 1u << 31);
	BAD(flags, 2);
	assert_int_equal(refused(fd, ICP_IOC_FRESH, &good), EINVAL); /* report */
	assert_int_equal(refused(fd, ICP_IOC_TAKE, &good), 0);
	assert_int_equal(good.next, end);
	assert_int_equal(good.n_filled, 1);
	assert_int_equal(runs[0].what & ICP_PAGE_UNKNOWN, 0);
	bad = good;
	bad.runs = 8; /* what can't be told is unknown from then on */
	bad.flags = ICP_TAKE_RESET;
	assert_int_equal(refused_take(fd, bad), EFAULT);
	assert_int_equal(refused(fd, ICP_IOC_TAKE, &good), 0);
	assert_true(runs[0].what & ICP_PAGE_UNKNOWN);
	close(fd);
	assert_int_equal(refused_bind(other, (uint32_t)getpid()), 0);
	close(other);
	kernel_is_content();
}

static void no_rights(void **state)
{
	int fd = open(ICP_DEVICE, O_RDWR), status;
	pid_t pid = fork();

	assert_true(fd >= 0);
	if (!pid) {
		int bad = setgid(65534) || setuid(65534);

		bad |= refused_bind(fd, (uint32_t)getppid()) != EPERM;
		bad |= refused_bind(fd, 1) != EPERM;
		bad |= open(ICP_DEVICE, O_RDWR) >= 0;
		_exit(bad);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(fd);
	kernel_is_content();
}

static int load(void)
{
	int fd = open(MODULE, O_RDONLY | O_CLOEXEC), err;

	err = syscall(SYS_finit_module, fd, "", 0) ? errno : 0;
	close(fd);
	return err;
}

static int unload(void)
{
	return syscall(SYS_delete_module, "icp_helper", O_NONBLOCK) ? errno : 0;
}

static void load_and_unload(void **state)
{
	int fd = open(ICP_DEVICE, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(unload(), EAGAIN);
	close(fd);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(unload(), 0);
		assert_int_equal(load(), 0);
	}
	kernel_is_content();
}

/* Those who hold the file are killed at random moments: nothing stays bound, and the module can go. */
static void killed_holders(void **state)
{
	double end = kmod_now() + kmod_seconds();

	while (kmod_now() < end) {
		pid_t pid = fork(), me = getpid();

		if (!pid) {
			static struct icp_run runs[512];
			struct icp_take all = {.end = EVERYWHERE,
					       .runs = (uintptr_t)runs,
					       .n_runs = 512,
					       .report = ICP_PAGE_ALL,
					       .flags = ICP_TAKE_RESET};
			int fd = open(ICP_DEVICE, O_RDWR | O_CLOEXEC);

			if (fd < 0 || refused_bind(fd, (uint32_t)me))
				_exit(1);
			for (;; all.start = all.next < all.end ? all.next : 0)
				refused(fd, ICP_IOC_TAKE, &all);
		}
		usleep((useconds_t)(rand() % 30000));
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	assert_int_equal(unload(), 0);
	assert_int_equal(load(), 0);
	kernel_is_content();
}

#define CALL(name) cmocka_unit_test_setup(name, kernel_mark)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		CALL(bad_calls),      CALL(no_rights),	   CALL(load_and_unload),
		CALL(killed_holders), CALL(exit_and_exec),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
