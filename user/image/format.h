/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What lies on disk: fixed widths, little endian, explicit padding, a magic and a format number
 * in each file. See docs/image-format.md for pictures. Every struct ends in (or carries) a
 * check over itself, so that damage is found before a field is believed; every field is
 * range-checked by the parsers all the same, because the files may have been made by someone
 * else.
 */
#ifndef ICP_IMAGE_FORMAT_H
#define ICP_IMAGE_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the image format is little endian and is read in place"
#endif

#define ICP_FORMAT 1

#define ICP_MAGIC_REPO "ICPREPO\n"
#define ICP_MAGIC_DECISION "ICPDECI\n"
#define ICP_MAGIC_KEEP "ICPKEEP\n"
#define ICP_MAGIC_PAGES "ICPPAGE\n"
#define ICP_MAGIC_PAGES_END "ICPPEND\n"
#define ICP_MAGIC_CTL "ICPCTL\n\n"

#define ICP_PAGE_SIZE_MIN 4096u
#define ICP_PAGE_SIZE_MAX 65536u
#define ICP_CHUNK_BYTES (256u << 10) /* unit of compression, and of writing */

/*
 * A stream is one address space: a process's memory or a System V segment. Its number says
 * which: a pid, or a shmid with the top bit set. It names the files: task_mm_<pid>.<v>.bin and
 * ctl_<pid>.<v>.bin, shm_<shmid>.<v>.bin and ctl_shm_<shmid>.<v>.bin.
 */
#define ICP_STREAM_SHM 0x80000000u
/* ...or the content of a file that nothing else keeps: file_<id>.<v>.bin, ctl_file_<id>.<v>.bin.
 * Pids are below. */
#define ICP_STREAM_FILE 0x40000000u

enum icp_stream_kind { ICP_OF_PROCESS, ICP_OF_SEGMENT, ICP_OF_FILE };

static inline enum icp_stream_kind icp_stream_kind(uint32_t stream)
{
	return stream & ICP_STREAM_SHM	  ? ICP_OF_SEGMENT
	       : stream & ICP_STREAM_FILE ? ICP_OF_FILE
					  : ICP_OF_PROCESS;
}

/* The pid, shmid or id. */
static inline uint32_t icp_stream_id(uint32_t stream)
{
	return stream & ICP_STREAM_SHM ? stream & ~ICP_STREAM_SHM : stream & ~ICP_STREAM_FILE;
}

/* XXH3's 128-bit hash, as it is in memory (low half first). */
struct icp_hash {
	uint64_t lo, hi;
};

/* DIR/repository */
struct icp_repo {
	uint8_t magic[8];
	uint32_t format;
	uint32_t pad;
	uint8_t id[16];	     /* random */
	uint64_t created_ns; /* CLOCK_REALTIME */
	uint64_t pad2[2];
	uint64_t check; /* XXH3-64 of everything before */
};

enum icp_verdict {
	ICP_COMMITTED = 1,
	ICP_ABORTED = 2,
	ICP_DROPPED = 3, /* in the record `dropped`: hidden by prune */
};

/* DIR/<v>/decision and DIR/<v>/dropped */
struct icp_decision {
	uint8_t magic[8];
	uint32_t format;
	uint32_t verdict; /* enum icp_verdict */
	uint32_t version;
	uint32_t parent;	/* 0: none */
	uint64_t time_ns;	/* CLOCK_REALTIME of the decision */
	uint64_t manifest_size; /* bytes; 0 unless committed */
	struct icp_hash manifest;
	uint64_t check;
};

/* DIR/<v>/keep.<generation>: what is left of a dropped version, and why each file is still
 * there. */
struct icp_keep {
	uint8_t magic[8];
	uint32_t format;
	uint32_t version;
	uint32_t generation; /* from 1; the highest one is valid */
	uint32_t count;	     /* of struct icp_keep_file that follow */
	uint64_t pad;
	uint64_t check; /* XXH3-64 of everything before, then the entries */
};

enum icp_file_kind {
	ICP_FILE_PAGES = 1,
	ICP_FILE_CTL = 2,
};

