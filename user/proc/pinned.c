// SPDX-License-Identifier: GPL-2.0
#include "proc/pinned.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/io.h"
#include "base/page.h"

/* The kernel leaves the list out while the ring's lock is taken (io_uring/fdinfo.c: trylock), so ask again. */
#define TRIES 50

/* "    0: 0x7f0123456000/4096" a line, between "UserBufs:\t1" and the next key; returns how many, -1: not listed. */
static long parse(const char *text, struct pinned *out)
{
	const char *line = strstr(text, "\nUserBufs:");
	unsigned long long start, len;
	unsigned total, index, listed = 0;

	if (!line || sscanf(line, "\nUserBufs: %u", &total) != 1)
		return strstr(text, "\nSqMask:") ? -1 : 0;
	while (listed < total && (line = strchr(line + 1, '\n'))) {
		struct pinned_range *r;

		if (sscanf(line, " %u: 0x%llx/%llu", &index, &start, &len) != 3) {
			if (!strstr(line, "<none>") || sscanf(line, " %u:", &index) != 1)
				break;
			listed++;
			continue;
		}
		r = vec_push(out);
		if (!r)
			return -ENOMEM;
		r->start = page_down(start);
		r->end = page_down(start + len + page_size() - 1);
		listed++;
	}
	return total && !listed ? -1 : (long)listed;
}

static int read_one(int dir, const char *name, struct pinned *out)
{
	for (int i = 0; i < TRIES; i++) {
		_cleanup_free_ char *text = NULL;
		long listed;

		if (io_read_file(dir, name, &text, NULL))
			return 0; /* closed meanwhile */
		listed = parse(text, out);
		if (listed == -ENOMEM)
			return fail(-ENOMEM, "pinned memory");
		if (listed >= 0)
			return 0;
	}
	return 0;
}

int pinned_read(const struct target *t, struct pinned *out)
{
	_cleanup_dir_ DIR *dir = NULL;
	struct target_status status;
	struct dirent *entry;
	int fd, err = target_status(t, &status);

	if (err || !status.vm_pin_kb) {
		if (err)
			err_clear();
		return 0;
	}
	fd = openat(t->proc_fd, "fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (!err && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			err = read_one(fd, entry->d_name, out);
	return err;
}
