/* SPDX-License-Identifier: GPL-2.0 */
/* What a recording says, as text and as CSV. */
#ifndef ICP_OBS_REPORT_TEXT_H
#define ICP_OBS_REPORT_TEXT_H

#include <stdio.h>

#include "obs/report.h"

/* @pid 0: all processes; @top: lines of areas and of writers. */
void report_print(const struct report *r, pid_t pid, size_t top, FILE *out);
/* A line per take. */
void report_csv(const struct report *r, pid_t pid, FILE *out);

#endif
