// SPDX-License-Identifier: GPL-2.0
/* reborn SCENE DIR [MEGABYTES] */
#include "reborn.h"

#include <stdarg.h>
#include <sys/shm.h>

static const char *dir;

const char *in_dir(const char *name)
{
	static char paths[4][512];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
	return path;
}

void wrong(const char *fmt, ...)
{
	int fd = open(in_dir("wrong"), O_WRONLY | O_CREAT | O_APPEND, 0666);
	va_list args;

	va_start(args, fmt);
	vdprintf(fd, fmt, args);
	va_end(args);
	dprintf(fd, "\n");
	_exit(1);
}

void ready(void)
{
	int fd = open(in_dir("ready"), O_WRONLY | O_CREAT, 0666);

	check(fd >= 0);
	close(fd);
}

void nap_ms(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	check(!nanosleep(&t, NULL));
}

void wait_go(void)
{
	while (access(in_dir("go"), F_OK))
		nap_ms(5);
}

char *slurp(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = malloc(1 << 18);
	size_t len = 0;
	ssize_t got;

	check(fd >= 0 && text);
	while ((got = read(fd, text + len, (1 << 18) - 1 - len)) > 0)
		len += (size_t)got;
	check(got == 0);
	text[len] = 0;
	close(fd);
	return text;
}

void paint(void *page, uint64_t seed)
{
	uint64_t *words = page;

	for (size_t i = 0; i < PAGE / 8; i++)
		words[i] = (seed + 1) * 0x9e3779b97f4a7c15u + i * 0xc2b2ae3d27d4eb4fu;
}

bool painted(const void *page, uint64_t seed)
{
	char want[PAGE];

	paint(want, seed);
	return !memcmp(want, page, PAGE);
}

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
		      {"shm", scene_shm}};

	if (argc < 3)
		return 2;
	dir = argv[2];
	if (!strcmp(argv[1], "memory"))
		return scene_memory(argc > 3 ? strtoul(argv[3], NULL, 10) : 64), 0;
	for (size_t i = 0; i < sizeof(scenes) / sizeof(*scenes); i++)
		if (!strcmp(argv[1], scenes[i].name))
			return scenes[i].play(), 0;
	return 2;
}
