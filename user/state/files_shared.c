// SPDX-License-Identifier: GPL-2.0
/* Which open files processes of a version have in common with others, when only some of them are restarted. */
#include <errno.h>
#include <stdlib.h>

#include "state/fdkind.h"
#include "state/files.pb-c.h"
#include "state/restore.h"

/* Two that are opened anew by name lose a common position at most; anything else would be cut in two. */
static bool by_name(const Icp__OpenFile *f)
{
	switch ((enum file_kind)f->kind) {
	case FILE_REGULAR:
	case FILE_DIRECTORY:
	case FILE_MEMORY_DEVICE:
	case FILE_TERMINAL:
	case FILE_PATH:
		return true;
	default:
		return false;
	}
}

struct use {
	uint32_t pid[2],
		fd[2]; /* a process that stays out, one that is restarted; pid 0: none */
};

static int note_uses(const Icp__Process *p, bool kept, const Icp__OpenFiles *all,
		     struct use *uses)
{
	Icp__FileTable *table;
	int err = restore_unpack(p->blobs, p->n_blobs, "files", FILES_VERSION,
				 &icp__file_table__descriptor, &table);

	for (size_t d = 0; !err && d < table->n_descriptors; d++)
		for (size_t i = 0; i < all->n_files; i++)
			if (all->files[i]->id == table->descriptors[d]->file) {
				uses[i].pid[kept] = p->pid;
				uses[i].fd[kept] = table->descriptors[d]->fd;
			}
	if (!err)
		protobuf_c_message_free_unpacked(&table->base, NULL);
	return err;
}

/* The same description, or the other end of the same pipe. */
static bool tied(const Icp__OpenFile *a, const Icp__OpenFile *b)
{
	return !by_name(a) && (a == b || (a->kind == b->kind && a->inode == b->inode &&
					  a->dev == b->dev && a->kind == FILE_PIPE));
}

static int check_uses(const Icp__OpenFiles *all, const struct use *uses)
{
	for (size_t i = 0; i < all->n_files; i++) {
		for (size_t k = 0; uses[i].pid[true] && k < all->n_files; k++)
			if (uses[k].pid[false] && tied(all->files[i], all->files[k]))
				return refuse(
					-EOPNOTSUPP,
					"pid %u: descriptor %u is %s that pid %u has too: "
					"they can only be restarted together",
					uses[i].pid[true], uses[i].fd[true],
					fd_kind(all->files[i]->kind)->text, uses[k].pid[false]);
	}
	return 0;
}

int files_check_shared(const Icp__Manifest *m, const bool *kept)
{
	Icp__OpenFiles *all;
	_cleanup_free_ struct use *uses = NULL;
	int err = restore_unpack(m->blobs, m->n_blobs, "files", FILES_VERSION,
				 &icp__open_files__descriptor, &all);

	if (err)
		return err;
	uses = calloc(all->n_files + 1, sizeof(*uses));
	if (!uses)
		err = fail(-ENOMEM, "compare open files");
	for (size_t i = 0; i < m->n_processes && !err; i++)
		if (!m->processes[i]->no_memory)
			err = note_uses(m->processes[i], kept[i], all, uses);
	if (!err)
		err = check_uses(all, uses);
	protobuf_c_message_free_unpacked(&all->base, NULL);
	return err;
}
