// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings. /proc/PID/maps is cheap, smaps is not: it walks the page tables. So smaps is read
 * before the freeze, and again only when a mapping is found then that wasn't there before. A
 * session that knows that nothing has changed since its last version doesn't read it at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "state/guards.h"
#include "state/kinds.h"
#include "state/vmas.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 8
#endif

struct entry {
	uint64_t start, end, offset, inode;
	uint32_t major, minor;
	char perms[5];
	unsigned pkey;
	const char *flags; /* in the text */
	size_t flags_len;
};

struct note {
	char *text; /* of smaps */
	VEC(struct entry) entries;
	struct guards guards;
	struct file_id *ids; /* of the maps of the freeze, by index */
	size_t *match;	     /* index of the entry of each of those maps */
	size_t n;
};

static void free_note(void *arg)
{
	struct note *note = arg;

	free(note->text);
	free(note->ids);
	free(note->match);
	vec_free(&note->entries);
	vec_free(&note->guards);
	free(note);
}

/* What was read for the version before is as good where nobody has had the lock for writing since. */
static int smaps_text(struct state_process *p, char **out)
{
	int err = 0;

	if (p->smaps && p->smaps_good)
		*out = strdup(p->smaps->text);
	else
		err = io_read_file(p->target->proc_fd, "smaps", out, NULL);
	if (err || !*out)
		return fail(err ? err : -ENOMEM, "read smaps");
	if (p->smaps && !p->smaps_good)
		p->smaps->text = strdup(*out);
	p->smaps = NULL; /* who asks again has seen that it is something else by now */
	return 0;
}

static int read_smaps(struct state_process *p, struct note *note)
{
	struct entry *e = NULL;
	int err;

	free(take_ptr(note->text));
	note->entries.n = 0;
	err = smaps_text(p, &note->text);
	if (err)
		return err;
	for (char *line = note->text, *next; line && *line; line = next) {
		size_t len = strcspn(line, "\n");

		next = line[len] ? line + len + 1 : NULL;
		line[len] = 0; /* sscanf() measures all of what it is given */
		if (*line >= 'A' && *line <= 'Z') {
			static const char key[] = "VmFlags: ";

			if (e && *line == 'P' && sscanf(line, "ProtectionKey: %u", &e->pkey))
				continue;
			if (!e || strncmp(line, key, sizeof(key) - 1))
				continue;
			e->flags = line + sizeof(key) - 1;
			e->flags_len = len - (sizeof(key) - 1);
			while (e->flags_len && e->flags[e->flags_len - 1] == ' ')
				e->flags_len--;
			continue;
		}
		e = vec_push(&note->entries);
		if (!e)
			return fail(-ENOMEM, "note mappings");
		if (sscanf(line, "%lx-%lx %4s %lx %x:%x %lu", &e->start, &e->end, e->perms,
			   &e->offset, &e->major, &e->minor, &e->inode) != 7)
			return fail(-EPROTO, "parse smaps: '%.80s'", line);
	}
	return 0;
}

static bool same(const struct entry *e, const struct vma *v)
{
	return e->start == v->start && e->end == v->end && e->offset == v->offset &&
	       e->inode == v->inode && e->major == v->dev_major && e->minor == v->dev_minor &&
	       (e->perms[0] == 'r') == !!(v->prot & PROT_READ) &&
	       (e->perms[1] == 'w') == !!(v->prot & PROT_WRITE) &&
	       (e->perms[2] == 'x') == !!(v->prot & PROT_EXEC) &&
	       (e->perms[3] == 's') == v->shared;
}

/* Both lists are sorted. False when a mapping has no entry. */
static bool match(struct state_process *p, struct note *note)
{
	size_t at = 0;

	for (size_t i = 0; i < p->maps.n; i++) {
		const struct vma *v = &p->maps.data[i];

		while (at < note->entries.n && note->entries.data[at].start < v->start)
			at++;
		if (at == note->entries.n || !same(&note->entries.data[at], v))
			return false;
		note->match[i] = at;
	}
	return true;
}

static bool has_file(const struct vma *v)
{
	return v->kind == VMA_FILE_PRIVATE || v->kind == VMA_FILE_SHARED;
}

static int check_all(const struct note *note)
{
	int err = 0;

	vec_each (e, &note->entries) {
		const struct vma_flags f = {e->start,
					    (e->perms[0] == 'r' ? PROT_READ : 0) |
						    (e->perms[1] == 'w' ? PROT_WRITE : 0) |
						    (e->perms[2] == 'x' ? PROT_EXEC : 0),
					    e->pkey, e->flags, e->flags_len};

		if (!err)
			err = vmas_check(&f);
	}
	return err;
}

static int prepare(struct state_process *p, void **slot)
{
	struct note *note = *slot = calloc(1, sizeof(*note));
	struct file_id id;
	int err;

	if (!note)
		return fail(-ENOMEM, "note mappings");
	for (size_t i = 0; i < p->maps.n; i++)
		if (has_file(&p->maps.data[i]))
			buildids_of(p->job->ids, p->target, &p->maps.data[i], &id);
	err = read_smaps(p, note);
	return err || !p->checked ? err : check_all(note);
}

