// SPDX-License-Identifier: GPL-2.0
#include "cli/cli_repo.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

int cli_need_dir(const struct verb *verb, const char *dir, int argc, char **argv)
{
	if (optind < argc)
		return cli_usage(verb, "'%s' is not an option", argv[optind]);
	if (!dir || !*dir)
		return cli_usage(verb, "which repository? --dir DIR");
	return 0;
}

int cli_version_option(const struct verb *verb, const char *option, const char *text, long *out)
{
	if (cli_number(text, 1, UINT32_MAX - 1, out))
		return 0;
	return cli_usage(verb, "--%s takes the number of a version, not '%s'", option, text);
}

int cli_pick_version(struct repo *r, const char *dir, long wanted, uint32_t *out)
{
	int err = 0;

	*out = (uint32_t)wanted;
	if (!wanted)
		err = repo_latest(r, out);
	if (!err && !*out)
		err = refuse(-ENOENT, "there is no version in %s", dir);
	return err;
}

bool cli_address(const char *text, uint64_t *out)
{
	char *end;

	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
		text += 2;
	if (!isxdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	*out = strtoull(text, &end, 16);
	return !*end && !errno;
}

int cli_finish(int err)
{
	if (!err && (fflush(stdout) || ferror(stdout)))
		err = fail(errno ? -errno : -EIO, "write the output");
	return err ? cli_failed(err) : EXIT_DONE;
}

/* Bytes of the character at @p, 0 when it is not UTF-8. */
static size_t utf8_len(const unsigned char *p)
{
	size_t n = *p < 0x80   ? 1
		   : *p < 0xc2 ? 0
		   : *p < 0xe0 ? 2
		   : *p < 0xf0 ? 3
		   : *p < 0xf5 ? 4
			       : 0;

	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

const char *cli_clean(const char *text, char *buf, size_t size)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t n = 0;

	while (*p) {
		size_t len = utf8_len(p);
		/* C1 has control characters too: two bytes each */
		bool bad = !len || *p < ' ' || *p == 0x7f || (*p == 0xc2 && p[1] < 0xa0);

		if (n + (bad ? 1 : len) >= size)
			break;
		if (bad)
			buf[n++] = '?';
		else
			memcpy(buf + n, p, len);
		n += bad ? 0 : len;
		p += len ? len : 1;
	}
	buf[n] = 0;
	return buf;
}

const char *cli_time(uint64_t realtime_ns, char buf[32])
{
	time_t seconds = (time_t)(realtime_ns / 1000000000);
	struct tm tm;

	if (!localtime_r(&seconds, &tm) || !strftime(buf, 32, "%Y-%m-%d %H:%M:%S", &tm))
		snprintf(buf, 32, "-");
	return buf;
}

const char *cli_duration(uint64_t ns, char buf[16])
{
	if (ns < 1000000)
		snprintf(buf, 16, "%.0fus", (double)ns / 1e3);
	else if (ns < 1000000000)
		snprintf(buf, 16, "%.1fms", (double)ns / 1e6);
	else
		snprintf(buf, 16, "%.1fs", (double)ns / 1e9);
	return buf;
}

const char *cli_stream(uint32_t stream, char buf[32])
{
	static const char *const what[] = {"process", "segment", "deleted file"};

	snprintf(buf, 32, "%s %u", what[icp_stream_kind(stream)], icp_stream_id(stream));
	return buf;
}

const char *cli_stream_key(uint32_t stream)
{
	static const char *const keys[] = {"pid", "shmid", "file"};

	return keys[icp_stream_kind(stream)];
}

const char *cli_hash(const struct icp_hash *hash, char buf[33])
{
	snprintf(buf, 33, "%016" PRIx64 "%016" PRIx64, hash->hi, hash->lo);
	return buf;
}

const char *cli_prot(const Icp__Vma *v, char buf[5])
{
	buf[0] = v->prot & PROT_READ ? 'r' : '-';
	buf[1] = v->prot & PROT_WRITE ? 'w' : '-';
	buf[2] = v->prot & PROT_EXEC ? 'x' : '-';
	buf[3] = v->shared ? 's' : 'p';
	buf[4] = 0;
	return buf;
}

const char *cli_vma_name(const Icp__Vma *v)
{
	return v->path[0] ? v->path : v->name;
}

const char *cli_codec(uint32_t codec)
{
	static const char *const names[] = {"none", "zstd", "lz4"};

	return codec < sizeof(names) / sizeof(names[0]) ? names[codec] : "?";
}

const char *cli_type(const Icp__Manifest *m)
{
	bool incremental = m->job ? m->job->incremental : m->parent != 0;

	return incremental ? "incremental" : "full";
}

int cli_print_json(json_t *all)
{
	int err = 0;

	if (!all)
		return fail(-ENOMEM, "make JSON");
	if (json_dumpf(all, stdout, JSON_COMPACT) || putchar('\n') == EOF)
		err = fail(errno ? -errno : -EIO, "write the output");
	json_decref(all);
	return err;
}

json_t *cli_json_text(const char *text, size_t len)
{
	json_t *json = json_stringn(text, len);
	_cleanup_free_ char *copy = NULL;

	if (json)
		return json;
	copy = malloc(len + 1);
	for (size_t i = 0; copy && i < len; i++)
		copy[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
	return copy ? json_stringn(copy, len) : NULL;
}

json_t *cli_json_hex(uint64_t value)
{
	return json_sprintf("0x%" PRIx64, value);
}

json_t *cli_json_hash(const struct icp_hash *hash)
{
	return json_string(cli_hash(hash, (char[33]){0}));
}
