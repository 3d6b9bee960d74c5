/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A repository of versions. What it promises: a version is visible whole or not at all,
 * whatever happens; a visible version never changes; files of others are never touched. How:
 * docs/image-format.md.
 *
 * Memory: a control structure is 32 bytes per page of one stream; readers and writers hold a
 * few chunks of 256 KiB.
 */
#ifndef ICP_IMAGE_REPO_H
#define ICP_IMAGE_REPO_H

#include "image/ctl.h"
#include "image/manifest.h"
#include "image/pages.h"
#include "image/store.h"

enum repo_mode {
	REPO_READ,   /* look only: needs no lock, resolves nothing */
	REPO_WRITE,  /* take the lock, resolve what a crash left */
	REPO_CREATE, /* as WRITE; make it if there is nothing or an empty directory */
};

enum version_state {
	VERSION_PENDING = 1, /* being written, or left by a crash until the next writer opens */
	VERSION_COMMITTED,   /* the only visible ones */
	VERSION_ABORTED,
	VERSION_DROPPED, /* by prune; what others need of it is still there */
	VERSION_DAMAGED, /* its records cannot be read */
};

struct keep_list {
	struct icp_keep_file *data;
	size_t n, cap;
	uint32_t generation; /* 0: there is none, everything is still there */
};

struct version {
	uint32_t number;
	enum version_state state;
	struct icp_decision decision; /* COMMITTED, DROPPED */
	struct keep_list keep;	      /* DROPPED */
};

struct repo {
	struct store *store;
	enum repo_mode mode;
	struct icp_repo record;
	uint32_t *numbers; /* of all versions there are in any state, ascending */
	size_t n_numbers;
	struct version **cache; /* parallel to numbers; NULL: not looked at yet */
};

/*
 * Open the repository in directory @path. Refuses: no repository there (-ENOENT), something
 * else there (-ENOTEMPTY), another writer at work (-EBUSY), a format from the future
 * (-EPROTONOSUPPORT).
 */
int repo_open(const char *path, enum repo_mode mode, struct repo **out) _must_use_;
/* The same over any store, which is owned from now on, also on failure; @path is for messages.
 */
int repo_open_store(struct store *store, const char *path, enum repo_mode mode,
		    struct repo **out) _must_use_;
void repo_close(struct repo *r);

static inline void cleanup_repo(struct repo **r)
{
	repo_close(*r);
}
#define _cleanup_repo_ _cleanup_(cleanup_repo)

/* The state of a version. -ENOENT (bare) when there is none of that number. Owned by the
 * repository. */
int repo_version(struct repo *r, uint32_t number, const struct version **out) _must_use_;
/* The visible versions, ascending, in an array that the caller frees. */
int repo_committed(struct repo *r, uint32_t **numbers, size_t *n) _must_use_;
/* The highest visible version, 0 for none. */
int repo_latest(struct repo *r, uint32_t *number) _must_use_;
/* Look again at what others have added. */
int repo_refresh(struct repo *r) _must_use_;

/* The manifest of a visible version, checked against its decision record. Refuses others with a
 * message. */
int repo_manifest(struct repo *r, uint32_t version, Icp__Manifest **out) _must_use_;
/* The control structure of @stream in @version (visible), read through its chain. */
int repo_ctl(struct repo *r, uint32_t version, uint32_t stream, struct ctl **out) _must_use_;
/* The same without the pages of @n parts (ascending). */
int repo_ctl_rest(struct repo *r, uint32_t version, uint32_t stream,
		  const struct ctl_part *parts, size_t n, struct ctl **out) _must_use_;

/* ---- reading pages: one reader per thread; several may share a repository that nobody changes
 * ---- */
struct reader;
int reader_open(struct repo *r, struct reader **out) _must_use_;
void reader_close(struct reader *rd);
/* One page of a control structure to @buf, its hash verified. @e NULL: zeros. */
int reader_page(struct reader *rd, const struct ctl_entry *e, uint32_t page_size,
		void *buf) _must_use_;
/*
 * The pages [page, page + n) of @c to @buf in as few reads as possible, hashes verified. Pages
 * without an entry and zero pages become zeros. Best called with runs of ctl_next_run() and
 * buffers of 256 KiB to 1 MiB. -EBADMSG names the address and the file of a page that is not
 * what it should be.
 */
int reader_pages(struct reader *rd, const struct ctl *c, uint64_t page, uint64_t n,
		 void *buf) _must_use_;

/*
 * Everything of a control structure, in the order of the files instead of the addresses: each
 * file is opened once and read forwards, however many versions the pages are scattered over. 24
 * bytes of memory per page. Zero pages are left out (see ctl_next_run() for them). @c and @rd
 * must outlive the sweep, and @c must not change.
 */
