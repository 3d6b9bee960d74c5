// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that processes share since a fork stays shared: the same page frames. What each changed,
 * gave back or unmapped since is its own.
 */
#include "remade.h"

#define PAGES 4096
#define KIDS 4
#define FILE_PAGES 16
#define STEP 64 /* pages that kid k changes: k, k + STEP... */

struct board {
	uint64_t frames[PAGES], file_frames[FILE_PAGES]; /* of the parent */
	volatile int asked, done;
};

static struct board *board;
static char *memory, *file;

static uint64_t seed_of(int me, size_t page)
{
	return me && page % STEP == (size_t)me ? page * 10 + (size_t)me : page;
}

/* The first kid gave the last quarter back, the second has no mapping there any more. */
static bool is_gone(int me, size_t page)
{
	return (me == 1 || me == 2) && page >= PAGES / 4 * 3;
}

static void change(int me)
{
	char *end = memory + PAGES / 4 * 3 * PAGE;

	for (size_t i = (size_t)me; i < PAGES; i += STEP)
		paint(memory + i * PAGE, seed_of(me, i));
	paint(file + me * PAGE, 100 + (uint64_t)me);
	if (me == 1)
		check(!madvise(end, PAGES / 4 * PAGE, MADV_DONTNEED));
	if (me == 2)
		check(!munmap(end, PAGES / 4 * PAGE));
}

static void check_content(int me)
{
	static const char zeros[PAGE];

	for (size_t i = 0; i < PAGES; i++) {
		if (me == 2 && is_gone(me, i))
			check(mincore(memory + i * PAGE, PAGE, (unsigned char[1]){0}) &&
			      errno == ENOMEM);
		else if (is_gone(me, i))
			check(!memcmp(memory + i * PAGE, zeros, PAGE));
		else
			check(painted(memory + i * PAGE, seed_of(me, i)));
	}
	for (size_t i = 0; i < FILE_PAGES; i++)
		check(painted(file + i * PAGE, me && i == (size_t)me ? 100 + i : 50 + i));
}

/* Before anything is looked at that could bring a page of zeros. */
static void check_frames(int me)
{
	for (size_t i = 0; i < PAGES; i++) {
		if (is_gone(me, i))
			check(!frame(memory + i * PAGE));
		else
			check((frame(memory + i * PAGE) == board->frames[i]) ==
			      (i % STEP != (size_t)me));
	}
	for (size_t i = 0; i < FILE_PAGES; i++)
		check((frame(file + i * PAGE) == board->file_frames[i]) == (i != (size_t)me));
}

static void note_frames(void)
{
	for (size_t i = 0; i < PAGES; i++)
		check(board->frames[i] = frame(memory + i * PAGE));
	for (size_t i = 0; i < FILE_PAGES; i++)
		check(board->file_frames[i] = frame(file + i * PAGE));
}

static void wait_for(const volatile int *number, int at_least)
{
	while (*number < at_least)
		nap_ms(1);
}

/* The last one has a child that changed nothing since. */
static void kid(int me)
{
	int status;

	check(!prctl(PR_SET_PDEATHSIG, SIGKILL));
	change(me);
	if (me == KIDS && !fork()) {
		check(!prctl(PR_SET_PDEATHSIG, SIGKILL));
		wait_for(&board->asked, KIDS + 1);
		check_frames(me);
		check_content(me);
		_exit(me);
	}
	__atomic_add_fetch(&board->done, 1, __ATOMIC_SEQ_CST);
	wait_for(&board->asked, me);
	check_frames(me);
	check_content(me);
	__atomic_add_fetch(&board->done, 1, __ATOMIC_SEQ_CST);
	/* what is written now is one's own */
	memset(memory, me, PAGE);
	wait_for(&board->asked, KIDS + 1);
	check(memory[0] == me && memory[PAGE - 1] == me);
	check(me != KIDS || (wait(&status) > 0 && WEXITSTATUS(status) == me));
	_exit(me);
}

static void map_file(void)
{
	int fd = open(in_dir("file"), O_RDWR | O_CREAT | O_CLOEXEC, 0666);

	check(!ftruncate(fd, FILE_PAGES * PAGE));
	file = mmap(NULL, FILE_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	check(fd >= 0 && file != MAP_FAILED);
	close(fd);
	for (size_t i = 0; i < FILE_PAGES; i++)
		paint(file + i * PAGE, 50 + i);
}

void scene_cow(void)
{
	int status, sum = 0;

	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		     -1, 0);
	memory = anon(PAGES, PROT_READ | PROT_WRITE, 0);
	check(board != MAP_FAILED);
	for (size_t i = 0; i < PAGES; i++)
		paint(memory + i * PAGE, i);
	map_file();
	for (int me = 1; me <= KIDS; me++)
		if (!fork())
			kid(me);
	wait_for(&board->done, KIDS);
	ready();
	wait_go();
	note_frames();
	check_content(0);
	for (int me = 1; me <= KIDS; me++) {
		board->asked = me;
		wait_for(&board->done, KIDS + me);
	}
	check_content(0);
	board->asked = KIDS + 1;
	for (int left = KIDS; left; left--) {
		check(wait(&status) > 0 && WIFEXITED(status));
		sum += WEXITSTATUS(status);
	}
	check(sum == KIDS * (KIDS + 1) / 2);
}
