/* SPDX-License-Identifier: GPL-2.0 */
/* Letters for pictures made of pixels: five columns of seven dots and a descender, printable ASCII. No font file is needed. */
#ifndef ICP_OBS_FONT_H
#define ICP_OBS_FONT_H

#include <stdint.h>

#define FONT_WIDTH 5
#define FONT_HEIGHT 8
#define FONT_BASE 7    /* dots above the base line */
#define FONT_ADVANCE 6 /* from one character to the next */

/* Bit 0 of each column is the top. What has no glyph is shown as '?'. */
const uint8_t *font_glyph(char c);

#endif
