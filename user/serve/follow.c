// SPDX-License-Identifier: GPL-2.0
#include "serve/follow.h"

#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"

#define AGAIN_NS 10000000000u /* who was refused is tried again after this */
#define DEPTH_MAX 16	      /* of cgroups */
#define REMEMBERED_MAX 1024   /* refusals */

/* A pid is nobody without its start time. */
struct known {
	pid_t pid;
	uint64_t start_time;
};

struct refusal {
	struct known who;
	uint64_t again_ns;
	char comm[16], why[256];
	double time;
	bool seen; /* in this look */
};

struct follow {
	const struct serve_config *config;
	regex_t match;
	bool has_match;
	VEC(struct known) pids; /* of the command line */
	VEC(struct refusal) refused;
	string_list cgroups; /* where they are mounted */
	size_t following;
	bool full; /* it was said that there are too many */
};

static int find_cgroup(struct follow *f, const char *name)
{
	static const char *const mounts[] = {"", "/sys/fs/cgroup/", "/sys/fs/cgroup/unified/"};

	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		char path[512], **slot;

		snprintf(path, sizeof(path), "%s%s/cgroup.procs", mounts[i], name);
		if (access(path, R_OK))
			continue;
		slot = vec_push(&f->cgroups);
		path[strlen(path) - strlen("/cgroup.procs")] = 0;
		if (slot)
			*slot = strdup(path);
		return slot && *slot ? 0 : fail(-ENOMEM, "cgroups");
	}
	return refuse(-ENOENT, "there is no cgroup %s below /sys/fs/cgroup", name);
}

int follow_new(const struct serve_config *c, struct follow **out)
{
	struct follow *f = calloc(1, sizeof(*f));
	int err = f ? 0 : fail(-ENOMEM, "serve");

	if (!f)
		return err;
	f->config = c;
	if (c->match) {
		int bad = regcomp(&f->match, c->match, REG_EXTENDED | REG_NOSUB);
		char why[128];

		if (bad) {
			regerror(bad, &f->match, why, sizeof(why));
			err = refuse(-EINVAL, "--match '%s': %s", c->match, why);
		}
		f->has_match = !bad;
	}
	for (size_t i = 0; !err && i < c->cgroups.n; i++)
		err = find_cgroup(f, c->cgroups.data[i]);
	vec_each (pid, &c->pids) {
		struct known *slot = err ? NULL : vec_push(&f->pids);

		if (slot)
			*slot = (struct known){*pid, tasks_start_time(*pid)};
	}
	if (err)
		follow_free(f);
	else
		*out = f;
	return err;
}

void follow_free(struct follow *f)
{
	if (!f)
		return;
	if (f->has_match)
		regfree(&f->match);
	vec_each (path, &f->cgroups)
		free(*path);
	vec_free(&f->cgroups);
	vec_free(&f->pids);
	vec_free(&f->refused);
	free(f);
}

static struct refusal *refusal_of(struct follow *f, const struct known *who)
{
	vec_each (r, &f->refused)
		if (r->who.pid == who->pid && r->who.start_time == who->start_time)
			return r;
	return NULL;
}

/* Say it once; the same again is nothing new. */
static int note_refusal(struct follow *f, struct refusal *r, const struct known *who, int err)
{
	struct timespec now;

	if (!r) {
		if (f->refused.n == REMEMBERED_MAX)
			memmove(f->refused.data, f->refused.data + 1,
				--f->refused.n * sizeof(*f->refused.data));
		r = vec_push(&f->refused);
		if (!r)
			return fail(-ENOMEM, "serve");
		r->who = *who;
	}
	if (strcmp(r->why, err_text(err))) {
		clock_gettime(CLOCK_REALTIME, &now);
		r->time = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
		snprintf(r->why, sizeof(r->why), "%s", err_text(err));
		tasks_comm(who->pid, r->comm);
		note("not followed: %s", r->why);
	}
	r->again_ns = now_ns() + AGAIN_NS;
	r->seen = true;
	err_clear();
	return 0;
}

