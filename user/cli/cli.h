/* SPDX-License-Identifier: GPL-2.0 */
/* What the verbs share. Exit status: 0 done, 1 failed, 2 usage. */
#ifndef ICP_CLI_CLI_H
#define ICP_CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/vec.h"
#include "proc/tasks.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct verb {
	const char *name;
	int (*run)(int argc, char **argv); /* returns the exit status */
	const char *line;		   /* for the list */
	const char *help;		   /* usage, options, an example */
};

extern const struct verb verb_check, verb_trace, verb_checkpoint, verb_restart, verb_list,
	verb_show, verb_verify;
extern const struct verb verb_diff, verb_prune, verb_export, verb_shm, verb_rm, verb_serve;
extern const struct verb verb_record, verb_report, verb_top;

/* Print the message of a failure once and give the exit status for it. */
int cli_failed(int err);
/* Print "icp-bpf VERB: message; see icp-bpf help VERB" and give EXIT_USAGE. */
int cli_usage(const struct verb *verb, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* What getopt_long() said no to. */
int cli_bad_option(const struct verb *verb, char **argv);

/* "500ms", "1s", "1.5", "2m", "1h" in seconds; false when it is none or not above zero. */
bool cli_seconds(const char *text, double *out);
/* A whole number in [min, max]. */
bool cli_number(const char *text, long min, long max, long *out);

/* Which of the @n @words it is; -1 for none. */
int cli_word(const char *text, const char *const *words, int n);

/* Append the process that --pid names. 0, or the exit status (and it is said why). */
int cli_add_pid(const struct verb *verb, pid_list *pids, const char *text);

#endif
