/* SPDX-License-Identifier: GPL-2.0 */
/* A program like reborn, for kinds of memory and of processes: remade SCENE DIR. */
#ifndef TESTS_TARGETS_REMADE_H
#define TESTS_TARGETS_REMADE_H

#include "reborn.h"

struct scene {
	const char *name;
	void (*play)(void);
};

void scene_cow(void);
void scene_protected(void);
void scene_advice(void);
void scene_growing(void);
void scene_sealed(void);
void scene_many(void);
void scene_vdso(void);
void scene_scheduled(void);
void scene_traits(void);
void scene_chroot(void);
void scene_idle(void);
void scene_huge(void);
void scene_deleted_private(void);
void scene_deleted_shared(void);
void scene_memfd(void);
void scene_shared(void);

/* New private anonymous memory, away from everything else. */
char *anon(size_t pages, int prot, int flags);
/* A byte of /proc/self/smaps' VmFlags: whether the mapping at @at has it. */
bool vmflag(const void *at, const char *flag);
/* Number of the page frame behind an address, 0 for none. */
uint64_t frame(const void *at);

#endif
