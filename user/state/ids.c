// SPDX-License-Identifier: GPL-2.0
/* Who a process is: ids, names, credentials, limits, and the fields of its mm. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "state/creds.h"

#define CMDLINE_MAX 65536
#define STAT_FIRST 4
#define STAT_LAST 52
#define STAT(note, field) ((note)->stat[(field)-STAT_FIRST])

static const char *const namespaces[] = {"cgroup", "ipc",  "mnt",  "net",
					 "pid",	   "time", "user", "uts"};
#define NAMESPACES (sizeof(namespaces) / sizeof(*namespaces))

/* What only execve(2) and such rare calls change: read before the freeze. */
struct early {
	int64_t mm[3]; /* tells whether it executed another program meanwhile */
	char *exe, *cmdline, *auxv, *cgroup;
	size_t cmdline_len, auxv_len;
	bool exe_deleted;
	struct file_id exe_id;
	uint64_t ns[NAMESPACES];
	uint32_t coredump_filter;
};

struct note {
	struct early early;
	struct creds *creds;
	int64_t stat[STAT_LAST - STAT_FIRST + 1];
	char *limits, *cwd, *root;
	bool cwd_deleted;
	int oom_score_adj;
	uint32_t personality;
	int brk, dumpable, subreaper, mdwe, merge; /* handles */
};

static void free_early(struct early *e)
{
	free(e->exe);
	free(e->cmdline);
	free(e->auxv);
	free(e->cgroup);
	*e = (struct early){0};
}

static void free_note(void *arg)
{
	struct note *note = arg;

	free_early(&note->early);
	creds_free(note->creds);
	free(note->limits);
	free(note->cwd);
	free(note->root);
	free(note);
}

static int read_stat(struct state_process *p, int64_t *out)
{
	_cleanup_free_ char *text = procfs_text(p->target, "stat");

	return text ? procfs_stat(text, STAT_FIRST, STAT_LAST, out)
		    : fail(-ESRCH, "read its stat");
}

/* start_code, start_stack, arg_start: random at each execve. */
static void mm_identity(const int64_t *stat, int64_t out[3])
{
	out[0] = stat[26 - STAT_FIRST];
	out[1] = stat[28 - STAT_FIRST];
	out[2] = stat[48 - STAT_FIRST];
}

static int read_exe(struct state_process *p, struct early *e)
{
	_cleanup_fd_ int fd = -1;
	int err = procfs_link(p->target->proc_fd, "exe", &e->exe, &e->exe_deleted);

	if (err) /* none: it ended a moment ago */
		return fail(err == -ENOENT ? -ESRCH : err, "read its exe link");
	fd = io_open_unseen(p->target->proc_fd, "exe", 0);
	if (fd >= 0)
		buildid_read(fd, &e->exe_id);
	return 0;
}

static int read_early(struct state_process *p, struct early *e)
{
	_cleanup_free_ char *filter = procfs_text(p->target, "coredump_filter");
	int64_t stat[STAT_LAST - STAT_FIRST + 1];
	int err = read_stat(p, stat);

	if (!err)
		err = read_exe(p, e);
	if (err)
		return err;
	mm_identity(stat, e->mm);
	err = io_read_file(p->target->proc_fd, "cmdline", &e->cmdline, &e->cmdline_len);
	if (!err)
		err = io_read_file(p->target->proc_fd, "auxv", &e->auxv, &e->auxv_len);
	if (err)
		return fail(err, "read its command line and auxv");
	if (e->cmdline_len > CMDLINE_MAX)
		e->cmdline_len = CMDLINE_MAX;
	e->cgroup = procfs_text(p->target, "cgroup"); /* a kernel may lack it */
	e->coredump_filter = filter ? (uint32_t)strtoul(filter, NULL, 16) : 0x33;
	for (size_t i = 0; i < NAMESPACES; i++) {
		char path[32];
		struct stat st;

		snprintf(path, sizeof(path), "ns/%s", namespaces[i]);
		e->ns[i] = fstatat(p->target->proc_fd, path, &st, 0) ? 0 : st.st_ino;
	}
	return 0;
}

static int prepare(struct state_process *p, void **slot)
{
	struct note *note = *slot = calloc(1, sizeof(*note));

	return note ? read_early(p, &note->early) : fail(-ENOMEM, "note a process");
}

