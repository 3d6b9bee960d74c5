// SPDX-License-Identifier: GPL-2.0
/* What all programs of this kind need. */
#include "reborn.h"

#include <stdarg.h>

static const char *dir;

void set_dir(const char *name)
{
	dir = name;
}

const char *in_dir(const char *name)
{
	static char paths[4][512];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
	return path;
}

void wrong(const char *fmt, ...)
{
	int fd = open(in_dir("wrong"), O_WRONLY | O_CREAT | O_APPEND, 0666);
	va_list args;

	va_start(args, fmt);
	vdprintf(fd, fmt, args);
	va_end(args);
	dprintf(fd, "\n");
	_exit(1);
}

void ready(void)
{
	int fd = open(in_dir("ready"), O_WRONLY | O_CREAT, 0666);

	check(fd >= 0);
	close(fd);
}

void nap_ms(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	/* beside criu, after whose restore it says EINTR: what else comes back? */
	check(!nanosleep(&t, NULL) || (errno == EINTR && getenv("ICP_EINTR_OK")));
}

void wait_go(void)
{
	while (access(in_dir("go"), F_OK))
		nap_ms(5);
}

char *slurp(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = malloc(1 << 18);
	size_t len = 0;
	ssize_t got;

	check(fd >= 0 && text);
	while ((got = read(fd, text + len, (1 << 18) - 1 - len)) > 0)
		len += (size_t)got;
	check(got == 0);
	text[len] = 0;
	close(fd);
	return text;
}

void paint(void *page, uint64_t seed)
{
	uint64_t *words = page;

	for (size_t i = 0; i < PAGE / 8; i++)
		words[i] = (seed + 1) * 0x9e3779b97f4a7c15u + i * 0xc2b2ae3d27d4eb4fu;
}

bool painted(const void *page, uint64_t seed)
{
	char want[PAGE];

	paint(want, seed);
	return !memcmp(want, page, PAGE);
}