struct icp_keep_file {
	uint32_t kind; /* enum icp_file_kind */
	uint32_t stream;
	uint32_t generation; /* 0: as it was committed */
	uint32_t pad;
	uint64_t size;
	struct icp_hash hash; /* page file: see page_file_hash(); ctl: of all bytes */
};

enum icp_codec {
	ICP_CODEC_NONE = 0,
	ICP_CODEC_ZSTD = 1,
	ICP_CODEC_LZ4 = 2,
};

/* Page file: header block (one page), slots, index, trailer at the very end. */
struct icp_page_header {
	uint8_t magic[8];
	uint32_t format;
	uint32_t page_size;
	uint32_t version;
	uint32_t stream;
	uint32_t codec;	      /* enum icp_codec; NONE: slot s is at page_size * (1 + s) */
	uint32_t chunk_pages; /* pages in every chunk but the last */
	uint32_t generation;
	uint32_t pad[5];
	uint64_t check;
};

#define ICP_PAGES_SPARSE                                                                       \
	1u /* the index ends in a map: u32 logical slot of each stored one, ascending */

struct icp_page_trailer {
	uint8_t magic[8];
	uint64_t slots;	 /* pages stored */
	uint64_t chunks; /* entries of struct icp_chunk; 0 with codec NONE */
	uint64_t index_offset;
	uint64_t index_size; /* chunks, then the map; zeros up to the trailer */
	uint64_t index_check;
	uint32_t flags;
	uint32_t pad;
	uint64_t check;
};

struct icp_chunk {
	uint64_t offset;
	uint32_t size;	/* bytes stored */
	uint32_t codec; /* NONE when compression would not have made it smaller */
	uint64_t check; /* XXH3-64 of the stored bytes */
};

enum icp_ctl_kind {
	ICP_CTL_FULL = 1,
	ICP_CTL_DELTA = 2,
};

/* Control file: header, runs, then one struct icp_hash per page of the DATA runs, in their
 * order. */
struct icp_ctl_header {
	uint8_t magic[8];
	uint32_t format;
	uint32_t page_size;
	uint32_t version;
	uint32_t stream;
	uint32_t kind; /* enum icp_ctl_kind */
	uint32_t base; /* DELTA: the version whose structure this one changes; smaller than
			  version */
	uint64_t runs;
	uint64_t hashes;
	uint64_t pages;	     /* entries with data in the resulting structure */
	uint64_t zeros;	     /* entries without: zero pages */
	uint64_t chain_cost; /* what the deltas since the last full one cost to read; see
				ctl_file.c */
	uint64_t full_size;  /* bytes of that full one */
	uint64_t pad[3];
	struct icp_hash payload;
	uint64_t check;
};

enum icp_run_kind {
	ICP_RUN_DATA = 1,
	ICP_RUN_ZERO = 2,
	ICP_RUN_REMOVED = 3, /* DELTA only, all of them before the others */
};

struct icp_ctl_run {
	uint64_t page; /* address / page size of the first page */
	uint32_t count;
	uint32_t kind; /* enum icp_run_kind */
	/* DATA only: page + i is slot + i of this version's stream's page file */
	uint32_t version;
	uint32_t stream;
	uint32_t slot;
	uint32_t pad;
};

_Static_assert(sizeof(struct icp_hash) == 16, "icp_hash");
_Static_assert(sizeof(struct icp_repo) == 64, "icp_repo");
_Static_assert(sizeof(struct icp_decision) == 64, "icp_decision");
_Static_assert(sizeof(struct icp_keep) == 40, "icp_keep");
_Static_assert(sizeof(struct icp_keep_file) == 40, "icp_keep_file");
_Static_assert(sizeof(struct icp_page_header) == 64, "icp_page_header");
_Static_assert(sizeof(struct icp_page_trailer) == 64, "icp_page_trailer");
_Static_assert(sizeof(struct icp_chunk) == 24, "icp_chunk");
_Static_assert(sizeof(struct icp_ctl_header) == 128, "icp_ctl_header");
_Static_assert(sizeof(struct icp_ctl_run) == 32, "icp_ctl_run");

static inline bool icp_page_size_valid(uint32_t size)
{
	return size >= ICP_PAGE_SIZE_MIN && size <= ICP_PAGE_SIZE_MAX && !(size & (size - 1));
}

#endif
