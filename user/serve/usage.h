/* SPDX-License-Identifier: GPL-2.0 */
#ifndef ICP_SERVE_USAGE_H
#define ICP_SERVE_USAGE_H

#include <stdint.h>

/* What this process and its children (the warden) use: processor time so far, memory now. */
void usage_read(double *cpu_s, uint64_t *rss_bytes);

#endif
