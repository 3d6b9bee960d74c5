// SPDX-License-Identifier: GPL-2.0
#include "remade.h"

char *anon(size_t pages, int prot, int flags)
{
	/* pages that can't be used on both sides: nothing merges with it */
	char *m = mmap(NULL, (pages + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(m != MAP_FAILED);
	check(mmap(m + PAGE, pages * PAGE, prot,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | flags, -1, 0) == m + PAGE);
	return m + PAGE;
}

bool vmflag(const void *at, const char *flag)
{
	char *text = slurp("/proc/self/smaps"), *line = text, *next;
	bool here = false, found = false;

	for (; line && *line; line = next) {
		unsigned long start, end;

		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (uintptr_t)at && (uintptr_t)at < end;
		else if (here && !strncmp(line, "VmFlags:", 8))
			for (char *f = line + 9; f[0] && f[1]; f += f[2] ? 3 : 2)
				found |= f[0] == flag[0] && f[1] == flag[1];
	}
	free(text);
	return found;
}

uint64_t frame(const void *at)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry;

	check(fd >= 0);
	check(pread(fd, &entry, 8, (off_t)((uintptr_t)at / PAGE * 8)) == 8);
	close(fd);
	return entry >> 63 ? entry & ((1ull << 55) - 1) : 0;
}

int main(int argc, char **argv)
{
	static const struct scene scenes[] = {{"cow", scene_cow},
					      {"protected", scene_protected},
					      {"advice", scene_advice},
					      {"growing", scene_growing},
					      {"sealed", scene_sealed},
					      {"many", scene_many},
					      {"vdso", scene_vdso},
					      {"scheduled", scene_scheduled},
					      {"traits", scene_traits},
					      {"chroot", scene_chroot},
					      {"idle", scene_idle},
					      {"huge", scene_huge},
					      {"deleted_private", scene_deleted_private},
					      {"deleted_shared", scene_deleted_shared},
					      {"memfd", scene_memfd},
					      {"shared", scene_shared}};

	if (argc < 3)
		return 2;
	set_dir(argv[2]);
	for (size_t i = 0; i < sizeof(scenes) / sizeof(*scenes); i++)
		if (!strcmp(argv[1], scenes[i].name))
			return scenes[i].play(), 0;
	return 2;
}
