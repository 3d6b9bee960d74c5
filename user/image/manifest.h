/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The manifest. It is built and read as the generated structs of manifest.proto (prefix Icp__);
 * read here means checked: after manifest_parse() every string is valid UTF-8 or empty, ids are
 * unique and in range, VMAs are sorted, page-aligned and do not overlap, the list of files
 * matches the processes and segments, hashes have their size.
 */
#ifndef ICP_IMAGE_MANIFEST_H
#define ICP_IMAGE_MANIFEST_H

#include "base/err.h"
#include "image/format.h"
#include "image/manifest.pb-c.h"

#define MANIFEST_MAX (64u << 20) /* bytes */

/* Parse and check @size bytes; -EBADMSG with a message. Freed by manifest_free(). */
int manifest_parse(const void *data, size_t size, Icp__Manifest **out) _must_use_;
void manifest_free(Icp__Manifest *m);
/* The checks alone. A manifest that is about to be written must pass them too. */
int manifest_check(const Icp__Manifest *m) _must_use_;
/* Encode into a new buffer that the caller frees. */
int manifest_pack(const Icp__Manifest *m, void **data, size_t *size) _must_use_;
/* Its file of @kind and @stream, or NULL. */
const Icp__File *manifest_file(const Icp__Manifest *m, enum icp_file_kind kind,
			       uint32_t stream);

static inline void cleanup_manifest(Icp__Manifest **m)
{
	manifest_free(*m);
}
#define _cleanup_manifest_ _cleanup_(cleanup_manifest)

#endif
