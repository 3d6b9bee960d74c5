// SPDX-License-Identifier: GPL-2.0
/* The file is untrusted input: every number is checked before it is used. */
#include "obs/rec_read.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <zstd.h>

/* Nothing from here on can be used. */
static int damaged(struct rec_reader *r, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static int damaged(struct rec_reader *r, const char *fmt, ...)
{
	int used = snprintf(r->damage, sizeof(r->damage),
			    "block %lu (byte %lu): ", (unsigned long)r->blocks,
			    (unsigned long)r->offset);
	va_list args;

	va_start(args, fmt);
	vsnprintf(r->damage + used, sizeof(r->damage) - (size_t)used, fmt, args);
	va_end(args);
	r->over = true;
	return 0;
}

/* ---- blocks ---- */

static int unpack(struct rec_reader *r, const struct rec_block *b)
{
	size_t len;

	if (vec_reserve(&r->raw, b->raw + 1u))
		return -ENOMEM;
	r->at = 0;
	r->raw.n = b->raw;
	if (!b->codec) {
		memcpy(r->raw.data, r->stored.data, b->raw);
		return 1;
	}
	len = ZSTD_decompress(r->raw.data, b->raw, r->stored.data, b->stored);
	return len == b->raw ? 1 : damaged(r, "does not unpack");
}

static bool plausible(const struct rec_block *b)
{
	return b->magic == REC_BLOCK_MAGIC && b->raw && b->raw <= REC_RAW_MAX && b->stored &&
	       b->codec <= 1 && (b->codec ? b->stored < b->raw : b->stored == b->raw);
}

/* 1: there is one, 0: none any more. */
static int next_block(struct rec_reader *r)
{
	struct rec_block b;
	size_t got = fread(&b, 1, sizeof(b), r->file);
	int err;

	if (!got && !ferror(r->file)) {
		if (!r->ended)
			return damaged(r, "the recording was cut off here");
		r->over = true;
		return 0;
	}
	if (r->ended)
		return damaged(r, "something follows after the end");
	if (got < sizeof(b))
		return damaged(r, "cut off");
	if (!plausible(&b))
		return damaged(r, "no block begins here");
	if (vec_reserve(&r->stored, b.stored))
		return -ENOMEM;
	if (fread(r->stored.data, 1, b.stored, r->file) < b.stored)
		return damaged(r, "cut off");
	if (b.check != rec_block_check(&b, r->stored.data, r->blocks))
		return damaged(r, "its checksum is wrong");
	err = unpack(r, &b);
	if (err <= 0)
		return err;
	r->blocks++;
	r->offset += sizeof(b) + b.stored;
	r->last_time = 0;
	r->last_thread = r->last_site = UINT32_MAX;
	vec_each (a, &r->last_addr)
		*a = 0;
	return 1;
}

/* ---- the next item ---- */

int rec_next(struct rec_reader *r, struct rec_item *out)
{
	while (!r->over) {
		int got = 1;

		if (r->at == r->raw.n) {
			got = next_block(r);
			if (got <= 0)
				return got;
		}
		if (r->ended)
			return damaged(r, "something follows after the end");
		got = rec_parse(r, out);
		if (got == -EINVAL) {
			err_clear();
			return damaged(r, "a record makes no sense");
		}
		if (got)
			return got;
	}
	return 0;
}

const char *rec_damage(const struct rec_reader *r)
{
	return r->damage[0] ? r->damage : NULL;
}

/* ---- open and close ---- */

static int read_header(struct rec_reader *r)
{
	struct rec_header h;

	if (fread(&h, 1, sizeof(h), r->file) != sizeof(h) ||
	    memcmp(h.magic, REC_MAGIC, sizeof(h.magic)))
		return refuse(-EINVAL, "this is no recording of icp-bpf");
	if (h.format != REC_FORMAT)
		return refuse(-EOPNOTSUPP,
			      "the recording has format %u, this icp-bpf reads %d: take the "
			      "one that made it",
			      h.format, REC_FORMAT);
	if (h.check != rec_header_check(&h) || h.page_size < 1024 || h.page_size > 1u << 24 ||
	    h.page_size & (h.page_size - 1))
		return refuse(-EINVAL, "the header of the recording is damaged");
	r->start = (struct rec_start){
		.start_ns = h.start_ns, .interval_us = h.interval_us, .page_size = h.page_size};
	memcpy(r->start.tracker, h.tracker, sizeof(h.tracker));
	r->offset = sizeof(h);
	return 0;
}

int rec_open_file(FILE *file, struct rec_reader **out)
{
	struct rec_reader *r = calloc(1, sizeof(*r));
	int err;

	if (!r)
		return fail(-ENOMEM, "recording");
	r->file = file;
	err = read_header(r);
	if (err) {
		free(r);
		return err;
	}
	*out = r;
	return 0;
}

int rec_open(const char *path, struct rec_reader **out)
{
	FILE *file = fopen(path, "re");
	int err;

	if (!file)
		return fail(-errno, "open %s", path);
	err = rec_open_file(file, out);
	if (!err)
		return 0;
	fclose(file);
	return wrap(err, "%s", path);
}

void rec_close(struct rec_reader *r)
{
	if (!r)
		return;
	fclose(r->file);
	vec_each (s, &r->strings)
		free(*s);
	vec_each (s, &r->stacks)
		free(*s);
	vec_each (p, &r->processes)
		vec_free(&p->maps.vmas);
	vec_free(&r->strings);
	vec_free(&r->stacks);
	vec_free(&r->processes);
	vec_free(&r->threads);
	vec_free(&r->sites);
	vec_free(&r->last_addr);
	vec_free(&r->runs);
	vec_free(&r->raw);
	vec_free(&r->stored);
	free(r);
}

const struct rec_start *rec_started(const struct rec_reader *r)
{
	return &r->start;
}

size_t rec_processes(const struct rec_reader *r)
{
	return r->processes.n;
}

const struct rec_process *rec_process_of(const struct rec_reader *r, uint32_t i)
{
	return &r->processes.data[i];
}

const struct rec_thread *rec_thread_of(const struct rec_reader *r, uint32_t i)
{
	return &r->threads.data[i];
}

const struct rec_site *rec_site_of(const struct rec_reader *r, uint32_t i)
{
	return &r->sites.data[i];
}

const struct rec_stack *rec_stack_of(const struct rec_reader *r, uint32_t i)
{
	return r->stacks.data[i];
}
