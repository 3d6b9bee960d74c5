// SPDX-License-Identifier: GPL-2.0
/* What a process is in that a restart could not put it into again, found while it still runs. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "state/creds.h"

/* Not the cgroup's: groups are not restored, the job is in those of the restarter. */
static const struct {
	const char *file, *what;
} namespaces[] = {
	{"mnt", "mount"}, {"net", "network"},	 {"user", "user"}, {"uts", "UTS"},
	{"ipc", "IPC"},	  {"pid", "process id"}, {"time", "time"},
};

static bool differs(const struct target *t, const char *path_of_it, const char *path_of_ours)
{
	struct stat its, ours;

	return !fstatat(t->proc_fd, path_of_it, &its, 0) && !stat(path_of_ours, &ours) &&
	       (its.st_ino != ours.st_ino || its.st_dev != ours.st_dev);
}

static bool in_another(const struct target *t, const char *namespace)
{
	char its[32], ours[48];

	snprintf(its, sizeof(its), "ns/%s", namespace);
	snprintf(ours, sizeof(ours), "/proc/self/ns/%s", namespace);
	return differs(t, its, ours);
}

/*
 * A service manager gives a daemon a view of its own on the same files (ProtectSystem=...): then whoever asked for the checkpoint
 * counts, who would restart the job where he is.
 */
static bool asker_is_there(const struct target *t, pid_t asker)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", asker);
	return asker && !access(path, F_OK) && !differs(t, "ns/mnt", path) &&
	       !differs(t, "root", "/");
}

/*
 * A pid namespace, with the mount namespace that goes with it (its own /proc), can be made anew by a restart. A root of its own, a
 * container's, can not.
 */
static int check_namespaces(const struct target *t, pid_t asker)
{
	bool apart = in_another(t, "pid") && !differs(t, "root", "/");

	for (size_t i = 0; i < sizeof(namespaces) / sizeof(*namespaces); i++) {
		const char *file = namespaces[i].file;

		if (!in_another(t, file) ||
		    (apart && (!strcmp(file, "pid") || !strcmp(file, "mnt"))) ||
		    (!strcmp(file, "mnt") && asker_is_there(t, asker)))
			continue;
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
	int err = check_namespaces(p->target, p->job->how.asker);

	if (!err)
		err = check_link(p->target, "exe", "program");
	if (!err)
		err = check_link(p->target, "cwd", "working directory");
	return err ? err : check_link(p->target, "root", "root directory");
}
