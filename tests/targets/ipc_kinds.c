// SPDX-License-Identifier: GPL-2.0
/*
 * ipc_kinds DIR KEY SCENE: System V objects of rarer kinds; see reborn.h for what it says and waits for.
 *
 *     locked   a segment locked in memory (SHM_LOCK)
 *     huge     a segment of huge pages (SHM_HUGETLB)
 *     unused   a segment, a semaphore set and a queue that nobody has used yet, by id
 *     each     one of each kind, and a segment without a key, of a parent and a child; a death of whoever started it is nothing to them
 *     late     a segment, and children that attach it when they are told to (DIR/turn.N), write into it by stores
 *              and by read(2), say DIR/done.N, and stay
 */
#include "reborn.h"

#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#define PAGES 1000 /* of `late` */
#define CHILDREN 3

static key_t key;

static char *new_segment(size_t size, int flags, int *id)
{
	char *seg;

	*id = shmget(key, size, IPC_CREAT | IPC_EXCL | 0600 | flags);
	check(*id >= 0);
	seg = shmat(*id, NULL, 0);
	check(seg != (void *)-1);
	return seg;
}

static void scene_locked(void)
{
	struct shmid_ds ds;
	int id;
	char *seg = new_segment(8 * PAGE, 0, &id);

	check(!shmctl(id, SHM_LOCK, NULL));
	for (uint64_t i = 0; i < 8; i++)
		paint(seg + i * PAGE, i);
	ready();
	wait_go();
	for (uint64_t i = 0; i < 8; i++)
		check(painted(seg + i * PAGE, i));
	check(!shmctl(id, IPC_STAT, &ds) && ds.shm_perm.mode & SHM_LOCKED);
}

static void scene_huge(void)
{
	int id;
	char *seg = new_segment(2 << 20, SHM_HUGETLB, &id);

	paint(seg, 1);
	ready();
	wait_go();
	check(painted(seg, 1));
}

static void scene_unused(void)
{
	int seg = shmget(key, 3 * PAGE, IPC_CREAT | IPC_EXCL | 0640),
	    set = semget(key, 2, IPC_CREAT | IPC_EXCL | 0600),
	    queue = msgget(key, IPC_CREAT | IPC_EXCL | 0620);
	struct sembuf up = {1, 1, 0};
	struct {
		long type;
		char text[8];
	} m = {3, "three"};
	unsigned short values[2];
	struct msqid_ds ds;
	char *mem;

	check(seg >= 0 && set >= 0 && queue >= 0);
	ready();
	wait_go();
	check(!semctl(set, 0, GETALL, values) && !values[0] && !values[1]);
	check(!semop(set, &up, 1) && semctl(set, 1, GETVAL) == 1);
	check(!msgctl(queue, IPC_STAT, &ds) && !ds.msg_qnum);
	check((ds.msg_perm.mode & 0777) == 0620);
	check(!msgsnd(queue, &m, 5, 0) && msgrcv(queue, &m, 8, 3, 0) == 5);
	mem = shmat(seg, NULL, 0);
	check(mem != (void *)-1);
	for (size_t i = 0; i < 3 * PAGE; i++)
		check(!mem[i]);
}

static void scene_each(void)
{
	struct {
		long type;
		char text[8];
	} m = {3, "three"};
	int id, private, status, set = semget(key, 2, IPC_CREAT | IPC_EXCL | 0600),
				 queue = msgget(key, IPC_CREAT | IPC_EXCL | 0600);
	char *seg = new_segment((size_t)PAGES * PAGE, 0, &id), *mem;
	pid_t pid;

	prctl(PR_SET_PDEATHSIG, 0);
	private = shmget(IPC_PRIVATE, PAGE, 0600);
	mem = shmat(private, NULL, 0);
	check(set >= 0 && queue >= 0 && mem != (void *)-1);
	check(!semctl(set, 1, SETVAL, 7) && !msgsnd(queue, &m, 5, 0));
	for (uint64_t page = 0; page < PAGES; page++)
		paint(seg + page * PAGE, page);
	pid = fork();
	if (pid)
		ready();
	wait_go();
	for (uint64_t page = 0; page < PAGES; page++)
		check(painted(seg + page * PAGE, page));
	if (!pid)
		_exit(0);
	check(waitpid(pid, &status, 0) == pid && !status);
	check(semctl(set, 1, GETVAL) == 7 && msgrcv(queue, &m, 8, 3, IPC_NOWAIT) == 5);
	check(!shmdt(mem) && !shmctl(private, IPC_RMID, NULL));
}

static bool is_there(const char *what, int n)
{
	char name[16];

	snprintf(name, sizeof(name), "%s.%d", what, n);
	return !access(in_dir(name), F_OK);
}

static void say_done(int n)
{
	char name[16];
	int fd;

	snprintf(name, sizeof(name), "done.%d", n);
	fd = open(in_dir(name), O_WRONLY | O_CREAT, 0600);
	check(fd >= 0 && !close(fd));
}

static uint64_t seed_of(int n, uint64_t page)
{
	return (uint64_t)n * PAGES + page;
}

static void write_mine(char *seg, int n)
{
	char data[PAGE];
	int ends[2];

	check(!pipe(ends));
	for (uint64_t page = (uint64_t)n; page < PAGES; page += CHILDREN + 1) {
		paint(data, seed_of(n, page));
		if (page & 1) {
			memcpy(seg + page * PAGE, data, PAGE);
			continue;
		}
		check(write(ends[1], data, PAGE) == PAGE);
		check(read(ends[0], seg + page * PAGE, PAGE) == PAGE);
	}
	close(ends[0]);
	close(ends[1]);
}

static void child(int n)
{
	char *seg;

	while (!is_there("turn", n))
		nap_ms(2);
	seg = shmat(shmget(key, 0, 0), NULL, 0);
	check(seg != (void *)-1);
	write_mine(seg, n);
	say_done(n);
	wait_go();
	for (uint64_t page = (uint64_t)n; page < PAGES; page += CHILDREN + 1)
		check(painted(seg + page * PAGE, seed_of(n, page)));
	_exit(0);
}

static void scene_late(void)
{
	int id, status;
	char *seg = new_segment((size_t)PAGES * PAGE, 0, &id);

	for (uint64_t page = 0; page < PAGES; page++)
		paint(seg + page * PAGE, seed_of(0, page));
	check(!shmdt(seg));
	for (int n = 1; n <= CHILDREN; n++)
		if (!fork())
			child(n);
	seg = shmat(id, NULL, 0); /* no child has it from us */
	check(seg != (void *)-1);
	ready();
	wait_go();
	for (int n = 1; n <= CHILDREN; n++)
		check(wait(&status) > 0 && !status);
	for (uint64_t page = 0; page < PAGES; page++)
		check(painted(seg + page * PAGE, seed_of((int)page % (CHILDREN + 1), page)));
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} scenes[] = {{"locked", scene_locked},
		      {"huge", scene_huge},
		      {"unused", scene_unused},
		      {"each", scene_each},
		      {"late", scene_late}};

	if (argc != 4)
		return 2;
	set_dir(argv[1]);
	key = (key_t)strtol(argv[2], NULL, 0);
	for (size_t i = 0; i < sizeof(scenes) / sizeof(*scenes); i++)
		if (!strcmp(argv[3], scenes[i].name))
			return scenes[i].run(), 0;
	return 2;
}
