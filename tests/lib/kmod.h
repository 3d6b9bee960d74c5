/* SPDX-License-Identifier: GPL-2.0 */
/* What the tests of the module icp_helper share (tests/guest): they run in a guest, as root, with the module loaded. */
#ifndef ICP_TESTS_KMOD_H
#define ICP_TESTS_KMOD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../kmod-helper/icp_uapi.h"

#define PAGE 4096ul
#define EVERYWHERE (UINT64_MAX & ~(PAGE - 1))

/* How long a storm lasts: ICP_SECONDS (3). */
double kmod_seconds(void);
double kmod_now(void);

/* The number in a file of one line; the one of @name in /proc/vmstat. 0 if there is none. */
uint64_t kmod_number(const char *path);
uint64_t kmod_vmstat(const char *name);

/* Setup of a test; fail it if the kernel has warned, oopsed or found a lock-up since. */
int kernel_mark(void **state);
void kernel_is_content(void);

#endif
