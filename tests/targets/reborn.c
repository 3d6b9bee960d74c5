// SPDX-License-Identifier: GPL-2.0
/* reborn SCENE DIR [MEGABYTES] */
#include "reborn.h"

#include <sys/shm.h>

/* Only memory, for measuring; a little of it changes all the time. */
static void scene_memory(size_t megabytes)
{
	size_t pages = megabytes << 8;
	char *m = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);
	uint64_t round = 0;

	check(m != MAP_FAILED);
	for (size_t i = 0; i < pages; i++)
		paint(m + i * PAGE, i);
	ready();
	while (access(in_dir("go"), F_OK)) {
		size_t i = round++ * 7919 % pages;

		check(painted(m + i * PAGE, i));
		memset(m + i * PAGE, 0, PAGE);
		paint(m + i * PAGE, i);
		nap_ms(1);
	}
	for (size_t i = 0; i < pages; i++)
		check(painted(m + i * PAGE, i));
}

/* One segment twice, once for reading only. */
void scene_shm(void)
{
	key_t key = (key_t)(0x1c900000 + getpid());
	int id = shmget(key, 64 * PAGE, IPC_CREAT | IPC_EXCL | 0640);
	char *rw = shmat(id, NULL, 0), *ro = shmat(id, NULL, SHM_RDONLY);
	struct shmid_ds ds;

	check(id >= 0 && rw != (void *)-1 && ro != (void *)-1);
	for (size_t i = 0; i < 64; i += 3)
		paint(rw + i * PAGE, i);
	ready();
	wait_go();
	for (size_t i = 0; i < 64; i += 3)
		check(painted(ro + i * PAGE, i));
	rw[PAGE] = 5;
	check(ro[PAGE] == 5);
	id = shmget(key, 0, 0);
	check(id >= 0 && !shmctl(id, IPC_STAT, &ds));
	check((ds.shm_perm.mode & 0777) == 0640 && ds.shm_nattch == 2 &&
	      ds.shm_segsz == 64 * PAGE);
	check(!shmdt(rw) && !shmdt(ro) && !shmctl(id, IPC_RMID, NULL));
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*play)(void);
	} scenes[] = {{"threads", scene_threads}, {"tree", scene_tree},
		      {"signals", scene_signals}, {"calls", scene_calls},
		      {"ids", scene_ids},	  {"files", scene_files},
		      {"shm", scene_shm},	  {"lazy", scene_lazy}};

	if (argc < 3)
		return 2;
	set_dir(argv[2]);
	if (!strcmp(argv[1], "memory"))
		return scene_memory(argc > 3 ? strtoul(argv[3], NULL, 10) : 64), 0;
	for (size_t i = 0; i < sizeof(scenes) / sizeof(*scenes); i++)
		if (!strcmp(argv[1], scenes[i].name))
			return scenes[i].play(), 0;
	return 2;
}
