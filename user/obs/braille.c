// SPDX-License-Identifier: GPL-2.0
#include "obs/braille.h"

#include <stdint.h>

/* How many of @steps a value fills; something is never nothing. */
static unsigned height_of(double value, double most, unsigned steps)
{
	double part = most > 0 ? value / most * steps : 0;

	if (!(value > 0) || most <= 0)
		return 0;
	return part >= steps ? steps : part < 1 ? 1 : (unsigned)(part + 0.5);
}

/* The one that is @back from the newest; 0 before the first. */
static double value_at(const double *values, size_t n, size_t back)
{
	return back < n ? values[n - 1 - back] : 0;
}

/* Dots of the left and of the right half of a cell, filled from below. */
static uint32_t cell(unsigned left, unsigned right)
{
	static const uint8_t left_dots[] = {0, 0x40, 0x44, 0x46, 0x47};
	static const uint8_t right_dots[] = {0, 0x80, 0xa0, 0xb0, 0xb8};

	return 0x2800u + left_dots[left] + right_dots[right];
}

static unsigned within(unsigned height, unsigned below)
{
	return height <= below ? 0 : height - below > 4 ? 4 : height - below;
}

void braille_row(const double *values, size_t n, double most, unsigned rows, unsigned columns,
		 unsigned row, bool utf8, char *out)
{
	unsigned below = (rows - 1 - row) * 4, steps = rows * 4;

	for (unsigned i = 0; i < columns; i++) {
		size_t back = utf8 ? (size_t)(columns - 1 - i) * 2 : columns - 1 - i;
		unsigned right = height_of(value_at(values, n, back), most, steps);
		unsigned left = height_of(value_at(values, n, back + 1), most, steps);
		uint32_t c = cell(within(left, below), within(right, below));

		if (!utf8) {
			*out++ = " .:|#"[within(right, below)];
			continue;
		}
		*out++ = (char)(0xe0 | c >> 12);
		*out++ = (char)(0x80 | (c >> 6 & 0x3f));
		*out++ = (char)(0x80 | (c & 0x3f));
	}
	*out = 0;
}
