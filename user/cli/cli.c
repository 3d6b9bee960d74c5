// SPDX-License-Identifier: GPL-2.0
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

int cli_failed(int err)
{
	fprintf(stderr, "icp-bpf: %s\n", err_text(err));
	return EXIT_FAILED;
}

int cli_usage(const struct verb *verb, const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "icp-bpf %s: ", verb->name);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "; see icp-bpf help %s\n", verb->name);
	return EXIT_USAGE;
}

int cli_bad_option(const struct verb *verb, char **argv)
{
	const char *word = argv[optind - 1];

	if (optopt && strncmp(word, "--", 2))
		return cli_usage(verb, "no option -%c, or its value is missing", optopt);
	return cli_usage(verb, "no option '%s', or its value is missing", word);
}

bool cli_seconds(const char *text, double *out)
{
	static const struct {
		const char *unit;
		double seconds;
	} units[] = {{"", 1}, {"s", 1}, {"ms", 1e-3}, {"m", 60}, {"h", 3600}};
	char *end;
	double value;

	if (!isdigit((unsigned char)text[0]) && text[0] != '.')
		return false;
	value = strtod(text, &end);
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(end, units[i].unit))
			continue;
		*out = value * units[i].seconds;
		return isfinite(*out) && *out > 0 && *out <= 1e9;
	}
	return false;
}

bool cli_number(const char *text, long min, long max, long *out)
{
	char *end;

	errno = 0;
	*out = strtol(text, &end, 10);
	return end != text && !*end && !errno && isdigit((unsigned char)text[0]) &&
	       *out >= min && *out <= max;
}

int cli_word(const char *text, const char *const *words, int n)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(text, words[i]))
			return i;
	return -1;
}

int cli_add_pid(const struct verb *verb, pid_list *pids, const char *text)
{
	long pid;
	pid_t *slot;

	if (!cli_number(text, 1, INT32_MAX, &pid))
		return cli_usage(verb, "'%s' is not a process id", text);
	slot = vec_push(pids);
	if (!slot)
		return cli_failed(-ENOMEM);
	*slot = (pid_t)pid;
	return 0;
}