static int plan(struct state_process *p, void **slot)
{
	static const uint64_t brk[6] = {0}, dumpable[6] = {PR_GET_DUMPABLE},
			      subreaper[6] = {PR_GET_CHILD_SUBREAPER}, mdwe[6] = {GET_MDWE},
			      merge[6] = {GET_MEMORY_MERGE};
	struct note *note = *slot;
	int64_t mm[3];
	int err = read_stat(p, note->stat);

	if (err)
		return err;
	mm_identity(note->stat, mm);
	if (memcmp(mm, note->early.mm, sizeof(mm))) {
		free_early(&note->early);
		err = read_early(p, &note->early);
		if (err)
			return err;
	}
	note->brk = gather_call(p, 0, SYS_brk, brk, 0, 0);
	note->dumpable = gather_call(p, 0, SYS_prctl, dumpable, 0, 0);
	note->subreaper = gather_call(p, 0, SYS_prctl, subreaper, 1, sizeof(int));
	note->mdwe = gather_call(p, 0, SYS_prctl, mdwe, 0, 0);
	note->merge = gather_call(p, 0, SYS_prctl, merge, 0, 0);
	if (note->mdwe < 0 || note->merge < 0 || note->brk < 0 || note->dumpable < 0 ||
	    note->subreaper < 0)
		return -ENOMEM;
	return creds_plan(p, &note->creds);
}

static int dump(struct state_process *p, void **slot)
{
	_cleanup_free_ char *personality = procfs_text(p->target, "personality");
	_cleanup_free_ char *oom = procfs_text(p->target, "oom_score_adj");
	struct note *note = *slot;
	int err;

	note->personality = personality ? (uint32_t)strtoul(personality, NULL, 16) : 0;
	note->oom_score_adj = oom ? atoi(oom) : 0;
	note->limits = procfs_text(p->target, "limits");
	if (!note->limits || !personality || !oom)
		return refuse(-EPERM, "its limits in /proc may not be read");
	err = procfs_link(p->target->proc_fd, "cwd", &note->cwd, &note->cwd_deleted);
	if (!err)
		err = procfs_link(p->target->proc_fd, "root", &note->root, NULL);
	if (err)
		return fail(err, "its working directory");
	return creds_dump(p, note->creds);
}

/* One line per resource, in the order of their numbers, after a heading: columns of 26, 21
 * and 21. */
static int fill_limits(const char *text, Icp__Process *image)
{
	const char *line = strchr(text, '\n');

	image->limits = calloc(32, sizeof(*image->limits));
	if (!image->limits)
		return fail(-ENOMEM, "note limits");
	for (uint32_t resource = 0; line && line[1] && resource < 32; resource++) {
		Icp__Limit *limit = malloc(sizeof(*limit));
		char soft[24], hard[24];

		if (!limit)
			return fail(-ENOMEM, "note limits");
		icp__limit__init(limit);
		image->limits[image->n_limits++] = limit;
		if (strcspn(line + 1, "\n") < 48 ||
		    sscanf(line + 1 + 26, "%23s %23s", soft, hard) != 2)
			return refuse(-EPROTO, "/proc/PID/limits: '%.60s'", line + 1);
		limit->resource = resource;
		limit->soft = *soft == 'u' ? UINT64_MAX : strtoull(soft, NULL, 10);
		limit->hard = *hard == 'u' ? UINT64_MAX : strtoull(hard, NULL, 10);
		line = strchr(line + 1, '\n');
	}
	return 0;
}

static int fill_image(struct state_process *p, struct note *note)
{
	Icp__Process *image = p->image;
	uint32_t nspids[32];
	size_t n = procfs_numbers(p->status[0], "NSpid", nspids, 32);
	const struct early *e = &note->early;

	image->pid = (uint32_t)p->target->pid;
	image->ppid = (uint32_t)STAT(note, 4);
	image->pgid = (uint32_t)STAT(note, 5);
	image->sid = (uint32_t)STAT(note, 6);
	image->tty = (uint32_t)STAT(note, 7);
	image->start_time = (uint64_t)STAT(note, 22);
	image->umask = (uint32_t)procfs_number(p->status[0], "Umask", 8);
	n = n > 32 ? 32 : n;
	image->nspids = calloc(n + 1, sizeof(uint32_t));
	image->comm = procfs_utf8(p->image->threads[0]->name);
	image->exe = procfs_utf8(e->exe);
	image->cwd = procfs_utf8(note->cwd);
	image->root = procfs_utf8(note->root);
	image->cmdline.data = malloc(e->cmdline_len + 1);
	image->exe_build_id.data = malloc(e->exe_id.len + 1u);
	if (!image->nspids || !image->comm || !image->exe || !image->cwd || !image->root ||
	    !image->cmdline.data || !image->exe_build_id.data)
		return fail(-ENOMEM, "note a process");
	memcpy(image->nspids, nspids, n * sizeof(uint32_t));
	image->n_nspids = n;
	memcpy(image->cmdline.data, e->cmdline, e->cmdline_len);
	image->cmdline.len = e->cmdline_len;
	memcpy(image->exe_build_id.data, e->exe_id.build_id, e->exe_id.len);
	image->exe_build_id.len = e->exe_id.len;
	return fill_limits(note->limits, image);
}

