// SPDX-License-Identifier: GPL-2.0
#include "state/creds.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CPU_BYTES 1024 /* 8192 CPUs, as many as Linux knows */
#define FILTERS_MAX 64
#define FILTER_MAX 4096 /* instructions, BPF_MAXINSNS */
#define FILTER_INSN 8
#define SECCOMP_GET_FILTER 0x420c
#define SECCOMP_GET_METADATA 0x420d
#define SECBITS 27 /* PR_GET_SECUREBITS */

struct sched_attr_v1 {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max;
};

struct task_note {
	int pdeathsig, secbits, slack; /* handles; slack < 0: from /proc */
	struct sched_attr_v1 sched;
	uint8_t cpus[CPU_BYTES];
	size_t cpu_bytes;
	uint64_t slack_ns;
	int ioprio;
	uint32_t filters[FILTERS_MAX];
	size_t n_filters;
};

struct creds {
	struct task_note *tasks;
	ProtobufCBinaryData filters[FILTERS_MAX]; /* distinct ones of the process */
	uint32_t flags[FILTERS_MAX];
	size_t n_filters;
};

void creds_free(struct creds *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_filters; i++)
		free(c->filters[i].data);
	free(c->tasks);
	free(c);
}

/* /proc/TID/timerslack_ns needs CAP_SYS_NICE for another process's; asking in it doesn't. */
static bool read_slack(pid_t tid, uint64_t *ns)
{
	_cleanup_free_ char *text = NULL;
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/timerslack_ns", tid);
	if (io_read_file(AT_FDCWD, path, &text, NULL))
		return false;
	*ns = strtoull(text, NULL, 10);
	return true;
}

int creds_plan(struct state_process *p, struct creds **out)
{
	static const uint64_t pdeathsig[6] = {PR_GET_PDEATHSIG}, secbits[6] = {SECBITS},
			      slack[6] = {PR_GET_TIMERSLACK};
	struct creds *c = *out = calloc(1, sizeof(*c));

	if (c)
		c->tasks = calloc(p->n_threads, sizeof(*c->tasks));
	if (!c || !c->tasks)
		return fail(-ENOMEM, "note credentials");
	for (size_t i = 0; i < p->n_threads; i++) {
		struct task_note *t = &c->tasks[i];

		t->pdeathsig = gather_call(p, i, SYS_prctl, pdeathsig, 1, sizeof(int));
		t->secbits = gather_call(p, i, SYS_prctl, secbits, 0, 0);
		t->slack = -1;
		if (!read_slack(p->threads[i].tid, &t->slack_ns)) {
			t->slack = gather_call(p, i, SYS_prctl, slack, 0, 0);
			if (t->slack < 0)
				return t->slack;
		}
		if (t->pdeathsig < 0 || t->secbits < 0)
			return -ENOMEM;
	}
	return 0;
}

/* The index of this filter among those of the process. */
static int note_filter(struct creds *c, const void *data, size_t len, uint32_t flags)
{
	size_t i;

	for (i = 0; i < c->n_filters; i++)
		if (c->filters[i].len == len && c->flags[i] == flags &&
		    !memcmp(c->filters[i].data, data, len))
			return (int)i;
	if (i == FILTERS_MAX)
		return refuse(-E2BIG, "more than %d different seccomp filters", FILTERS_MAX);
	c->filters[i].data = malloc(len + 1);
	if (!c->filters[i].data)
		return fail(-ENOMEM, "note a seccomp filter");
	memcpy(c->filters[i].data, data, len);
	c->filters[i].len = len;
	c->flags[i] = flags;
	c->n_filters++;
	return (int)i;
}

