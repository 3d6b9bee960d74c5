// SPDX-License-Identifier: GPL-2.0
#include "proc/symbols.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "base/io.h"
#include "proc/elfsyms.h"

#define MODULES_MAX 256	    /* files whose tables are kept; the least recently used one goes */
#define CACHE_SIZE 8192	    /* addresses; a power of two */
#define PLACES 1024	    /* VMAs; a power of two */
#define VDSO_MAX (1u << 20) /* bytes */

struct module {
	/* As the maps say; the vdso, whose inode is 0, is kept per process. */
	uint64_t inode;
	uint32_t dev_major, dev_minor;
	pid_t vdso_of;
	/* Which content: inodes are used again. */
	uint64_t size;
	struct timespec mtime, ctime;

	struct elfsyms *elf; /* NULL: not an ELF file that can be read */
	uint32_t serial; /* tells cache entries that the slot has another file now; 0: empty */
	uint64_t used;
};

/*
 * A VMA of a process and its module; right as long as the same part of the same file lies
 * there. What keeps the file from being opened (which takes the target's mmap_lock) for every
 * new address.
 */
struct place {
	uint64_t start, offset, inode;
	uint32_t dev_major, dev_minor;
	pid_t pid; /* 0: empty */
	uint32_t module, serial;
};

/* What an address meant. */
struct entry {
	struct place place;
	uint64_t ip;
	uint32_t vma; /* where in the maps it was */
	/* the answer; the function is the module's */
	const char *function;
	uint64_t function_offset, module_offset;
};

struct symbols {
	struct module modules[MODULES_MAX];
	uint32_t serial;
	uint64_t clock;
	struct symbols_stats stats;
	/* both by hash, without chains: a collision replaces */
	struct place places[PLACES];
	struct entry cache[CACHE_SIZE];
};

int symbols_new(struct symbols **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : fail(-ENOMEM, "symbols");
}

void symbols_free(struct symbols *s)
{
	for (size_t i = 0; s && i < MODULES_MAX; i++)
		elfsyms_free(s->modules[i].elf);
	free(s);
}

void symbols_forget(struct symbols *s, pid_t pid)
{
	for (size_t i = 0; i < CACHE_SIZE; i++)
		if (s->cache[i].place.pid == pid)
			s->cache[i].place.pid = 0;
	for (size_t i = 0; i < PLACES; i++)
		if (s->places[i].pid == pid)
			s->places[i].pid = 0;
	for (size_t i = 0; i < MODULES_MAX; i++)
		if (s->modules[i].serial && s->modules[i].vdso_of == pid)
			s->modules[i].vdso_of = -1;
}

void symbols_stats(const struct symbols *s, struct symbols_stats *out)
{
	*out = s->stats;
}

static bool is_vdso(const struct vma *vma)
{
	return !strcmp(vma->name, "[vdso]");
}

static bool has_file(const struct vma *vma)
{
	return vma->name[0] == '/' && strcmp(vma->name, "/dev/zero") &&
	       strcmp(vma->name, "/anon_hugepage");
}

/* Only then is it the file that is mapped. btrfs shows devices in maps that stat does not know.
 */
static bool is_mapped_file(const struct stat *st, const struct vma *vma)
{
	return S_ISREG(st->st_mode) && st->st_ino == vma->inode &&
	       (st->st_dev == makedev(vma->dev_major, vma->dev_minor) ||
		(!major(st->st_dev) && !vma->dev_major));
}

/* O_PATH first: opening a fifo or a device that a hostile target shows us could block or do
 * something. */
static int reopen(int path_fd)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", path_fd);
	return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

static int open_map_file(const struct target *t, const struct vma *vma, struct stat *st)
{
	_cleanup_fd_ int fd = -1;
	char path[64];

	snprintf(path, sizeof(path), "map_files/%" PRIx64 "-%" PRIx64, vma->start, vma->end);
	fd = openat(t->proc_fd, path, O_PATH | O_CLOEXEC);
	/* by definition the mapped file, whatever inode overlayfs shows */
	if (fd < 0 || fstat(fd, st) || !S_ISREG(st->st_mode))
		return -1;
	return reopen(fd);
}

