// SPDX-License-Identifier: GPL-2.0
/* epoll: all that a target can be. */
#include "events.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

static void add(int epoll, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event e = {.events = events, .data.u64 = data};

	check(!epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e));
}

/* What is reported now, one bit for each data below 64. */
static uint64_t reported(int epoll)
{
	struct epoll_event got[64];
	int n = epoll_wait(epoll, got, 64, 0);
	uint64_t bits = 0;

	check(n >= 0);
	for (int i = 0; i < n; i++)
		bits |= 1ull << got[i].data.u64;
	return bits;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Its targets as /proc tells, sorted, without what differs: inodes. */
static char *targets(int epoll)
{
	char *info = fd_info(epoll), *out = calloc(1, 1 << 16), *lines[64], *rest = info;
	char *mask;
	size_t n = 0;

	for (char *line = strtok_r(info, "\n", &rest); line;
	     line = strtok_r(NULL, "\n", &rest)) {
		if (strncmp(line, "tfd:", 4))
			continue;
		*strstr(line, " pos:") = 0;
		/* one that has fired and isn't ready is listening for a hang-up again */
		mask = strstr(line, "events: 40000018");
		if (mask)
			memcpy(mask, "events: 40000000", 16);
		lines[n++] = line;
	}
	qsort(lines, n, sizeof(*lines), compare);
	for (size_t i = 0; i < n; i++)
		strcat(strcat(out, lines[i]), "\n");
	free(info);
	return out;
}

enum {
	LEVEL = 1, /* an eventfd with a count */
	EDGE,	   /* a pipe with bytes in it, seen already */
	ARMED,	   /* one-shot */
	FIRED,	   /* one-shot, and it was */
	FIRED_OUT, /* the same of a pipe that nothing is in */
	CLOSED,	   /* its number is closed */
	REUSED,	   /* its number is something else now */
	FIRST,	   /* two with the same number */
	SECOND,
	INNER, /* an epoll instance */
	SIGNAL,
};
#define BIT(x) (1ull << (x))

struct set {
	int outer, inner, level, edge[2], armed, fired, silent[2], closed, reused, first[2],
		second[2];
};

static void build(struct set *s)
{
	sigset_t usr1;
	char byte;

	s->outer = as(epoll_create1(0), 30);
	check(!fcntl(s->outer, F_SETFD, FD_CLOEXEC));
	s->inner = as(epoll_create1(0), 31);
	add(s->outer, s->level = as(eventfd(1, 0), 32), EPOLLIN, LEVEL);
	check(!pipe(s->edge) && write(s->edge[1], "abc", 3) == 3);
	add(s->outer, s->edge[0], EPOLLIN | EPOLLET, EDGE);
	add(s->outer, s->armed = as(eventfd(0, 0), 33), EPOLLIN | EPOLLONESHOT, ARMED);
	add(s->outer, s->fired = as(eventfd(1, 0), 34), EPOLLIN | EPOLLONESHOT, FIRED);
	check(!pipe(s->silent) && write(s->silent[1], "x", 1) == 1);
	add(s->outer, s->silent[0], EPOLLIN | EPOLLONESHOT, FIRED_OUT);
	/* under 35, which is closed; under 37, which is /dev/null */
	add(s->outer, as(eventfd(0, 0), 35), EPOLLIN, CLOSED);
	check((s->closed = dup2(35, 36)) == 36 && !close(35));
	add(s->outer, as(eventfd(0, 0), 37), EPOLLIN, REUSED);
	check((s->reused = dup2(37, 38)) == 38);
	as(open("/dev/null", O_RDWR), 37);
	check(!fcntl(37, F_SETFD, FD_CLOEXEC));
	check(!pipe(s->first) && !pipe(s->second));
	check(dup2(s->first[0], 900) == 900);
	add(s->outer, 900, EPOLLIN | EPOLLRDHUP, FIRST);
	check(dup2(s->second[0], 900) == 900);
	add(s->outer, 900, EPOLLIN | EPOLLPRI, SECOND);
	close(900);
	add(s->outer, s->inner, EPOLLIN, INNER);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	check(!sigprocmask(SIG_BLOCK, &usr1, NULL));
	add(s->inner, as(signalfd(-1, &usr1, 0), 39), EPOLLIN, SIGNAL);
	check(reported(s->outer) == (BIT(LEVEL) | BIT(EDGE) | BIT(FIRED) | BIT(FIRED_OUT)));
	check(read(s->silent[0], &byte, 1) == 1);
	check(reported(s->outer) == BIT(LEVEL));
}

static void check_set(struct set *s)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = FIRED};
	uint64_t one = 1;

	/* the edge may be seen again, and must be when nobody knows whether it was */
	check((reported(s->outer) | BIT(EDGE)) == (BIT(LEVEL) | BIT(EDGE)));
	check(reported(s->outer) == BIT(LEVEL));
	check(read(s->level, &one, 8) == 8 && !reported(s->outer));
	check(write(s->edge[1], "d", 1) == 1 && reported(s->outer) == BIT(EDGE));
	check(write(s->armed, &one, 8) == 8 && reported(s->outer) == BIT(ARMED));
	check(!reported(s->outer));
	check(write(s->silent[1], "x", 1) == 1 && !reported(s->outer));
	check(!epoll_ctl(s->outer, EPOLL_CTL_MOD, s->fired, &e));
	check(reported(s->outer) == BIT(FIRED));
	check(write(s->closed, &one, 8) == 8 && reported(s->outer) == BIT(CLOSED));
	check(read(s->closed, &one, 8) == 8);
	check(write(s->reused, &one, 8) == 8 && reported(s->outer) == BIT(REUSED));
	check(read(s->reused, &one, 8) == 8);
	check(write(s->first[1], "x", 1) == 1 && reported(s->outer) == BIT(FIRST));
	check(write(s->second[1], "x", 1) == 1 &&
	      reported(s->outer) == (BIT(FIRST) | BIT(SECOND)));
	/* by their number, as the program knows them */
	check(dup2(s->first[0], 900) == 900 && !epoll_ctl(s->outer, EPOLL_CTL_DEL, 900, NULL));
	check(dup2(s->second[0], 900) == 900 && !epoll_ctl(s->outer, EPOLL_CTL_DEL, 900, NULL));
	check(!reported(s->outer));
	check(!raise(SIGUSR1) && reported(s->outer) == BIT(INNER));
	check(reported(s->inner) == BIT(SIGNAL));
	check(fcntl(37, F_GETFD) == FD_CLOEXEC && fcntl(35, F_GETFD) == -1);
	check(fcntl(s->outer, F_GETFD) == FD_CLOEXEC && !fcntl(s->inner, F_GETFD));
}

