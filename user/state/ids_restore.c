// SPDX-License-Identifier: GPL-2.0
/* The restore half of "ids", but for what each thread has: creds_restore.c. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/prctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "state/creds.h"
#include "state/restore.h"

#define AUXV_MAX 1024

struct note {
	Icp__ProcessState *msg;
	struct creds_restore *creds;
	int exe, cwd, root; /* inherited by the process */
};

static void free_note(void *arg)
{
	struct note *note = arg;

	cleanup_fd(&note->exe);
	cleanup_fd(&note->cwd);
	cleanup_fd(&note->root);
	creds_restore_free(note->creds);
	if (note->msg)
		protobuf_c_message_free_unpacked(&note->msg->base, NULL);
	free(note);
}

static int check(struct state_restore *r, void **slot)
{
	const Icp__Process *image = r->image;
	struct note *note = *slot = calloc(1, sizeof(*note));
	int err;

	if (!note)
		return fail(-ENOMEM, "prepare a process");
	note->exe = note->cwd = note->root = -1;
	err = restore_unpack(image->blobs, image->n_blobs, "ids", IDS_VERSION,
			     &icp__process_state__descriptor, &note->msg);
	if (err)
		return err;
	if (!note->msg->mm || note->msg->mm->auxv.len > AUXV_MAX || image->n_uids != 4 ||
	    image->n_gids != 4)
		return refuse(-EBADMSG, "its ids make no sense");
	if (note->msg->exe_deleted || note->msg->cwd_deleted)
		return refuse(-EOPNOTSUPP, "its %s was deleted, so it can't be restarted",
			      note->msg->exe_deleted ? "program" : "working directory");
	return creds_restore_check(r, note->msg, &note->creds);
}

/* For the process to inherit. */
static int open_bytes(struct state_restore *r, const ProtobufCBinaryData *name, int flags,
		      const char *what, int *out)
{
	char path[PATH_MAX];
	int fd;

	if (!name->len || name->len >= sizeof(path) || name->data[0] != '/')
		return refuse(-EBADMSG, "the name of its %s makes no sense", what);
	memcpy(path, name->data, name->len);
	path[name->len] = 0;
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		return fail(-errno, "open its %s %s", what, path);
	fd = restore_high_fd(r->job, fd);
	*out = fd;
	return fd < 0 ? fd : 0;
}

static int open_all(struct state_restore *r, void *arg)
{
	struct note *note = arg;
	struct file_id id = {0};
	struct stat st;
	int err = open_bytes(r, &note->msg->exe, O_RDONLY | O_NONBLOCK, "program", &note->exe);

	if (err)
		return err;
	if (fstat(note->exe, &st) || !S_ISREG(st.st_mode))
		return refuse(-ESTALE, "its program is no file any more");
	buildid_read(note->exe, &id);
	if (r->image->exe_build_id.len &&
	    (id.len != r->image->exe_build_id.len ||
	     memcmp(id.build_id, r->image->exe_build_id.data, id.len)))
		return refuse(-ESTALE, "its program %s is another one now", r->image->exe);
	err = open_bytes(r, &note->msg->cwd, O_PATH | O_DIRECTORY, "working directory",
			 &note->cwd);
	if (err || (note->msg->root.len == 1 && note->msg->root.data[0] == '/'))
		return err;
	return open_bytes(r, &note->msg->root, O_PATH | O_DIRECTORY, "root directory",
			  &note->root);
}

static int stub(struct state_restore *r, void *arg)
{
	struct note *note = arg;

	umask(r->image->umask & 0777);
	if (note->root >= 0 && (fchdir(note->root) || chroot(".")))
		return fail(-errno, "root directory %s", r->image->root);
	if (fchdir(note->cwd))
		return fail(-errno, "working directory %s", r->image->cwd);
	return 0;
}

static int protect(struct state_restore *r, void *arg, struct batch *b)
{
	struct note *note = arg;
	const Icp__MmMap *mm = note->msg->mm;
	struct prctl_mm_map map = {
		.start_code = mm->start_code,
		.end_code = mm->end_code,
		.start_data = mm->start_data,
		.end_data = mm->end_data,
		.start_brk = mm->start_brk,
		.brk = mm->brk,
		.start_stack = mm->start_stack,
		.arg_start = mm->arg_start,
		.arg_end = mm->arg_end,
		.env_start = mm->env_start,
		.env_end = mm->env_end,
		.auxv_size = (uint32_t)mm->auxv.len,
		.exe_fd = (uint32_t)note->exe,
	};
	uint64_t auxv, at;
	int err = batch_data(b, mm->auxv.data, mm->auxv.len, &auxv);

	map.auxv = (void *)auxv;
	if (!err)
		err = batch_data(b, &map, sizeof(map), &at);
	return err ? err
		   : batch_call(b, "set the limits of its heap, arguments and program",
				SYS_prctl,
				BATCH_ARGS(PR_SET_MM, PR_SET_MM_MAP, at, sizeof(map), 0));
}

