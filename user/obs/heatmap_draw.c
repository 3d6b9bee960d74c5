// SPDX-License-Identifier: GPL-2.0
/* The heatmap as a picture. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "obs/canvas.h"
#include "obs/heatmap.h"
#include "obs/view.h"

#define LEFT 270.0 /* the names are left of it */
#define TOP 56.0
#define RIGHT 20.0
#define BOTTOM 34.0
#define PLOT_WIDTH 900.0
#define PLOT_HEIGHT 620.0
#define ROW_MAX 14.0
#define LABEL_GAP 13.0 /* labels must not overlap */
#define NAMES_MAX 60
#define NAME_CHARS 26
#define LEVELS 16

/* From pale yellow to dark violet; equal steps look equally far apart, in grey as well. */
static uint32_t colour_of(unsigned level)
{
	static const uint8_t stops[][3] = {{252, 243, 196}, {251, 196, 119}, {243, 127, 88},
					   {205, 63, 97},   {136, 34, 106},  {59, 15, 90}};
	double at = (double)level / LEVELS * 5;
	unsigned i = at >= 5 ? 4 : (unsigned)at;
	uint32_t out = 0;

	for (unsigned part = 0; part < 3; part++)
		out = out << 8 |
		      (uint32_t)lround(stops[i][part] + (at - i) * (stops[i + 1][part] -
								    (double)stops[i][part]));
	return out;
}

/* Cells of the same colour side by side are one rectangle. */
static void draw_row(const struct heatmap *h, size_t row, double y, double height,
		     struct canvas *c)
{
	const struct heat_row *r = &h->rows.data[row];
	const float *cells = &h->cells[row * h->columns];
	double width = PLOT_WIDTH / h->columns;
	char title[512];

	snprintf(title, sizeof(title), "%s %" PRIx64 "-%" PRIx64, r->name, r->start, r->end);
	canvas_group(c, title);
	canvas_rect(c, LEFT, y, PLOT_WIDTH, height, 0xf1f1f1);
	for (unsigned from = 0, to; from < h->columns; from = to) {
		unsigned level = heat_level(cells[from], LEVELS);

		for (to = from + 1; to < h->columns && heat_level(cells[to], LEVELS) == level;)
			to++;
		if (level)
			canvas_rect(c, LEFT + from * width, y, (to - from) * width, height,
				    colour_of(level));
	}
	canvas_end(c);
}

static void draw_label(const struct heat_row *r, double y, struct canvas *c)
{
	const char *name = r->name;
	size_t len = strlen(name);
	char text[128];

	if (len > NAME_CHARS)
		snprintf(text, sizeof(text), "..%s %012" PRIx64, name + len - (NAME_CHARS - 2),
			 r->start);
	else
		snprintf(text, sizeof(text), "%s %012" PRIx64, name, r->start);
	canvas_text(c, LEFT - 6, y + 9, CANVAS_RIGHT, 0x303030, text);
}

static double next_name(const struct heatmap *h, size_t row, const double *y)
{
	for (row++; row < h->rows.n && !h->rows.data[row].begins;)
		row++;
	return y[row];
}

/* A label where a name begins, and addresses in between where there is room. */
static void draw_labels(const struct heatmap *h, const double *y, struct canvas *c)
{
	double last = 0;

	for (size_t row = 0; row < h->rows.n; row++) {
		const struct heat_row *r = &h->rows.data[row];
		char text[32];

		if (r->begins && y[row] - last >= LABEL_GAP - 1) {
			draw_label(r, y[row], c);
			last = y[row];
		} else if (!r->begins && y[row] - last >= 3 * LABEL_GAP &&
			   next_name(h, row, y) - y[row] >= 2 * LABEL_GAP) {
			snprintf(text, sizeof(text), "%012" PRIx64, r->start);
			canvas_text(c, LEFT - 6, y[row] + 9, CANVAS_RIGHT, 0x909090, text);
			last = y[row];
		}
	}
}

