// SPDX-License-Identifier: GPL-2.0
/* Recordings. Inputs are what a block holds, unpacked: the sums and sizes around it are put right, or nothing else would be reached. */
#include "obs/rec.h"

#include <zstd.h>

#include "obs/rec_format.h"
#include "seed.h"

static void fill(struct rec_writer *w)
{
	struct rec_vma vmas[3] = {{.start = 0x1000, .end = 0x5000, .name = "a"},
				  {.start = 0x7000, .end = 0x9000, .name = "[heap]"},
				  {.start = 0x9000, .end = 0xa000, .name = ""}};
	struct rec_run runs[2] = {{0x1000, 0x3000, REC_WRITTEN}, {0x8000, 0x9000, REC_NEW}};
	struct rec_take take = {
		.time_us = 200, .interval_us = 100, .faults = 3, .runs = runs, .n = 2};
	const char *stack[2] = {"f", "main"};
	struct rec_fault f = {.time_us = 150, .addr = 0x1008};
	uint32_t process;

	if (rec_add_process(w, 7, "x", &process) || rec_put_maps(w, process, vmas, 3) ||
	    rec_add_thread(w, process, 7, "x", &f.thread) ||
	    rec_add_site(w, process, 0x4000, "f", &f.site) || rec_put_fault(w, &f) ||
	    rec_put_take(w, &take) || rec_put_stack(w, 210, f.thread, stack, 2, 3) ||
	    rec_put_maps(w, process, vmas + 1, 2) ||
	    rec_put_event(w, 220, process, REC_EXIT, 0) || rec_finish(w, 300, "end"))
		abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct rec_start start = {.page_size = 4096, .tracker = "uffd"};
	char path[64], data[4096], raw[4096];
	struct rec_writer *w;
	struct rec_block b;
	FILE *f;

	if (!getenv("FUZZ_SEED_DIR"))
		return 0;
	snprintf(path, sizeof(path), "/tmp/icp-fuzz-%d", getpid());
	if (rec_create(path, &start, &w))
		abort();
	fill(w);
	f = fopen(path, "r");
	if (!f || fseek(f, sizeof(struct rec_header), SEEK_SET) ||
	    fread(&b, sizeof(b), 1, f) != 1 || b.stored > sizeof(data) || b.raw > sizeof(raw) ||
	    fread(data, b.stored, 1, f) != 1)
		abort();
	if (!b.codec)
		memcpy(raw, data, b.raw);
	else if (ZSTD_decompress(raw, b.raw, data, b.stored) != b.raw)
		abort();
	seed_write("recording", raw, b.raw);
	fclose(f);
	unlink(path);
	return 0;
}

/* Whatever comes out must be usable, and is used. */
static void read_all(FILE *file)
{
	struct rec_reader *r;
	struct rec_item item;
	uint64_t sum = 0;

	if (rec_open_file(file, &r)) {
		fclose(file);
		return;
	}
	while (rec_next(r, &item) == 1) {
		if (item.kind == REC_FAULT)
			sum += strlen(rec_thread_of(r, item.thread)->comm) +
			       strlen(rec_site_of(r, item.site)->function);
		if (item.kind == REC_STACKED)
			sum += rec_stack_of(r, item.stack)->n;
		if (item.kind == REC_TAKE)
			for (size_t i = 0; i < item.take.n; i++)
				if (item.take.runs[i].start >= item.take.runs[i].end)
					abort();
		if (item.kind != REC_END && item.process >= rec_processes(r))
			abort();
	}
	rec_close(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rec_header h = {.format = REC_FORMAT, .page_size = 4096};
	struct rec_block b = {
		.magic = REC_BLOCK_MAGIC, .raw = (uint32_t)size, .stored = (uint32_t)size};
	uint8_t *file = malloc(sizeof(h) + sizeof(b) + size);

	/* as it is, too: headers */
	if (size)
		read_all(fmemopen((void *)data, size, "r"));
	memcpy(h.magic, REC_MAGIC, sizeof(h.magic));
	h.check = rec_header_check(&h);
	b.check = rec_block_check(&b, data, 0);
	memcpy(file, &h, sizeof(h));
	memcpy(file + sizeof(h), &b, sizeof(b));
	memcpy(file + sizeof(h) + sizeof(b), data, size);
	read_all(fmemopen(file, sizeof(h) + sizeof(b) + size, "r"));
	free(file);
	return 0;
}
