/* SPDX-License-Identifier: GPL-2.0 */
/* Messages to people, on stderr; data goes to stdout. Levels: note() always, debug() with ICP_DEBUG set. */
#ifndef ICP_BASE_LOG_H
#define ICP_BASE_LOG_H

void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
