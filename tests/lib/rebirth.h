/* SPDX-License-Identifier: GPL-2.0 */
/* A program that checks itself (tests/targets/reborn and the like), its versions, and restarts of
 * them. */
#ifndef ICP_TESTS_REBIRTH_H
#define ICP_TESTS_REBIRTH_H

#include "lib/robust_procs.h"

/* cmocka's fail() and base/err.h's don't go together. */
#undef fail
#undef fail_msg
#define fail_msg(...)                                                                          \
	(print_error("ERROR: " __VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

struct job {
	char dir[64], repo[80];
	pid_t pid;	    /* 0: none that could live */
	const char *target; /* NULL: tests/targets/reborn */
};

/* Of a test: a directory of its own; the end of whatever still runs. */
int setup(void **state);
int teardown(void **state);

/* Files of the job's directory; a path is valid until the next four calls. */
const char *in(const struct job *j, const char *name);
bool exists(const struct job *j, const char *name);
void touch(const struct job *j, const char *name);

/* In a session of its own, with nothing open that leads to us. */
void start(struct job *j, const char *const *argv);
/* Until the file is there; fails the test when the job says that something is wrong. */
void wait_for(const struct job *j, const char *name);
/* The job's target, until it is ready. */
void start_scene(struct job *j, const char *scene, const char *more);
/* A checkpoint. */
void cut(const struct job *j);
/* Kill and reap a process and its descendants; the job. */
void end_job(pid_t pid);
void kill_job(struct job *j);

/* Our descendants of that name that are no zombies. */
size_t named(const char *name, pid_t *pids, size_t max);
/* How many processes of the name run on once a killed icp-bpf and all of its are gone (but for an init): none or @whole, or
 * there is something wrong. */
size_t survivors(const char *name, size_t whole, pid_t *pids, size_t max);
/* Start a restart; @more: one more option, or NULL. */
void begin_restart(const struct job *j, struct run *r, const char *version, const char *lookup,
		   const char *more);
/* Run that restart until the job runs. A pid that somebody has for a moment is waited for: where
 * pids are few they come round soon. False: it failed, and @r says why. */
bool restart_runs(struct run *r, const char *const *argv);
/* Restart @version; it must go on to a good end. */
void go_on(const struct job *j, const char *version, const char *lookup);
void go_on_with(const struct job *j, const char *version, const char *lookup, const char *more);
/* A scene with three versions, each restarted by both lookups. */
void play(struct job *j, const char *scene);

#endif