/* The numbers are written by us, who may do it; a missing right costs no data. */
static void write_proc(uint32_t pid, const char *name, const char *text)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/%s", pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || io_write_full(fd, text, strlen(text)))
		note("process %u: %s stays as that of icp-bpf: %s", pid, name, strerror(errno));
	cleanup_fd(&fd);
}

static void write_numbers(const struct state_restore *r, const Icp__ProcessState *msg)
{
	_cleanup_free_ char *ours = NULL;
	char text[16];

	if (!io_read_file(AT_FDCWD, "/proc/self/oom_score_adj", &ours, NULL) &&
	    atoi(ours) != msg->oom_score_adj) {
		snprintf(text, sizeof(text), "%d", msg->oom_score_adj);
		write_proc(r->image->pid, "oom_score_adj", text);
	}
	snprintf(text, sizeof(text), "%#x", msg->coredump_filter);
	write_proc(r->image->pid, "coredump_filter", text);
}

static bool in_job(const struct restore_job *job, uint32_t pid)
{
	for (size_t i = 0; i < job->manifest->n_processes; i++)
		if (job->manifest->processes[i]->pid == pid)
			return true;
	return false;
}

static int restore_limits(const Icp__Process *image, struct batch *b)
{
	int err = 0;

	for (size_t i = 0; i < image->n_limits && !err; i++) {
		const uint64_t limit[2] = {image->limits[i]->soft, image->limits[i]->hard};
		uint64_t at;

		err = batch_data(b, limit, sizeof(limit), &at);
		if (!err)
			err = batch_call(b, "set a limit", SYS_prlimit64,
					 BATCH_ARGS(0, image->limits[i]->resource, at, 0));
	}
	return err;
}

static int process(struct state_restore *r, void *arg, struct batch *b)
{
	const struct note *note = arg;
	const Icp__Process *image = r->image;
	int err = 0;

	write_numbers(r, note->msg);
	/* A group outside the job is the restarter's now, as the session. */
	if (image->pgid != image->pid && in_job(r->job, image->pgid))
		err = batch_call(b, "join its process group", SYS_setpgid,
				 BATCH_ARGS(0, image->pgid));
	if (!err)
		err = batch_call(
			b, "subreaper", SYS_prctl,
			BATCH_ARGS(PR_SET_CHILD_SUBREAPER, note->msg->child_subreaper));
	if (!err && note->msg->thp_disable)
		err = batch_call(b, "huge pages", SYS_prctl, BATCH_ARGS(PR_SET_THP_DISABLE, 1));
	return err ? err : restore_limits(image, b);
}

static int thread(struct state_restore *r, void *arg, size_t i, struct batch *b)
{
	return creds_restore_thread(r, ((struct note *)arg)->creds, i, b);
}

/*
 * What would change how memory is mapped comes last. A change of credentials resets dumpable;
 * who had 2 (suid_dumpable) can't be given it by prctl.
 */
static int settle(struct state_restore *r, void *arg, struct batch *b)
{
	const Icp__ProcessState *msg = ((struct note *)arg)->msg;
	int err = 0;

	if (msg->personality != (uint32_t)personality(0xffffffff))
		err = batch_call(b, "personality", SYS_personality,
				 BATCH_ARGS(msg->personality));
	if (!err && msg->memory_merge)
		err = batch_call(b, "merging of its memory", SYS_prctl,
				 BATCH_ARGS(SET_MEMORY_MERGE, 1));
	if (!err && msg->mdwe)
		err = batch_call(b, "memory-deny-write-execute", SYS_prctl,
				 BATCH_ARGS(SET_MDWE, msg->mdwe));
	return err ? err
		   : batch_call(b, "dumpable", SYS_prctl,
				BATCH_ARGS(PR_SET_DUMPABLE, msg->dumpable == 1));
}

const struct restore_ops ids_restore = {.check = check,
					.open = open_all,
					.stub = stub,
					.protect = protect,
					.process = process,
					.thread = thread,
					.settle = settle,
					.free_note = free_note};