/* Without a buffer the kernel only says how many instructions there are. */
static int dump_filters(struct state_process *p, struct creds *c, size_t thread)
{
	_cleanup_free_ unsigned char *insns = malloc(FILTER_MAX * FILTER_INSN);
	struct task_note *t = &c->tasks[thread];
	pid_t tid = p->threads[thread].tid;

	if (!insns)
		return fail(-ENOMEM, "note a seccomp filter");
	for (uint64_t i = 0;; i++) {
		struct {
			uint64_t index, flags;
		} meta = {.index = i};
		size_t len = FILTER_MAX * FILTER_INSN, meta_len = sizeof(meta);
		long n = warden_ptrace(p->warden, SECCOMP_GET_FILTER, tid, i, NULL, 0, insns,
				       &len);
		int at;

		if (n == -ENOENT && t->n_filters)
			return 0;
		if (n == -EACCES)
			return refuse(-EPERM,
				      "thread %d is under seccomp: CAP_SYS_ADMIN is "
				      "needed to read its filters",
				      tid);
		if (n < 0)
			return fail((int)n, "seccomp filter of thread %d", tid);
		if (warden_ptrace(p->warden, SECCOMP_GET_METADATA, tid, sizeof(meta), &meta,
				  sizeof(meta), &meta, &meta_len) < 0)
			meta.flags = 0;
		at = note_filter(c, insns, (size_t)n * FILTER_INSN, (uint32_t)meta.flags);
		if (at < 0)
			return at;
		if (t->n_filters == FILTERS_MAX)
			return refuse(-E2BIG, "thread %d has more than %d seccomp filters", tid,
				      FILTERS_MAX);
		t->filters[t->n_filters++] = (uint32_t)at;
	}
}

int creds_dump(struct state_process *p, struct creds *c)
{
	for (size_t i = 0; i < p->n_threads; i++) {
		struct task_note *t = &c->tasks[i];
		pid_t tid = p->threads[i].tid;
		long got;
		int err;

		if (syscall(SYS_sched_getattr, tid, &t->sched, sizeof(t->sched), 0))
			return fail(-errno, "scheduling of thread %d", tid);
		got = syscall(SYS_sched_getaffinity, tid, sizeof(t->cpus), t->cpus);
		if (got < 0)
			return fail(-errno, "CPUs of thread %d", tid);
		t->cpu_bytes = (size_t)got;
		t->ioprio = (int)syscall(SYS_ioprio_get, 1, tid);
		if (procfs_number(p->status[i], "Seccomp", 10) == 2) {
			err = dump_filters(p, c, i);
			if (err)
				return err;
		}
	}
	return 0;
}

/* Whether two threads say the same of themselves. */
static bool same_line(const char *a, const char *b, const char *key)
{
	const char *x = procfs_field(a, key), *y = procfs_field(b, key);
	size_t len = x ? strcspn(x, "\n") + 1 : 0;

	return (!x && !y) || (x && y && !strncmp(x, y, len));
}

static bool same_creds(const struct state_process *p, const struct creds *c, size_t i)
{
	static const char *const keys[] = {"Uid",    "Gid",    "Groups", "CapInh",    "CapPrm",
					   "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"};

	for (size_t k = 0; k < sizeof(keys) / sizeof(*keys); k++)
		if (!same_line(p->status[0], p->status[i], keys[k]))
			return false;
	return gather_ret(p, i, c->tasks[i].secbits) == gather_ret(p, 0, c->tasks[0].secbits);
}

/* Those of a thread, into @msg; its lists are allocated. */
static int thread_creds(const char *status, Icp__Credentials *msg)
{
	size_t n = procfs_numbers(status, "Groups", NULL, 0);

	msg->uids = calloc(4, sizeof(uint32_t));
	msg->gids = calloc(4, sizeof(uint32_t));
	msg->groups = calloc(n + 1, sizeof(uint32_t));
	if (!msg->uids || !msg->gids || !msg->groups)
		return fail(-ENOMEM, "note credentials");
	msg->n_uids = procfs_numbers(status, "Uid", msg->uids, 4);
	msg->n_gids = procfs_numbers(status, "Gid", msg->gids, 4);
	msg->n_groups = procfs_numbers(status, "Groups", msg->groups, n);
	if (msg->n_uids != 4 || msg->n_gids != 4)
		return refuse(-EPROTO, "credentials in /proc make no sense");
	msg->inheritable = procfs_number(status, "CapInh", 16);
	msg->permitted = procfs_number(status, "CapPrm", 16);
	msg->effective = procfs_number(status, "CapEff", 16);
	msg->bounding = procfs_number(status, "CapBnd", 16);
	msg->ambient = procfs_number(status, "CapAmb", 16);
	msg->no_new_privs = procfs_number(status, "NoNewPrivs", 10);
	return 0;
}

