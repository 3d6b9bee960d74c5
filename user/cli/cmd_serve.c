// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <getopt.h>
#include <string.h>

#include "cli/cli.h"
#include "serve/serve.h"

/* All but --config are the settings of serve_config_set(). */
static const struct option long_options[] = {
	{"listen", required_argument, NULL, 'l'},
	{"pid", required_argument, NULL, 'p'},
	{"cgroup", required_argument, NULL, 's'},
	{"match", required_argument, NULL, 's'},
	{"tree", no_argument, NULL, 't'},
	{"config", required_argument, NULL, 'c'},
	{"token-file", required_argument, NULL, 's'},
	{"interval", required_argument, NULL, 's'},
	{"mtbf", required_argument, NULL, 's'},
	{"dir", required_argument, NULL, 's'},
	{"tracker", required_argument, NULL, 's'},
	{NULL, 0, NULL, 0},
};

static int take_option(struct serve_config *c, int opt, int index, char **argv)
{
	int err;

	if (opt == '?')
		return cli_bad_option(&verb_serve, argv);
	if (opt == 'c') {
		err = serve_config_read(c, optarg);
		return err ? cli_failed(err) : 0;
	}
	err = serve_config_set(c, opt == 'p' ? "pid" : long_options[index].name,
			       optarg ? optarg : "yes");
	return err ? cli_usage(&verb_serve, "%s", err_text(err)) : 0;
}

static int parse(struct serve_config *c, int argc, char **argv)
{
	int opt, index = 0, status;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "p:", long_options, &index)) != -1) {
		status = take_option(c, opt, index, argv);
		if (status)
			return status;
	}
	if (optind < argc)
		return cli_usage(&verb_serve, "'%s' is not an option", argv[optind]);
	if (serve_config_check(c))
		return cli_usage(&verb_serve, "%s", err_text(-EINVAL));
	return 0;
}

static int run(int argc, char **argv)
{
	struct serve_config config;
	int status, err;

	serve_config_init(&config);
	status = parse(&config, argc, argv);
	if (!status) {
		err = serve_run(&config);
		status = err ? cli_failed(err) : EXIT_DONE;
	}
	serve_config_free(&config);
	return status;
}

const struct verb verb_serve = {
	.name = "serve",
	.run = run,
	.line = "show it over HTTP: metrics, a web page, JSON",
	.help = "usage: icp-bpf serve [--pid PID]... [--cgroup PATH]... [--match REGEX] "
		"[OPTIONS]\n"
		"\n"
		"Follows processes as `trace` does, as they come and go, and serves what they "
		"write: Prometheus metrics at\n"
		"/metrics, a page at /, JSON below /api. Nothing over HTTP can trace or "
		"checkpoint. Checkpoints of followed\n"
		"processes are cut by this daemon, whoever asks for them, and show as "
		"metrics.\n"
		"\n"
		"  -p, --pid PID          a process; may be repeated\n"
		"      --cgroup PATH      all processes of a cgroup, below /sys/fs/cgroup; may "
		"be repeated\n"
		"      --match REGEX      all processes of such a name (extended, as egrep)\n"
		"      --tree             their descendants too\n"
		"      --listen ADDR:PORT where to listen (127.0.0.1:9477); another machine's "
		"reach needs --token-file\n"
		"      --token-file FILE  who asks must know what is in it: Authorization: "
		"Bearer ...\n"
		"      --interval T       between samples (1s)\n"
		"      --mtbf T           mean time between failures, for the recommended "
		"interval (24h)\n"
		"      --dir DIR          a repository whose versions are shown; may be "
		"repeated\n"
		"      --config FILE      options as lines `name = value`\n"
		"      --tracker NAME     see icp-bpf check\n"
		"\n"
		"example: icp-bpf serve --match '^(redis|postgres)' --mtbf 30d\n",
};
