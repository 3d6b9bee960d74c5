/* SPDX-License-Identifier: GPL-2.0 */
/* Jobs of tests/targets/sysv_target: started, cut, killed, brought back; and what they leave in the IPC namespace. */
#ifndef ICP_TESTS_SYSV_JOB_H
#define ICP_TESTS_SYSV_JOB_H

#include "lib/robust_procs.h"

#define SYSV_KEYS 256 /* of each job */

struct sysv_job {
	char dir[64], repo[80];
	int key;
	pid_t pids[16]; /* its roots, as started */
	size_t n;
	pid_t makers[256]; /* who may have made objects without a key */
	size_t n_makers;
};

/* For cmocka: an empty job in *state, and the end of everything that belongs to it. */
int sysv_setup(void **state);
int sysv_teardown(void **state);

/* DIR/name; the result is valid until the next four calls. */
const char *sysv_path(const struct sysv_job *j, const char *name);
void sysv_touch(const struct sysv_job *j, const char *name);
void sysv_untouch(const struct sysv_job *j, const char *name);
/* Until DIR/name is there; fails the test when DIR/wrong is, or after 60 s. */
void sysv_wait(const struct sysv_job *j, const char *name);

/* One more root: sysv_target SCENE DIR KEY with these arguments (NULL at the end). */
void sysv_start(struct sysv_job *j, const char *scene, int key, ...) __attribute__((sentinel));
/* The same of another program: NAME DIR KEY... */
void sysv_start_program(struct sysv_job *j, const char *name, int key, ...)
	__attribute__((sentinel));
/* Run icp-bpf checkpoint on all roots, with these arguments as well; its stderr, to be freed. */
char *sysv_cut(const struct sysv_job *j, ...) __attribute__((sentinel));
/* Kill and reap every process of the job. */
void sysv_kill(struct sysv_job *j);
/* Remove every object of the job. */
void sysv_clean(const struct sysv_job *j);
/* icp-bpf restart --detach of @version with these arguments as well; its stderr, to be freed. */
char *sysv_restart(struct sysv_job *j, int version, ...) __attribute__((sentinel));
/* The same, which must fail and say @text in one line. */
void sysv_refused(struct sysv_job *j, const char *text, int version, ...)
	__attribute__((sentinel));
/* Say "go" and wait for the good end of all roots. */
void sysv_go(struct sysv_job *j);

/* The id of the first segment in the maps of @pid. */
int sysv_attached(pid_t pid);
/* Of a segment of the job; -1, 0 or fails the test when there is none. */
int sysv_id(const struct sysv_job *j, int key);
/* The token, and wait until it has grown by @by: everybody works. */
uint64_t sysv_token(int id);
void sysv_turns(const struct sysv_job *j, int id, uint64_t by);
/* A copy of the whole segment, to be freed. */
void *sysv_copy(int id, size_t *size);

#endif
