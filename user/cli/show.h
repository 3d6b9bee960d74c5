/* SPDX-License-Identifier: GPL-2.0 */
/* The parts of `icp-bpf show`. Each prints text, or with @to enters JSON into that object. */
#ifndef ICP_CLI_SHOW_H
#define ICP_CLI_SHOW_H

#include "cli/cli_repo.h"
#include "image/place.h"

struct show_options {
	const char *dir;
	long version, pid; /* 0: newest, all */
	bool vmas, files, control, json;
	bool has_address;
	uint64_t address;
	enum ctl_lookup lookup;
};

struct show {
	struct show_options o;
	struct repo *repo;
	struct places *places;
	uint32_t version;
	Icp__Manifest *m;
};

/* ---- show_memory.c ---- */
int show_vmas(struct show *s, const Icp__Process *p, json_t *to) _must_use_;
int show_control(struct show *s, uint32_t stream, json_t *to) _must_use_;
/* The page at s->o.address, in each process that is asked for; @to is an array. */
int show_address(struct show *s, json_t *to) _must_use_;

/* ---- show_files.c ---- */
/* The descriptors and other state of a process. */
int show_process_state(const Icp__Process *p, json_t *to) _must_use_;
/* State of the job, and the files of the version. */
int show_files(struct show *s, json_t *to) _must_use_;

/* ---- cmd_show.c ---- */
bool show_wants(const struct show *s, const Icp__Process *p);

#endif
