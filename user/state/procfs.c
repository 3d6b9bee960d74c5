// SPDX-License-Identifier: GPL-2.0
#include "state/procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"

const char *procfs_field(const char *text, const char *key)
{
	size_t len = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, len) || line[len] != ':')
			continue;
		for (line += len + 1; *line == ' ' || *line == '\t';)
			line++;
		return line;
	}
	return NULL;
}

uint64_t procfs_number(const char *text, const char *key, int base)
{
	const char *at = procfs_field(text, key);

	return at ? strtoull(at, NULL, base) : 0;
}

size_t procfs_numbers(const char *text, const char *key, uint32_t *out, size_t max)
{
	const char *at = procfs_field(text, key);
	size_t n = 0;

	while (at) {
		at += strspn(at, " \t");
		if (*at < '0' || *at > '9')
			break;
		if (n < max)
			out[n] = (uint32_t)strtoul(at, NULL, 10);
		n++;
		at += strspn(at, "0123456789");
	}
	return n;
}

int procfs_stat(const char *text, unsigned first, unsigned last, int64_t *out)
{
	const char *at = strrchr(text, ')'); /* comm may hold anything */

	for (unsigned field = 3; field <= last; field++) {
		if (at)
			at = strchr(at, ' ');
		if (!at)
			break;
		at++;
		if (field < first)
			continue;
		out[field - first] =
			*at == '-' ? strtoll(at, NULL, 10) : (int64_t)strtoull(at, NULL, 10);
		if (field == last)
			return 0;
	}
	return refuse(-EPROTO, "/proc/PID/stat has no field %u", last);
}

char *procfs_text(const struct target *t, const char *name)
{
	char *text = NULL;

	return io_read_file(t->proc_fd, name, &text, NULL) ? NULL : text;
}

int procfs_link(int dirfd, const char *name, char **out, bool *deleted)
{
	static const char suffix[] = " (deleted)";
	char path[PATH_MAX + sizeof(suffix)];
	ssize_t len = readlinkat(dirfd, name, path, sizeof(path) - 1);
	size_t cut = sizeof(suffix) - 1;

	if (len < 0)
		return -errno;
	path[len] = 0;
	if (deleted)
		*deleted = false;
	if (deleted && (size_t)len > cut && !strcmp(path + len - cut, suffix)) {
		*deleted = true;
		path[(size_t)len - cut] = 0;
	}
	*out = strdup(path);
	return *out ? 0 : -ENOMEM;
}

/* How many bytes a valid character at @p takes, 0 when it isn't one. */
static size_t utf8_length(const unsigned char *p)
{
	size_t more = *p < 0x80	  ? 0
		      : *p < 0xc2 ? 9
		      : *p < 0xe0 ? 1
		      : *p < 0xf0 ? 2
		      : *p < 0xf5 ? 3
				  : 9;

	if (more == 9)
		return 0;
	for (size_t i = 1; i <= more; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	return more + 1;
}

char *procfs_utf8(const char *text)
{
	char *copy = strdup(text);

	for (size_t i = 0; copy && copy[i];) {
		size_t len = utf8_length((unsigned char *)copy + i);

		if (!len)
			copy[i] = '?';
		i += len ? len : 1;
	}
	return copy;
}
