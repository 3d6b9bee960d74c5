/* SPDX-License-Identifier: GPL-2.0 */
/* Inside user/state: the kinds, and what they share. */
#ifndef ICP_STATE_KINDS_H
#define ICP_STATE_KINDS_H

#include "base/io.h"
#include "base/vec.h"
#include "proc/target.h"
#include "state/calls.h"
#include "state/procfs.h"
#include "state/state.h"

extern const struct state_ops state_vmas, state_regs, state_signals, state_ids, state_timers,
	state_files, state_locks, state_sysv;
extern const struct restore_ops vmas_restore, ids_restore;

struct file_jobs;
struct buildids;
struct held; /* inet_hold.c */
struct look;
struct sysv_dump;

struct state_job {
	struct file_jobs *files;
	struct look *look;
	struct buildids *ids;
	struct held *held;
	struct state_job_how how;
	struct state_contents contents;
	struct sysv_dump *sysv;
};

int file_jobs_new(struct file_jobs **out) _must_use_;
void file_jobs_free(struct file_jobs *f);
int file_jobs_finish(struct file_jobs *f, Icp__Manifest *m) _must_use_;

/* Semaphores and message queues. */
int sysv_dump_new(struct sysv_dump **out) _must_use_;
void sysv_dump_free(struct sysv_dump *d);
int sysv_dump_finish(struct sysv_dump *d, Icp__Manifest *m) _must_use_;

/* What identifies a mapped file. */
struct file_id {
	uint64_t size;
	int64_t mtime_ns;
	uint8_t len; /* of the build id, 0: none */
	uint8_t build_id[32];
};

int buildids_new(struct buildids **out) _must_use_;
void buildids_free(struct buildids *b);
/* Of the file that @v maps, cached by device and inode; false when it can't be opened. */
bool buildids_of(struct buildids *b, const struct target *t, const struct vma *v,
		 struct file_id *out);
/* Of any file; false when it has none. */
bool buildid_read(int fd, struct file_id *out);

/* Architecture: register sets, and where a thread's unused stack is. */
struct state_regset {
	size_t room;
	uint32_t type; /* NT_* */
	bool optional; /* a machine may lack it */
};

struct state_arch {
	const char *name;
	size_t red_zone;
	const struct state_regset *sets; /* the first is NT_PRSTATUS; ends with type 0 */
	uint64_t (*stack)(const void *prstatus, size_t len);
	uint64_t task_size;
	long vdso_nr; /* the call that maps the vdso: (vdso_op, address) */
	uint64_t vdso_op;
};
extern const struct state_arch state_arch;

#endif
