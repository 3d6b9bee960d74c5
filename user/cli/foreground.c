// SPDX-License-Identifier: GPL-2.0
#include "cli/foreground.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "restore/builder.h"

static const int passed_on[] = {SIGINT,	 SIGTERM, SIGHUP,  SIGQUIT, SIGUSR1,
				SIGUSR2, SIGCONT, SIGTSTP, SIGALRM, SIGWINCH};

struct front {
	const struct restart_result *r;
	int tty, signals;
	size_t left;
	int status; /* of the first root */
	bool given; /* the terminal, to the job */
};

void foreground_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGCHLD);
	sigaddset(set, SIGTTIN);
	sigaddset(set, SIGTTOU); /* so that we may set who has the terminal */
	for (size_t i = 0; i < sizeof(passed_on) / sizeof(*passed_on); i++)
		sigaddset(set, passed_on[i]);
	sigprocmask(SIG_BLOCK, set, NULL);
}

/* What we have of the terminal goes to the job, as a shell would give it. */
static bool give(int tty, const struct restart_result *r)
{
	pid_t group = getpgid(r->roots[0]);

	return tty >= 0 && group != getpgrp() && tcgetpgrp(tty) == getpgrp() &&
	       !tcsetpgrp(tty, group);
}

static void give_terminal(struct front *f)
{
	f->given |= give(f->tty, f->r);
}

void foreground_ready(const struct restart_result *r, void *given)
{
	_cleanup_fd_ int tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);

	*(bool *)given = r->n_roots && give(tty, r);
}

void foreground_back(bool given)
{
	_cleanup_fd_ int tty = given ? open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC) : -1;

	if (tty >= 0)
		tcsetpgrp(tty, getpgrp());
}

static void take_terminal(struct front *f)
{
	if (f->given)
		tcsetpgrp(f->tty, getpgrp());
	f->given = false;
}

/* The terminal's driver signals the whole group: who is in ours has it already. */
static void pass_on(const struct front *f, const struct signalfd_siginfo *info)
{
	for (size_t i = 0; i < f->r->n_roots; i++)
		if (info->ssi_code != SI_KERNEL || getpgid(f->r->roots[i]) != getpgrp())
			kill(f->r->roots[i], (int)info->ssi_signo);
}

static void take_signals(struct front *f)
{
	struct signalfd_siginfo info;

	while (read(f->signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCONT) /* a shell put us into the foreground */
			give_terminal(f);
		for (size_t i = 0; i < sizeof(passed_on) / sizeof(*passed_on); i++)
			if (info.ssi_signo == (uint32_t)passed_on[i])
				pass_on(f, &info);
	}
}

/* The job was stopped: so are we, for whoever waits for us, if he uses a terminal. */
static void stop_too(struct front *f)
{
	pid_t group = getpgid(f->r->roots[0]);
	const struct timespec now = {0};
	sigset_t cont;

	if (f->tty < 0)
		return;
	take_terminal(f);
	if (tcgetpgrp(f->tty) != getpgrp())
		return;
	raise(SIGSTOP);
	sigemptyset(&cont);
	sigaddset(&cont, SIGCONT);
	sigtimedwait(&cont, NULL, &now); /* the job gets one below */
	give_terminal(f);
	if (group > 0 && group != getpgrp())
		kill(-group, SIGCONT);
}

static void ended(struct front *f, pid_t pid, int status)
{
	const pid_t *roots = f->r->init ? f->r->inner_roots : f->r->roots;

	for (size_t i = 0; i < f->r->n_roots; i++) {
		if (roots[i] != pid)
			continue;
		if (WIFSTOPPED(status)) {
			if (!i)
				stop_too(f);
			return;
		}
		if (!i)
			f->status = status;
		f->left--;
	}
}

/* Of a job in a pid namespace of its own its init tells, until it ends. */
static void ask_init(struct front *f)
{
	struct init_status s;

	if (!io_read_full(f->r->status_fd, &s, sizeof(s)))
		ended(f, s.pid, s.status);
	else
		f->left = 0, f->status = SIGKILL;
}

static void reap(struct front *f)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0)
		if (!f->r->init)
			ended(f, pid, status);
}

static void wait_next(struct front *f)
{
	struct pollfd fds[2] = {{.fd = f->signals, .events = POLLIN},
				{.fd = f->r->status_fd, .events = POLLIN}};

	if (poll(fds, 2, -1) < 0 && errno != EINTR)
		f->left = 0;
	if (fds[0].revents)
		take_signals(f);
	if (fds[1].revents)
		ask_init(f);
	reap(f);
}

int foreground(const struct restart_result *r, const sigset_t *set, bool given)
{
	struct front f = {.r = r, .left = r->n_roots, .given = given};

	f.tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	f.signals = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
	while (f.left)
		wait_next(&f);
	take_terminal(&f);
	cleanup_fd(&f.tty);
	cleanup_fd(&f.signals);
	return WIFSIGNALED(f.status) ? 128 + WTERMSIG(f.status) : WEXITSTATUS(f.status);
}
