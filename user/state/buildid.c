// SPDX-License-Identifier: GPL-2.0
/* What identifies a mapped file: size, time of change, the linker's build id. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "state/kinds.h"

#define NOTES_MAX 65536u
#define PHDRS_MAX 256

struct known {
	uint64_t inode;
	uint32_t major, minor;
	bool found;
	struct file_id id;
};

struct buildids {
	VEC(struct known) list;
};

int buildids_new(struct buildids **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : -ENOMEM;
}

void buildids_free(struct buildids *b)
{
	if (b)
		vec_free(&b->list);
	free(b);
}

static bool find_note(const unsigned char *notes, size_t len, struct file_id *out)
{
	Elf64_Nhdr n;

	for (size_t at = 0; at + sizeof(n) <= len;) {
		size_t name, desc;

		memcpy(&n, notes + at, sizeof(n));
		if (n.n_namesz > len || n.n_descsz > len)
			return false;
		name = at + sizeof(n);
		desc = name + ((n.n_namesz + 3u) & ~3u);
		if (desc + n.n_descsz > len)
			return false;
		if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 &&
		    !memcmp(notes + name, "GNU", 4) && n.n_descsz <= sizeof(out->build_id)) {
			memcpy(out->build_id, notes + desc, n.n_descsz);
			out->len = (uint8_t)n.n_descsz;
			return true;
		}
		at = desc + ((n.n_descsz + 3u) & ~3u);
	}
	return false;
}

bool buildid_read(int fd, struct file_id *out)
{
	Elf64_Phdr ph[PHDRS_MAX];
	Elf64_Ehdr eh;

	if (io_pread_full(fd, &eh, sizeof(eh), 0) || memcmp(eh.e_ident, ELFMAG, SELFMAG) ||
	    eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_phnum > PHDRS_MAX ||
	    eh.e_phentsize != sizeof(*ph) || eh.e_phoff > INT64_MAX / 2 ||
	    io_pread_full(fd, ph, eh.e_phnum * sizeof(*ph), (off_t)eh.e_phoff))
		return false;
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		_cleanup_free_ unsigned char *notes = NULL;

		if (ph[i].p_type != PT_NOTE || ph[i].p_filesz > NOTES_MAX ||
		    ph[i].p_offset > INT64_MAX / 2)
			continue;
		notes = malloc(ph[i].p_filesz + 1);
		if (notes && !io_pread_full(fd, notes, ph[i].p_filesz, (off_t)ph[i].p_offset) &&
		    find_note(notes, ph[i].p_filesz, out))
			return true;
	}
	return false;
}

/*
 * The mapped file without opening it (O_PATH: opening may have effects), or -1. By name inside
 * the target's root when map_files isn't permitted.
 */
static int mapped_file(const struct target *t, const struct vma *v, struct stat *st)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "map_files/%lx-%lx", v->start, v->end);
	fd = openat(t->proc_fd, path, O_PATH | O_CLOEXEC);
	if (fd < 0 && v->name[0] == '/' && !v->deleted) {
		snprintf(path, sizeof(path), "root%s", v->name);
		fd = openat(t->proc_fd, path, O_PATH | O_CLOEXEC);
	}
	if (fd >= 0 && (fstat(fd, st) || st->st_ino != v->inode)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static bool look(const struct target *t, const struct vma *v, struct file_id *out)
{
	_cleanup_fd_ int fd = -1, file = -1;
	char path[32];
	struct stat st;

	*out = (struct file_id){0};
	fd = mapped_file(t, v, &st);
	if (fd < 0)
		return false;
	out->size = (uint64_t)st.st_size;
	out->mtime_ns = st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec;
	if (!S_ISREG(st.st_mode))
		return true;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	file = io_open_unseen(AT_FDCWD, path, 0);
	if (file >= 0)
		buildid_read(file, out);
	return true;
}

bool buildids_of(struct buildids *b, const struct target *t, const struct vma *v,
		 struct file_id *out)
{
	struct known *k;
	struct file_id id;
	bool found;

	/* The other mappings of a file are mostly next to it. */
	for (size_t i = b->list.n; i--;) {
		k = &b->list.data[i];
		if (k->inode == v->inode && k->major == v->dev_major &&
		    k->minor == v->dev_minor) {
			*out = k->id;
			return k->found;
		}
	}
	found = look(t, v, &id);
	*out = id;
	k = vec_push(&b->list);
	if (k)
		*k = (struct known){v->inode, v->dev_major, v->dev_minor, found, id};
	return found;
}