static ProtobufCBinaryData bytes(char *text)
{
	return (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
}

static void fill_mm(struct state_process *p, struct note *note, Icp__MmMap *mm)
{
	mm->start_code = (uint64_t)STAT(note, 26);
	mm->end_code = (uint64_t)STAT(note, 27);
	mm->start_stack = (uint64_t)STAT(note, 28);
	mm->start_data = (uint64_t)STAT(note, 45);
	mm->end_data = (uint64_t)STAT(note, 46);
	mm->start_brk = (uint64_t)STAT(note, 47);
	mm->arg_start = (uint64_t)STAT(note, 48);
	mm->arg_end = (uint64_t)STAT(note, 49);
	mm->env_start = (uint64_t)STAT(note, 50);
	mm->env_end = (uint64_t)STAT(note, 51);
	mm->brk = (uint64_t)gather_ret(p, 0, note->brk);
	mm->auxv = (ProtobufCBinaryData){note->early.auxv_len, (uint8_t *)note->early.auxv};
}

/* THP_enabled is of the process since Linux 5.0; 0 also on a kernel without huge pages. */
static bool thp_disabled(const char *status)
{
	const char *at = procfs_field(status, "THP_enabled");

	return at && *at == '0';
}

static int fill_state(struct state_process *p, struct note *note, Icp__ProcessState *msg)
{
	long dumpable = gather_ret(p, 0, note->dumpable),
	     ret = gather_ret(p, 0, note->subreaper), mdwe = gather_ret(p, 0, note->mdwe),
	     merge = gather_ret(p, 0, note->merge);
	int subreaper = 0;

	if (dumpable < 0 || ret)
		return fail((int)(ret ? ret : dumpable), "prctl in the process");
	memcpy(&subreaper, gather_out(p, 0, note->subreaper), sizeof(subreaper));
	msg->exe = bytes(note->early.exe);
	msg->cwd = bytes(note->cwd);
	msg->root = bytes(note->root);
	msg->exe_deleted = note->early.exe_deleted;
	msg->cwd_deleted = note->cwd_deleted;
	msg->oom_score_adj = note->oom_score_adj;
	msg->personality = note->personality;
	msg->dumpable = (uint32_t)dumpable;
	msg->child_subreaper = subreaper;
	msg->thp_disable = thp_disabled(p->status[0]);
	/* a kernel that has no such thing says EINVAL */
	msg->mdwe = mdwe > 0 ? (uint32_t)mdwe : 0;
	msg->memory_merge = merge > 0;
	msg->coredump_filter = note->early.coredump_filter;
	msg->exit_signal = (uint32_t)STAT(note, 38);
	return 0;
}

/* @lines is cut up in place. */
static size_t split_lines(char *text, char **lines, size_t max)
{
	size_t n = 0;

	for (char *line = text ? strtok_r(text, "\n", &text) : NULL; line && n < max;
	     line = strtok_r(NULL, "\n", &text))
		lines[n++] = line;
	return n;
}

static int finish(struct state_process *p, void **slot)
{
	Icp__ProcessState msg = ICP__PROCESS_STATE__INIT;
	Icp__Namespace ns[NAMESPACES], *ns_list[NAMESPACES];
	Icp__MmMap mm = ICP__MM_MAP__INIT;
	_cleanup_free_ char *cgroup = NULL;
	struct note *note = *slot;
	char *cgroups[64];
	int err = fill_image(p, note);

	if (!err)
		err = fill_state(p, note, &msg);
	if (!err)
		err = creds_finish(p, note->creds, &msg);
	if (err)
		return err;
	fill_mm(p, note, &mm);
	msg.mm = &mm;
	msg.namespaces = ns_list;
	for (size_t i = 0; i < NAMESPACES; i++) {
		if (!note->early.ns[i])
			continue;
		icp__namespace__init(&ns[i]);
		ns[i].name = (char *)namespaces[i];
		ns[i].inode = note->early.ns[i];
		ns_list[msg.n_namespaces++] = &ns[i];
	}
	cgroup = note->early.cgroup ? procfs_utf8(note->early.cgroup) : NULL;
	msg.cgroups = cgroups;
	msg.n_cgroups = split_lines(cgroup, cgroups, 64);
	return state_pack_blob(&p->image->blobs, &p->image->n_blobs, "ids", IDS_VERSION,
			       &msg.base);
}

const struct state_ops state_ids = {.name = "ids",
				    .check = ids_check,
				    .prepare = prepare,
				    .plan = plan,
				    .dump = dump,
				    .finish = finish,
				    .free_note = free_note,
				    .restore = &ids_restore};
