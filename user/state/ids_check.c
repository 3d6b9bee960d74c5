// SPDX-License-Identifier: GPL-2.0
/* What a process is in that a restart could not put it into again, found while it still runs. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "state/creds.h"

/* Not the cgroup's: groups are not restored, the job is in those of the restarter. */
static const struct {
	const char *file, *what;
} namespaces[] = {
	{"mnt", "mount"}, {"net", "network"},	 {"user", "user"}, {"uts", "UTS"},
	{"ipc", "IPC"},	  {"pid", "process id"}, {"time", "time"},
};

static int check_namespaces(const struct target *t)
{
	for (size_t i = 0; i < sizeof(namespaces) / sizeof(*namespaces); i++) {
		char path[32];
		struct stat its, ours;

		snprintf(path, sizeof(path), "ns/%s", namespaces[i].file);
		if (fstatat(t->proc_fd, path, &its, 0))
			continue;
		snprintf(path, sizeof(path), "/proc/self/ns/%s", namespaces[i].file);
		if (!stat(path, &ours) && its.st_ino != ours.st_ino)
			return refuse(-EOPNOTSUPP,
				      "it is in another %s namespace than icp-bpf, which can't "
				      "be restarted: --no-restart saves the data only",
				      namespaces[i].what);
	}
	return 0;
}

static int check_link(const struct target *t, const char *name, const char *what)
{
	_cleanup_free_ char *path = NULL;
	bool deleted;

	if (procfs_link(t->proc_fd, name, &path, &deleted) || !deleted)
		return 0;
	return refuse(-EOPNOTSUPP,
		      "its %s (%s) was deleted, so it can't be restarted: --no-restart saves "
		      "the data only",
		      what, path);
}

int ids_check(struct state_process *p)
{
	int err = check_namespaces(p->target);

	if (!err)
		err = check_link(p->target, "exe", "program");
	if (!err)
		err = check_link(p->target, "cwd", "working directory");
	return err ? err : check_link(p->target, "root", "root directory");
}
