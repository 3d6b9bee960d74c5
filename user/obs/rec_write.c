// SPDX-License-Identifier: GPL-2.0
#include "obs/rec.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/io.h"
#include "obs/intern.h"
#include "obs/rec_format.h"

#define ZSTD_LEVEL 1

struct vma_entry {
	uint64_t start, end;
	uint32_t name;
	uint32_t flags; /* 1: shared, 2: writable */
};

struct process_state {
	uint64_t last_addr; /* in this block */
	VEC(struct vma_entry) maps;
};

struct rec_writer {
	int fd;
	char *path;
	uint64_t page_size;
	uint64_t bytes; /* whole blocks in the file */
	uint64_t blocks;
	VEC(uint8_t) raw;
	VEC(uint8_t) packed;
	struct intern strings, threads, sites, stacks;
	VEC(struct process_state) processes;
	VEC(uint32_t) thread_process; /* by thread */
	/* the state that deltas are from, in this block */
	uint64_t last_time;
	uint32_t last_thread, last_site;
	bool broken;
};

uint64_t rec_header_check(const struct rec_header *h)
{
	return XXH3_64bits(h, offsetof(struct rec_header, check));
}

uint64_t rec_block_check(const struct rec_block *b, const void *stored, uint64_t number)
{
	return XXH3_64bits_withSeed(
		stored, b->stored,
		XXH3_64bits_withSeed(b, offsetof(struct rec_block, check), number));
}

/* ---- the bytes of a block ---- */

static int put(struct rec_writer *w, uint64_t value)
{
	if (vec_reserve(&w->raw, w->raw.n + 10))
		return fail(-ENOMEM, "recording");
	w->raw.n += varint_put(w->raw.data + w->raw.n, value);
	return 0;
}

static int put_bytes(struct rec_writer *w, const void *data, size_t len)
{
	if (vec_reserve(&w->raw, w->raw.n + len))
		return fail(-ENOMEM, "recording");
	memcpy(w->raw.data + w->raw.n, data, len);
	w->raw.n += len;
	return 0;
}

