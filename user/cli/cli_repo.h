/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the verbs over a repository share. Whatever comes out of a repository is untrusted: texts
 * go to a terminal through cli_clean(), to JSON through cli_json_text().
 */
#ifndef ICP_CLI_CLI_REPO_H
#define ICP_CLI_CLI_REPO_H

#include <jansson.h>

#include "cli/cli.h"
#include "image/repo.h"

/* 0, or EXIT_USAGE: left-over arguments, or no --dir. Call it after the options were read. */
int cli_need_dir(const struct verb *verb, const char *dir, int argc, char **argv);
/* A number of a version, for @option; 0 or EXIT_USAGE. */
int cli_version_option(const struct verb *verb, const char *option, const char *text,
		       long *out);
/* The newest visible version for @wanted 0. */
int cli_pick_version(struct repo *r, const char *dir, long wanted, uint32_t *out) _must_use_;
/* "1f00", "0x1f00"; false when it is none. */
bool cli_address(const char *text, uint64_t *out);
/* Flush stdout; print the failure if there was one; the exit status. */
int cli_finish(int err);

/* All put text into @buf and return it. */
const char *cli_clean(const char *text, char *buf,
		      size_t size);			  /* UTF-8, no control characters */
const char *cli_time(uint64_t realtime_ns, char buf[32]); /* local time */
const char *cli_duration(uint64_t ns, char buf[16]);	  /* "1.2ms" */
const char *cli_stream(uint32_t stream, char buf[32]);	  /* "process 42", "segment 7" */
const char *cli_stream_key(uint32_t stream);		  /* of its id in JSON: "pid" */
const char *cli_hash(const struct icp_hash *hash, char buf[33]); /* as xxhsum -H2 prints it */
const char *cli_prot(const Icp__Vma *v, char buf[5]);		 /* "rw-p" */
/* Path or name, "" for neither; not cleaned. */
const char *cli_vma_name(const Icp__Vma *v);
const char *cli_codec(uint32_t codec);
const char *cli_type(const Icp__Manifest *m); /* "full", "incremental" */

/* Print @all as one compact line and free it; NULL stands for no memory. */
int cli_print_json(json_t *all) _must_use_;
json_t *cli_json_text(const char *text, size_t len); /* what is not UTF-8 becomes '?' */
json_t *cli_json_hex(uint64_t value);		     /* "0x1f00" */
json_t *cli_json_hash(const struct icp_hash *hash);
static inline json_t *cli_json_string(const char *text)
{
	return cli_json_text(text, strlen(text));
}

#endif
