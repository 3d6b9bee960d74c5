/* SPDX-License-Identifier: GPL-2.0 */
/* Names of the objects of a repository, inside user/image/ only. */
#ifndef ICP_IMAGE_NAMES_H
#define ICP_IMAGE_NAMES_H

#include "image/format.h"
#include "image/repo.h"

#define NAME_REPO "repository"
#define NAME_LOCK "lock"
#define NAME_MAX_LEN 96

struct name {
	char s[NAME_MAX_LEN];
};

struct name name_version(uint32_t version);		      /* 000003 */
struct name name_in(uint32_t version, const char *last);      /* 000003/decision */
struct name name_rank(uint32_t version);		      /* 000003/0 */
struct name name_manifest(uint32_t version);		      /* 000003/0/manifest.pb */
struct name name_keep(uint32_t version, uint32_t generation); /* 000003/keep.2 */
/* 000003/0/task_mm_42.3.bin, 000003/0/shm_7.3.g2.bin, 000003/0/ctl_42.3.bin */
struct name name_file(enum icp_file_kind kind, uint32_t version, uint32_t stream,
		      uint32_t generation);
/* "000003" or "1234567" -> number; 0 for anything else. */
uint32_t name_parse_version(const char *s);
/* "keep.2" -> 2, else 0. */
uint32_t name_parse_keep(const char *s);

/* ---- records.c ---- */
uint64_t record_check(const void *data, size_t len);
int record_load(struct store *s, const char *name, size_t max, void **data,
		size_t *len) _must_use_;
int decision_parse(const void *data, size_t len, uint32_t version,
		   struct icp_decision *out) _must_use_;
void decision_make(struct icp_decision *d, enum icp_verdict verdict, uint32_t version,
		   uint32_t parent);
void decision_seal(struct icp_decision *d);
int keep_parse(const void *data, size_t len, uint32_t version,
	       struct keep_list *out) _must_use_;
/* Create keep.<generation> from @files. */
int keep_create(struct store *s, uint32_t version, const struct keep_list *files) _must_use_;
int repo_record_parse(const void *data, size_t len, struct icp_repo *out) _must_use_;
void repo_record_make(struct icp_repo *r);
uint64_t realtime_ns(void);

/* ---- repo.c, for txn.c, prune.c and verify.c ---- */
/* The name of the page or control file of @stream in @version, which may be dropped. -ENOENT
 * (with message): not there. */
int repo_file(struct repo *r, enum icp_file_kind kind, uint32_t version, uint32_t stream,
	      struct name *out) _must_use_;
/* A page or control file that is gone under our feet may have been replaced by prune: forget
 * what we know. */
void repo_forget(struct repo *r, uint32_t version);
int repo_ctl_image(struct repo *r, uint32_t version, uint32_t stream,
		   struct ctl_image *out) _must_use_;
/* Remove the objects of a version: all but the records with @data_only, else everything. */
int repo_wipe(struct repo *r, uint32_t version, bool data_only) _must_use_;
/* reader.c, for sweep.c: @n pages whose slots follow those of @first, not verified; and the
 * message for a wrong one (@err 0: its hash). */
int reader_slots(struct reader *rd, const struct ctl_entry *first, uint64_t n,
		 uint32_t page_size, uint8_t *buf) _must_use_;
int reader_wrong(const struct ctl_entry *e, uint64_t address, int err);
/* After a crash, or to end a prune: compact dropped versions. */
int prune_settle(struct repo *r, bool tight, bool missing_only,
		 struct prune_result *out) _must_use_;
int repo_manifest_of(struct repo *r, const struct version *v, Icp__Manifest **out) _must_use_;
int repo_wipe_files(struct repo *r, uint32_t version,
		    bool (*spare)(void *arg, const char *name), void *arg) _must_use_;
/* Remove what no record of a dropped version mentions. */
int prune_sweep(struct repo *r, uint32_t version) _must_use_;

#endif
