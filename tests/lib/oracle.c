// SPDX-License-Identifier: GPL-2.0
#include "lib/oracle.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/io.h"
#include "base/page.h"
#include "proc/maps.h"
#include "proc/tasks.h"

#define CHUNK 64

enum duty { NOT_OURS, PRIVATE_ZERO, PRIVATE_FILE, SHARED_FILE, SEGMENT };

struct look {
	struct repo *repo;
	struct reader *reader;
	uint32_t version;
	struct verdict *verdict;
	pid_t pid;
	int mem, pagemap;
	struct ctl *ctl;
	uint64_t inside; /* entries of ctl that are in a mapping of ours */
};

__attribute__((format(printf, 2, 3))) static void wrong(struct look *l, const char *fmt, ...)
{
	va_list args;

	if (l->verdict->wrong++)
		return;
	va_start(args, fmt);
	vsnprintf(l->verdict->first, sizeof(l->verdict->first), fmt, args);
	va_end(args);
}

static int open_of(const struct vma *v, pid_t pid)
{
	char path[96];

	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", pid, v->start, v->end);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static enum duty duty_of(const struct vma *v, int fd)
{
	struct statfs fs;

	switch (v->kind) {
	case VMA_ANON:
		return PRIVATE_ZERO;
	case VMA_FILE_PRIVATE:
		return PRIVATE_FILE;
	case VMA_SHM:
		return SEGMENT;
	case VMA_FILE_SHARED:
		assert_true(fd >= 0);
		assert_int_equal(fstatfs(fd, &fs), 0);
		return v->deleted || fs.f_type == TMPFS_MAGIC ? SHARED_FILE : NOT_OURS;
	default:
		return NOT_OURS;
	}
}

/* Behind the end of a file its last page goes on, for those that map it. */
static void read_end(int fd, uint64_t offset, size_t n, size_t got, uint8_t *buf)
{
	size_t at = got & ~(page_size() - 1);
	void *page;

	if (!(got & (page_size() - 1)) || at >= n * page_size())
		return;
	page = mmap(NULL, page_size(), PROT_READ, MAP_SHARED, fd, (off_t)(offset + at));
	assert_true(page != MAP_FAILED);
	memcpy(buf + at, page, page_size());
	munmap(page, page_size());
}

/* What the process sees at @at: @n pages into @buf. */
static void read_truth(const struct look *l, const struct vma *v, enum duty duty, int fd,
		       uint64_t at, size_t n, uint8_t *buf)
{
	uint64_t bits[CHUNK];
	ssize_t got = 0;

	memset(buf, 0, n * page_size());
	if (fd >= 0) { /* the file's content, zeros beyond its end */
		got = pread(fd, buf, n * page_size(), (off_t)(v->offset + (at - v->start)));
		assert_true(got >= 0);
	}
	if (duty == SHARED_FILE || duty == SEGMENT) {
		if ((size_t)got < n * page_size())
			read_end(fd, v->offset + (at - v->start), n, (size_t)got, buf);
		return;
	}
	assert_int_equal(pread(l->pagemap, bits, n * 8, (off_t)(at / page_size() * 8)), n * 8);
	for (size_t i = 0; i < n; i++) {
		if (!(bits[i] >> 62))
			continue;
		got = pread(l->mem, buf + i * page_size(), page_size(),
			    (off_t)(at + i * page_size()));
		if (got !=
		    (ssize_t)
			    page_size()) /* guard pages: nothing to be read, nothing to be saved */
			memset(buf + i * page_size(), 0, page_size());
	}
}

/* What the image has there; pages without an entry stay as @buf is, or become zeros. */
static void read_image(struct look *l, struct ctl *ctl, uint64_t page, size_t n, enum duty duty,
		       uint8_t *buf)
{
	for (size_t i = 0; i < n; i++) {
		const struct ctl_entry *e = ctl_find(ctl, page + i, CTL_DIRECT);

		if (e)
			l->inside++;
		if (!e && duty == PRIVATE_FILE)
			continue;
		if (reader_page(l->reader, e, (uint32_t)page_size(), buf + i * page_size()))
			wrong(l, "version %u, pid %d, page %#lx can't be read: %s", l->version,
			      l->pid, (page + i) * page_size(), err_text(-EIO));
	}
}

static uint64_t pagemap_bits(const struct look *l, uint64_t at)
{
	uint64_t bits = 0;

	return pread(l->pagemap, &bits, 8, (off_t)(at / page_size() * 8)) == 8 ? bits : 1;
}

static void compare_vma(struct look *l, const struct vma *v)
{
	static uint8_t truth[CHUNK * 4096], image[CHUNK * 4096];
	_cleanup_fd_ int fd =
		v->kind == VMA_ANON || v->kind == VMA_SPECIAL ? -1 : open_of(v, l->pid);
	enum duty duty = duty_of(v, fd);
	_cleanup_ctl_ struct ctl *segment = NULL;
	struct ctl *ctl = l->ctl;
	uint64_t before = l->inside, first = v->start / page_size();

	if (duty == NOT_OURS)
		return;
	if (duty == SEGMENT) {
		if (repo_ctl(l->repo, l->version, ICP_STREAM_SHM | (uint32_t)v->inode,
			     &segment)) {
			wrong(l, "version %u has no segment %lu: %s", l->version, v->inode,
			      err_text(-ENOENT));
			return;
		}
		ctl = segment;
		first = v->offset / page_size();
	}
	for (uint64_t at = v->start; at < v->end; at += CHUNK * page_size()) {
		size_t n = (v->end - at) / page_size() < CHUNK ? (v->end - at) / page_size()
							       : CHUNK;
		uint64_t page = first + (at - v->start) / page_size();

		read_truth(l, v, duty, fd, at, n, truth);
		if (duty == PRIVATE_FILE &&
		    pread(fd, memset(image, 0, n * page_size()), n * page_size(),
			  (off_t)(v->offset + (at - v->start))) < 0)
			wrong(l, "%s can't be read", v->name);
		read_image(l, ctl, page, n, duty, image);
		l->verdict->pages += n;
		for (size_t i = 0; i < n; i++) {
			const struct ctl_entry *e;
			size_t off = 0;

			if (!memcmp(truth + i * page_size(), image + i * page_size(),
				    page_size()))
				continue;
			e = ctl_find(ctl, page + i, CTL_DIRECT);
			while (truth[i * page_size() + off] == image[i * page_size() + off])
				off++;
			wrong(l,
			      "version %u, pid %d, %#lx in %#lx-%#lx prot %u kind %d %s: at "
			      "%#zx the image has %02x, memory %02x; %s of version %u; pagemap "
			      "%#lx",
			      l->version, l->pid, at + i * page_size(), v->start, v->end,
			      v->prot, v->kind, v->name, off, image[i * page_size() + off],
			      truth[i * page_size() + off],
			      !e		    ? "no entry"
			      : e->flags & CTL_ZERO ? "zero entry"
						    : "entry",
			      e ? e->version : 0, pagemap_bits(l, at + i * page_size()));
		}
	}
	if (duty == SEGMENT)
		l->inside = before;
}

static void compare_process(struct look *l)
{
	_cleanup_target_ struct target *t = NULL;
	_cleanup_maps_ struct maps maps = {0};
	char path[64];

	assert_int_equal(target_open(l->pid, &t), 0);
	assert_int_equal(maps_read(t, &maps), 0);
	snprintf(path, sizeof(path), "/proc/%d/mem", l->pid);
	l->mem = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", l->pid);
	l->pagemap = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(l->mem >= 0 && l->pagemap >= 0);
	l->ctl = NULL;
	l->inside = 0;
	if (repo_ctl(l->repo, l->version, (uint32_t)l->pid, &l->ctl)) {
		wrong(l, "version %u has no process %d: %s", l->version, l->pid,
		      err_text(-ENOENT));
	} else {
		vec_each (v, &maps)
			compare_vma(l, v);
		l->verdict->entries += l->inside;
		if (l->inside != ctl_pages(l->ctl) + ctl_zeros(l->ctl))
			wrong(l, "version %u, pid %d: %lu entries, %lu of them in a mapping",
			      l->version, l->pid, ctl_pages(l->ctl) + ctl_zeros(l->ctl),
			      l->inside);
	}
	ctl_free(l->ctl);
	close(l->mem);
	close(l->pagemap);
}

size_t oracle_job(pid_t root, pid_t *pids, size_t max)
{
	_cleanup_(free_pids) pid_list tree = {0};
	size_t n = 0;

	assert_int_equal(tasks_descendants(root, &tree), 0);
	pids[n++] = root;
	for (size_t i = 0; i < tree.n && n < max; i++) {
		_cleanup_free_ char *maps = file_text("/proc/%d/maps", tree.data[i]);

		if (maps && maps[0]) /* rather than a zombie */
			pids[n++] = tree.data[i];
	}
	return n;
}

void oracle_compare(struct repo *r, uint32_t version, pid_t root, struct verdict *out)
{
	struct look l = {.repo = r, .version = version, .verdict = out};
	Icp__Manifest *m;
	pid_t pids[64];
	size_t n = oracle_job(root, pids, 64), saved = 0;

	*out = (struct verdict){.processes = n};
	assert_int_equal(reader_open(r, &l.reader), 0);
	if (repo_manifest(r, version, &m)) {
		wrong(&l, "version %u: %s", version, err_text(-EIO));
	} else {
		for (size_t i = 0; i < m->n_processes; i++)
			saved += !m->processes[i]->no_memory;
		if (saved != n)
			wrong(&l, "version %u has %zu processes, there are %zu", version, saved,
			      n);
		manifest_free(m);
	}
	for (size_t i = 0; i < n && !out->wrong; i++) {
		l.pid = pids[i];
		compare_process(&l);
	}
	reader_close(l.reader);
}

static void digest_stream(struct repo *r, struct reader *rd, uint32_t version, uint32_t stream,
			  uint64_t *sum)
{
	static uint8_t data[CHUNK * 4096];
	_cleanup_ctl_ struct ctl *ctl = NULL;
	struct ctl_run run;

	if (repo_ctl(r, version, stream, &ctl))
		fail_msg("version %u, stream %u: %s", version, stream, err_text(-EIO));
	for (uint64_t next = 0; ctl_next_run(ctl, next, CHUNK, &run); next = run.page + run.n) {
		struct icp_hash h;

		if (reader_pages(rd, ctl, run.page, run.n, data))
			fail_msg("version %u, stream %u, page %#lx: %s", version, stream,
				 run.page, err_text(-EIO));
		for (uint64_t i = 0; i < run.n; i++) {
			h = page_hash(data + i * page_size(), page_size());
			*sum = (*sum ^ h.lo ^ (run.page + i) ^ (uint64_t)stream << 45) *
			       0x9e3779b97f4a7c15ull;
			*sum ^= *sum >> 29;
		}
	}
}

uint64_t oracle_digest(struct repo *r, uint32_t version)
{
	struct reader *rd;
	Icp__Manifest *m;
	uint64_t sum = version;

	assert_int_equal(reader_open(r, &rd), 0);
	assert_int_equal(repo_manifest(r, version, &m), 0);
	for (size_t i = 0; i < m->n_processes; i++)
		if (!m->processes[i]->no_memory)
			digest_stream(r, rd, version, m->processes[i]->pid, &sum);
	for (size_t i = 0; i < m->n_segments; i++)
		digest_stream(r, rd, version, ICP_STREAM_SHM | m->segments[i]->shmid, &sum);
	manifest_free(m);
	reader_close(rd);
	return sum;
}

void oracle_verify(struct repo *r, uint32_t version)
{
	struct problems p = {0};

	if (repo_verify(r, version, &p))
		fail_msg("verify: %s", err_text(-EIO));
	if (p.n)
		fail_msg("version %u, %s: %s", p.data[0].version, p.data[0].file,
			 p.data[0].what);
	problems_free(&p);
}
