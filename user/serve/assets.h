/* SPDX-License-Identifier: GPL-2.0 */
/* The page's files, built into the binary. */
#ifndef ICP_SERVE_ASSETS_H
#define ICP_SERVE_ASSETS_H

#include <stddef.h>

struct asset {
	const char *path, *type; /* "/app.js", "text/javascript; charset=utf-8" */
	const unsigned char *data;
	size_t len;
	const char *csp; /* Content-Security-Policy, NULL: the default */
};

/* The file at @path ("/" is the page itself), or NULL. */
const struct asset *asset_find(const char *path);

#endif
