// SPDX-License-Identifier: GPL-2.0
/*
 * While pages are still to come, the job must not outlive the one who brings them: the kernel would
 * put zeros in their place. So a second process, the guard, shares our table of open files (each
 * userfaultfd stays open when we die, and who touches a page waits), sees us end, and kills the job.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "proc/tasks.h"
#include "restore/lazy.h"

#define MEMBERS 16384

/* In memory that both share. */
struct members {
	_Atomic uint32_t n;
	struct {
		pid_t pid;
		int pidfd;
	} of[MEMBERS];
};

struct guard {
	struct members *members;
	pid_t pid;
	int self, end, pidfd; /* us; an eventfd: no need of it any more; the guard */
};

static int open_pidfd(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

static bool known(const struct members *m, pid_t pid)
{
	for (uint32_t i = 0; i < m->n; i++)
		if (m->of[i].pid == pid)
			return true;
	return false;
}

int guard_add(struct guard *g, pid_t pid)
{
	struct members *m = g->members;
	int fd;

	if (known(m, pid))
		return 0;
	if (m->n == MEMBERS)
		return refuse(-E2BIG, "the job has more than %d processes", MEMBERS);
	fd = open_pidfd(pid);
	if (fd < 0 && errno == ESRCH)
		return 0;
	if (fd < 0)
		return fail(-errno, "watch process %d", pid);
	m->of[m->n].pid = pid;
	m->of[m->n].pidfd = fd;
	m->n++;
	return 0;
}

int guard_look(struct guard *g)
{
	uint32_t n = g->members->n;
	int err = 0;

	for (uint32_t i = 0; i < n && !err; i++) {
		pid_list all = {0};

		err = tasks_descendants(g->members->of[i].pid, &all);
		if (err)
			err_clear();
		err = 0;
		vec_each (pid, &all)
			err = err ?: guard_add(g, *pid);
		vec_free(&all);
	}
	return err;
}

/* Children that are made meanwhile are found by the next look: a dead one makes none. */
void guard_kill(struct guard *g)
{
	uint32_t n;

	do {
		ignore_failure(guard_look(g));
		n = g->members->n;
		for (uint32_t i = 0; i < n; i++)
			syscall(SYS_pidfd_send_signal, g->members->of[i].pidfd, SIGKILL, NULL,
				0);
		ignore_failure(guard_look(g));
	} while (g->members->n != n);
}

bool guard_alive(const struct guard *g)
{
	for (uint32_t i = 0; i < g->members->n; i++) {
		struct pollfd dead = {.fd = g->members->of[i].pidfd, .events = POLLIN};

		if (poll(&dead, 1, 0) != 1)
			return true;
	}
	return false;
}

static void __attribute__((noreturn)) guard_main(struct guard *g)
{
	struct pollfd fds[2] = {{.fd = g->self, .events = POLLIN},
				{.fd = g->end, .events = POLLIN}};
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	prctl(PR_SET_NAME, "icp-bpf guard");
	setsid();
	while (poll(fds, 2, -1) < 0)
		;
	if (!fds[1].revents) {
		guard_kill(g);
		/* what is left open keeps holes from being seen */
		while (guard_alive(g))
			usleep(1000);
	}
	_exit(0);
}

int guard_new(struct guard **out)
{
	struct guard *g = calloc(1, sizeof(*g));
	void *m = mmap(NULL, sizeof(struct members), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	*out = g;
	if (!g || m == MAP_FAILED)
		return fail(-ENOMEM, "make the guard");
	g->members = m;
	g->self = open_pidfd(getpid());
	g->end = eventfd(0, EFD_CLOEXEC);
	if (g->self < 0 || g->end < 0)
		return fail(-errno, "make the guard");
	/* no signal at its end, so nobody who waits for the job meets it */
	g->pid = (pid_t)syscall(SYS_clone, CLONE_FILES, 0, 0, 0, 0);
	if (!g->pid)
		guard_main(g);
	if (g->pid < 0)
		return fail(-errno, "make the guard");
	g->pidfd = open_pidfd(g->pid);
	return g->pidfd < 0 ? fail(-errno, "watch the guard") : 0;
}

int guard_fd(const struct guard *g)
{
	return g->pidfd;
}

void guard_free(struct guard *g)
{
	uint64_t one = 1;

	if (!g)
		return;
	if (g->pid > 0) {
		if (write(g->end, &one, sizeof(one)) != sizeof(one))
			kill(g->pid, SIGKILL);
		while (waitpid(g->pid, NULL, __WALL) < 0 && errno == EINTR)
			;
		close(g->pidfd);
	}
	for (uint32_t i = 0; g->members && i < g->members->n; i++)
		close(g->members->of[i].pidfd);
	if (g->end > 0)
		close(g->end);
	if (g->self > 0)
		close(g->self);
	if (g->members)
		munmap(g->members, sizeof(*g->members));
	free(g);
}
