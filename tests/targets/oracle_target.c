// SPDX-License-Identifier: GPL-2.0
/*
 * Random work on every kind of memory. Arguments: SEED WORKDIR [free | calm | free-calm | free-plain].
 *
 * Without "free" it does nothing but what it is told: "N\n" on stdin is N operations, spread over itself and its children, then
 * "ok\n" and it blocks. With "free" it and a child run four threads each, which never rest; it says "ok\n" when they do.
 * With "calm" no process begins and no segment is attached after the start.
 * "plain": and after a while no mapping changes any more, there are only writes.
 * No malloc of its own: the heap is for the brk operations.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define HUGE (2ul << 20)
#define REGIONS 24
#define THREADS 4
#define KIDS 2
#define SHARED_PAGES 64
#define FILE_PAGES 64
#define PLAIN_FROM 500

enum kind { ANON, PRIVATE, SHARED, SEGMENT };

struct region {
	uint8_t *at;
	size_t pages;
	enum kind kind;
	int prot;
};

struct worker {
	uint64_t rng;
	struct region region[REGIONS];
	size_t n;
	size_t heap; /* pages that brk added; of the main thread only */
	uint8_t *heap_end;
	bool main, free, calm, plain;
	size_t done;
	struct {
		pid_t pid;
		int to, from;
	} kid[KIDS];
	size_t kids;
	uint8_t buf[16 * PAGE];
};

static struct worker workers[THREADS];
/* A failed mremap() has unmapped the place it was to go to: nobody may have mapped there before we know. */
static pthread_mutex_t layout = PTHREAD_MUTEX_INITIALIZER;
/* made at start, so that children share them */
static uint8_t *common; /* shared anonymous */
static int memfd, shmfd, deleted, file, direct;
static int segments[3];
static uint8_t *attached[3];

static _Noreturn void wrong(const char *what)
{
	dprintf(2, "oracle_target %d: %s: %s\n", getpid(), what, strerror(errno));
	_exit(3);
}

static uint64_t next(struct worker *w)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return w->rng * 0x2545f4914f6cdd1dull;
}

static size_t below(struct worker *w, size_t n)
{
	return (size_t)((next(w) >> 33) % n);
}

static struct region *any_region(struct worker *w)
{
	return w->n ? &w->region[below(w, w->n)] : NULL;
}

/* One that can be written, and a piece of it. */
static uint8_t *any_piece(struct worker *w, size_t most, size_t *pages)
{
	for (int i = 0; i < 8 && w->n; i++) {
		struct region *r = any_region(w);
		size_t first;

		if ((r->prot & 3) != 3)
			continue;
		first = below(w, r->pages);
		*pages = 1 + below(w, most);
		if (*pages > r->pages - first)
			*pages = r->pages - first;
		return r->at + first * PAGE;
	}
	return NULL;
}

/* ---- writing ---- */

static void do_store(struct worker *w)
{
	size_t n, how = below(w, 8);
	uint8_t *p = any_piece(w, how ? 8 : 200, &n);

	if (!p)
		return;
	if (how == 1) { /* zeros are content too */
		memset(p, 0, n * PAGE);
	} else if (how == 2) { /* a value that is there already */
		volatile uint8_t *v = p;

		*v = *v;
	} else if (how < 5) {
		memset(p, (int)next(w), n * PAGE);
	} else {
		for (size_t i = 0; i < n; i++)
			p[i * PAGE + below(w, PAGE)] = (uint8_t)next(w);
	}
}

static void do_load(struct worker *w)
{
	struct region *r = any_region(w);
	volatile uint8_t *p = r ? r->at : NULL;

	if (r && r->prot & PROT_READ)
		for (size_t i = 0; i < 16; i++)
			(void)p[below(w, r->pages) * PAGE];
}

static void do_read(struct worker *w)
{
	size_t n;
	uint8_t *p = any_piece(w, 8, &n);

	if (p && pread(file, p + below(w, 100), n * PAGE - 100,
		       (off_t)below(w, FILE_PAGES * PAGE / 2)) < 0)
		wrong("pread");
}

static void do_direct(struct worker *w)
{
	size_t n;
	uint8_t *p = any_piece(w, 8, &n);

	if (p && direct >= 0 &&
	    pread(direct, p, n * PAGE, (off_t)(below(w, FILE_PAGES - 8) * PAGE)) < 0)
		wrong("O_DIRECT pread");
}