void scene_epoll(void)
{
	struct set s;
	char *outer, *inner;

	build(&s);
	outer = targets(s.outer);
	inner = targets(s.inner);
	ready();
	wait_go();
	if (strcmp(outer, targets(s.outer)))
		wrong("was:\n%sis:\n%s", outer, targets(s.outer));
	check(!strcmp(inner, targets(s.inner)));
	check_set(&s);
}

/* An instance that parent and child have, with targets that only one has under that number. */
void scene_epoll_fork(void)
{
	int epoll = as(epoll_create1(0), 30), mine = as(eventfd(0, 0), 31), theirs, go[2],
	    back[2], status;
	uint64_t one = 1;
	char *before, byte;
	pid_t child;

	check(!pipe(go) && !pipe(back));
	theirs = as(eventfd(0, 0), 32);
	child = fork();
	if (!child) {
		close(mine);
		add(epoll, theirs, EPOLLIN, 2);
		check(write(go[1], "x", 1) == 1);
		check(read(back[0], &byte, 1) == 1);
		check(write(theirs, &one, 8) == 8 && write(go[1], "x", 1) == 1);
		pause();
	}
	close(theirs);
	add(epoll, mine, EPOLLIN, 1);
	check(read(go[0], &byte, 1) == 1);
	before = targets(epoll);
	ready();
	wait_go();
	check(!strcmp(before, targets(epoll)));
	check(write(mine, &one, 8) == 8);
	check(reported(epoll) == BIT(1));
	check(write(back[1], "x", 1) == 1 && read(go[0], &byte, 1) == 1);
	check(reported(epoll) == (BIT(1) | BIT(2)));
	check(!kill(child, SIGKILL) && waitpid(child, &status, 0) == child);
	/* with it went the last descriptor of its target */
	check(reported(epoll) == BIT(1));
}
