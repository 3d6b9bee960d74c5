// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <getopt.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"
#include "obs/heatmap.h"
#include "obs/report_text.h"

/* Of the picture; a terminal says itself how large it is. */
#define PICTURE_ROWS 300
#define PICTURE_COLUMNS 450
#define TEXT_ROWS 40
#define TEXT_COLUMNS 80
#define TEXT_LABEL 38

struct report_options {
	const char *file, *heatmap, *flamegraph;
	bool csv;
	long pid, top; /* pid 0: all, or the one that wrote most */
};

enum { OPT_HEATMAP = 256, OPT_FLAMEGRAPH, OPT_CSV, OPT_TOP };

static const struct option long_options[] = {
	{"pid", required_argument, NULL, 'p'},
	{"heatmap", required_argument, NULL, OPT_HEATMAP},
	{"flamegraph", required_argument, NULL, OPT_FLAMEGRAPH},
	{"csv", no_argument, NULL, OPT_CSV},
	{"top", required_argument, NULL, OPT_TOP},
	{NULL, 0, NULL, 0},
};

static int take_option(struct report_options *o, int opt, char **argv)
{
	switch (opt) {
	case 'p':
		if (cli_number(optarg, 1, INT32_MAX, &o->pid))
			return 0;
		return cli_usage(&verb_report, "'%s' is not a process id", optarg);
	case OPT_HEATMAP:
		o->heatmap = optarg;
		return 0;
	case OPT_FLAMEGRAPH:
		o->flamegraph = optarg;
		return 0;
	case OPT_CSV:
		o->csv = true;
		return 0;
	case OPT_TOP:
		if (cli_number(optarg, 0, 1000000, &o->top))
			return 0;
		return cli_usage(&verb_report, "--top takes a number of lines, not '%s'",
				 optarg);
	default:
		return cli_bad_option(&verb_report, argv);
	}
}

static int parse(struct report_options *o, int argc, char **argv)
{
	int opt, status;

	*o = (struct report_options){.top = 10};
	opterr = 0;
	while ((opt = getopt_long(argc, argv, "p:", long_options, NULL)) != -1) {
		status = take_option(o, opt, argv);
		if (status)
			return status;
	}
	if (optind != argc - 1)
		return cli_usage(&verb_report, "which recording? report FILE");
	o->file = argv[optind];
	if (o->csv && o->heatmap && !strcmp(o->heatmap, "-"))
		return cli_usage(&verb_report, "--csv and --heatmap - both go to the output");
	return 0;
}

static int print_heatmap(const struct report_options *o, const struct report *r,
			 const struct report_process *p)
{
	struct winsize size = {.ws_row = TEXT_ROWS, .ws_col = TEXT_COLUMNS + TEXT_LABEL};
	bool tty = isatty(STDOUT_FILENO);
	const char *no_color = getenv("NO_COLOR");
	struct heatmap h;
	int err;

	if (tty && (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || !size.ws_col))
		size = (struct winsize){.ws_row = TEXT_ROWS,
					.ws_col = TEXT_COLUMNS + TEXT_LABEL};
	err = heatmap_make(o->file, r, p, size.ws_row > 8 ? size.ws_row - 4u : 4,
			   size.ws_col > TEXT_LABEL + 8 ? size.ws_col - TEXT_LABEL : 8, &h);
	if (!err) {
		printf("pid %d %s: share of each piece of memory that was written in an "
		       "interval\n",
		       p->pid, p->comm);
		if (h.cells)
			heatmap_print(&h, stdout, tty && !(no_color && *no_color));
		else
			puts("nothing was written");
	}
	heatmap_free(&h);
	return err;
}

static int draw_heatmap(const struct report_options *o, const struct report *r)
{
	struct report_process *p = report_of((struct report *)r, (pid_t)o->pid);
	struct heatmap h;
	char title[256];
	int err;

	if (!p)
		return refuse(-ENOENT, "%s: no process is in it", o->file);
	if (!strcmp(o->heatmap, "-"))
		return print_heatmap(o, r, p);
	err = heatmap_make(o->file, r, p, PICTURE_ROWS, PICTURE_COLUMNS, &h);
	snprintf(title, sizeof(title), "Writes of pid %d (%s), address by time", p->pid,
		 p->comm);
	if (!err)
		err = heatmap_picture(&h, o->heatmap, title);
	heatmap_free(&h);
	return err;
}

/* Without stacks (no events in the kernel, or none came) the functions alone, so far as they are known. */
static int add_functions(struct report_process *p)
{
	int err = 0;

	for (size_t i = 0; !err && i < p->writers.n; i++)
		err = flamegraph_add_function(&p->stacks, p->writers.data[i].function,
					      p->writers.data[i].faults);
	return err;
}

static int draw_flames(const struct report_options *o, struct report *r)
{
	struct report_process *p = report_of(r, (pid_t)o->pid);
	double width, height;
	struct canvas *c;
	char title[256];
	int err = 0;

	if (!p)
		return refuse(-ENOENT, "%s: no process is in it", o->file);
	if (!p->stacks.samples)
		err = add_functions(p);
	flamegraph_size(&p->stacks, &width, &height);
	if (!err)
		err = canvas_open(o->flamegraph, width, height, &c);
	if (err)
		return err;
	snprintf(title, sizeof(title), "Who writes: pid %d (%s)", p->pid, p->comm);
	return canvas_close(c, flamegraph_draw(&p->stacks, title, "write faults", c));
}

static int show(const struct report_options *o, struct report *r)
{
	int err = 0;

	if (o->pid && !report_of(r, (pid_t)o->pid))
		return refuse(-ENOENT, "%s: pid %ld is not in it", o->file, o->pid);
	if (o->csv)
		report_csv(r, (pid_t)o->pid, stdout);
	if (o->heatmap)
		err = draw_heatmap(o, r);
	if (!err && o->flamegraph)
		err = draw_flames(o, r);
	if (!o->csv && !o->heatmap && !o->flamegraph)
		report_print(r, (pid_t)o->pid, (size_t)o->top, stdout);
	return err;
}

static int run(int argc, char **argv)
{
	struct report_options o;
	struct report r = {0};
	int status = parse(&o, argc, argv), err;

	if (status)
		return status;
	err = report_read(o.file, &r);
	if (!err)
		err = show(&o, &r);
	status = err ? cli_failed(err) : EXIT_DONE;
	if (!err && r.damage[0])
		status = cli_failed(refuse(-EBADMSG, "%s: %s: what is before that was shown",
					   o.file, r.damage));
	report_free(&r);
	return status;
}

const struct verb verb_report = {
	.name = "report",
	.run = run,
	.line = "show what icp-bpf record has recorded",
	.help = "usage: icp-bpf report FILE [OPTIONS]\n"
		"\n"
		"Without options a summary: dirty rate over time, the most written memory "
		"areas, "
		"the threads and functions that\n"
		"write. Of a damaged or cut-off file it shows what is before the damage, says "
		"so, and exits with 1.\n"
		"\n"
		"  -p, --pid PID          this process; by default all, and for pictures the "
		"one that wrote most\n"
		"      --heatmap OUT      address by time, as OUT.svg or OUT.png; - as text "
		"(256 colours on a terminal, unless\n"
		"                         NO_COLOR is set)\n"
		"      --flamegraph OUT   who writes: user stacks, as OUT.svg or OUT.png\n"
		"      --csv              a line per process and interval, to the output\n"
		"      --top N            lines of memory areas and of writers (10)\n"
		"\n"
		"example: icp-bpf report redis.rec --heatmap redis.svg --flamegraph who.svg\n",
};
