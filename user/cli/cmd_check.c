// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>

#include "base/io.h"
#include "base/page.h"
#include "cli/cli.h"
#include "track/events.h"
#include "track/tracker.h"

struct row {
	char name[64], why[200];
	const char *purpose;
	bool available, used;
};

struct report {
	VEC(struct row) trackers;
	VEC(struct row) hooks;
	VEC(struct row) rights;
	const char *tracker; /* the one that will be used, or NULL */
	bool events;
	char no_events[200];
	struct utsname kernel;
};

static const struct {
	int cap;
	const char *name, *purpose;
} wanted_caps[] = {
	{CAP_SYS_PTRACE, "CAP_SYS_PTRACE", "attach to processes of other users"},
	{CAP_BPF, "CAP_BPF", "load the eBPF programs"},
	{CAP_PERFMON, "CAP_PERFMON", "let them read kernel data"},
	{CAP_SYS_ADMIN, "CAP_SYS_ADMIN", "attach to processes under a seccomp filter"},
};

static int add_trackers(struct report *r)
{
	for (size_t i = 0; tracker_backends[i]; i++) {
		struct row *row = vec_push(&r->trackers);

		if (!row)
			return fail(-ENOMEM, "trackers");
		snprintf(row->name, sizeof(row->name), "%s", tracker_backends[i]->name);
		row->purpose = tracker_backends[i]->purpose;
		row->available = !tracker_backends[i]->probe(row->why, sizeof(row->why));
		row->used = row->available && !r->tracker;
		if (row->used)
			r->tracker = tracker_backends[i]->name;
	}
	return 0;
}

static int add_hooks(struct report *r)
{
	_cleanup_free_ struct hook_status *hooks = NULL;
	struct events *events = NULL;
	size_t n = 0;
	int err = events_open(&(struct events_config){0}, &events);

	r->events = !err;
	if (err)
		snprintf(r->no_events, sizeof(r->no_events), "%s", err_text(err));
	err_clear();
	events_close(events);
	err = events_hooks(&hooks, &n);
	for (size_t i = 0; !err && i < n; i++) {
		struct row *row = vec_push(&r->hooks);

		if (!row)
			return fail(-ENOMEM, "hooks");
		snprintf(row->name, sizeof(row->name), "%s", hooks[i].name);
		snprintf(row->why, sizeof(row->why), "%s", hooks[i].why);
		row->purpose = hooks[i].purpose;
		row->available = hooks[i].available;
	}
	return err;
}

static int add_rights(struct report *r)
{
	_cleanup_free_ char *status = NULL;
	const char *line;
	unsigned long caps = 0;
	int err = io_read_file(AT_FDCWD, "/proc/self/status", &status, NULL);

	if (err)
		return fail(err, "read /proc/self/status");
	line = strstr(status, "CapEff:");
	if (line)
		caps = strtoul(line + 7, NULL, 16);
	for (size_t i = 0; i < sizeof(wanted_caps) / sizeof(wanted_caps[0]); i++) {
		struct row *row = vec_push(&r->rights);

		if (!row)
			return fail(-ENOMEM, "rights");
		snprintf(row->name, sizeof(row->name), "%s", wanted_caps[i].name);
		row->purpose = wanted_caps[i].purpose;
		row->available = caps >> wanted_caps[i].cap & 1;
		if (!row->available)
			snprintf(row->why, sizeof(row->why), "not held: run as root");
	}
	return 0;
}

static void print_rows(const char *title, const struct row *rows, size_t n)
{
	printf("%s\n", title);
	for (size_t i = 0; i < n; i++) {
		printf("  %-34s %-4s %s", rows[i].name, rows[i].available ? "yes" : "no",
		       rows[i].purpose);
		if (rows[i].used && !strcmp(title, "write trackers"))
			printf("  <- used");
		if (!rows[i].available && rows[i].why[0])
			printf("\n  %-34s      %s", "", rows[i].why);
		putchar('\n');
	}
}

static void print_text(const struct report *r)
{
	printf("icp-bpf %s on %s %s\n\n", ICP_VERSION, r->kernel.release, r->kernel.machine);
	print_rows("write trackers", r->trackers.data, r->trackers.n);
	putchar('\n');
	print_rows("eBPF hooks", r->hooks.data, r->hooks.n);
	putchar('\n');
	print_rows("rights of this user", r->rights.data, r->rights.n);
	putchar('\n');
	if (r->tracker)
		printf("Processes can be traced with the %s tracker, %s\n", r->tracker,
		       r->events ? "with events (who writes, segment events)."
				 : "without events:");
	else
		printf("No write tracker works here: processes can't be traced.\n");
	if (!r->events)
		printf("  %s\n", r->no_events);
}

static json_t *json_rows(const struct row *rows, size_t n, bool with_used)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		json_t *row = json_pack("{s:s, s:b, s:s}", "name", rows[i].name, "available",
					rows[i].available, "purpose", rows[i].purpose);

		if (!rows[i].available)
			json_object_set_new(row, "why", json_string(rows[i].why));
		if (with_used)
			json_object_set_new(row, "used", json_boolean(rows[i].used));
		json_array_append_new(list, row);
	}
	return list;
}

static int print_json(const struct report *r)
{
	json_t *all = json_pack(
		"{s:s, s:s, s:s, s:o, s:o, s:o, s:s?, s:b, s:s?}", "version", ICP_VERSION,
		"kernel", r->kernel.release, "machine", r->kernel.machine, "trackers",
		json_rows(r->trackers.data, r->trackers.n, true), "hooks",
		json_rows(r->hooks.data, r->hooks.n, false), "rights",
		json_rows(r->rights.data, r->rights.n, false), "tracker", r->tracker, "events",
		r->events, "no_events", r->events ? NULL : r->no_events);
	int err = !all || json_dumpf(all, stdout, JSON_INDENT(1)) || putchar('\n') == EOF ? -EIO
											  : 0;

	json_decref(all);
	return err ? fail(err, "write the output") : 0;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {{"json", no_argument, NULL, 'j'},
						{NULL, 0, NULL, 0}};
	struct report r = {0};
	bool json = false;
	int opt, err;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt != 'j')
			return cli_bad_option(&verb_check, argv);
		json = true;
	}
	if (optind < argc)
		return cli_usage(&verb_check, "'%s' is not an option", argv[optind]);
	uname(&r.kernel);
	err = add_trackers(&r);
	if (!err)
		err = add_hooks(&r);
	if (!err)
		err = add_rights(&r);
	if (!err && json)
		err = print_json(&r);
	else if (!err)
		print_text(&r);
	vec_free(&r.trackers);
	vec_free(&r.hooks);
	vec_free(&r.rights);
	if (err)
		return cli_failed(err);
	return r.tracker ? EXIT_DONE : EXIT_FAILED;
}

const struct verb verb_check = {
	.name = "check",
	.run = run,
	.line = "what this kernel and these privileges allow",
	.help = "usage: icp-bpf check [--json]\n"
		"\n"
		"Probes every write tracker and every eBPF hook, and says which are available, "
		"why the others are not and what to\n"
		"do about it, and which will be used. Changes nothing. Exit status 0 when "
		"processes can be traced.\n"
		"\n"
		"example: sudo icp-bpf check\n",
};
