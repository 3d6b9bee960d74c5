// SPDX-License-Identifier: GPL-2.0
/*
 * /run/icp-bpf/REPOSITORY.VERSION.ipc: which System V objects the restarts of a version made, and which processes they
 * brought back. So the restart of another process of the version knows that a segment is the job's own. Lines of text;
 * the directory is ours (0700).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "proc/target.h"
#include "proc/tasks.h"
#include "state/ipc.h"
#include "state/ipc_remove.h"

#define RUN_DIR "/run/icp-bpf"

uint64_t ipc_namespace(void)
{
	struct stat st;

	return stat("/proc/thread-self/ns/ipc", &st) ? 0 : st.st_ino;
}

void ipc_note_path(const uint8_t id[16], uint32_t version, char path[128])
{
	int at = snprintf(path, 128, RUN_DIR "/");

	for (size_t i = 0; i < 16; i++)
		at += snprintf(path + at, 128 - (size_t)at, "%02x", id[i]);
	snprintf(path + at, 128 - (size_t)at, ".%u.ipc", version);
}

void ipc_note_free(struct ipc_note *note)
{
	vec_free(&note->objects);
	vec_free(&note->processes);
}

static int take_line(const char *line, struct ipc_note *out)
{
	struct ipc_object o;
	struct ipc_process p;
	char kind[8];

	if (sscanf(line, "ns %" SCNu64, &out->ns) == 1)
		return 0;
	if (sscanf(line, "process %d %" SCNu64, &p.pid, &p.start_time) == 2) {
		struct ipc_process *slot = vec_push(&out->processes);

		if (!slot)
			return -ENOMEM;
		*slot = p;
		return 0;
	}
	if (sscanf(line, "%7s %u %d %x", kind, &o.old, &o.id, &o.key) != 4)
		return 0;
	for (o.kind = SYSV_SHM; o.kind <= SYSV_MSG; o.kind++) {
		struct ipc_object *slot;

		if (strcmp(kind, sysv_names[o.kind]))
			continue;
		slot = vec_push(&out->objects);
		if (!slot)
			return -ENOMEM;
		*slot = o;
	}
	return 0;
}

int ipc_note_read(const char *path, struct ipc_note *out)
{
	_cleanup_free_ char *text = NULL;
	char boot[37];
	int err = boot_id(boot);

	*out = (struct ipc_note){.ns = ipc_namespace()};
	if (err || !*path || io_read_file(AT_FDCWD, path, &text, NULL) ||
	    strncmp(text, boot, 36))
		return err;
	for (char *line = strchr(text, '\n'), *next; line && line[1]; line = next) {
		next = strchr(line + 1, '\n');
		if (next)
			*next = 0;
		err = take_line(line + 1, out);
		if (err)
			return fail(err, "read %s", path);
	}
	return 0;
}

/* Nothing of what it names is left: no process, and no object for rm --ipc. */
static void drop_if_stale(const char *path)
{
	struct ipc_note note;
	bool needed = ipc_note_read(path, &note) || ipc_note_alive(&note);

	vec_each (o, &note.objects)
		needed |= note.ns == ipc_namespace() &&
			  !sysv_stat(o->kind, o->id, &(struct sysv_stat){0});
	if (!needed)
		unlink(path);
	ipc_note_free(&note);
}

static void drop_stale(const char *but)
{
	DIR *dir = opendir(RUN_DIR);
	char path[sizeof(RUN_DIR) + NAME_MAX + 1];

	for (struct dirent *e; dir && (e = readdir(dir));) {
		size_t len = strlen(e->d_name);

		if (len < 4 || strcmp(e->d_name + len - 4, ".ipc"))
			continue;
		snprintf(path, sizeof(path), RUN_DIR "/%s", e->d_name);
		if (strcmp(path, but))
			drop_if_stale(path);
	}
	if (dir)
		closedir(dir);
}

/* One without objects says nothing. */
int ipc_note_write(const char *path, const struct ipc_note *n)
{
	_cleanup_free_ char *text = NULL;
	char boot[37], fresh[512];
	size_t len;
	FILE *out;
	_cleanup_fd_ int fd = -1;
	int err = boot_id(boot);

	drop_stale(path);
	if (!n->objects.n) {
		unlink(path);
		return err;
	}
	out = err ? NULL : open_memstream(&text, &len);
	if (!out)
		return err ? err : fail(-ENOMEM, "write %s", path);
	fprintf(out, "%s\nns %" PRIu64 "\n", boot, n->ns);
	vec_each (p, &n->processes)
		fprintf(out, "process %d %" PRIu64 "\n", p->pid, p->start_time);
	vec_each (o, &n->objects)
		fprintf(out, "%s %u %d %x\n", sysv_names[o->kind], o->old, o->id, o->key);
	fclose(out);
	snprintf(fresh, sizeof(fresh), "%s.%d", path, getpid());
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	err = fd < 0 ? -errno : io_write_full(fd, text, len);
	if (!err && rename(fresh, path))
		err = -errno;
	if (err && fd >= 0)
		unlink(fresh);
	return err ? fail(err, "write %s", path) : 0;
}

const struct ipc_object *ipc_note_find(const struct ipc_note *n, enum sysv_kind kind,
				       uint32_t old)
{
	vec_each (o, &n->objects)
		if (o->kind == kind && o->old == old)
			return o;
	return NULL;
}

pid_t ipc_note_alive(const struct ipc_note *n)
{
	vec_each (p, &n->processes)
		if (tasks_start_time(p->pid) == p->start_time)
			return p->pid;
	return 0;
}