struct sweep;
int sweep_open(struct reader *rd, const struct ctl *c, struct sweep **out) _must_use_;
/*
 * The next pages: numbers in *@pages, their content, verified, one after the other in *@data;
 * both valid until the next call. Returns how many (at most 64), 0 at the end, or a negative
 * errno.
 */
int sweep_next(struct sweep *s, const uint64_t **pages, const uint8_t **data) _must_use_;
void sweep_close(struct sweep *s);
/* Leave out the pages that @want does not; before sweep_part(). */
void sweep_only(struct sweep *s, bool (*want)(void *arg, uint64_t page), void *arg);
/* Keep to one of @parts parts of about the same size; before the first sweep_next(). */
void sweep_part(struct sweep *s, unsigned part, unsigned parts);

static inline void cleanup_sweep(struct sweep **s)
{
	sweep_close(*s);
}
#define _cleanup_sweep_ _cleanup_(cleanup_sweep)

static inline void cleanup_reader(struct reader **rd)
{
	reader_close(*rd);
}
#define _cleanup_reader_ _cleanup_(cleanup_reader)

/* ---- writing a version ---- */
struct txn;

struct txn_config {
	uint32_t parent;    /* a visible version, or 0: everything is new */
	uint32_t page_size; /* 0: this machine's */
	enum icp_codec codec;
	int level;     /* 0: default */
	bool dedup;    /* find equal pages: worth its time for several processes */
	uint32_t rank; /* must be 0 yet */
};

/* Begin the version after the highest number there ever was. One at a time per repository. */
int txn_begin(struct repo *r, const struct txn_config *config, struct txn **out) _must_use_;
uint32_t txn_version(const struct txn *t);
/*
 * Begin the page file of @stream. Writers of different streams may run in threads of their own.
 * End it with txn_pages_end(), also on failure (with @failed: it is cancelled).
 */
int txn_pages(struct txn *t, uint32_t stream, struct page_writer **out) _must_use_;
int txn_pages_end(struct txn *t, struct page_writer *w, bool failed) _must_use_;
/*
 * Write the control file of @c, which was read from the parent (then only changes are written
 * as a rule) or is new. Call it after txn_pages_end() of every stream it refers to. Once the
 * version is committed @c counts as read from it; if it is not,
 * @c refers to pages that do not exist: free it and read the parent's again. @c must outlive
 * the transaction.
 */
int txn_ctl(struct txn *t, struct ctl *c, bool full) _must_use_;
/* Bytes in finished files so far. */
uint64_t txn_bytes(const struct txn *t);
/*
 * Fill in format, version, parent, time, page size, codec, files of @m, check and write it,
 * sync everything and decide. 0: the version is committed. Otherwise it is not (aborted, or
 * pending where even that failed) - except for -EUCLEAN: the record is there, but it could not
 * be made sure that it survives a power failure. Frees @t in any case.
 */
int txn_commit(struct txn *t, Icp__Manifest *m) _must_use_;
/* Decide against it, remove its files, free @t. */
void txn_abort(struct txn *t);

static inline void cleanup_txn(struct txn **t)
{
	if (*t)
		txn_abort(*t);
}
#define _cleanup_txn_ _cleanup_(cleanup_txn)

/* ---- removing versions ---- */
struct prune_config {
	uint32_t keep_last; /* keep the N highest visible versions, drop the rest; 0: use the
			       range */
	uint32_t from, to;  /* drop the visible ones in [from, to] */
	bool tight;	    /* rewrite also page files with little waste (at most a quarter) */
};
struct prune_result {
	uint32_t dropped;		    /* versions */
	uint64_t bytes_before, bytes_after; /* of the versions dropped now or before */
};
/* Refuses to drop every visible version (-EINVAL). A repeated call goes on where a failed one
 * stopped. */
int repo_prune(struct repo *r, const struct prune_config *config,
	       struct prune_result *out) _must_use_;

/* ---- verification ---- */
struct problem {
	uint32_t version;
	uint32_t stream; /* 0: none in particular */
	bool has_page;
	uint64_t address; /* bytes */
	char file[96];
	char what[200];
};
struct problems {
	struct problem *data;
	size_t n, cap;
	uint64_t more;	       /* found beyond the first 1000, which are listed */
	uint64_t pages, bytes; /* looked at */
};
/* Check everything of one visible version, or with 0 all there is. 0 when the check was made;
 * it is sound when out->n is 0. */
int repo_verify(struct repo *r, uint32_t version, struct problems *out) _must_use_;
void problems_free(struct problems *p);

#endif