static void free_creds(Icp__Credentials *msg)
{
	free(msg->uids);
	free(msg->gids);
	free(msg->groups);
}

static int finish_thread(struct state_process *p, struct creds *c, size_t i)
{
	Icp__TaskState msg = ICP__TASK_STATE__INIT;
	Icp__Credentials creds __attribute__((cleanup(free_creds))) = ICP__CREDENTIALS__INIT;
	struct task_note *t = &c->tasks[i];
	Icp__Thread *image = p->image->threads[i];
	long ret = gather_ret(p, i, t->pdeathsig);
	int sig = 0;

	if (ret)
		return fail((int)ret, "parent-death signal of thread %d", p->threads[i].tid);
	memcpy(&sig, gather_out(p, i, t->pdeathsig), sizeof(sig));
	if (i && !same_creds(p, c, i)) {
		int err = thread_creds(p->status[i], &creds);

		if (err)
			return err;
		creds.securebits = (uint32_t)gather_ret(p, i, t->secbits);
		msg.credentials = &creds;
	}
	if (t->slack >= 0)
		t->slack_ns = (uint64_t)gather_ret(p, i, t->slack);
	msg.policy = t->sched.policy;
	msg.sched_flags = t->sched.flags;
	msg.nice = t->sched.nice;
	msg.priority = t->sched.priority;
	msg.runtime = t->sched.runtime;
	msg.deadline = t->sched.deadline;
	msg.period = t->sched.period;
	msg.affinity = (ProtobufCBinaryData){t->cpu_bytes, t->cpus};
	msg.timer_slack_ns = t->slack_ns;
	msg.parent_death_signal = (uint32_t)sig;
	msg.seccomp = (uint32_t)procfs_number(p->status[i], "Seccomp", 10);
	msg.filters = t->filters;
	msg.n_filters = t->n_filters;
	msg.io_priority = t->ioprio < 0 ? 0 : (uint32_t)t->ioprio;
	return state_pack_blob(&image->blobs, &image->n_blobs, "ids", IDS_VERSION, &msg.base);
}

/* The main thread's are the process's. */
static int finish_process(struct state_process *p, struct creds *c, Icp__ProcessState *state)
{
	Icp__Process *image = p->image;
	Icp__Credentials msg = ICP__CREDENTIALS__INIT;
	long bits = gather_ret(p, 0, c->tasks[0].secbits);
	int err = thread_creds(p->status[0], &msg);

	/* The lists go to the image, or away with it. */
	image->uids = msg.uids;
	image->gids = msg.gids;
	image->groups = msg.groups;
	if (err)
		return err;
	if (bits < 0)
		return fail((int)bits, "securebits");
	image->n_uids = msg.n_uids;
	image->n_gids = msg.n_gids;
	image->n_groups = msg.n_groups;
	image->cap_inheritable = msg.inheritable;
	image->cap_permitted = msg.permitted;
	image->cap_effective = msg.effective;
	image->cap_bounding = msg.bounding;
	image->cap_ambient = msg.ambient;
	state->no_new_privs = msg.no_new_privs;
	state->securebits = (uint32_t)bits;
	state->filters = c->filters;
	state->n_filters = c->n_filters;
	state->filter_flags = c->flags;
	state->n_filter_flags = c->n_filters;
	return 0;
}

int creds_finish(struct state_process *p, struct creds *c, Icp__ProcessState *state)
{
	int err = finish_process(p, c, state);

	for (size_t i = 0; i < p->n_threads && !err; i++)
		err = finish_thread(p, c, i);
	return err;
}
