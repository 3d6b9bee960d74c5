// SPDX-License-Identifier: GPL-2.0
/* Control files. The checks are made right first, or nothing behind them would ever be reached.
 */
#include <xxhash.h>

#include "image/ctl.h"
#include "image/pages.h"
#include "seed.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct ctl_image image;
	struct ctl *c;

	if (ctl_new(42, 4096, &c))
		abort();
	for (unsigned i = 0; i < 40; i++) {
		struct ctl_entry e = {
			.version = 1, .stream = 42, .slot = i, .hash = {i + 1, i}};

		e.flags = i % 7 == 3 ? CTL_ZERO : 0;
		if (ctl_set(c, i * 3 / 2 + (i > 20 ? 0x7ffff7000 : 0x400), &e))
			abort();
	}
	if (ctl_encode(c, 1, true, &image))
		abort();
	seed_write("full", image.data, image.size);
	ctl_clean(c, 1, &image);
	ctl_image_free(&image);
	if (ctl_remove(c, 0x404, 5) ||
	    ctl_set(c, 9, &(struct ctl_entry){.version = 2, .hash = {1, 1}}) ||
	    ctl_encode(c, 2, false, &image))
		abort();
	seed_write("delta", image.data, image.size);
	ctl_image_free(&image);
	ctl_free(c);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ctl_image image, again;
	struct icp_ctl_header *h;
	struct ctl_run run = {0};
	uint8_t *copy = malloc(size + 1);
	struct ctl *c;

	memcpy(copy, data, size);
	if (size >= sizeof(*h)) {
		h = (void *)copy;
		h->payload = page_hash(h + 1, size - sizeof(*h));
		h->check = XXH3_64bits(h, offsetof(struct icp_ctl_header, check));
	}
	if (ctl_parse(copy, size, &image))
		return 0;
	if (image.header->kind == ICP_CTL_FULL &&
	    !ctl_new(image.header->stream, image.header->page_size, &c)) {
		if (!ctl_apply(c, &image, 16 << 20)) {
			while (ctl_next_run(c, run.page + run.n, 1000, &run)) {
				if (!ctl_find(c, run.page, CTL_DIRECT))
					abort();
			}
			/* what was read can be written, and says the same */
			if (image.header->version < UINT32_MAX &&
			    !ctl_encode(c, image.header->version + 1, true, &again)) {
				if (again.header->pages != image.header->pages)
					abort();
				ctl_image_free(&again);
			}
		}
		ctl_free(c);
	}
	ctl_image_free(&image);
	return 0;
}
