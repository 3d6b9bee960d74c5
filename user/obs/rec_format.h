/* SPDX-License-Identifier: GPL-2.0 */
/* The bytes of a recording: docs/recording-format.md. Little endian. */
#ifndef ICP_OBS_REC_FORMAT_H
#define ICP_OBS_REC_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REC_MAGIC "icp-rec\n"
#define REC_FORMAT 1
#define REC_BLOCK_MAGIC 0x4b4c4252u /* "RBLK" */

#define REC_RAW_MAX (4u << 20)	  /* of a block, before compression */
#define REC_RAW_FULL (256u << 10) /* the writer ends a block here */
#define REC_STRING_MAX 4095u
#define REC_STACK_FRAMES 64u
#define REC_PART 32768u		 /* runs or VMAs in one record; more come in several */
#define REC_TABLE_MAX (1u << 24) /* entries of a table: a hostile file must end somewhere */

struct rec_header {
	char magic[8];
	uint32_t format;
	uint32_t page_size;
	uint64_t start_ns; /* CLOCK_REALTIME: time 0 of the records */
	uint64_t interval_us;
	char tracker[16];
	uint64_t reserved;
	uint64_t check; /* XXH3-64 of all before */
};

/* Followed by `stored` bytes. */
struct rec_block {
	uint32_t magic;
	uint32_t raw;	 /* bytes when unpacked */
	uint32_t stored; /* bytes in the file */
	uint32_t codec;	 /* 0: plain, 1: zstd */
	uint64_t
		check; /* XXH3-64 of the stored bytes; seed: that of the 16 bytes above, seed: block number */
};

_Static_assert(sizeof(struct rec_header) == 64, "rec_header");
_Static_assert(sizeof(struct rec_block) == 24, "rec_block");

enum rec_tag {
	TAG_STRING = 1, /* length, bytes: the next string */
	TAG_PROCESS, /* pid, string: the next process. execve makes a new one with the same pid */
	TAG_THREAD,  /* process, tid, string: the next thread */
	TAG_SITE,    /* process, ip, string: the next write site */
	TAG_STACK,   /* n, strings, innermost first: the next stack */
	TAG_MAPS,    /* process, at, dropped, added, VMAs */
	TAG_TAKE,    /* time, process, more, interval, faults, kernel faults, lost, n, runs */
	TAG_STACKED, /* time, thread, stack, faults */
	TAG_EVENT,   /* time, process, what, argument */
	TAG_END,     /* time, length, bytes: why it ended */
	TAG_FAULT = 0x80, /* | FAULT_*: [thread] [site] time, address */
};

#define FAULT_KERNEL 1
#define FAULT_THREAD 2 /* another one than the last fault of this block had */
#define FAULT_SITE 4
#define FAULT_KNOWN (TAG_FAULT | FAULT_KERNEL | FAULT_THREAD | FAULT_SITE)

/* At most 10 bytes. */
static inline size_t varint_put(uint8_t *out, uint64_t v)
{
	size_t n = 0;

	for (; v >= 0x80; v >>= 7)
		out[n++] = (uint8_t)(v | 0x80);
	out[n++] = (uint8_t)v;
	return n;
}

/* How many bytes it took; 0: it does not end, or is above 64 bits. */
static inline size_t varint_get(const uint8_t *in, size_t len, uint64_t *v)
{
	*v = 0;
	for (size_t i = 0; i < len && i < 10; i++) {
		if (i == 9 && in[i] > 1)
			return 0;
		*v |= (uint64_t)(in[i] & 0x7f) << (7 * i);
		if (!(in[i] & 0x80))
			return i + 1;
	}
	return 0;
}

static inline uint64_t zigzag(int64_t v)
{
	return (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0);
}

static inline int64_t unzigzag(uint64_t v)
{
	return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

uint64_t rec_header_check(const struct rec_header *h);
uint64_t rec_block_check(const struct rec_block *b, const void *stored, uint64_t number);

#endif
