// SPDX-License-Identifier: GPL-2.0
#include "restore/builder.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "proc/tasks.h"
#include "state/procfs.h"

struct news {
	int32_t err;
	uint32_t version, n_pids, n_roots;
	uint64_t threads, pages, bytes;
	uint64_t phase_ns[PHASES];
	char text[1024];
};

/* ---- in the builder ---- */

static int send_news(struct restore *r, int err)
{
	const struct restart_result *out = r->result;
	struct news n = {
		.err = err,
		.version = out->version,
		.n_pids = (uint32_t)out->n_pids,
		.n_roots = (uint32_t)out->n_roots,
		.threads = out->threads,
		.pages = out->pages,
		.bytes = out->bytes,
	};

	memcpy(n.phase_ns, out->phase_ns, sizeof(n.phase_ns));
	if (err)
		snprintf(n.text, sizeof(n.text), "%s", err_text(err));
	return io_write_full(r->builder->news, &n, sizeof(n));
}

int builder_commit(struct restore *r)
{
	const struct restart_result *out = r->result;
	int err = send_news(r, 0);
	char byte;

	if (!err)
		err = io_write_full(r->builder->news, out->pids, out->n_pids * sizeof(pid_t));
	if (!err)
		err = io_write_full(r->builder->news, out->roots, out->n_roots * sizeof(pid_t));
	if (err || read(r->builder->go, &byte, 1) != 1)
		return refuse(-ECANCELED, "icp-bpf has ended");
	setsid(); /* from what is meant for all of its terminal or group */
	prctl(PR_SET_PDEATHSIG, 0);
	return getppid() == r->builder->parent ? 0 : refuse(-ECANCELED, "icp-bpf has ended");
}

void builder_forget(struct restore *r)
{
	close(r->builder->news);
	close(r->builder->go);
	close(r->builder->keeper);
}

/* Programs look into /proc for themselves: that of the namespace, seen by nobody else. */
static int mount_proc(void)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) ||
	    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		return fail(-errno, "mount /proc for the new pid namespace");
	return 0;
}

/* The job runs: data and input are its own. A message may still have to be said. */
static int bring_pages(struct restore *r)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), err;

	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	close(null);
	err = lazy_end(take_ptr(r->lazy));
	if (r->config->detach || send_news(r, err)) {
		/* nobody waits */
		if (err)
			note("restart: %s", err_text(err));
	}
	return err;
}

static void __attribute__((noreturn)) build(void *arg)
{
	struct restore *r = arg;
	int err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != r->builder->parent)
		_exit(1);
	err = r->config->new_pid_namespace ? mount_proc() : 0;
	if (!err)
		err = restore_all(r);
	err = send_news(r, err) || err;
	if (r->lazy)
		err |= bring_pages(r);
	_exit(err != 0);
}

/* ---- in icp-bpf ---- */

/* Its ends of the pipes, and whom it made. */
struct site {
	int news, go, status;
	pid_t maker;   /* the builder, or init */
	pid_list mine; /* children from before, which are none of the job */
};

static void site_end(struct site *s)
{
	cleanup_fd(&s->news);
	cleanup_fd(&s->go);
	cleanup_fd(&s->status);
	free_pids(&s->mine);
}

static bool listed(const pid_list *list, pid_t pid)
{
	vec_each (p, list)
		if (*p == pid)
			return true;
	return false;
}

static pid_t parent_of(pid_t pid)
{
	_cleanup_free_ char *stat = NULL;
	char path[32];
	int64_t parent;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	return io_read_file(AT_FDCWD, path, &stat, NULL) || procfs_stat(stat, 4, 4, &parent)
		       ? 0
		       : (pid_t)parent;
}

/* Our children that were made since, and theirs; parents first. */
static int find_made(struct site *s, pid_list *out)
{
	_cleanup_(free_pids) pid_list all = {0};
	int err = tasks_descendants(getpid(), &all);

	out->n = 0;
	for (size_t i = 0; i < all.n && !err; i++) {
		pid_t pid = all.data[i], parent = parent_of(pid), *slot;

		if (listed(&s->mine, pid) || (parent != getpid() && !listed(out, parent)))
			continue;
		slot = vec_push(out);
		if (!slot)
			return -ENOMEM;
		*slot = pid;
	}
	return err;
}

/* Whoever is there still was an orphan of the builder's, and came to us. */
static void sweep(struct site *s)
{
	_cleanup_(free_pids) pid_list left = {0};
	bool any = true;

	kill(s->maker, SIGKILL);
	waitpid(s->maker, NULL, __WALL);
	while (any && !find_made(s, &left)) {
		any = false;
		vec_each (p, &left)
			kill(*p, SIGKILL);
		vec_each (p, &left)
			any |= waitpid(*p, NULL, __WALL) == *p;
	}
}

static int read_list(int fd, pid_t **out, uint32_t n)
{
	*out = calloc(n + 1u, sizeof(pid_t));
	if (!*out)
		return fail(-ENOMEM, "list its processes");
	return io_read_full(fd, *out, n * sizeof(pid_t)) ? -EPIPE : 0;
}

static int hear(struct site *s, struct restart_result *out, struct news *n)
{
	if (io_read_full(s->news, n, sizeof(*n)))
		return refuse(-ECHILD, "the process that was building the job was killed");
	n->text[sizeof(n->text) - 1] = 0;
	if (n->err)
		return refuse(n->err, "%s", n->text);
	out->version = n->version;
	out->n_pids = n->n_pids;
	out->n_roots = n->n_roots;
	out->threads = n->threads;
	out->pages = n->pages;
	out->bytes = n->bytes;
	memcpy(out->phase_ns, n->phase_ns, sizeof(n->phase_ns));
	return 0;
}

