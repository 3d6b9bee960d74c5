/* SPDX-License-Identifier: GPL-2.0 */
/* The page's files, built into the binary: scripts/embed-web makes the list of user/serve/web. */
#ifndef ICP_SERVE_ASSETS_H
#define ICP_SERVE_ASSETS_H

#include <stddef.h>

struct asset {
	const char *path, *type;   /* "/app.js", "text/javascript; charset=utf-8" */
	const char *etag;	   /* of its content, with quotes */
	const unsigned char *data; /* as it is */
	size_t len;
	const unsigned char *gz; /* packed by gzip */
	size_t gz_len;
};

extern const struct asset asset_list[];
extern const size_t asset_count;

/* The file at @path ("/" is the page itself), or NULL. */
const struct asset *asset_find(const char *path);

#endif
