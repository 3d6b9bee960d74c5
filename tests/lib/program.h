/* SPDX-License-Identifier: GPL-2.0 */
/* Programs that nobody here wrote, as jobs of lib/rebirth.h: they don't wait for checkpoints. */
#ifndef ICP_TESTS_PROGRAM_H
#define ICP_TESTS_PROGRAM_H

#include "lib/rebirth.h"

#define PYTHON "/usr/bin/python3"

/* Of tests/programs; valid until the next call but one. Set up with the __FILE__ of a test. */
bool program_scripts(const char *file);
const char *program_script(const char *name);

/* A checkpoint with more options (NULL at the end). */
void cut_more(const struct job *j, const char *const *more);
#define CUT(j, ...) cut_more((j), (const char *const[]){__VA_ARGS__, NULL})
/* One a second, three of them. */
#define ROUNDS "--every", "1s", "--count", "3"

/* Kill all of the job, and reap its process group. */
void end_group(struct job *j);
/* Restart @version and let it run. */
void begin_version(const struct job *j, struct run *r, const char *version, const char *more);
/* The end of that, or of another program: with status 0. */
void ends_well(struct run *r);
/* A program to its end, which must be a good one. */
void succeeds(const char *const *argv);
/* A port that nobody listens on just now. */
void free_port(char text[8]);

#endif
