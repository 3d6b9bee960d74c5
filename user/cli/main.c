// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/cli.h"

static const struct verb *const verbs[] = {
	&verb_check,  &verb_trace,  &verb_checkpoint, &verb_restart, &verb_list, &verb_show,
	&verb_verify, &verb_diff,   &verb_export,     &verb_prune,   &verb_shm,	 &verb_rm,
	&verb_serve,  &verb_record, &verb_report,     &verb_top};

#define VERBS (sizeof(verbs) / sizeof(verbs[0]))

static const struct verb *find(const char *name)
{
	for (size_t i = 0; i < VERBS; i++)
		if (!strcmp(verbs[i]->name, name))
			return verbs[i];
	return NULL;
}

static void list(FILE *out)
{
	fprintf(out, "usage: icp-bpf VERB [OPTIONS]\n\n");
	for (size_t i = 0; i < VERBS; i++)
		fprintf(out, "  %-11s %s\n", verbs[i]->name, verbs[i]->line);
	fprintf(out, "  %-11s %s\n", "help VERB", "what a verb does, its options, an example");
	fprintf(out, "\n  --version   the version\n");
}

static int unknown(const char *name)
{
	fprintf(stderr, "icp-bpf: there is no verb '%s': icp-bpf help lists them\n", name);
	return EXIT_USAGE;
}

static int help(int argc, char **argv)
{
	const struct verb *verb;

	if (argc < 3) {
		list(stdout);
		return EXIT_DONE;
	}
	verb = find(argv[2]);
	if (!verb)
		return unknown(argv[2]);
	fputs(verb->help, stdout);
	return EXIT_DONE;
}

/*
 * Started with a standard descriptor closed, the next file that we open would take its number and get our output. One
 * that can't be written to takes it instead.
 */
static int fill_standard_fds(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
			return -errno;
	return 0;
}

/* Descriptors: one for each process of a job and some for each file of a chain. */
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max < 65536 ? limit.rlim_max : 65536;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int run(int argc, char **argv)
{
	const struct verb *verb;

	if (argc < 2) {
		list(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		puts("icp-bpf " ICP_VERSION);
		return EXIT_DONE;
	}
	if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return help(argc, argv);
	verb = find(argv[1]);
	if (!verb)
		return unknown(argv[1]);
	for (int i = 2; i < argc && strcmp(argv[i], "--"); i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			fputs(verb->help, stdout);
			return EXIT_DONE;
		}
	}
	return verb->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
	int err = fill_standard_fds(), status;

	if (err)
		return EXIT_FAILED;
	raise_file_limit();
	status = run(argc, argv);
	/* where nobody reads any more (EPIPE) there is nobody to complain to */
	errno = 0;
	if ((fflush(stdout) || ferror(stdout)) && errno != EPIPE && status == EXIT_DONE) {
		fprintf(stderr, "icp-bpf: write the output: %s\n",
			strerror(errno ? errno : EIO));
		return EXIT_FAILED;
	}
	return status;
}