static int open_by_name(const struct target *t, const struct vma *vma, struct stat *st)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC,
			       .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	_cleanup_fd_ int root = openat(t->proc_fd, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_fd_ int fd = -1;

	if (root < 0)
		return -1;
	fd = (int)syscall(SYS_openat2, root, vma->name, &how, sizeof(how));
	if (fd < 0 || fstat(fd, st) || !is_mapped_file(st, vma))
		return -1;
	return reopen(fd);
}

static struct elfsyms *read_vdso(const struct target *t, const struct vma *vma)
{
	_cleanup_fd_ int mem = openat(t->proc_fd, "mem", O_RDONLY | O_CLOEXEC);
	size_t len = (size_t)(vma->end - vma->start);
	_cleanup_free_ char *copy = len <= VDSO_MAX ? malloc(len) : NULL;
	struct elfsyms *elf = NULL;

	if (mem < 0 || !copy || io_pread_full(mem, copy, len, (off_t)vma->start) ||
	    elfsyms_read_mem(copy, len, &elf))
		return NULL;
	return elf;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same_module(const struct module *a, const struct module *b)
{
	return a->inode == b->inode && a->dev_major == b->dev_major &&
	       a->dev_minor == b->dev_minor && a->vdso_of == b->vdso_of && a->size == b->size &&
	       same_time(&a->mtime, &b->mtime) && same_time(&a->ctime, &b->ctime);
}

/* The slot that holds @wanted, or the one to put it in (then emptied). */
static struct module *module_slot(struct symbols *s, const struct module *wanted)
{
	struct module *slot = &s->modules[0];

	for (struct module *m = s->modules; m < s->modules + MODULES_MAX; m++) {
		if (m->serial && same_module(m, wanted))
			return m;
		if (m->used < slot->used)
			slot = m;
	}
	elfsyms_free(slot->elf);
	*slot = *wanted;
	return slot;
}

/* The table of the file in @vma, without functions when it can not be opened. Opened each time:
 * it may have changed. */
static struct module *module_get(struct symbols *s, const struct target *t,
				 const struct vma *vma)
{
	struct module wanted = {
		.inode = vma->inode, .dev_major = vma->dev_major, .dev_minor = vma->dev_minor};
	_cleanup_fd_ int fd = -1;
	struct module *m;
	struct stat st;

	if (is_vdso(vma)) {
		wanted.vdso_of = t->pid;
	} else {
		fd = open_map_file(t, vma, &st);
		if (fd < 0)
			fd = open_by_name(t, vma, &st);
	}
	if (fd >= 0) {
		wanted.size = (uint64_t)st.st_size;
		wanted.mtime = st.st_mtim;
		wanted.ctime = st.st_ctim;
	}
	m = module_slot(s, &wanted);
	m->used = ++s->clock;
	if (m->serial)
		return m;
	if (!++s->serial)
		s->serial = 1;
	m->serial = s->serial;
	s->stats.files_read++;
	if (is_vdso(vma))
		m->elf = read_vdso(t, vma);
	else if (fd >= 0 && elfsyms_read_fd(fd, &m->elf))
		m->elf = NULL;
	return m;
}

static size_t hash(pid_t pid, uint64_t addr)
{
	return (size_t)(((addr ^ (uint64_t)pid << 48) * 0x9e3779b97f4a7c15ull) >> 32);
}

static bool still_there(const struct symbols *s, const struct place *p, pid_t pid,
			const struct vma *vma)
{
	return p->pid == pid && vma->start == p->start && vma->offset == p->offset &&
	       vma->inode == p->inode && vma->dev_major == p->dev_major &&
	       vma->dev_minor == p->dev_minor && (has_file(vma) || is_vdso(vma)) &&
	       s->modules[p->module].serial == p->serial;
}

/* The cached answer, when what it was made of is still there: O(1). */
static const struct vma *cached(const struct symbols *s, const struct entry *e, pid_t pid,
				const struct maps *maps, uint64_t ip)
{
	const struct vma *vma;

	if (e->place.pid != pid || e->ip != ip || e->vma >= maps->n)
		return NULL;
	vma = &maps->data[e->vma];
	return ip < vma->end && still_there(s, &e->place, pid, vma) ? vma : NULL;
}

static void copy_module_name(const char *path, char *to, size_t len)
{
	const char *base = path[0] == '/' ? strrchr(path, '/') + 1 : path;
	size_t i = 0;

	for (; base[i] && i + 1 < len; i++)
		to[i] = base[i] >= ' ' && base[i] <= '~' ? base[i] : '?';
	to[i] = 0;
}

static struct place place_get(struct symbols *s, const struct target *t, const struct vma *vma)
{
	struct place *p = &s->places[hash(t->pid, vma->start) & (PLACES - 1)];
	const struct module *m;

