// SPDX-License-Identifier: GPL-2.0
/* Processes and what they share. */
#include "reborn.h"

struct board {
	pid_t pids[4]; /* parent, kid, session leader, grandchild */
	volatile int done[4];
	uint64_t page[3][PAGE / 8];
};

static struct board *board;
static int file, talk[2];

static void same_place(int me, pid_t ppid, pid_t pgid, pid_t sid)
{
	int death = 0;

	check(!prctl(PR_GET_PDEATHSIG, &death) && (!me || death == SIGKILL));
	check(getpid() == board->pids[me]);
	check(getppid() == ppid && getpgid(0) == pgid && getsid(0) == sid);
}

static void write_line(int me)
{
	char line[16];
	int len = snprintf(line, sizeof(line), "line of %d\n", me);

	check(write(file, line, (size_t)len) == len);
	board->done[me] = 1;
}

static void kid(pid_t parent)
{
	pid_t sid = getsid(0), pgid = getpgid(0);
	char byte[8];

	check(!prctl(PR_SET_PDEATHSIG, SIGKILL)); /* nobody is left if the test fails */
	board->pids[1] = getpid();
	close(talk[1]);
	/* six bytes are in the pipe already; the end comes after the restart */
	while (!board->done[0])
		nap_ms(1);
	same_place(1, parent, pgid, sid);
	check(read(talk[0], byte, 6) == 6 && !memcmp(byte, "before", 6));
	check(read(talk[0], byte, 5) == 5 && !memcmp(byte, "after", 5));
	check(read(talk[0], byte, 1) == 0);
	check(painted(board->page[0], 1) && painted(board->page[1], 2));
	paint(board->page[2], 3);
	write_line(1);
	_exit(11);
}

static void grandchild(void)
{
	pid_t parent = getppid();

	check(!prctl(PR_SET_PDEATHSIG, SIGKILL));
	check(!setpgid(0, 0));
	board->pids[3] = getpid();
	while (!board->done[0])
		nap_ms(1);
	same_place(3, parent, getpid(), parent);
	write_line(3);
	_exit(13);
}

static void leader(pid_t parent)
{
	int status;

	close(talk[0]);
	close(talk[1]);
	check(!prctl(PR_SET_PDEATHSIG, SIGKILL));
	check(setsid() == getpid());
	board->pids[2] = getpid();
	if (!fork())
		grandchild();
	check(wait(&status) == board->pids[3]); /* all the time */
	check(WEXITSTATUS(status) == 13);
	same_place(2, parent, getpid(), getpid());
	write_line(2);
	_exit(12);
}

void scene_tree(void)
{
	pid_t self = getpid(), sid = getsid(0), pgid = getpgid(0), pid;
	char *text;
	int status;

	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		     -1, 0);
	file = open(in_dir("lines"), O_RDWR | O_CREAT | O_TRUNC, 0600);
	check(board != MAP_FAILED && file >= 0 && !pipe(talk));
	check(write(file, "begin\n", 6) == 6 && write(talk[1], "before", 6) == 6);
	board->pids[0] = self;
	paint(board->page[0], 1);
	paint(board->page[1], 2);
	if (!fork())
		kid(self);
	if (!fork())
		leader(self);
	close(talk[0]);
	while (!board->pids[1] || !board->pids[2] || !board->pids[3])
		nap_ms(1);
	ready();
	wait_go();
	/* the restarter's, when it led out of the job */
	if (sid == self)
		same_place(0, getppid(), pgid, sid);
	board->done[0] = 1;
	check(write(talk[1], "after", 5) == 5);
	close(talk[1]);
	for (int n = 0; n < 2; n++) {
		pid = wait(&status);
		check(pid == board->pids[1] || pid == board->pids[2]);
		check(WIFEXITED(status) &&
		      WEXITSTATUS(status) == (pid == board->pids[1] ? 11 : 12));
	}
	check(painted(board->page[2], 3));
	check(lseek(file, 0, SEEK_CUR) == 6 + 3 * 10);
	text = slurp(in_dir("lines"));
	check(strlen(text) == 6 + 3 * 10 && strstr(text, "line of 1\n") &&
	      strstr(text, "line of 2\n") && strstr(text, "line of 3\n"));
	free(text);
}
