/* SPDX-License-Identifier: GPL-2.0 */
/* For people: in which file, and where in it, the bytes of a page lie. */
#ifndef ICP_IMAGE_PLACE_H
#define ICP_IMAGE_PLACE_H

#include "image/repo.h"

struct place {
	char file[96];	      /* below the directory of the repository */
	enum icp_codec codec; /* of the bytes there */
	uint64_t offset;      /* of the page, or of the compressed chunk that holds it */
	uint64_t size;	      /* of the page or of that chunk, as stored */
	uint64_t inside;      /* of the page in the chunk once that is decompressed; else 0 */
};

/* Keeps the file of the last answer open: runs of one file come in a row. */
struct places;
int places_open(struct repo *r, struct places **out) _must_use_;
void places_close(struct places *p);
/* Where the page of @e is, which must have data. -EBADMSG with a message when its file is damaged
 * or missing. */
int places_find(struct places *p, const struct ctl_entry *e, uint32_t page_size,
		struct place *out) _must_use_;

static inline void cleanup_places(struct places **p)
{
	places_close(*p);
}
#define _cleanup_places_ _cleanup_(cleanup_places)

/* The name of a file of a visible version. */
void place_name(enum icp_file_kind kind, uint32_t version, uint32_t stream, char out[96]);

#endif
