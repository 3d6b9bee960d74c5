/* SPDX-License-Identifier: GPL-2.0 */
/* Tests of the kinds of state: a forked child sets something up and says so; it is dumped
 * through the real warden; then it is asked whether anything changed. */
#ifndef TESTS_STATE_DUMPING_H
#define TESTS_STATE_DUMPING_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
/* cmocka's fail() and base/err.h's don't go together. */
#undef fail
#undef fail_msg
#define fail_msg(...)                                                                          \
	(print_error("ERROR: " __VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

#include "base/clock.h"
#include "image/manifest.h"
#include "proc/target.h"
#include "proc/tasks.h"
#include "state/state.h"

/* Shared by the test and its child, which writes what the test can't know. */
struct board {
	uint64_t value[64];
	volatile uint32_t spin, stop;
	char text[256];
};

struct child {
	pid_t pid;
	int to, from; /* a byte each way */
	struct board *board;
};

/* In the child: set up; then, when told to go on, check. */
struct scene {
	void (*set_up)(struct board *b);
	bool (*unchanged)(struct board *b); /* NULL: nothing to check */
};

static inline void child_main(const struct scene *scene, struct board *board, int from, int to)
{
	char byte = 'r';

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	scene->set_up(board);
	if (write(to, &byte, 1) != 1)
		_exit(90);
	/* EINTR here is one that the program did not earn. */
	if (read(from, &byte, 1) != 1)
		_exit(errno == EINTR ? 91 : 92);
	_exit(!scene->unchanged || scene->unchanged(board) ? 0 : 93);
}

static inline struct child child_start(const struct scene *scene)
{
	struct child c = {0};
	int down[2], up[2];
	char byte;

	c.board = mmap(NULL, sizeof(*c.board), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(c.board, MAP_FAILED);
	assert_int_equal(pipe2(down, O_CLOEXEC), 0);
	assert_int_equal(pipe2(up, O_CLOEXEC), 0);
	c.pid = fork();
	assert_true(c.pid >= 0);
	if (!c.pid) {
		close(down[1]);
		close(up[0]);
		child_main(scene, c.board, down[0], up[1]);
	}
	close(down[0]);
	close(up[1]);
	c.to = down[1];
	c.from = up[0];
	if (read(c.from, &byte, 1) != 1) {
		kill(c.pid, SIGKILL);
		waitpid(c.pid, NULL, 0);
		fail_msg("the child could not set up");
	}
	return c;
}

static inline int child_end(struct child *c)
{
	int status = 0;

	if (write(c->to, "g", 1) != 1)
		status = -1;
	waitpid(c->pid, &status, 0);
	close(c->to);
	close(c->from);
	munmap(c->board, sizeof(*c->board));
	return status;
}

/* A job being dumped. */
struct dump {
	struct warden *warden;
	struct state_job *job;
	struct state_process p[4];
	size_t n;
	Icp__Manifest m;
	Icp__Process image[4];
	uint64_t dump_ns, paused_ns;
};

static inline int compare_main_first(const void *a, const void *b)
{
	const struct warden_thread *x = a, *y = b;

	return x->tid - y->tid;
}

static inline void take_threads(struct dump *d, struct state_process *p)
{
	struct warden_thread *all;
	size_t n;

	assert_int_equal(warden_threads(d->warden, &all, &n), 0);
	p->threads = calloc(n, sizeof(*all));
	p->n_threads = 0;
	for (size_t i = 0; i < n; i++)
		if (all[i].pid == p->target->pid)
			p->threads[p->n_threads++] = all[i];
	free(all);
	qsort(p->threads, p->n_threads, sizeof(*all), compare_main_first);
	assert_int_equal(p->threads[0].tid, p->target->pid);
}

#define DO(call)                                                                               \
	do {                                                                                   \
		int err_ = (call);                                                             \
		if (err_)                                                                      \
			fail_msg("%s: %s", #call, err_text(err_));                             \
	} while (0)

static inline void dump_open(struct dump *d, const pid_t *pids, size_t n)
{
	*d = (struct dump){.n = n};
	icp__manifest__init(&d->m);
	DO(warden_open(&d->warden));
	DO(state_job_new(&d->job));
	for (size_t i = 0; i < n; i++) {
		struct state_process *p = &d->p[i];

		icp__process__init(&d->image[i]);
		p->image = &d->image[i];
		p->warden = d->warden;
		p->job = d->job;
		DO(target_open(pids[i], &p->target));
		DO(maps_read(p->target, &p->maps));
	}
}

static inline void dump_take(struct dump *d)
{
	pid_t pids[4];
	uint64_t since;

	for (size_t i = 0; i < d->n; i++) {
		pids[i] = d->p[i].target->pid;
		DO(state_prepare(&d->p[i]));
	}
	DO(warden_freeze(d->warden, pids, d->n, false, 5000, NULL));
	for (size_t i = 0; i < d->n; i++) {
		struct state_process *p = &d->p[i];

		maps_free(&p->maps);
		DO(maps_read(p->target, &p->maps));
		take_threads(d, p);
		since = now_ns();
		DO(state_dump(p));
		d->dump_ns += now_ns() - since;
	}
	DO(warden_thaw(d->warden, &d->paused_ns));
	for (size_t i = 0; i < d->n; i++)
		DO(state_finish(&d->p[i]));
	DO(state_job_finish(d->job, &d->m));
}

static inline void dump_close(struct dump *d)
{
	for (size_t i = 0; i < d->n; i++) {
		Icp__Process *copy = malloc(sizeof(*copy));

		state_free_notes(&d->p[i]);
		free(d->p[i].threads);
		maps_free(&d->p[i].maps);
		target_free(d->p[i].target);
		*copy = d->image[i]; /* the library frees what it points to, and itself */
		protobuf_c_message_free_unpacked(&copy->base, NULL);
	}
	for (size_t i = 0; i < d->m.n_blobs; i++)
		protobuf_c_message_free_unpacked(&d->m.blobs[i]->base, NULL);
	free(d->m.blobs);
	state_job_free(d->job);
	warden_close(d->warden);
}

/* The message in a blob, or a failed test. */
static inline void *blob_of(Icp__StateBlob *const *blobs, size_t n, const char *kind,
			    const ProtobufCMessageDescriptor *type)
{
	const Icp__StateBlob *b = state_find_blob(blobs, n, kind);
	void *msg;

	if (!b)
		fail_msg("no blob %s", kind);
	msg = protobuf_c_message_unpack(type, NULL, b->data.len, b->data.data);
	assert_non_null(msg);
	return msg;
}

static inline void msg_free(void *msg)
{
	protobuf_c_message_free_unpacked(msg, NULL);
}

#endif
