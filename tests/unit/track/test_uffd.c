// SPDX-License-Identifier: GPL-2.0
/* The uffd tracker against an oracle: exact addresses, over random histories of a process and over pinned memory. */
#include "track/tracker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "lib/kid.h"

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)

static struct {
	struct target *target;
	struct warden *warden;
	struct tracker *tracker;
	struct maps maps;
	struct dirty dirty;
} w;

static int clean(void **state)
{
	tracker_close(w.tracker);
	target_free(w.target);
	warden_close(w.warden);
	maps_free(&w.maps);
	dirty_free(&w.dirty);
	memset(&w, 0, sizeof(w));
	kids_end();
	return 0;
}

static void must(int err)
{
	if (err)
		fail_msg("%s", err_text(err));
}

static void watch(pid_t pid)
{
	must(warden_open(&w.warden));
	must(target_open(pid, &w.target));
	must(tracker_open(NULL, w.target, w.warden, false, &w.tracker));
}

static void read_maps(void)
{
	maps_free(&w.maps);
	must(maps_read(w.target, &w.maps));
}

static void take(void)
{
	read_maps();
	must(tracker_take(w.tracker, &w.maps, &w.dirty));
}

static bool is_dirty(uint64_t addr)
{
	vec_each (r, &w.dirty)
		if (r->start <= addr && addr < r->end && r->what != DIRTY_ZAPPED)
			return true;
	return false;
}

/* --- random histories --- */

#define SLOTS 8
#define SLOT 48ul /* pages */
#define STEPS 4000

enum op { OP_WRITE, OP_READ, OP_ZAP, OP_REMAP, OP_RO_RW, OP_MOVE, OP_PREAD, OPS };

/* What is known about a page of the arena. */
struct page {
	bool filled;  /* has content of its own */
	bool written; /* since the last take */
	bool maybe;   /* may be reported though it was not */
	bool dropped; /* shared: its entry was, after it was filled */
};

static struct page model[SLOTS][SLOT];
static bool shared_slot[SLOTS];
static int null_fd;

