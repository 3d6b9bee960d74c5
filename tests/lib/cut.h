/* SPDX-License-Identifier: GPL-2.0 */
/* A version of a process, cut the simple way (ptrace, /proc, one copy): the exporter's test does not depend on the dumper. */
#ifndef ICP_TESTS_CUT_H
#define ICP_TESTS_CUT_H

#include <stdint.h>
#include <sys/types.h>

/* Make version 1 of a new repository @dir from @pid, which runs on afterwards. Fails the test when it can't. */
void cut_version(pid_t pid, const char *dir);

#endif