static int put_all(struct rec_writer *w, const uint64_t *values, size_t n)
{
	int err = 0;

	for (size_t i = 0; !err && i < n; i++)
		err = put(w, values[i]);
	return err;
}
#define PUT(w, ...)                                                                            \
	put_all((w), (const uint64_t[]){__VA_ARGS__},                                          \
		sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

/* Times go as what they are after the last one of the block; events of several processors are not quite in order. */
static uint64_t time_delta(struct rec_writer *w, uint64_t time_us)
{
	uint64_t delta = zigzag((int64_t)(time_us - w->last_time));

	w->last_time = time_us;
	return delta;
}

static void new_block(struct rec_writer *w)
{
	w->raw.n = 0;
	w->last_time = 0;
	w->last_thread = w->last_site = UINT32_MAX;
	vec_each (p, &w->processes)
		p->last_addr = 0;
}

static int write_out(struct rec_writer *w, const void *data, size_t len)
{
	int err = io_write_full(w->fd, data, len);

	return err ? fail(err, "write %s", w->path) : 0;
}

/* Back to what was whole: a part of a block is of no use to anybody. */
static int give_up(struct rec_writer *w, int err)
{
	w->broken = true;
	if (!ftruncate(w->fd, (off_t)w->bytes))
		(void)lseek(w->fd, (off_t)w->bytes, SEEK_SET);
	return err;
}

static int write_block(struct rec_writer *w)
{
	struct rec_block b = {.magic = REC_BLOCK_MAGIC, .raw = (uint32_t)w->raw.n};
	const void *stored = w->raw.data;
	size_t bound = ZSTD_compressBound(w->raw.n), len;
	int err;

	if (vec_reserve(&w->packed, bound))
		return fail(-ENOMEM, "recording");
	len = ZSTD_compress(w->packed.data, bound, w->raw.data, w->raw.n, ZSTD_LEVEL);
	b.stored = b.raw;
	if (!ZSTD_isError(len) && len < w->raw.n) {
		b.codec = 1;
		b.stored = (uint32_t)len;
		stored = w->packed.data;
	}
	b.check = rec_block_check(&b, stored, w->blocks);
	err = write_out(w, &b, sizeof(b));
	if (!err)
		err = write_out(w, stored, b.stored);
	if (err)
		return give_up(w, err);
	w->bytes += sizeof(b) + b.stored;
	w->blocks++;
	new_block(w);
	return 0;
}

int rec_flush(struct rec_writer *w)
{
	return w->broken || !w->raw.n ? 0 : write_block(w);
}

static int end_record(struct rec_writer *w)
{
	return w->raw.n >= REC_RAW_FULL ? rec_flush(w) : 0;
}

/* ---- what is known by number ---- */

/* Names come from files and threads: any bytes but NUL, cut to what the format holds. */
static int string_of(struct rec_writer *w, const char *text, uint32_t *number)
{
	uint32_t len = (uint32_t)strnlen(text, REC_STRING_MAX);
	bool fresh;
	int err = intern_add(&w->strings, text, len, number, &fresh);

	if (err || !fresh)
		return err;
	err = PUT(w, TAG_STRING, len);
	return err ? err : put_bytes(w, text, len);
}

int rec_add_process(struct rec_writer *w, pid_t pid, const char *comm, uint32_t *process)
{
	uint32_t name;
	int err = string_of(w, comm, &name);

	if (err)
		return err;
	if (!vec_push(&w->processes))
		return fail(-ENOMEM, "recording");
	*process = (uint32_t)(w->processes.n - 1);
	return PUT(w, TAG_PROCESS, (uint64_t)pid, name);
}

struct pair {
	uint64_t value;
	uint64_t process;
};

bool rec_find_thread(const struct rec_writer *w, uint32_t process, pid_t tid, uint32_t *thread)
{
	struct pair key = {(uint64_t)tid, process};

	return intern_find(&w->threads, &key, sizeof(key), thread);
}

int rec_add_thread(struct rec_writer *w, uint32_t process, pid_t tid, const char *comm,
		   uint32_t *thread)
{
	struct pair key = {(uint64_t)tid, process};
	uint32_t name, *slot;
	bool fresh;
	int err = string_of(w, comm, &name);

	if (!err)
		err = intern_add(&w->threads, &key, sizeof(key), thread, &fresh);
	if (err || !fresh)
		return err;
	slot = vec_push(&w->thread_process);
	if (!slot)
		return fail(-ENOMEM, "recording");
	*slot = process;
	return PUT(w, TAG_THREAD, process, (uint64_t)tid, name);
}

bool rec_find_site(const struct rec_writer *w, uint32_t process, uint64_t ip, uint32_t *site)
{
	struct pair key = {ip, process};

	return intern_find(&w->sites, &key, sizeof(key), site);
}

int rec_add_site(struct rec_writer *w, uint32_t process, uint64_t ip, const char *function,
		 uint32_t *site)
{
	struct pair key = {ip, process};
	uint32_t name;
	bool fresh;
	int err = string_of(w, function, &name);

	if (!err)
		err = intern_add(&w->sites, &key, sizeof(key), site, &fresh);
	return err || !fresh ? err : PUT(w, TAG_SITE, process, ip, name);
}

static int stack_of(struct rec_writer *w, const char *const *functions, size_t n,
		    uint32_t *stack)
{
	uint32_t frames[REC_STACK_FRAMES];
	bool fresh;
	int err = 0;

	n = n < REC_STACK_FRAMES ? n : REC_STACK_FRAMES;
	for (size_t i = 0; !err && i < n; i++)
		err = string_of(w, functions[i], &frames[i]);
	if (!err)
		err = intern_add(&w->stacks, frames, (uint32_t)(n * sizeof(*frames)), stack,
				 &fresh);
	if (err || !fresh)
		return err;
	err = PUT(w, TAG_STACK, n);
	for (size_t i = 0; !err && i < n; i++)
		err = put(w, frames[i]);
	return err;
}

/* ---- records ---- */

static bool same_vma(const struct vma_entry *a, const struct vma_entry *b)
{
	return a->start == b->start && a->end == b->end && a->name == b->name &&
	       a->flags == b->flags;
}

/* In the table of @process, @dropped entries at @at are replaced by @n others. */
static int put_splice(struct rec_writer *w, uint32_t process, size_t at, size_t dropped,
		      const struct vma_entry *added, size_t n)
{
	uint64_t last = 0;
	int err = PUT(w, TAG_MAPS, process, at, dropped, n);

	for (size_t i = 0; !err && i < n; i++) {
		const struct vma_entry *v = &added[i];

		err = PUT(w, (v->start - last) / w->page_size,
			  (v->end - v->start) / w->page_size, v->name, v->flags);
		last = v->end;
	}
	return err ? err : end_record(w);
}

static int put_changes(struct rec_writer *w, uint32_t process, const struct vma_entry *now,
		       size_t n)
{
	const struct vma_entry *old = w->processes.data[process].maps.data;
	size_t n_old = w->processes.data[process].maps.n, head = 0, tail = 0, at;
	int err = 0;

	while (head < n && head < n_old && same_vma(&old[head], &now[head]))
		head++;
	while (tail < n - head && tail < n_old - head &&
	       same_vma(&old[n_old - 1 - tail], &now[n - 1 - tail]))
		tail++;
	if (head == n && head == n_old)
		return 0;
	at = head;
	do { /* the first part drops, the others only add */
		size_t part = n - tail - at < REC_PART ? n - tail - at : REC_PART;

		err = put_splice(w, process, at, at == head ? n_old - tail - head : 0, now + at,
				 part);
		at += part;
	} while (!err && at < n - tail);
	return err;
}

int rec_put_maps(struct rec_writer *w, uint32_t process, const struct rec_vma *vmas, size_t n)
{
	VEC(struct vma_entry) now = {0};
	int err = vec_reserve(&now, n + 1) ? fail(-ENOMEM, "recording") : 0;

	for (size_t i = 0; !err && i < n; i++) {
		struct vma_entry *e = &now.data[now.n++];

		*e = (struct vma_entry){.start = vmas[i].start,
					.end = vmas[i].end,
					.flags = vmas[i].shared | vmas[i].writable << 1};
		err = string_of(w, vmas[i].name, &e->name);
	}
	if (!err)
		err = put_changes(w, process, now.data, now.n);
	if (err) {
		vec_free(&now);
		return err;
	}
	vec_free(&w->processes.data[process].maps);
	w->processes.data[process].maps.data = now.data;
	w->processes.data[process].maps.n = now.n;
	w->processes.data[process].maps.cap = now.cap;
	return 0;
}

int rec_put_fault(struct rec_writer *w, const struct rec_fault *f)
{
	struct process_state *p = &w->processes.data[w->thread_process.data[f->thread]];
	uint8_t *start, *at;

	if (vec_reserve(&w->raw, w->raw.n + 64))
		return fail(-ENOMEM, "recording");
	start = at = w->raw.data + w->raw.n;
	*at++ = (uint8_t)(TAG_FAULT | (f->kernel ? FAULT_KERNEL : 0) |
			  (f->thread != w->last_thread ? FAULT_THREAD : 0) |
			  (f->site != w->last_site ? FAULT_SITE : 0));
	if (f->thread != w->last_thread)
		at += varint_put(at, f->thread);
	if (f->site != w->last_site)
		at += varint_put(at, f->site);
	at += varint_put(at, time_delta(w, f->time_us));
	at += varint_put(at, zigzag((int64_t)(f->addr - p->last_addr)));
	w->raw.n += (size_t)(at - start);
	w->last_thread = f->thread;
	w->last_site = f->site;
	p->last_addr = f->addr;
	return end_record(w);
}

static int put_runs(struct rec_writer *w, const struct rec_run *runs, size_t n)
{
	uint64_t last = 0;
	int err = put(w, n);

	for (size_t i = 0; !err && i < n; i++) {
		err = PUT(w, (runs[i].start - last) / w->page_size,
			  (runs[i].end - runs[i].start) / w->page_size << 2 | runs[i].kind);
		last = runs[i].end;
	}
	return err;
}

int rec_put_take(struct rec_writer *w, const struct rec_take *t)
{
	size_t at = 0;
	int err = 0;

	do {
		size_t part = t->n - at < REC_PART ? t->n - at : REC_PART;

		err = PUT(w, TAG_TAKE, time_delta(w, t->time_us), t->process, at > 0);
		if (!err && !at)
			err = PUT(w, t->interval_us, t->faults, t->kernel_faults, t->lost);
		if (!err)
			err = put_runs(w, t->runs + at, part);
		if (!err)
			err = end_record(w);
		at += part;
	} while (!err && at < t->n);
	return err;
}

int rec_put_stack(struct rec_writer *w, uint64_t time_us, uint32_t thread,
		  const char *const *functions, size_t n, uint32_t faults)
{
	uint32_t stack;
	int err = stack_of(w, functions, n, &stack);

	if (!err)
		err = PUT(w, TAG_STACKED, time_delta(w, time_us), thread, stack, faults);
	return err ? err : end_record(w);
}

int rec_put_event(struct rec_writer *w, uint64_t time_us, uint32_t process,
		  enum rec_event event, uint64_t arg)
{
	int err = PUT(w, TAG_EVENT, time_delta(w, time_us), process, event, arg);

	return err ? err : end_record(w);
}

/* ---- the file ---- */

static int open_output(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct stat st;

	if (fd < 0 && errno == EEXIST && !stat(path, &st) && !S_ISREG(st.st_mode))
		fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	if (errno == EEXIST)
		return refuse(-EEXIST, "%s exists already: remove it or take another name",
			      path);
	return fail(-errno, "create %s", path);
}

static void free_writer(struct rec_writer *w)
{
	vec_each (p, &w->processes)
		vec_free(&p->maps);
	vec_free(&w->processes);
	vec_free(&w->thread_process);
	vec_free(&w->raw);
	vec_free(&w->packed);
	intern_free(&w->strings);
	intern_free(&w->threads);
	intern_free(&w->sites);
	intern_free(&w->stacks);
	cleanup_fd(&w->fd);
	free(w->path);
	free(w);
}

int rec_create(const char *path, const struct rec_start *start, struct rec_writer **out)
{
	struct rec_writer *w = calloc(1, sizeof(*w));
	struct rec_header h = {.format = REC_FORMAT,
			       .page_size = (uint32_t)start->page_size,
			       .start_ns = start->start_ns,
			       .interval_us = start->interval_us};
	int err;

	if (!w)
		return fail(-ENOMEM, "recording");
	w->page_size = start->page_size;
	w->path = strdup(path);
	w->fd = open_output(path);
	err = w->fd < 0 ? w->fd : !w->path ? fail(-ENOMEM, "recording") : 0;
	if (err) {
		free_writer(w);
		return err;
	}
	memcpy(h.magic, REC_MAGIC, sizeof(h.magic));
	memcpy(h.tracker, start->tracker, sizeof(h.tracker));
	h.check = rec_header_check(&h);
	err = write_out(w, &h, sizeof(h));
	if (err) {
		free_writer(w);
		return err;
	}
	w->bytes = sizeof(h);
	new_block(w);
	*out = w;
	return 0;
}

uint64_t rec_bytes(const struct rec_writer *w)
{
	return w->bytes;
}

/* Where the disk was full there may be room for these few bytes, since the part of a block that fitted was given back. */
static int put_end(struct rec_writer *w, uint64_t time_us, const char *reason)
{
	size_t len = strnlen(reason, REC_STRING_MAX);
	int err;

	if (w->broken)
		new_block(w);
	w->broken = false;
	err = PUT(w, TAG_END, time_delta(w, time_us), len);
	if (!err)
		err = put_bytes(w, reason, len);
	return err ? err : rec_flush(w);
}

int rec_finish(struct rec_writer *w, uint64_t time_us, const char *reason)
{
	int err = put_end(w, time_us, reason);

	/* a file system may say only now that it has no room */
	if (!err && !w->broken && fsync(w->fd) && errno != EINVAL && errno != EROFS)
		err = fail(-errno, "write %s", w->path);
	free_writer(w);
	return err;
}
