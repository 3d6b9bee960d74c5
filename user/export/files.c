// SPDX-License-Identifier: GPL-2.0
/* Mapped files, as they are on this machine now. Their names come from the image: untrusted. */
#include "export/internal.h"

#include <fcntl.h>
#include <gelf.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>

#include "proc/target.h"

int mapped_file_open(const Icp__Vma *v)
{
	_cleanup_fd_ int path_fd = -1;
	char self[32];
	struct stat st;

	if (v->path[0] != '/' || v->deleted)
		return -1;
	/* to open a device may have effects: look at it first */
	path_fd = open(v->path, O_PATH | O_CLOEXEC);
	if (path_fd < 0 || fstat(path_fd, &st) || !S_ISREG(st.st_mode))
		return -1;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", path_fd);
	return open(self, O_RDONLY | O_CLOEXEC);
}

static bool note_matches(Elf *elf, const GElf_Phdr *ph, const Icp__Vma *v)
{
	Elf_Data *data = elf_getdata_rawchunk(elf, (int64_t)ph->p_offset, ph->p_filesz,
					      ph->p_align == 8 ? ELF_T_NHDR8 : ELF_T_NHDR);
	size_t name, desc;
	GElf_Nhdr note;

	for (size_t at = 0; data && (at = gelf_getnote(data, at, &note, &name, &desc)) > 0;) {
		const char *bytes = data->d_buf;

		if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
		    !memcmp(bytes + name, "GNU", 4))
			return note.n_descsz == v->build_id.len &&
			       !memcmp(bytes + desc, v->build_id.data, v->build_id.len);
	}
	return false;
}

static bool build_id_matches(int fd, const Icp__Vma *v)
{
	bool matches = false;
	size_t n = 0;
	Elf *elf;

	elf_version(EV_CURRENT);
	elf = elf_begin(fd, ELF_C_READ, NULL);
	if (elf && elf_kind(elf) == ELF_K_ELF && !elf_getphdrnum(elf, &n)) {
		for (size_t i = 0; !matches && i < n; i++) {
			GElf_Phdr ph;

			if (gelf_getphdr(elf, (int)i, &ph) && ph.p_type == PT_NOTE)
				matches = note_matches(elf, &ph, v);
		}
	}
	elf_end(elf);
	return matches;
}

bool mapped_file_same(const Icp__Vma *v)
{
	_cleanup_fd_ int fd = mapped_file_open(v);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || (uint64_t)st.st_size != v->file_size)
		return false;
	if (v->build_id.len)
		return build_id_matches(fd, v);
	return st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec == v->file_mtime_ns;
}

const void *core_vdso(const struct core *c, const Icp__Vma *v)
{
	_cleanup_file_ FILE *maps = NULL;
	_cleanup_free_ char *line = NULL;
	uint64_t start, end, own = getauxval(AT_SYSINFO_EHDR);
	char boot[37];
	size_t room = 0;

	if (strcmp(v->name, "[vdso]") || boot_id(boot) || strcmp(boot, c->manifest->boot_id))
		return NULL;
	maps = fopen("/proc/self/maps", "re");
	while (maps && getline(&line, &room, maps) > 0)
		if (sscanf(line, "%lx-%lx", &start, &end) == 2 && start == own)
			return end - start == v->end - v->start ? (const void *)own : NULL;
	return NULL;
}
