// SPDX-License-Identifier: GPL-2.0
#include "obs/canvas.h"

#include <errno.h>
#include <png.h>
#include <stdbool.h>
#include <string.h>

#include "obs/font.h"

#define PNG_SCALE 2 /* pixels per unit: text stays readable */
#define SIZE_MAX_PX 16384.0

struct canvas {
	char *path;
	double width, height;
	FILE *svg; /* into text */
	char *text;
	size_t len;
	uint8_t *pixels; /* PNG: 3 bytes each */
	uint32_t columns, rows;
};

/* ---- SVG ---- */

/* Length of the UTF-8 character at @s that XML 1.0 allows; 0: none. */
static size_t xml_char(const char *s)
{
	const uint8_t *b = (const uint8_t *)s;
	uint32_t c;

	if (b[0] < 0x80)
		return b[0] >= 0x20 && b[0] != 0x7f ? 1 : 0;
	if (b[0] >= 0xc2 && b[0] < 0xe0 && (b[1] & 0xc0) == 0x80)
		return b[0] == 0xc2 && b[1] < 0xa0 ? 0 : 2; /* control characters */
	if (b[0] >= 0xe0 && b[0] < 0xf0 && (b[1] & 0xc0) == 0x80 && (b[2] & 0xc0) == 0x80) {
		c = (b[0] & 15u) << 12 | (b[1] & 63u) << 6 | (b[2] & 63u);
		return c >= 0x800 && (c < 0xd800 || c > 0xdfff) && c < 0xfffe ? 3 : 0;
	}
	if (b[0] >= 0xf0 && b[0] < 0xf5 && (b[1] & 0xc0) == 0x80 && (b[2] & 0xc0) == 0x80 &&
	    (b[3] & 0xc0) == 0x80) {
		c = (b[0] & 7u) << 18 | (b[1] & 63u) << 12 | (b[2] & 63u) << 6 | (b[3] & 63u);
		return c >= 0x10000 && c < 0x110000 && (c & 0xfffe) != 0xfffe ? 4 : 0;
	}
	return 0;
}

static const char *entity(char c)
{
	switch (c) {
	case '&':
		return "&amp;";
	case '<':
		return "&lt;";
	case '>':
		return "&gt;";
	case '"':
		return "&quot;";
	case '\'':
		return "&apos;";
	default:
		return NULL;
	}
}

char *canvas_escape(const char *text)
{
	char *out = malloc(6 * strlen(text) + 1), *at = out;

	while (out && *text) {
		size_t len = xml_char(text);
		const char *as = len ? entity(*text) : "?";

		if (as)
			at = stpcpy(at, as);
		else
			at = mempcpy(at, text, len);
		text += len ? len : 1;
	}
	if (out)
		*at = 0;
	return out;
}

static void svg_escaped(struct canvas *c, const char *text)
{
	_cleanup_free_ char *safe = canvas_escape(text);

	fputs(safe ? safe : "?", c->svg);
}

static int svg_begin(struct canvas *c)
{
	c->svg = open_memstream(&c->text, &c->len);
	if (!c->svg)
		return fail(-ENOMEM, "picture");
	fprintf(c->svg,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
		"viewBox=\"0 0 %.0f %.0f\" font-family=\"DejaVu Sans Mono, monospace\" "
		"font-size=\"11\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
		c->width, c->height, c->width, c->height);
	return 0;
}

static int svg_write(struct canvas *c)
{
	FILE *file;
	int err = 0;

	fputs("</svg>\n", c->svg);
	if (fclose(take_ptr(c->svg)))
		return fail(-ENOMEM, "picture");
	file = fopen(c->path, "we");
	if (!file)
		return fail(-errno, "write %s", c->path);
	if (fwrite(c->text, 1, c->len, file) != c->len)
		err = -EIO;
	if (fclose(file))
		err = errno ? -errno : -EIO;
	return err ? fail(err, "write %s", c->path) : 0;
}

/* ---- PNG ---- */

static int pixels_begin(struct canvas *c)
{
	c->columns = (uint32_t)(c->width * PNG_SCALE);
	c->rows = (uint32_t)(c->height * PNG_SCALE);
	c->pixels = malloc((size_t)c->columns * c->rows * 3);
	if (!c->pixels)
		return fail(-ENOMEM, "picture");
	memset(c->pixels, 0xff, (size_t)c->columns * c->rows * 3);
	return 0;
}

static int64_t bounded(double v, uint32_t limit)
{
	return v < 0 ? 0 : v > limit ? limit : (int64_t)v;
}

static void pixel_fill(struct canvas *c, double x, double y, double width, double height,
		       uint32_t colour)
{
	int64_t left = bounded(x + 0.5, c->columns), top = bounded(y + 0.5, c->rows);
	int64_t right = bounded(x + width + 0.5, c->columns);
	int64_t bottom = bounded(y + height + 0.5, c->rows);

	for (int64_t row = top; row < bottom; row++) {
		uint8_t *p = c->pixels + ((size_t)row * c->columns + (size_t)left) * 3;

		for (int64_t column = left; column < right; column++) {
			*p++ = (uint8_t)(colour >> 16);
			*p++ = (uint8_t)(colour >> 8);
			*p++ = (uint8_t)colour;
		}
	}
}

