// SPDX-License-Identifier: GPL-2.0
#include "lib/kmod.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int kernel_log = -1;

double kmod_seconds(void)
{
	const char *text = getenv("ICP_SECONDS");

	return text ? strtod(text, NULL) : 3;
}

double kmod_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

uint64_t kmod_number(const char *path)
{
	FILE *file = fopen(path, "re");
	unsigned long n = 0;

	if (!file)
		return 0;
	if (fscanf(file, "%lu", &n) != 1)
		n = 0;
	fclose(file);
	return n;
}

uint64_t kmod_vmstat(const char *name)
{
	FILE *file = fopen("/proc/vmstat", "re");
	char line[128];
	size_t len = strlen(name);
	uint64_t n = 0;

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, name, len) && line[len] == ' ')
			n = strtoull(line + len, NULL, 10);
	if (file)
		fclose(file);
	return n;
}

int kernel_mark(void **state)
{
	if (kernel_log < 0)
		kernel_log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return kernel_log < 0 || lseek(kernel_log, 0, SEEK_END) < 0 ? -1 : 0;
}

static bool complains(const char *text)
{
	static const char *const words[] = {
		"WARNING",	 "BUG",		  "Oops",
		"lockup",	 "LOCKUP",	  "stall",
		"Bad page",	 "Bad rss",	  "general protection",
		"lock held",	 "deadlock",	  "inconsistent lock",
		"circular lock", "invalid wait",  "blocked for",
		"Call Trace",	 "swap_info_get", "page table",
		"list_del corr", "refcount_t",
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (strstr(text, words[i]))
			return true;
	return false;
}

void kernel_is_content(void)
{
	char record[8192];
	unsigned found = 0;
	ssize_t got;

	/* a record a read: "priority,number,time,flags;text"; EPIPE: some were overwritten meanwhile */
	while ((got = read(kernel_log, record, sizeof(record) - 1)) > 0 || errno == EPIPE) {
		const char *text;

		if (got <= 0)
			continue;
		record[got] = 0;
		text = strchr(record, ';');
		if (!text || !complains(text))
			continue;
		found++;
		print_error("the kernel says: %s", text + 1);
	}
	assert_int_equal(found, 0);
}
