/* SPDX-License-Identifier: GPL-2.0 */
/* Something to draw rectangles and text on: an SVG file, or the pixels of a PNG file. Colours are 0xrrggbb, (0, 0) is at the top left. */
#ifndef ICP_OBS_CANVAS_H
#define ICP_OBS_CANVAS_H

#include <stdint.h>

#include "base/err.h"

struct canvas;

enum canvas_anchor { CANVAS_LEFT, CANVAS_MIDDLE, CANVAS_RIGHT };

/*
 * A picture that will be @path, by the ending of its name: .svg or .png. White. Nothing appears there before canvas_close(). -EINVAL:
 * another ending.
 */
int canvas_open(const char *path, double width, double height, struct canvas **out) _must_use_;
/* Write the file, and free @c. With @failed: only that. */
int canvas_close(struct canvas *c, int failed) _must_use_;

void canvas_rect(struct canvas *c, double x, double y, double width, double height,
		 uint32_t colour);
/* @y: of the base line. About 6.7 wide and 11 high a character. Any bytes: what can't be shown becomes '?'. */
void canvas_text(struct canvas *c, double x, double y, enum canvas_anchor anchor,
		 uint32_t colour, const char *text);
/* What is drawn up to canvas_end() shows @title when pointed at, where the format can do that. */
void canvas_group(struct canvas *c, const char *title);
void canvas_end(struct canvas *c);

/* @text with what XML wants escaped, and nothing that it forbids; to be freed. NULL: no memory. */
char *canvas_escape(const char *text);

#endif