/* A character is 6 x 11 units wide with what is between them. */
static void pixel_text(struct canvas *c, double x, double y, uint32_t colour, const char *text)
{
	for (; *text; x += FONT_ADVANCE * PNG_SCALE) {
		size_t len = xml_char(text);
		const uint8_t *glyph = font_glyph(len == 1 ? *text : '?');

		for (unsigned column = 0; column < FONT_WIDTH; column++)
			for (unsigned row = 0; row < FONT_HEIGHT; row++)
				if (glyph[column] & 1u << row)
					pixel_fill(c, x + column * PNG_SCALE,
						   y + ((double)row - FONT_BASE) * PNG_SCALE,
						   PNG_SCALE, PNG_SCALE, colour);
		text += len ? len : 1;
	}
}

static int pixels_write(struct canvas *c)
{
	png_image image = {.version = PNG_IMAGE_VERSION,
			   .width = c->columns,
			   .height = c->rows,
			   .format = PNG_FORMAT_RGB};
	FILE *file = fopen(c->path, "we");
	int err = 0;

	if (!file)
		return fail(-errno, "write %s", c->path);
	errno = 0;
	if (!png_image_write_to_stdio(&image, file, 0, c->pixels, 0, NULL))
		err = errno ? -errno : -EIO;
	if (fclose(file) && !err)
		err = errno ? -errno : -EIO;
	return err ? fail(err, "write %s", c->path) : 0;
}

/* ---- both ---- */

static bool ends_in(const char *text, const char *end)
{
	size_t len = strlen(text), n = strlen(end);

	return len > n && !strcasecmp(text + len - n, end);
}

int canvas_open(const char *path, double width, double height, struct canvas **out)
{
	bool png = ends_in(path, ".png");
	struct canvas *c;
	int err;

	if (!png && !ends_in(path, ".svg"))
		return refuse(-EINVAL, "%s: a picture's name ends in .svg or .png", path);
	if (width > SIZE_MAX_PX || height > SIZE_MAX_PX)
		return refuse(-EFBIG, "%s: the picture would be %.0f x %.0f", path, width,
			      height);
	c = calloc(1, sizeof(*c));
	if (!c)
		return fail(-ENOMEM, "picture");
	c->width = width;
	c->height = height;
	c->path = strdup(path);
	err = !c->path ? fail(-ENOMEM, "picture") : png ? pixels_begin(c) : svg_begin(c);
	if (err)
		return canvas_close(c, err);
	*out = c;
	return 0;
}

int canvas_close(struct canvas *c, int failed)
{
	int err = failed;

	if (!err)
		err = c->svg ? svg_write(c) : pixels_write(c);
	if (c->svg)
		fclose(c->svg);
	free(c->text);
	free(c->pixels);
	free(c->path);
	free(c);
	return err;
}

void canvas_rect(struct canvas *c, double x, double y, double width, double height,
		 uint32_t colour)
{
	if (c->svg)
		fprintf(c->svg,
			"<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" "
			"fill=\"#%06x\"/>\n",
			x, y, width, height, colour);
	else
		pixel_fill(c, x * PNG_SCALE, y * PNG_SCALE, width * PNG_SCALE,
			   height * PNG_SCALE, colour);
}

/* Characters, not bytes. */
static size_t length_of(const char *text)
{
	size_t n = 0;

	while (*text) {
		size_t len = xml_char(text);

		text += len ? len : 1;
		n++;
	}
	return n;
}

void canvas_text(struct canvas *c, double x, double y, enum canvas_anchor anchor,
		 uint32_t colour, const char *text)
{
	static const char *const anchors[] = {"start", "middle", "end"};
	double width = (double)length_of(text) * FONT_ADVANCE;

	if (c->svg) {
		fprintf(c->svg,
			"<text x=\"%.2f\" y=\"%.2f\" text-anchor=\"%s\" fill=\"#%06x\" "
			"xml:space=\"preserve\">",
			x, y, anchors[anchor], colour);
		svg_escaped(c, text);
		fputs("</text>\n", c->svg);
		return;
	}
	x -= anchor == CANVAS_MIDDLE ? width / 2 : anchor == CANVAS_RIGHT ? width : 0;
	pixel_text(c, x * PNG_SCALE, y * PNG_SCALE, colour, text);
}

void canvas_group(struct canvas *c, const char *title)
{
	if (!c->svg)
		return;
	fputs("<g><title>", c->svg);
	svg_escaped(c, title);
	fputs("</title>\n", c->svg);
}

void canvas_end(struct canvas *c)
{
	if (c->svg)
		fputs("</g>\n", c->svg);
}
