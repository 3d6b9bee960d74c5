/* SPDX-License-Identifier: GPL-2.0 */
/* A forked child that runs functions of the test when asked, and so knows exactly what it wrote. */
#ifndef ICP_TESTS_KID_H
#define ICP_TESTS_KID_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

struct kid {
	pid_t pid;
	int to, from;
};

typedef uint64_t (*kid_fn)(const uint64_t *args);

/* Dies with the test; killed by kids_end(). */
struct kid *kid_start(void);
/* Ask it to run @fn, and what that returned; fails the test after 20 s. */
uint64_t kid_run(struct kid *kid, kid_fn fn, const uint64_t args[4]);
#define kid_call(kid, fn, ...) kid_run((kid), (fn), (const uint64_t[4]){__VA_ARGS__})
/* The two halves of it. */
void kid_ask(struct kid *kid, kid_fn fn, const uint64_t args[4]);
uint64_t kid_answer(struct kid *kid);
/* Kill and reap all of them: for teardown. */
void kids_end(void);

/* --- functions to call: in the child --- */
/* mmap(NULL, bytes, prot, flags) between two inaccessible pages, so that it stays a VMA of its own; no THP. */
uint64_t kid_map(const uint64_t *args);
/* The same with a descriptor: bytes, prot, flags, fd. */
uint64_t kid_map_fd(const uint64_t *args);
/* Write, or read, a byte of every page: start, pages, stride in pages (0: 1), times (0: once). */
uint64_t kid_write(const uint64_t *args);
uint64_t kid_read(const uint64_t *args);

#endif
