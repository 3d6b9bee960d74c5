// SPDX-License-Identifier: GPL-2.0
#include "serve/usage.h"

#include <fcntl.h>
#include <sys/resource.h>

#include "base/io.h"
#include "base/page.h"
#include "proc/tasks.h"

static uint64_t rss_of(pid_t pid)
{
	_cleanup_free_ char *text = NULL;
	unsigned long pages = 0;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	if (io_read_file(AT_FDCWD, path, &text, NULL) || sscanf(text, "%*u %lu", &pages) != 1)
		return 0;
	return pages * page_size();
}

static double cpu_of(pid_t pid)
{
	_cleanup_free_ char *text = NULL;
	unsigned long user = 0, system = 0;
	const char *after;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (io_read_file(AT_FDCWD, path, &text, NULL))
		return 0;
	after = strrchr(text, ')');
	if (!after || sscanf(after, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
			     &user, &system) != 2)
		return 0;
	return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

void usage_read(double *cpu_s, uint64_t *rss_bytes)
{
	_cleanup_(free_pids) pid_list children = {0};
	struct rusage self;

	getrusage(RUSAGE_SELF, &self);
	*cpu_s = (double)self.ru_utime.tv_sec + (double)self.ru_utime.tv_usec / 1e6 +
		 (double)self.ru_stime.tv_sec + (double)self.ru_stime.tv_usec / 1e6;
	*rss_bytes = rss_of(getpid());
	if (tasks_descendants(getpid(), &children))
		return;
	vec_each (pid, &children) {
		*cpu_s += cpu_of(*pid);
		*rss_bytes += rss_of(*pid);
	}
}
