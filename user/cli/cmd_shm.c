// SPDX-License-Identifier: GPL-2.0
#include <fcntl.h>
#include <getopt.h>
#include <string.h>

#include "base/io.h"
#include "cli/cli_repo.h"
#include "obs/view.h"
#include "proc/sysvshm.h"
#include "session/checkpoint.h"

struct listing {
	struct sysvshm segments;
	struct sysvshm_attachments attached;
	segment_rates rates;
};

static void free_listing(struct listing *l)
{
	sysvshm_free(&l->segments);
	sysvshm_attachments_free(&l->attached);
	vec_free(&l->rates);
}

/* NULL: no session has a sample of it. The highest, where several sessions see a part each. */
static const struct segment_rate *rate_of(const struct listing *l, int32_t shmid)
{
	const struct segment_rate *best = NULL;

	vec_each (r, &l->rates)
		if (r->shmid == shmid && (!best || r->bytes_per_s > best->bytes_per_s))
			best = r;
	return best;
}

static const char *name_of(pid_t pid, char name[64])
{
	_cleanup_free_ char *comm = NULL;
	char path[40];

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	if (pid <= 0 || io_read_file(AT_FDCWD, path, &comm, NULL))
		return "";
	comm[strcspn(comm, "\n")] = 0;
	return cli_clean(comm, name, 64);
}

/* ---- text ---- */

static void print_attachments(const struct listing *l, int32_t shmid)
{
	size_t n;
	const struct sysvshm_attachment *a = sysvshm_attachments_of(&l->attached, shmid, &n);

	for (size_t i = 0; i < n; i++) {
		char name[64];

		printf("    pid %d (%s) at %#lx-%#lx", a[i].pid, name_of(a[i].pid, name),
		       a[i].start, a[i].end);
		if (a[i].offset)
			printf(", from byte %lu on", a[i].offset);
		putchar('\n');
	}
}

static void print_segment(const struct listing *l, const struct sysvshm_segment *s)
{
	const struct segment_rate *rate = rate_of(l, s->shmid);
	char size[16], rss[16], dirty[24] = "-", creator[48] = "-", name[64], bytes[16];

	if (rate)
		snprintf(dirty, sizeof(dirty), "%s/s", human_bytes(rate->bytes_per_s, bytes));
	if (s->cpid && *name_of(s->cpid, name))
		snprintf(creator, sizeof(creator), "%d (%.16s)", s->cpid, name);
	else if (s->cpid)
		snprintf(creator, sizeof(creator), "%d, ended", s->cpid);
	printf("0x%08x %10d %8s %8s %04o %10u %10lu %10s  %s%s%s\n", (uint32_t)s->key, s->shmid,
	       human_bytes((double)s->size, size), human_bytes((double)s->rss, rss), s->mode,
	       s->uid, s->nattch, dirty, creator, s->removed ? ", removed" : "",
	       s->locked ? ", locked" : "");
	print_attachments(l, s->shmid);
}

static void print_text(const struct listing *l)
{
	printf("%-10s %10s %8s %8s %4s %10s %10s %10s  %s\n", "KEY", "ID", "SIZE", "RESIDENT",
	       "MODE", "OWNER", "ATTACHED", "DIRTY", "CREATOR");
	vec_each (s, &l->segments)
		print_segment(l, s);
}

/* ---- JSON ---- */

static json_t *attachments_json(const struct listing *l, int32_t shmid)
{
	size_t n;
	const struct sysvshm_attachment *a = sysvshm_attachments_of(&l->attached, shmid, &n);
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		char name[64];

		json_array_append_new(
			list, json_pack("{s:i, s:o, s:o, s:o, s:I}", "pid", a[i].pid, "comm",
					cli_json_string(name_of(a[i].pid, name)), "start",
					cli_json_hex(a[i].start), "end", cli_json_hex(a[i].end),
					"offset", (json_int_t)a[i].offset));
	}
	return list;
}

static json_t *segment_json(const struct listing *l, const struct sysvshm_segment *s)
{
	const struct segment_rate *rate = rate_of(l, s->shmid);
	char key[16], mode[8];

	snprintf(key, sizeof(key), "0x%08x", (uint32_t)s->key);
	snprintf(mode, sizeof(mode), "%04o", s->mode);
	return json_pack(
		"{s:s, s:i, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:i, s:i, s:b, s:b, s:I, "
		"s:o, s:o}",
		"key", key, "id", s->shmid, "size", (json_int_t)s->size, "resident",
		(json_int_t)s->rss, "swapped", (json_int_t)s->swap, "mode", mode, "uid",
		(json_int_t)s->uid, "gid", (json_int_t)s->gid, "creator_uid",
		(json_int_t)s->cuid, "creator_gid", (json_int_t)s->cgid, "creator_pid", s->cpid,
		"last_pid", s->lpid, "removed", s->removed, "locked", s->locked, "attach_count",
		(json_int_t)s->nattch, "dirty_bytes_per_s",
		rate ? json_real(rate->bytes_per_s) : json_null(), "attached",
		attachments_json(l, s->shmid));
}

static int print_json(const struct listing *l)
{
	json_t *list = json_array();

	vec_each (s, &l->segments)
		json_array_append_new(list, segment_json(l, s));
	return cli_print_json(json_pack("{s:o, s:I}", "segments", list, "unread_processes",
					(json_int_t)l->attached.unread));
}

static int list_segments(bool json)
{
	_cleanup_(free_listing) struct listing l = {0};
	int err = sysvshm_read(&l.segments);

	if (!err)
		err = sysvshm_attachments(&l.attached);
	if (!err)
		err = control_rates(&l.rates);
	if (err)
		return err;
	if (json)
		return print_json(&l);
	print_text(&l);
	if (l.attached.unread)
		fprintf(stderr,
			"icp-bpf: %zu process%s may not be looked at and may attach some as "
			"well\n",
			l.attached.unread, l.attached.unread == 1 ? "" : "es");
	return 0;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
						{NULL, 0, NULL, 0}};
	bool json = false;
	int opt;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt != 'j')
			return cli_bad_option(&verb_shm, argv);
		json = true;
	}
	if (optind < argc)
		return cli_usage(&verb_shm, "'%s' is not an option", argv[optind]);
	return cli_finish(list_segments(json));
}

const struct verb verb_shm = {
	.name = "shm",
	.run = run,
	.line = "list System V shared memory and who attaches it",
	.help = "usage: icp-bpf shm [--json]\n"
		"\n"
		"Lists every System V segment of the IPC namespace that icp-bpf runs in: key, "
		"id, size, what of it is\n"
		"resident, mode, owner, number of attachments, creator, and each process that "
		"attaches it with the addresses.\n"
		"The dirty rate is there while icp-bpf trace follows a process that attaches "
		"the segment.\n"
		"\n"
		"      --json   one JSON object, see docs/json.md\n"
		"\n"
		"example: icp-bpf shm\n",
};