static int try_pid(struct follow *f, struct session *s, const struct known *who)
{
	struct refusal *r = refusal_of(f, who);
	struct session_detail d;
	int err;

	if (session_detail(s, who->pid, &d))
		return 0;
	if (r)
		r->seen = true;
	if (r && now_ns() < r->again_ns)
		return 0;
	if (f->following >= PROCESSES_MAX) {
		if (!f->full)
			note("%u processes are followed: no more are taken in", PROCESSES_MAX);
		f->full = true;
		return 0;
	}
	err = session_admit(s, who->pid);
	if (!err) {
		f->following++;
		if (r)
			r->seen = false; /* forgotten at the end of the look */
		return 0;
	}
	if (err == -ENOMEM)
		return err;
	if (err == -ESRCH && tasks_start_time(who->pid) != who->start_time) {
		err_clear(); /* it has ended */
		return 0;
	}
	return note_refusal(f, r, who, err);
}

/* We, and what we start, are not meant; nor are threads of the kernel. */
static bool is_meant(pid_t pid)
{
	char path[32], exe[8];

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	return pid != getpid() && tasks_parent(pid) != getpid() &&
	       (readlink(path, exe, sizeof(exe)) >= 0 || errno != ENOENT);
}

static int look_at_names(struct follow *f, struct session *s)
{
	_cleanup_dir_ DIR *dir = opendir("/proc");
	int err = dir ? 0 : fail(-errno, "open /proc");

	for (struct dirent *entry; !err && (entry = readdir(dir));) {
		struct known who = {.pid = (pid_t)atoi(entry->d_name)};
		struct session_detail d;
		char comm[16];

		if (who.pid <= 0 || session_detail(s, who.pid, &d) ||
		    !tasks_comm(who.pid, comm) || regexec(&f->match, comm, 0, NULL, 0) ||
		    !is_meant(who.pid))
			continue;
		who.start_time = tasks_start_time(who.pid);
		if (who.start_time) /* not a zombie */
			err = try_pid(f, s, &who);
	}
	return err;
}

static int look_at_cgroup(struct follow *f, struct session *s, const char *path, int depth)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_dir_ DIR *dir = opendir(path);
	char name[1024];
	int err = 0;

	if (!dir)
		return 0; /* it is not there now: it may come back */
	snprintf(name, sizeof(name), "%s/cgroup.procs", path);
	if (!io_read_file(AT_FDCWD, name, &text, NULL))
		for (char *line = text; !err && *line;
		     line += strcspn(line, "\n"), line += *line == '\n') {
			struct known who = {.pid = (pid_t)atoi(line)};

			who.start_time = tasks_start_time(who.pid);
			if (who.start_time && is_meant(who.pid))
				err = try_pid(f, s, &who);
		}
	for (struct dirent *entry; !err && depth < DEPTH_MAX && (entry = readdir(dir));) {
		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		err = look_at_cgroup(f, s, name, depth + 1);
	}
	return err;
}

/* What is still refused, for /api/processes. */
static int publish(struct follow *f, struct model *m)
{
	size_t kept = 0;
	int err = 0;

	for (size_t i = 0; i < f->refused.n; i++)
		if (f->refused.data[i].seen)
			f->refused.data[kept++] = f->refused.data[i];
	f->refused.n = kept;
	pthread_mutex_lock(&m->lock);
	m->refused.n = 0;
	vec_each (r, &f->refused) {
		struct refused *slot;

		if (m->refused.n == REFUSED_MAX)
			break;
		slot = vec_push(&m->refused);
		if (!slot) {
			err = fail(-ENOMEM, "serve");
			break;
		}
		*slot = (struct refused){.pid = r->who.pid, .time = r->time};
		memcpy(slot->comm, r->comm, sizeof(slot->comm));
		memcpy(slot->why, r->why, sizeof(slot->why));
	}
	pthread_mutex_unlock(&m->lock);
	return err;
}

int follow_look(struct follow *f, struct session *s, struct model *m, bool first)
{
	int err = 0;

	vec_each (r, &f->refused)
		r->seen = false;
	f->following = m->procs.n; /* only we change it */
	vec_each (who, &f->pids) {
		bool same = who->start_time && tasks_start_time(who->pid) == who->start_time;

		if (!err && same)
			err = try_pid(f, s, who);
		else if (!err && first)
			note("not followed: there is no process %d", who->pid);
	}
	vec_each (path, &f->cgroups)
		if (!err)
			err = look_at_cgroup(f, s, *path, 0);
	if (!err && f->has_match)
		err = look_at_names(f, s);
	if (!err)
		err = publish(f, m);
	if (!err && first && !f->has_match && !f->cgroups.n && !f->following)
		err = refuse(-ESRCH, "none of the processes can be followed");
	return err;
}