static uint64_t kid_arena(const uint64_t *args)
{
	uint64_t bytes = SLOTS * (SLOT + 1) * PAGE * 2;

	null_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	return (uintptr_t)mmap(NULL, bytes, PROT_NONE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static uint64_t kid_slot(const uint64_t *args)
{
	int flags = args[1] ? MAP_SHARED : MAP_PRIVATE;
	char *at = mmap((void *)args[0], SLOT * PAGE, RW, flags | MAP_ANONYMOUS | MAP_FIXED, -1,
			0);

	madvise(at, SLOT * PAGE, MADV_NOHUGEPAGE);
	return 0;
}

static uint64_t kid_op(const uint64_t *args)
{
	char *at = (char *)args[1];
	size_t bytes = args[2] * PAGE;

	switch ((enum op)args[0]) {
	case OP_WRITE:
		return kid_write((const uint64_t[4]){args[1], args[2], 1, 1});
	case OP_READ:
		return kid_read((const uint64_t[4]){args[1], args[2], 1});
	case OP_ZAP:
		return (uint64_t)madvise(at, bytes, MADV_DONTNEED);
	case OP_RO_RW:
		return mprotect(at, bytes, PROT_READ) || mprotect(at, bytes, RW);
	case OP_MOVE: /* away and back again: it arrives as a new mapping */
		at = mremap(at, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, args[3]);
		return at == MAP_FAILED ||
		       mremap(at, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, args[1]) ==
			       MAP_FAILED;
	case OP_PREAD:
		return read(null_fd, at, bytes) != (ssize_t)bytes;
	default:
		return 1;
	}
}

static uint64_t slot_at(uint64_t arena, size_t slot)
{
	return arena + slot * (SLOT + 1) * PAGE;
}

/* @fresh[]: the slot's mapping is not armed, so pages of it that are only read may count (shared) */
static bool fresh[SLOTS];

static void note_op(enum op op, size_t s, size_t first, size_t n)
{
	for (size_t i = first; i < first + n; i++) {
		struct page *p = &model[s][i];

		switch (op) {
		case OP_WRITE:
		case OP_PREAD:
			p->filled = p->written = true;
			p->dropped = false;
			break;
		case OP_READ:
			p->maybe |= shared_slot[s] && fresh[s];
			p->filled |= shared_slot[s];
			p->dropped = false;
			break;
		case OP_ZAP: /* private: gone; shared: still there, but the mapping forgets its entry */
			if (!shared_slot
				    [s]) /* if it was written in this interval, a follow may have seen that */
				*p = (struct page){.maybe = p->written || p->maybe};
			else if (
				fresh[s]) /* an empty entry that never had a mark can't be told from an untouched one */
				*p = (struct page){.filled = p->filled, .maybe = true};
			p->dropped = shared_slot[s];
			break;
		case OP_MOVE: /* other content at an address than there was, for all that the tracker knows */
			p->maybe |= p->filled;
			if (p->dropped) /* armed anew, empty: as above */
				p->written = false;
			break;
		case OP_REMAP:
			*p = (struct page){.maybe = p->written || p->maybe};
			break;
		default:
			break;
		}
	}
}

static void random_step(struct kid *kid, uint64_t arena)
{
	enum op op = (enum op)(rand() % 3 ? rand() % 2 : rand() % OPS);
	size_t s = (size_t)rand() % SLOTS, first = (size_t)rand() % SLOT,
	       n = 1 + (size_t)rand() % 6;
	uint64_t at = slot_at(arena, s);

	if (first + n > SLOT)
		n = SLOT - first;
	if (op == OP_REMAP || op == OP_MOVE) {
		first = 0;
		n = SLOT;
		fresh[s] = true;
	}
	if (op == OP_REMAP)
		assert_int_equal(kid_call(kid, kid_slot, at, shared_slot[s]), 0);
	else if (op == OP_READ)
		kid_call(kid, kid_op, op, at + first * PAGE, n);
	else
		assert_int_equal(
			kid_call(kid, kid_op, op, at + first * PAGE, n, slot_at(arena, SLOTS)),
			0);
	note_op(op, s, first, n);
}

static void compare(uint64_t arena, unsigned seed, size_t step)
{
	for (size_t s = 0; s < SLOTS; s++) {
		for (size_t i = 0; i < SLOT; i++) {
			struct page *p = &model[s][i];
			bool dirty = is_dirty(slot_at(arena, s) + i * PAGE);

			if (dirty != p->written && !(dirty && p->maybe))
				fail_msg("seed %u step %zu: page %zu of %s slot %zu was "
					 "%swritten and is %sdirty",
					 seed, step, i, shared_slot[s] ? "shared" : "private",
					 s, p->written ? "" : "not ", dirty ? "" : "not ");
			p->written = p->maybe = false;
		}
		fresh[s] = false;
	}
}

static void random_history(void **state)
{
	const char *wish = getenv("ICP_SEED");
	unsigned seed = wish ? (unsigned)atoi(wish) : (unsigned)time(NULL);
	struct kid *kid = kid_start();
	uint64_t arena = kid_call(kid, kid_arena);

	print_message("seed %u (ICP_SEED repeats it)\n", seed);
	srand(seed);
	memset(model, 0, sizeof(model));
	for (size_t s = 0; s < SLOTS; s++) {
		shared_slot[s] = s % 2;
		fresh[s] = false;
		kid_call(kid, kid_slot, slot_at(arena, s), s % 2);
	}
	watch(kid->pid);
	for (size_t step = 0; step < STEPS; step++) {
		random_step(kid, arena);
		if (rand() % 10 == 0) {
			read_maps();
			must(tracker_follow(w.tracker, &w.maps));
			memset(fresh, 0, sizeof(fresh));
		}
		if (rand() % 4)
			continue;
		take();
		compare(arena, seed, step);
	}
}

/* --- memory pinned for DMA --- */

struct ring {
	int fd;
	struct io_uring_params p;
	char *sq, *cq;
	struct io_uring_sqe *sqes;
};

static struct ring ring;

static uint64_t kid_ring(const uint64_t *args)
{
	struct iovec iov = {(void *)args[0], args[1]};

	ring.fd = (int)syscall(SYS_io_uring_setup, 4, &ring.p);
	if (ring.fd < 0)
		return (uint64_t)errno;
	ring.sq = mmap(NULL, 65536, RW, MAP_SHARED, ring.fd, IORING_OFF_SQ_RING);
	ring.cq = mmap(NULL, 65536, RW, MAP_SHARED, ring.fd, IORING_OFF_CQ_RING);
	if (ring.sq == MAP_FAILED)
		ring.sq = mmap(NULL, 4096, RW, MAP_SHARED, ring.fd, IORING_OFF_SQ_RING);
	if (ring.cq == MAP_FAILED)
		ring.cq = mmap(NULL, 4096, RW, MAP_SHARED, ring.fd, IORING_OFF_CQ_RING);
	ring.sqes = mmap(NULL, 4096, RW, MAP_SHARED, ring.fd, IORING_OFF_SQES);
	if (ring.sq == MAP_FAILED || ring.cq == MAP_FAILED || ring.sqes == MAP_FAILED)
		return ENOMEM;
	if (args[1] &&
	    syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &iov, 1))
		return (uint64_t)errno;
	null_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	return 0;
}

/* Read @bytes of zeroes to @at, as a fixed buffer or not; the result. */
static uint64_t kid_ring_read(const uint64_t *args)
{
	unsigned *tail = (unsigned *)(ring.sq + ring.p.sq_off.tail),
		 mask = ring.p.sq_entries - 1;
	unsigned *head = (unsigned *)(ring.cq + ring.p.cq_off.head);
	struct io_uring_cqe *cqes = (struct io_uring_cqe *)(ring.cq + ring.p.cq_off.cqes);
	int result;

	ring.sqes[*tail & mask] = (struct io_uring_sqe){
		.opcode = args[2] ? IORING_OP_READ_FIXED : IORING_OP_READ,
		.fd = null_fd,
		.addr = args[0],
		.len = (unsigned)args[1],
	};
	((unsigned *)(ring.sq + ring.p.sq_off.array))[*tail & mask] = *tail & mask;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		return 0;
	result = cqes[*head & (ring.p.cq_entries - 1)].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return (uint64_t)result;
}

static uint64_t kid_ring_unpin(const uint64_t *args)
{
	return (uint64_t)syscall(SYS_io_uring_register, ring.fd, IORING_UNREGISTER_BUFFERS,
				 NULL, 0);
}

static uint64_t dirty_of(uint64_t area, size_t pages)
{
	uint64_t n = 0;

	for (size_t i = 0; i < pages; i++)
		n += is_dirty(area + i * PAGE);
	return n;
}

static void io_uring_read(void **state)
{
	struct kid *kid = kid_start();
	uint64_t area = kid_call(kid, kid_map, 64 * PAGE, RW, MAP_PRIVATE);

	kid_call(kid, kid_write, area, 64);
	assert_int_equal(kid_call(kid, kid_ring), 0);
	watch(kid->pid);
	assert_int_equal(kid_call(kid, kid_ring_read, area + 8 * PAGE, 4 * PAGE), 4 * PAGE);
	take();
	assert_int_equal(dirty_of(area, 64), 4);
	assert_int_equal(dirty_of(area + 8 * PAGE, 4), 4);
}

/* A registered buffer is dirty all the time, and once more after it was given back: the kernel may have written until then. */
static void pinned_buffers(void **state)
{
	struct kid *kid = kid_start();
	uint64_t area = kid_call(kid, kid_map, 64 * PAGE, RW, MAP_PRIVATE);

	kid_call(kid, kid_write, area, 64);
	assert_int_equal(kid_call(kid, kid_ring, area + 16 * PAGE, 8 * PAGE), 0);
	watch(kid->pid);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(kid_call(kid, kid_ring_read, area + 18 * PAGE, PAGE, 1), PAGE);
		take();
		assert_int_equal(dirty_of(area, 64), 8);
		assert_int_equal(dirty_of(area + 16 * PAGE, 8), 8);
	}
	assert_int_equal(kid_call(kid, kid_ring_read, area + 18 * PAGE, PAGE, 1), PAGE);
	assert_int_equal(kid_call(kid, kid_ring_unpin), 0);
	take();
	assert_int_equal(dirty_of(area + 16 * PAGE, 8), 8);
	take();
	assert_int_equal(dirty_of(area, 64), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(random_history, clean),
		cmocka_unit_test_teardown(io_uring_read, clean),
		cmocka_unit_test_teardown(pinned_buffers, clean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
