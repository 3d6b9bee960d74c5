/* SPDX-License-Identifier: GPL-2.0 */
/* Deleted files: what is in them is a stream of its own (user/dump/contents.c). */
#ifndef ICP_STATE_CONTENTS_H
#define ICP_STATE_CONTENTS_H

#include "state/files.h"
#include "state/files.pb-c.h"

/* Note the file of @f if only descriptors keep it. @frozen: it counts. */
int contents_note(struct state_process *p, const struct fd_info *f, bool frozen) _must_use_;
void contents_fini(struct state_contents *c);

/* prepare() of open files. */
int contents_prepare(struct state_process *p, void **note) _must_use_;

/* A description of the file; -ENOENT with a message when its content isn't in the image. */
int contents_open(struct restore_job *job, const Icp__OpenFile *f) _must_use_;
/* An open directory: that of @path, or the closest one above it that is still there. */
int contents_directory(const char *path) _must_use_;

#endif