/* Written by somebody else: a child that ends at once, with system calls only. */
static void do_writev(struct worker *w)
{
	size_t n;
	uint8_t *p = any_piece(w, 8, &n);
	pid_t self = getpid(), child;
	uint64_t value = next(w);
	int status;

	if (!p || w->calm)
		return;
	child = fork();
	if (child < 0)
		wrong("fork");
	if (!child) {
		struct iovec from = {w->buf, n * PAGE}, to = {p, n * PAGE};

		memset(w->buf, (int)value, n * PAGE);
		if (process_vm_writev(self, &from, 1, &to, 1, 0) < 0)
			wrong("process_vm_writev");
		_exit(0);
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			wrong("waitpid");
	if (status)
		_exit(3);
}

static void do_pwrite(struct worker *w)
{
	static const int *const fds[] = {&memfd, &shmfd, &deleted};
	size_t n = 1 + below(w, 4), len = n * PAGE - below(w, PAGE);
	int fd = *fds[below(w, 3)];

	memset(w->buf, (int)next(w), len);
	if (pwrite(fd, w->buf, len, (off_t)below(w, (SHARED_PAGES - 4) * PAGE)) < 0)
		wrong("pwrite");
	if (!below(w, 4) &&
	    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)(below(w, SHARED_PAGES - 4) * PAGE), (off_t)(n * PAGE)) < 0)
		wrong("fallocate");
}

static void do_common(struct worker *w)
{
	for (size_t i = 1 + below(w, 4); i; i--) {
		common[below(w, SHARED_PAGES * PAGE)] = (uint8_t)next(w);
		attached[below(w, 3)][below(w, SHARED_PAGES * PAGE)] = (uint8_t)next(w);
	}
	if (!w->plain && !below(w, 16))
		madvise(common + below(w, SHARED_PAGES) * PAGE, PAGE,
			below(w, 2) ? MADV_REMOVE : MADV_DONTNEED);
}

/* ---- the lay-out ---- */

static void add_region(struct worker *w, void *at, size_t pages, enum kind kind, int prot)
{
	if (at == MAP_FAILED)
		wrong("mmap");
	w->region[w->n++] = (struct region){at, pages, kind, prot};
}

static void map_huge(struct worker *w)
{
	uint8_t *raw = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0),
		*at;

	if (raw == MAP_FAILED)
		wrong("mmap");
	at = (uint8_t *)(((uintptr_t)raw + HUGE - 1) & ~(HUGE - 1));
	if (at > raw)
		munmap(raw, (size_t)(at - raw));
	munmap(at + HUGE, (size_t)(raw + HUGE - at));
	madvise(at, HUGE, MADV_HUGEPAGE);
	add_region(w, at, HUGE / PAGE, ANON, PROT_READ | PROT_WRITE);
	if (below(w, 2))
		memset(at, (int)next(w), PAGE);
}

static void map_shared(struct worker *w)
{
	const int fds[] = {memfd, shmfd, deleted, -1};
	int fd = fds[below(w, 4)];
	size_t first = below(w, SHARED_PAGES / 2), pages = 1 + below(w, SHARED_PAGES / 2);

	add_region(w,
		   mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
			MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd,
			fd < 0 ? 0 : (off_t)(first * PAGE)),
		   pages, SHARED, PROT_READ | PROT_WRITE);
}

static void map_something(struct worker *w)
{
	size_t pages = 1 + below(w, below(w, 4) ? 16 : 200), first;

	if (w->n == REGIONS)
		return;
	switch (below(w, 10)) {
	case 0:
		map_huge(w);
		return;
	case 1:
	case 2:
		map_shared(w);
		return;
	case 3:
		if (w->calm)
			return;
		add_region(w, shmat(segments[below(w, 3)], NULL, 0), SHARED_PAGES, SEGMENT,
			   PROT_READ | PROT_WRITE);
		return;
	case 4: /* sparse */
		add_region(w,
			   mmap(NULL, 8192 * PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
			   8192, ANON, PROT_READ | PROT_WRITE);
		return;
	case 5:
	case 6:
		first = below(w, FILE_PAGES / 2);
		pages = 1 + below(w, FILE_PAGES / 2);
		add_region(w,
			   mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file,
				(off_t)(first * PAGE)),
			   pages, PRIVATE, PROT_READ | PROT_WRITE);
		return;
	default:
		add_region(w,
			   mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
			   pages, ANON, PROT_READ | PROT_WRITE);
	}
}

