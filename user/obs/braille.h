/* SPDX-License-Identifier: GPL-2.0 */
/* A graph of a series in characters: braille patterns (two values and four steps each), or ASCII where the terminal has no UTF-8. */
#ifndef ICP_OBS_BRAILLE_H
#define ICP_OBS_BRAILLE_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Row @row (0: the top one) of @rows of the graph of @values, the newest at the right, of @columns characters. @most: the value that
 * fills all rows. @out: 3 * columns + 1 bytes.
 */
void braille_row(const double *values, size_t n, double most, unsigned rows, unsigned columns,
		 unsigned row, bool utf8, char *out);

#endif