/* Our pid of the process that is @inner in its namespace. */
static pid_t outer_pid(const pid_list *all, pid_t inner)
{
	vec_each (p, all) {
		_cleanup_free_ char *status = NULL;
		char path[32];
		uint32_t pids[2] = {0};

		snprintf(path, sizeof(path), "/proc/%d/status", *p);
		if (!io_read_file(AT_FDCWD, path, &status, NULL) &&
		    procfs_numbers(status, "NSpid", pids, 2) == 2 && pids[1] == (uint32_t)inner)
			return *p;
	}
	return 0;
}

/* All stand still: nobody comes or goes. */
static int map_pids(const struct site *s, struct restart_result *out)
{
	_cleanup_(free_pids) pid_list all = {0};
	int err = tasks_descendants(s->maker, &all);

	out->init = s->maker;
	out->inner_roots = calloc(out->n_roots + 1, sizeof(pid_t));
	if (!err && !out->inner_roots)
		err = fail(-ENOMEM, "list its processes");
	for (size_t i = 0; i < out->n_roots && !err; i++) {
		out->inner_roots[i] = out->roots[i];
		out->roots[i] = outer_pid(&all, out->roots[i]);
	}
	for (size_t i = 0; i < out->n_pids && !err; i++) {
		pid_t inner = out->pids[i];

		out->pids[i] = outer_pid(&all, inner);
		if (!out->pids[i])
			err = refuse(-ESRCH,
				     "process %d of the new namespace is not to be found",
				     inner);
	}
	return err;
}

static int oversee(struct site *s, struct restart_result *out,
		   const struct restart_config *config)
{
	struct news n;
	int err = hear(s, out, &n);

	if (!err)
		err = read_list(s->news, &out->pids, n.n_pids);
	if (!err)
		err = read_list(s->news, &out->roots, n.n_roots);
	if (!err && config->new_pid_namespace)
		err = map_pids(s, out);
	if (err)
		return err;
	if (config->ready)
		config->ready(out, config->ready_arg);
	/* orphans of the job are not for us */
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	if (write(s->go, "", 1) != 1)
		return refuse(-ECHILD, "the process that was building the job was killed");
	err = hear(s, out, &n);
	if (!err && config->lazy)
		out->pages_fd = take_fd(&s->news);
	else if (!err && !config->new_pid_namespace)
		waitpid(s->maker, NULL, 0);
	return err;
}

int restart_finish(struct restart_result *r)
{
	struct news n = {0};

	if (r->pages_fd < 0)
		return 0;
	if (io_read_full(r->pages_fd, &n, sizeof(n)))
		return refuse(-ECHILD,
			      "restart: the process that brought its pages was killed, "
			      "and the job with it");
	n.text[sizeof(n.text) - 1] = 0;
	return n.err ? refuse(n.err, "restart: %s", n.text) : 0;
}

static int open_pipe(int *in, int *out)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return fail(-errno, "pipe");
	*in = ends[0];
	*out = ends[1];
	return 0;
}

static pid_t clone_init(void)
{
	struct clone_args args = {.flags = CLONE_NEWPID | CLONE_NEWNS, .exit_signal = SIGCHLD};

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static int cant_clone(bool new_namespace)
{
	if (new_namespace && errno == EPERM)
		return refuse(-EPERM, "a new pid namespace needs CAP_SYS_ADMIN: run as root");
	return fail(-errno, new_namespace ? "make a pid namespace" : "fork");
}

/* Start the builder, with init as its parent in a new namespace. */
static int start(struct restore *r, struct site *s)
{
	bool apart = r->config->new_pid_namespace;
	struct builder *b = r->builder;
	struct init_ends ends = {-1, -1, -1};
	int go = -1, err = open_pipe(&s->news, &b->news);

	if (!err)
		err = open_pipe(&go, &s->go);
	b->go = go;
	if (!err && apart)
		err = open_pipe(&b->go, &ends.pass);
	if (!err && apart)
		err = open_pipe(&s->status, &ends.status);
	if (err)
		return err;
	ends.go = go;
	b->parent = apart ? 1 : getpid();
	s->maker = apart ? clone_init() : fork();
	if (!s->maker) {
		site_end(s);
		if (apart)
			init_main(&ends, build, r);
		build(r);
	}
	err = s->maker < 0 ? cant_clone(apart) : 0;
	close(b->news);
	close(go);
	if (apart) {
		close(b->go);
		close(ends.pass);
		close(ends.status);
	}
	return err;
}

int restart(const struct restart_config *config, struct restart_result *out)
{
	struct builder builder = {-1, -1, -1, 0};
	struct ipc_keeper keeper;
	struct restore r = {.config = config,
			    .result = out,
			    .builder = &builder,
			    .job.detach = config->detach,
			    .job.rewind = config->rewind,
			    .job.tcp_close = config->tcp_close};
	struct site s = {.news = -1, .go = -1, .status = -1};
	int err;

	*out = (struct restart_result){.status_fd = -1, .pages_fd = -1};
	err = ipc_keeper_start(&keeper);
	builder.keeper = keeper.sock;
	if (!err)
		err = tasks_descendants(getpid(), &s.mine);
	/* what a failure leaves behind comes to us */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (!err)
		err = start(&r, &s);
	if (!err) {
		if (config->begun)
			config->begun(config->begun_arg);
		err = oversee(&s, out, config);
		if (err)
			sweep(&s);
	}
	ipc_keeper_end(&keeper);
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	if (!err)
		out->status_fd = take_fd(&s.status);
	site_end(&s);
	if (err)
		restart_result_free(out);
	return err ? wrap(err, "restart") : 0;
}