	if (still_there(s, p, t->pid, vma))
		return *p;
	m = module_get(s, t, vma);
	*p = (struct place){.start = vma->start,
			    .offset = vma->offset,
			    .inode = vma->inode,
			    .dev_major = vma->dev_major,
			    .dev_minor = vma->dev_minor,
			    .pid = t->pid,
			    .module = (uint32_t)(m - s->modules),
			    .serial = m->serial};
	return *p;
}

/* @e: of that address; find out what it means. */
static void resolve(struct symbols *s, struct entry *e, const struct target *t,
		    const struct vma *vma)
{
	const struct elfsyms *elf;

	e->place = place_get(s, t, vma);
	e->module_offset = e->ip - vma->start + vma->offset;
	elf = s->modules[e->place.module].elf;
	if (elf && elfsyms_vaddr(elf, e->module_offset, &e->module_offset))
		e->function = elfsyms_find(elf, e->module_offset, &e->function_offset);
}

void symbols_lookup(struct symbols *s, const struct target *t, const struct maps *maps,
		    uint64_t ip, struct symbol_name *out)
{
	struct entry *e = &s->cache[hash(t->pid, ip) & (CACHE_SIZE - 1)];
	const struct vma *vma = cached(s, e, t->pid, maps, ip);

	*out = (struct symbol_name){};
	if (vma) {
		s->stats.hits++;
	} else {
		vma = maps_find(maps, ip);
		if (!vma)
			return;
		if (!has_file(vma) && !is_vdso(vma)) {
			out->kind = SYMBOL_ANON;
			copy_module_name(vma->name[0] == '[' ? vma->name : "[anon]",
					 out->module, sizeof(out->module));
			out->module_offset = ip - vma->start;
			return;
		}
		s->stats.misses++;
		*e = (struct entry){.ip = ip, .vma = (uint32_t)(vma - maps->data)};
		resolve(s, e, t, vma);
	}
	s->modules[e->place.module].used = ++s->clock;
	copy_module_name(vma->name, out->module, sizeof(out->module));
	out->module_offset = e->module_offset;
	out->function = e->function;
	out->function_offset = e->function ? e->function_offset : 0;
	out->kind = e->function ? SYMBOL_FUNCTION : SYMBOL_MODULE;
}

int symbol_format(const struct symbol_name *name, uint64_t ip, char *buf, size_t len)
{
	switch (name->kind) {
	case SYMBOL_FUNCTION:
		return snprintf(buf, len, "%s", name->function);
	case SYMBOL_MODULE:
	case SYMBOL_ANON:
		return snprintf(buf, len, "%s+%#" PRIx64, name->module, name->module_offset);
	case SYMBOL_UNKNOWN:
		break;
	}
	return snprintf(buf, len, "%#" PRIx64, ip);
}
