/* SPDX-License-Identifier: GPL-2.0 */
/* A restarted job in the foreground: icp-bpf is to its shell what the job would be. */
#ifndef ICP_CLI_FOREGROUND_H
#define ICP_CLI_FOREGROUND_H

#include <signal.h>

#include "restore/restore.h"

/* Block what is passed on; before the job is made, which gets its own mask. */
void foreground_signals(sigset_t *set);
/*
 * restart_config.ready: what we have of the terminal goes to the job before it runs, for one that reads would be stopped otherwise. @given: a
 * bool, whether it went there.
 */
void foreground_ready(const struct restart_result *r, void *given);
/* It doesn't run after all. */
void foreground_back(bool given);
/* Stay until the job's first processes have ended; the exit status of the first one. */
int foreground(const struct restart_result *r, const sigset_t *set, bool given);

#endif
