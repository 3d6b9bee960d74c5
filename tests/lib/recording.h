/* SPDX-License-Identifier: GPL-2.0 */
/* tests/targets/striper, which writes the pages that it is told to, and a run of `icp-bpf record` that looks on. */
#ifndef ICP_TESTS_RECORDING_H
#define ICP_TESTS_RECORDING_H

#include <stdint.h>

#include "lib/robust_procs.h"
#include "lib/scratch.h"

#define PAGES 1000ul /* of the target */

struct recording {
	struct talker target;
	struct run recorder;
	char dir[SCRATCH_MAX], file[SCRATCH_MAX + 16];
	uint64_t memory;
	bool mounted;
};
extern struct recording made;

/* For cmocka. */
int recording_setup(void **state);
int recording_teardown(void **state);
/* The result is valid until the next four calls. */
const char *in_dir(const char *name);

void start_target(void);
void write_pages(size_t first, size_t n);
/* Returns when it is attached: then the file has its header. @more: one more argument, or NULL. */
void start_recorder(const char *interval, const char *more);
/* Send @sig; the status of waitpid(). */
int end_recorder(int sig);
/* Interrupt it, and see that all went well. */
void stop_recorder(void);

#endif