static void draw_rows(const struct heatmap *h, const double *y, struct canvas *c)
{
	for (size_t row = 0; row < h->rows.n; row++)
		draw_row(h, row, y[row], y[row + 1] - y[row], c);
	/* a line where a name begins, over the rows */
	for (size_t row = 1; row < h->rows.n; row++)
		if (h->rows.data[row].begins)
			canvas_rect(c, LEFT - 4, y[row] - 0.25, PLOT_WIDTH + 4, 0.5, 0xa0a0a0);
	draw_labels(h, y, c);
}

/* Where each row begins, and the last one ends: what has a name of its own is high enough to show it, unless there are too many. */
static double *place_rows(const struct heatmap *h)
{
	double *y = calloc(h->rows.n + 1, sizeof(*y)), at = TOP, height;
	size_t names = 0;

	vec_each (r, &h->rows)
		names += r->begins;
	height = h->rows.n ? PLOT_HEIGHT / (double)h->rows.n : ROW_MAX;
	height = height > ROW_MAX ? ROW_MAX : height;
	for (size_t row = 0, end; y && row < h->rows.n; row = end) {
		double each = height;

		for (end = row + 1; end < h->rows.n && !h->rows.data[end].begins;)
			end++;
		if (names <= NAMES_MAX && (double)(end - row) * height < LABEL_GAP)
			each = LABEL_GAP / (double)(end - row);
		for (size_t i = row; i < end; i++, at += each)
			y[i] = at;
	}
	if (y)
		y[h->rows.n] = at;
	return y;
}

/* 1, 2 or 5 times a power of ten: some eight of them. */
static double tick_step(double seconds)
{
	double step = pow(10, floor(log10(seconds / 8)));

	return seconds / step > 40 ? step * 5 : seconds / step > 16 ? step * 2 : step;
}

static void draw_time(const struct heatmap *h, double bottom, struct canvas *c)
{
	double seconds = (double)(h->span_us ? h->span_us : 1) / 1e6;
	double step = tick_step(seconds);

	for (unsigned i = 0; i * step <= seconds * 1.0001; i++) {
		double t = i * step;
		double x = LEFT + t / seconds * PLOT_WIDTH;
		char text[32];

		snprintf(text, sizeof(text), "%g s", t);
		canvas_rect(c, x - 0.5, bottom, 1, 4, 0x606060);
		canvas_text(c, x, bottom + 16, CANVAS_MIDDLE, 0x303030, text);
	}
}

static void draw_legend(const struct heatmap *h, struct canvas *c)
{
	double x = LEFT + PLOT_WIDTH - LEVELS * 10;
	char text[128];

	snprintf(text, sizeof(text),
		 "a row is up to %s of memory; share of its pages written in an interval: 0",
		 human_bytes((double)h->bin, (char[16]){0}));
	canvas_text(c, x - 6, 43, CANVAS_RIGHT, 0x606060, text);
	for (unsigned level = 1; level <= LEVELS; level++)
		canvas_rect(c, x + (level - 1) * 10, 34, 10, 10, colour_of(level));
	canvas_text(c, LEFT + PLOT_WIDTH + 14, 43, CANVAS_RIGHT, 0x606060, "1");
}

int heatmap_picture(const struct heatmap *h, const char *path, const char *title)
{
	_cleanup_free_ double *y = place_rows(h);
	struct canvas *c;
	int err = y ? 0 : fail(-ENOMEM, "heatmap");

	if (!err)
		err = canvas_open(path, LEFT + PLOT_WIDTH + RIGHT,
				  BOTTOM + (h->rows.n ? y[h->rows.n] : TOP), &c);
	if (err)
		return err;
	canvas_text(c, 12, 20, CANVAS_LEFT, 0x101010, title);
	if (h->cells) {
		draw_legend(h, c);
		draw_rows(h, y, c);
		draw_time(h, y[h->rows.n], c);
	} else {
		canvas_text(c, 12, 40, CANVAS_LEFT, 0x606060, "nothing was written");
	}
	return canvas_close(c, 0);
}