static void do_map(struct worker *w)
{
	pthread_mutex_lock(&layout);
	map_something(w);
	pthread_mutex_unlock(&layout);
}

static void drop_region(struct worker *w, struct region *r)
{
	*r = w->region[--w->n];
}

static void unmap_something(struct worker *w)
{
	struct region *r = any_region(w);
	size_t n;

	if (!r)
		return;
	if (r->kind == SEGMENT) {
		if (shmdt(r->at))
			wrong("shmdt");
		drop_region(w, r);
		return;
	}
	n = below(w, 2) ? r->pages : 1 + below(w, r->pages);
	if (n == r->pages) {
		munmap(r->at, n * PAGE);
		/* at once something else in its place, as far as it is not taken by another thread */
		if (below(w, 2) &&
		    mmap(r->at, n * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == r->at) {
			r->kind = ANON;
			r->prot = PROT_READ | PROT_WRITE;
			return;
		}
		drop_region(w, r);
		return;
	}
	if (below(w, 2)) {
		munmap(r->at, n * PAGE);
		r->at += n * PAGE;
	} else {
		munmap(r->at + (r->pages - n) * PAGE, n * PAGE);
	}
	r->pages -= n;
}

static void do_unmap(struct worker *w)
{
	pthread_mutex_lock(&layout);
	unmap_something(w);
	pthread_mutex_unlock(&layout);
}

static void remap_something(struct worker *w)
{
	struct region *r = any_region(w);
	size_t pages = r ? 1 + below(w, r->pages + r->pages / 2 + 4) : 0;
	void *to;

	if (!r || r->kind == SEGMENT || r->kind == SHARED || r->pages > 1024)
		return;
	if (r->kind == PRIVATE && pages > r->pages) /* beyond the file is SIGBUS */
		pages = r->pages;
	if (below(w, 2)) { /* to another place for sure */
		void *room = mmap(NULL, pages * PAGE, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (room == MAP_FAILED)
			wrong("mmap");
		to = mremap(r->at, r->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			    room);
		if (to == MAP_FAILED) { /* half of it may have been moved, or cut off */
			munmap(room, pages * PAGE);
			munmap(r->at, r->pages * PAGE);
			drop_region(w, r);
			return;
		}
	} else {
		to = mremap(r->at, r->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE);
	}
	if (to == MAP_FAILED)
		return;
	r->at = to;
	r->pages = pages;
}

static void do_remap(struct worker *w)
{
	pthread_mutex_lock(&layout);
	remap_something(w);
	pthread_mutex_unlock(&layout);
}

static void do_brk(struct worker *w)
{
	size_t n = 1 + below(w, 32);

	if (!w->main)
		return;
	if (sbrk(0) != w->heap_end) /* libc (pthread_create) has put something behind ours */
		w->heap = 0;
	if (below(w, 2) && w->heap) {
		n = n > w->heap ? w->heap : n;
		if (sbrk(-(intptr_t)(n * PAGE)) == (void *)-1)
			wrong("sbrk");
		w->heap -= n;
	} else if (w->heap < 400) {
		uint8_t *at = sbrk((intptr_t)(n * PAGE));

		if (at == (void *)-1)
			wrong("sbrk");
		w->heap += n;
		for (size_t i = 0; i < n; i += 1 + below(w, 4))
			memset(at + i * PAGE, (int)next(w), 1 + below(w, PAGE));
	}
	w->heap_end = sbrk(0);
	if (w->heap)
		((uint8_t *)sbrk(0))[-1 - (long)below(w, w->heap * PAGE)] = (uint8_t)next(w);
}

static void do_advise(struct worker *w)
{
	static const int what[] = {MADV_DONTNEED,
				   MADV_DONTNEED,
				   MADV_DONTNEED,
				   MADV_HUGEPAGE,
				   MADV_NOHUGEPAGE,
				   25 /* COLLAPSE */,
				   22 /* POPULATE_READ */,
				   23 /* POPULATE_WRITE */,
				   MADV_REMOVE,
				   20 /* COLD */,
				   21 /* PAGEOUT */};
	struct region *r = any_region(w);
	size_t first, n;

	if (!r)
		return;
	first = below(w, r->pages);
	n = 1 + below(w, below(w, 2) ? 4 : r->pages);
	n = n > r->pages - first ? r->pages - first : n;
	madvise(r->at + first * PAGE, (n > 600 ? 600 : n) * PAGE,
		what[below(w, sizeof(what) / sizeof(what[0]))]);
}

/* A piece with another protection becomes a region of its own. */
static void do_protect(struct worker *w)
{
	static const int prots[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE,
				    PROT_READ | PROT_WRITE};
	struct region *r = any_region(w);
	size_t n;

	if (!r || r->kind == SEGMENT)
		return;
	if (w->n < REGIONS && r->pages > 1 && below(w, 2)) {
		n = 1 + below(w, r->pages - 1);
		w->region[w->n] = *r;
		w->region[w->n].at += n * PAGE;
		w->region[w->n++].pages -= n;
		r->pages = n;
	}
	r->prot = prots[below(w, 4)];
	if (mprotect(r->at, r->pages * PAGE, r->prot))
		wrong("mprotect");
}

/* ---- stacks and threads ---- */

static __attribute__((noinline)) uint64_t deeper(uint64_t value, size_t pages)
{
	volatile uint8_t here[PAGE];

	memset((void *)here, (int)value, sizeof(here));
	return pages ? deeper(value + here[17], pages - 1) + here[100] : here[99];
}

static void do_stack(struct worker *w)
{
	deeper(next(w), below(w, w->main ? 60 : 12));
}

static void *short_life(void *arg)
{
	deeper((uint64_t)(uintptr_t)arg, 5);
	return NULL;
}

static void do_thread(struct worker *w)
{
	pthread_t thread;

	if (w->free) /* stacks come from libc's cache, which children of a threaded process must not touch */
		return;
	if (pthread_create(&thread, NULL, short_life, (void *)(uintptr_t)next(w)))
		wrong("pthread_create");
	pthread_join(thread, NULL);
}

/* ---- children ---- */

static void serve(struct worker *w, int in, int out);

static void do_fork(struct worker *w)
{
	int to[2], from[2];
	size_t i;

	if (w->free || w->calm || !w->main)
		return;
	if (w->kids == KIDS) { /* one ends */
		i = below(w, KIDS);
		close(w->kid[i].to);
		close(w->kid[i].from);
		waitpid(w->kid[i].pid, NULL, 0);
		w->kid[i] = w->kid[--w->kids];
		return;
	}
	if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		wrong("pipe");
	i = w->kids;
	w->kid[i].pid = fork();
	if (w->kid[i].pid < 0)
		wrong("fork");
	if (!w->kid[i].pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (size_t k = 0; k < w->kids; k++) {
			close(w->kid[k].to);
			close(w->kid[k].from);
		}
		close(to[1]);
		close(from[0]);
		w->kids = 0;
		w->rng ^= (uint64_t)getpid() << 20 ^ 0x9e3779b97f4a7c15ull;
		serve(w, to[0], from[1]);
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	w->kid[i].to = to[1];
	w->kid[i].from = from[0];
	w->kids++;
}

static void one(struct worker *w)
{
	static void (*const ops[])(struct worker *) = {
		do_store,  do_store,   do_store,  do_store,  do_store,	do_store,
		do_load,   do_read,    do_direct, do_pwrite, do_common, do_common,
		do_map,	   do_map,     do_unmap,  do_remap,  do_brk,	do_advise,
		do_advise, do_protect, do_stack,  do_thread,
	};
	static void (*const plain[])(struct worker *) = {do_store, do_store,  do_load,
							 do_read,  do_common, do_pwrite};
	size_t rare = below(w, 60);

	if (w->plain && w->done++ > PLAIN_FROM) {
		plain[below(w, sizeof(plain) / sizeof(plain[0]))](w);
		return;
	}
	if (rare == 0)
		do_writev(w);
	else if (rare == 1)
		do_fork(w);
	else
		ops[below(w, sizeof(ops) / sizeof(ops[0]))](w);
}

static void serve(struct worker *w, int in, int out)
{
	char line[32];
	ssize_t got;

	while ((got = read(in, line, sizeof(line) - 1)) > 0) {
		long n;

		line[got] = 0;
		n = strtol(line, NULL, 10);
		for (long i = 0; i < n; i++) {
			size_t who = below(w, w->kids + 2);

			if (who < w->kids && n - i >= 4) { /* a child does some of it */
				if (write(w->kid[who].to, "4\n", 2) != 2 ||
				    read(w->kid[who].from, line, 3) != 3)
					wrong("child");
				i += 3;
			} else {
				one(w);
			}
		}
		if (write(out, "ok\n", 3) != 3)
			wrong("answer");
	}
}

static void *run_free(void *arg)
{
	struct worker *w = arg;
	/* an emulated guest does as much in ten times the time */
	size_t rest_us = getenv("ICP_GUEST") ? 30000 : 3000;

	for (;;) {
		for (size_t i = 1 + below(w, 8); i; i--)
			one(w);
		usleep((unsigned)below(w, rest_us));
	}
	return NULL;
}

static void start_free(uint64_t seed)
{
	pthread_t thread;

	for (size_t i = 0; i < THREADS; i++) {
		workers[i].rng = seed + i * 7919;
		workers[i].main = !i;
		workers[i].free = true;
		workers[i].calm = workers[0].calm;
		workers[i].plain = workers[0].plain;
		if (i && pthread_create(&thread, NULL, run_free, &workers[i]))
			wrong("pthread_create");
	}
}

static int open_shared(const char *dir, const char *name, const char *pid)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s%s", dir, name, pid);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, SHARED_PAGES * PAGE - 500))
		wrong(path);
	return fd;
}

static void set_up(struct worker *w, const char *dir)
{
	char path[4096], pid[16];

	snprintf(pid, sizeof(pid), "%d", getpid());
	file = open_shared(dir, "oracle_file.", pid);
	for (size_t i = 0; i < FILE_PAGES; i++) {
		for (size_t k = 0; k < PAGE; k += 8)
			memcpy(w->buf + k, &(uint64_t){next(w)}, 8);
		if (pwrite(file, w->buf, PAGE, (off_t)(i * PAGE)) < 0)
			wrong("pwrite");
	}
	fsync(file);
	snprintf(path, sizeof(path), "%s/oracle_file.%s", dir, pid);
	direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	deleted = open_shared(dir, "oracle_deleted.", pid);
	snprintf(path, sizeof(path), "%s/oracle_deleted.%s", dir, pid);
	unlink(path);
	shmfd = open_shared("/dev/shm", "oracle_shm.", pid);
	memfd = memfd_create("oracle", MFD_CLOEXEC);
	if (memfd < 0 || ftruncate(memfd, SHARED_PAGES * PAGE))
		wrong("memfd");
	common = mmap(NULL, SHARED_PAGES * PAGE, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < 3; i++) {
		/* the last one's end is not at the end of a page, whose rest is memory all the same */
		segments[i] =
			shmget(IPC_PRIVATE, SHARED_PAGES * PAGE - (i == 2 ? 1000 : 0), 0600);
		attached[i] = segments[i] < 0 ? NULL : shmat(segments[i], NULL, 0);
		if (!attached[i] || attached[i] == (void *)-1)
			wrong("shm");
		/* goes with the last of us; attaching a removed one is possible on Linux */
		shmctl(segments[i], IPC_RMID, NULL);
	}
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 2 ? strtoull(argv[1], NULL, 0) : 0;

	if (argc < 3)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	workers[0].rng = seed | 1;
	workers[0].main = true;
	set_up(&workers[0], argv[2]);
	workers[0].plain = argc > 3 && strstr(argv[3], "plain");
	workers[0].calm = workers[0].plain || (argc > 3 && strstr(argv[3], "calm"));
	if (argc > 3 && !strncmp(argv[3], "free", 4)) {
		pid_t self = getpid(), child = fork();

		if (!child) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (getppid() != self)
				return 1;
		}
		start_free(seed + (child ? 0 : 104729));
		if (write(1, "ok\n", 3) != 3)
			return 1;
		run_free(&workers[0]);
	}
	if (write(1, "ok\n", 3) != 3)
		return 1;
	serve(&workers[0], 0, 1);
	return 0;
}
