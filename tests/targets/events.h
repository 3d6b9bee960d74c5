/* SPDX-License-Identifier: GPL-2.0 */
/* The scenes of the program events: descriptors that tell of events. */
#ifndef TESTS_TARGETS_EVENTS_H
#define TESTS_TARGETS_EVENTS_H

#include <poll.h>

#include "reborn.h"

/* @fd as number @to; closes @fd. */
int as(int fd, int to);
/* /proc/self/fdinfo/@fd, in a buffer of its own. */
char *fd_info(int fd);
bool is_ready(int fd, short events);

void scene_epoll(void);
void scene_epoll_fork(void);
void scene_inotify(void);
void scene_pidfd(void);
void scene_proc(void);
void scene_owner(void);
void scene_memfd(void);
/* Holds what a checkpoint must refuse. */
void refuse(const char *what);

#endif
