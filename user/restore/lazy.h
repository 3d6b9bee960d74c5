/* SPDX-License-Identifier: GPL-2.0 */
/* Pages that come when the job runs already. Between lazy.c, lazy_space.c, guard.c. */
#ifndef ICP_RESTORE_LAZY_H
#define ICP_RESTORE_LAZY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/vec.h"

/* ---- guard.c: who kills the job when we are killed ---- */
struct guard;
int guard_new(struct guard **out) _must_use_;
/* Needed no more: it ends, and leaves the job alone. */
void guard_free(struct guard *g);
/* Of its process, for poll(). */
int guard_fd(const struct guard *g);
/* Add a process of the job; look for those that the job made. */
int guard_add(struct guard *g, pid_t pid) _must_use_;
int guard_look(struct guard *g) _must_use_;
/* Kill the whole job. */
void guard_kill(struct guard *g);
/* Whether a process of it is there that has not ended. */
bool guard_alive(const struct guard *g);

/* ---- lazy_space.c: an address space with pages to come ---- */

/* [start, end) shows what was at @from when the version was cut, where it has no page yet. */
struct pending {
	uint64_t start, end, from;
};

struct space {
	int uffd;     /* -1: it is gone */
	size_t image; /* which process's pages it wants: it may be a child of it */
	struct {
		struct pending *data;
		size_t n, cap;
	} pending;
	struct {
		uint64_t *data;
		size_t n, cap;
	} faults; /* addresses where threads wait */
};

/* Room for those that come by fork. */
struct spaces {
	struct space **data;
	size_t n, cap;
	bool forked; /* since it was set to false */
};

struct space *space_new(struct spaces *all, int uffd, size_t image);
void spaces_free(struct spaces *all);
int space_add(struct space *s, uint64_t start, uint64_t end) _must_use_;
/* Take in all that happened to @s. */
int space_events(struct spaces *all, struct space *s) _must_use_;
/* Where the memory at @addr comes from: its pending range, or NULL (zeros). */
const struct pending *space_find(const struct space *s, uint64_t addr);
/* Put the bytes of @len that were at @from wherever they are wanted and not there yet. */
int space_put(struct spaces *all, struct space *s, uint64_t from, const uint8_t *data,
	      uint64_t len) _must_use_;
/* Put zeros at @addr, unless a page came meanwhile. */
int space_zero(struct space *s, uint64_t addr) _must_use_;

#endif
