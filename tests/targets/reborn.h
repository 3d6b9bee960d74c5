/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A program that builds some state, says so (DIR/ready), waits to be told (DIR/go), and then
 * checks that all of it is as it was. It ends with status 0, or says what is wrong in DIR/wrong.
 */
#ifndef TESTS_TARGETS_REBORN_H
#define TESTS_TARGETS_REBORN_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

void wrong(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
#define check(what)                                                                            \
	do {                                                                                   \
		if (!(what))                                                                   \
			wrong("%s:%d: %s (errno %d)", __FILE__, __LINE__, #what, errno);       \
	} while (0)

void set_dir(const char *name);
/* DIR/name; the result is valid until the next four calls. */
const char *in_dir(const char *name);
/* The state is built. */
void ready(void);
/* Until DIR/go is there. */
void wait_go(void);
void nap_ms(long ms);
/* A whole file, in a buffer of its own. */
char *slurp(const char *path);
/* A page that is different for each seed. */
void paint(void *page, uint64_t seed);
bool painted(const void *page, uint64_t seed);

void scene_threads(void);
void scene_tree(void);
void scene_signals(void);
void scene_calls(void);
void scene_ids(void);
void scene_files(void);
void scene_shm(void);
void scene_lazy(void);

#endif
