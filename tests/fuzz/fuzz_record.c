// SPDX-License-Identifier: GPL-2.0
/* The small records: decision, dropped, keep, repository; and the names that are parsed. */
#include "image/names.h"
#include "seed.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct {
		struct icp_keep head;
		struct icp_keep_file file[2];
	} keep = {.head = {.format = ICP_FORMAT, .version = 3, .generation = 1, .count = 2}};
	struct icp_decision d;
	struct icp_repo r;

	decision_make(&d, ICP_COMMITTED, 3, 2);
	decision_seal(&d);
	seed_write("decision", &d, sizeof(d));
	repo_record_make(&r);
	seed_write("repository", &r, sizeof(r));
	memcpy(keep.head.magic, ICP_MAGIC_KEEP, 8);
	keep.file[0].kind = ICP_FILE_PAGES;
	keep.file[1].kind = ICP_FILE_CTL;
	seed_write("keep", &keep, sizeof(keep));
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size + 1);
	struct keep_list keep = {0};
	struct icp_decision d;
	struct icp_keep head;
	struct icp_repo r;

	memcpy(copy, data, size);
	copy[size] = 0;
	if (size == sizeof(d)) { /* both have 64 bytes with the check at the end */
		uint64_t check = record_check(copy, sizeof(d) - 8);

		memcpy(copy + sizeof(d) - 8, &check, 8);
		if (!decision_parse(copy, size, 3, &d) && (d.version != 3 || d.parent >= 3))
			abort();
		if (!repo_record_parse(copy, size, &r) && r.format != ICP_FORMAT)
			abort();
	}
	if (size >= sizeof(head)) {
		memcpy(&head, copy, sizeof(head));
		head.check = record_check(&head, offsetof(struct icp_keep, check)) ^
			     record_check(copy + sizeof(head), size - sizeof(head));
		memcpy(copy, &head, sizeof(head));
	}
	if (!keep_parse(copy, size, 3, &keep) && keep.n * sizeof(*keep.data) > size)
		abort();
	vec_free(&keep);
	if (name_parse_version((char *)copy) && strlen((char *)copy) < 6)
		abort();
	name_parse_keep((char *)copy);
	free(copy);
	return 0;
}
