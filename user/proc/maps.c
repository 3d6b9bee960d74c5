// SPDX-License-Identifier: GPL-2.0
#include "proc/maps.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/io.h"

static bool begins(const char *name, const char *with)
{
	return !strncmp(name, with, strlen(with));
}

/* Device memory and kernel buffers may be written by hardware or the kernel without any page-table entry noticing. */
static bool is_special(const char *name)
{
	if (name[0] == '[')
		return begins(name, "[vdso]") || begins(name, "[vvar") ||
		       begins(name, "[vsyscall]");
	if (begins(name, "/dev/"))
		return !begins(name, "/dev/zero") && !begins(name, "/dev/shm/") &&
		       !begins(name, "/dev/hugepages/");
	return begins(name, "anon_inode:") || begins(name, "socket:");
}

static enum vma_kind kind_of(const struct vma *v)
{
	const char *name = v->name;

	if (is_special(name))
		return VMA_SPECIAL;
	if (v->shared && !strncmp(name, "/SYSV", 5) && v->dev_major == 0)
		return VMA_SHM;
	if (!v->inode)
		return VMA_ANON;
	return v->shared ? VMA_FILE_SHARED : VMA_FILE_PRIVATE;
}

/* "start-end rwxs offset major:minor inode   name"; cuts the line up in place. */
static int parse_line(char *line, struct vma *v)
{
	static const char suffix[] = " (deleted)";
	char perms[5];
	unsigned long start, end, offset, inode;
	int used = 0;
	size_t len;

	if (sscanf(line, "%lx-%lx %4s %lx %x:%x %lu %n", &start, &end, perms, &offset,
		   &v->dev_major, &v->dev_minor, &inode, &used) < 7)
		return -EPROTO;
	v->start = start;
	v->end = end;
	v->offset = offset;
	v->inode = inode;
	v->prot = (perms[0] == 'r' ? PROT_READ : 0) | (perms[1] == 'w' ? PROT_WRITE : 0) |
		  (perms[2] == 'x' ? PROT_EXEC : 0);
	v->shared = perms[3] == 's';
	v->name = line + used;
	len = strlen(v->name);
	if (v->inode && len >= sizeof(suffix) - 1 &&
	    !strcmp(v->name + len - (sizeof(suffix) - 1), suffix)) {
		v->deleted = true;
		line[used + (int)len - (int)(sizeof(suffix) - 1)] = 0;
	}
	v->kind = kind_of(v);
	return 0;
}

int maps_read(const struct target *t, struct maps *out)
{
	_cleanup_maps_ struct maps m = {0};
	int err = io_read_file(t->proc_fd, "maps", &m.text, NULL);

	if (err == -ESRCH || err == -ENOENT || (!err && !m.text[0]))
		return -ESRCH;
	if (err)
		return fail(err, "read the maps of pid %d", t->pid);
	for (char *line = m.text, *next; line && *line; line = next) {
		struct vma *v = vec_push(&m);

		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		if (!v)
			return fail(-ENOMEM, "maps of pid %d", t->pid);
		err = parse_line(line, v);
		if (err)
			return fail(err, "parse the maps of pid %d: '%s'", t->pid, line);
	}
	*out = m;
	m = (struct maps){0};
	return 0;
}

void maps_free(struct maps *maps)
{
	vec_free(maps);
	free(maps->text);
	maps->text = NULL;
}

bool vma_keeps_file(const struct vma *v)
{
	return v->kind == VMA_FILE_PRIVATE && v->deleted &&
	       !begins(v->name, "/anon_hugepage") && !begins(v->name, "/dev/hugepages/");
}

const struct vma *maps_find(const struct maps *maps, uint64_t addr)
{
	size_t low = 0, high = maps->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (addr >= maps->data[mid].end)
			low = mid + 1;
		else
			high = mid;
	}
	return low < maps->n && addr >= maps->data[low].start ? &maps->data[low] : NULL;
}
