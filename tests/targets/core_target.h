/* SPDX-License-Identifier: GPL-2.0 */
/* What a debugger must find in core_target. */
#ifndef CORE_TARGET_H
#define CORE_TARGET_H

#define CORE_WORKERS 3
#define CORE_TABLE 5000
#define CORE_SHM_KEY_SIZE 65536

/* libcore_target.so */
extern int library_counter;
int library_wait(int (*wait)(int worker), int worker);

#endif
