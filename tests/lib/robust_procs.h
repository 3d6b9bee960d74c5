/* SPDX-License-Identifier: GPL-2.0 */
/* Programs under test, what they say, and what can be seen of a target from outside. */
#ifndef ICP_TESTS_ROBUST_PROCS_H
#define ICP_TESTS_ROBUST_PROCS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

/* "build/NAME", wherever the build is. The result is valid until the next eight calls. */
const char *built(const char *name);

/* --- a program that answers lines to bytes (tests/targets/checksum, faultloop) --- */
struct talker {
	pid_t pid;
	int to, from;
};

/* Starts it; dies with the test. Fails the test when it can't. */
void talker_start(struct talker *t, const char *program, ...) __attribute__((sentinel));
/* The next line, without its end; fails the test after 20 s. False at the end of what it says.
 */
bool talker_line(struct talker *t, char *line, size_t len);
/* Send @text and expect a line that begins with @begins. */
void talker_ask(struct talker *t, const char *text, const char *begins);
/* Kill and reap it, whatever its state. */
void talker_end(struct talker *t);

/* --- a run of icp-bpf (or whatever) with its output in files --- */
struct run {
	pid_t pid;
	int out, err; /* memfds */
	int status;   /* of waitpid(); after run_wait() */
};

struct run_how {
	int out_fd;		/* > 0: stdout goes there */
	void (*before)(void *); /* in the child, before execve */
	void *arg;
	bool own_group;
};

void run_start(struct run *r, const struct run_how *how, const char *const *argv);
/* Wait for the end; fails the test (and kills it) after @seconds. */
void run_wait(struct run *r, double seconds);
/* Wait until its stdout holds @text, or it has ended: false. */
bool run_says(struct run *r, const char *text, double seconds);
/* What it has said so far, to be freed. */
char *run_text(int fd);
void run_close(struct run *r);
/* icp-bpf with these arguments (NULL at the end), to its end; the exit status. */
int icp(struct run *r, const struct run_how *how, ...) __attribute__((sentinel));

/* --- what can be seen of a process --- */
char *file_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Number in /proc/PID/status; -1 when there is none. */
long status_number(pid_t pid, const char *key);
/* What address sanitizer keeps of what a program freed, at most. */
#ifdef __SANITIZE_ADDRESS__
#define KEPT_KB 262144
#else
#define KEPT_KB 0
#endif
/* One line per open descriptor: its number and what it is. To be freed. */
char *list_fds(pid_t pid);

/* All of it that icp-bpf must leave as it was. To be freed. */
struct outside {
	char *fds, *maps;
};
void outside_look(struct outside *o, pid_t pid);
void outside_free(struct outside *o);
/* Untraced, no thread stopped, the same descriptors and (unless NULL) maps as in @before, no
 * mapping with uffd marks. */
void assert_untouched(pid_t pid, const struct outside *before, bool same_maps);

/* Be the parent of what icp-bpf leaves behind, so it can be seen: call once. */
void adopt_orphans(void);
/* All orphans end by themselves within @seconds; @keep (0-terminated) are our own children. */
void assert_no_orphans(const pid_t *keep, double seconds);

/* For limits of waiting: seconds last patience() times as long in a guest, which is emulated. */
double seconds_now(void);
int patience(void);
void nap_ms(double ms);

#endif
