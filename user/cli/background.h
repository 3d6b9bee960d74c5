/* SPDX-License-Identifier: GPL-2.0 */
/* Sessions that go on in the background, and what else the verbs that run one share. */
#ifndef ICP_CLI_BACKGROUND_H
#define ICP_CLI_BACKGROUND_H

#include "session/session.h"

/* Block what ends a session; a descriptor that tells of it, or -1. */
int session_signals(void);
/* Follow the job until @due_ns. 1: told to end, or the job has ended. */
int session_follow(struct session *s, int signals, uint64_t due_ns) _must_use_;
/* Be there for requests; that this may not be done is an error only if it @must be. */
int background_listen(struct session *s, bool must) _must_use_;

/*
 * Run @work in a process of its own, which says on the descriptor when what the user waits for
 * is done, by background_go_on(). Returns the exit status.
 */
int background(int (*work)(const void *arg, int report_fd), const void *arg);
/* In there: leave the terminal, tell, and follow the job to its end. */
int background_go_on(struct session *s, int signals, int report_fd) _must_use_;

#endif