static int dump(struct state_process *p, void **slot)
{
	struct note *note = *slot;
	int err;

	note->n = p->maps.n;
	note->ids = calloc(note->n + 1, sizeof(*note->ids));
	note->match = calloc(note->n + 1, sizeof(*note->match));
	if (!note->ids || !note->match)
		return fail(-ENOMEM, "note mappings");
	if (!match(p, note)) {
		err = read_smaps(p, note);
		if (err)
			return err;
		if (!match(p, note))
			return refuse(-EAGAIN, "its mappings change though it is frozen");
	}
	for (size_t i = 0; i < note->n; i++) /* known ones cost nothing */
		if (has_file(&p->maps.data[i]))
			buildids_of(p->job->ids, p->target, &p->maps.data[i], &note->ids[i]);
	return guards_frozen(p, &note->guards);
}

/* smaps' two-letter names, see show_smap_vma_flags() in fs/proc/task_mmu.c. */
static const struct {
	uint32_t map; /* MAP_* */
	char name[3];
	int8_t advice; /* MADV_*, or -1 */
} vmflags[] = {
	{MAP_GROWSDOWN, "gd", -1},  {MAP_LOCKED, "lo", -1},    {MAP_NORESERVE, "nr", -1},
	{MAP_HUGETLB, "ht", -1},    {MAP_DROPPABLE, "dp", -1}, {0, "sr", MADV_SEQUENTIAL},
	{0, "rr", MADV_RANDOM},	    {0, "dc", MADV_DONTFORK},  {0, "dd", MADV_DONTDUMP},
	{0, "wf", MADV_WIPEONFORK}, {0, "hg", MADV_HUGEPAGE},  {0, "nh", MADV_NOHUGEPAGE},
	{0, "mg", MADV_MERGEABLE},  {MAP_SYNC, "sf", -1},
};

static void decode_flags(const struct entry *e, Icp__Vma *out)
{
	for (size_t at = 0; at + 2 <= e->flags_len; at += 3) {
		for (size_t f = 0; f < sizeof(vmflags) / sizeof(*vmflags); f++) {
			if (memcmp(e->flags + at, vmflags[f].name, 2))
				continue;
			out->flags |= vmflags[f].map;
			if (vmflags[f].advice >= 0)
				out->madvise |= 1ull << vmflags[f].advice;
		}
	}
}

static int fill(const struct vma *v, const struct entry *e, const struct file_id *id,
		Icp__Vma *out)
{
	char **name = has_file(v) || (v->kind == VMA_SPECIAL && v->name[0] != '[') ? &out->path
										   : &out->name;

	out->start = v->start;
	out->end = v->end;
	out->prot = v->prot;
	out->kind = v->kind + 1;
	out->offset = v->offset;
	out->inode = v->inode;
	out->dev_major = v->dev_major;
	out->dev_minor = v->dev_minor;
	out->deleted = v->deleted;
	out->shared = v->shared;
	out->keeps_file = vma_keeps_file(v);
	out->flags = v->shared ? MAP_SHARED : MAP_PRIVATE;
	if (v->kind == VMA_ANON)
		out->flags |= MAP_ANONYMOUS;
	if (v->kind == VMA_SHM)
		out->shmid = (uint32_t)v->inode;
	decode_flags(e, out);
	out->file_size = id->size;
	out->file_mtime_ns = id->mtime_ns;
	*name = procfs_utf8(v->name);
	out->vmflags = strndup(e->flags ? e->flags : "", e->flags_len);
	if (id->len)
		out->build_id.data = malloc(id->len);
	if (!*name || !out->vmflags || (id->len && !out->build_id.data))
		return fail(-ENOMEM, "note mappings");
	if (id->len)
		memcpy(out->build_id.data, id->build_id, id->len);
	out->build_id.len = id->len;
	return 0;
}

static int finish(struct state_process *p, void **slot)
{
	Icp__Process *image = p->image;
	struct note *note = *slot;

	image->vmas = calloc(note->n + 1, sizeof(*image->vmas));
	if (!image->vmas)
		return fail(-ENOMEM, "note mappings");
	for (size_t i = 0; i < note->n; i++) {
		Icp__Vma *v = malloc(sizeof(*v));
		int err;

		if (!v)
			return fail(-ENOMEM, "note mappings");
		icp__vma__init(v);
		image->vmas[image->n_vmas++] = v;
		err = fill(&p->maps.data[i], &note->entries.data[note->match[i]], &note->ids[i],
			   v);
		if (!err)
			err = guards_fill(&note->guards, v);
		if (err)
			return err;
	}
	return 0;
}

const struct state_ops state_vmas = {.name = "vmas",
				     .prepare = prepare,
				     .dump = dump,
				     .finish = finish,
				     .free_note = free_note,
				     .restore = &vmas_restore};
