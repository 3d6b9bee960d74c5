// SPDX-License-Identifier: GPL-2.0
/*
 * writer DIR: a process and its child that write other content into other pages all the time,
 * give some back, and look whether they still are who they were. DIR/ready says that both run;
 * DIR/go ends them, with status 7. What goes wrong is told in DIR/wrong. With DIR/killed a child
 * without its parent is nothing wrong.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define PAGES 1024u

static const char *dir;

static const char *in_dir(const char *name)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void make(const char *name, const char *text)
{
	int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_APPEND, 0666);

	if (fd < 0 || dprintf(fd, "%s", text) < 0)
		_exit(3);
	close(fd);
}

static void check_self(pid_t self, pid_t parent)
{
	char link[32] = "";

	if (getpid() != self || gettid() != self)
		make("wrong", "its pid\n"), _exit(4);
	if (parent && getppid() != parent && !access(in_dir("killed"), F_OK))
		_exit(6);
	if (parent && getppid() != parent)
		make("wrong", "its parent's pid\n"), _exit(4);
	if (readlink("/proc/self", link, sizeof(link) - 1) < 0 || atoi(link) != self)
		make("wrong", "/proc/self is another\n"), _exit(4);
}

static void work(pid_t parent)
{
	uint64_t *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static uint64_t seen[PAGES];
	pid_t self = getpid();

	if (memory == MAP_FAILED)
		_exit(3);
	for (uint64_t round = 1; access(in_dir("go"), F_OK); round++) {
		uint64_t i = round * 7919 % PAGES, *page = memory + i * PAGE / 8;

		if (page[1] != seen[i] || page[PAGE / 8 - 1] != seen[i])
			make("wrong", "a page holds something else\n"), _exit(4);
		seen[i] = round % 16 ? round * (uint64_t)self : 0;
		if (seen[i])
			page[1] = page[PAGE / 8 - 1] = seen[i];
		else if (madvise(page, PAGE, MADV_DONTNEED))
			_exit(3);
		check_self(self, parent);
		if (round == PAGES)
			make(parent ? "ready" : "half", "");
		if (round >= PAGES)
			nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
	}
}

int main(int argc, char **argv)
{
	pid_t self = getpid(), child;
	int status;

	if (argc != 2)
		return 2;
	dir = argv[1];
	prctl(PR_SET_PDEATHSIG, 0);
	child = fork();
	if (child < 0)
		return 3;
	if (!child) {
		work(self);
		return 5;
	}
	work(0);
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
	    WEXITSTATUS(status) != 5)
		make("wrong", "the child's status\n");
	return 7;
}
