// SPDX-License-Identifier: GPL-2.0
#include "state/calls.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/vec.h"
#include "state/kinds.h"

#define SCRATCH 1024	       /* bytes of the target's memory that are used at a time */
#define BURST_ROOM (96u << 10) /* of the answers to what is asked at a time */
#define BURST 32

struct out {
	uint16_t len; /* 0: none */
	uint8_t arg;
	uint32_t at; /* in the results */
};

struct thread_gather {
	VEC(struct warden_call) calls;
	VEC(struct out) outs; /* one per call */
	VEC(struct warden_ask) asks;
	char *results;
	size_t results_len;
};

struct state_gather {
	size_t n;
	struct thread_gather *threads;
	uint64_t scratch;
	bool mapped; /* the scratch memory is our own mapping */
};

int gather_new(struct state_process *p)
{
	struct state_gather *g = calloc(1, sizeof(*g));

	if (g)
		g->threads = calloc(p->n_threads + 1, sizeof(*g->threads));
	if (!g || !g->threads) {
		free(g);
		return fail(-ENOMEM, "note the state of %zu threads", p->n_threads);
	}
	g->n = p->n_threads;
	p->gather = g;
	return 0;
}

void gather_free(struct state_process *p)
{
	struct state_gather *g = p->gather;

	if (!g)
		return;
	for (size_t i = 0; i < g->n; i++) {
		struct thread_gather *t = &g->threads[i];

		vec_each (a, &t->asks)
			free(a->data);
		vec_free(&t->asks);
		vec_free(&t->calls);
		vec_free(&t->outs);
		free(t->results);
	}
	free(g->threads);
	free(g);
	p->gather = NULL;
}

int gather_call(struct state_process *p, size_t thread, long nr, const uint64_t args[6],
		unsigned out_arg, size_t out_len)
{
	struct thread_gather *t = &p->gather->threads[thread];
	struct warden_call *call = vec_push(&t->calls);
	struct out *out = call ? vec_push(&t->outs) : NULL;

	if (!out || out_len > SCRATCH)
		return fail(-ENOMEM, "note a system call");
	call->nr = nr;
	memcpy(call->args, args, sizeof(call->args));
	*out = (struct out){.len = (uint16_t)out_len,
			    .arg = (uint8_t)out_arg,
			    .at = (uint32_t)t->results_len};
	t->results_len += (out_len + 15) & ~(size_t)15;
	return (int)t->calls.n - 1;
}

long gather_ret(const struct state_process *p, size_t thread, int handle)
{
	return p->gather->threads[thread].calls.data[handle].ret;
}

const void *gather_out(const struct state_process *p, size_t thread, int handle)
{
	const struct thread_gather *t = &p->gather->threads[thread];

	return t->results + t->outs.data[handle].at;
}

static int add_ask(struct state_process *p, size_t thread, struct warden_ask ask, size_t room)
{
	struct thread_gather *t = &p->gather->threads[thread];
	struct warden_ask *slot = vec_push(&t->asks);

	if (!slot)
		return fail(-ENOMEM, "note a request");
	*slot = ask;
	slot->tid = p->threads[thread].tid;
	slot->data = calloc(1, room + 1);
	slot->len = room;
	if (!slot->data)
		return fail(-ENOMEM, "note a request");
	return (int)t->asks.n - 1;
}

int gather_regset(struct state_process *p, size_t thread, uint32_t type, size_t room)
{
	return add_ask(p, thread,
		       (struct warden_ask){.what = WARDEN_ASK_REGSET, .request = type}, room);
}

int gather_ptrace(struct state_process *p, size_t thread, long request, uint64_t addr,
		  size_t room)
{
	return add_ask(p, thread,
		       (struct warden_ask){.what = WARDEN_ASK_PTRACE,
					   .request = (unsigned long)request,
					   .addr = addr},
		       room);
}

long gather_answer(const struct state_process *p, size_t thread, int handle, const void **data,
		   size_t *len)
{
	const struct warden_ask *a = &p->gather->threads[thread].asks.data[handle];

	if (data)
		*data = a->data;
	if (len)
		*len = a->ret < 0 ? 0 : a->len;
	return a->ret;
}

/* Requests of several threads in one go; copied forth and back. */
struct burst {
	struct warden_ask asks[BURST];
	struct warden_ask *home[BURST];
	size_t n, room;
};

static int burst_flush(struct state_process *p, struct burst *b)
{
	int err = b->n ? warden_ask_all(p->warden, b->asks, b->n) : 0;

	for (size_t i = 0; !err && i < b->n; i++)
		*b->home[i] = b->asks[i];
	b->n = b->room = 0;
	return err;
}

static int burst_add(struct state_process *p, struct burst *b, struct warden_ask *ask)
{
	size_t size = ask->len + ask->n_calls * sizeof(*ask->calls);
	int err = 0;

	if (b->n == BURST || (b->n && b->room + size > BURST_ROOM))
		err = burst_flush(p, b);
	b->asks[b->n] = *ask;
	b->home[b->n++] = ask;
	b->room += size;
	return err;
}

static int run_asks(struct state_process *p)
{
	struct state_gather *g = p->gather;
	struct burst b = {.n = 0};
	int err = 0;

	for (size_t i = 0; i < g->n && !err; i++) {
		vec_each (ask, &g->threads[i].asks) {
			err = burst_add(p, &b, ask);
			if (err)
				break;
		}
	}
	return err ? err : burst_flush(p, &b);
}

static bool is_stack(const struct state_process *p, uint64_t start, uint64_t end)
{
	const struct vma *v = maps_find(&p->maps, start);

	return v && v->end >= end && v->kind == VMA_ANON && !v->shared &&
	       (v->prot & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE);
}

/*
 * Memory for the results: what is below a stack, and the red zone that its function may use, is
 * nobody's. All threads stand still, so one place serves them all. Without such a place (a
 * program with stacks of its own making) a page is mapped, and unmapped afterwards.
 */
static int find_scratch(struct state_process *p)
{
	const struct state_arch *arch = &state_arch;
	struct state_gather *g = p->gather;
	struct warden_call map = {.nr = SYS_mmap,
				  .args = {0, SCRATCH, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1}};
	int err;

	for (size_t i = 0; i < g->n; i++) {
		vec_each (a, &g->threads[i].asks) {
			uint64_t sp, at;

			if (a->what != WARDEN_ASK_REGSET || a->request != NT_PRSTATUS ||
			    a->ret < 0)
				continue;
			sp = arch->stack(a->data, a->len);
			at = (sp - arch->red_zone - SCRATCH) & ~(uint64_t)63;
			if (sp > arch->red_zone + SCRATCH && is_stack(p, at, sp)) {
				g->scratch = at;
				return 0;
			}
		}
	}
	err = warden_inject(p->warden, p->threads[0].tid, &map, 1);
	if (err)
		return err;
	if (map.ret < 0 && map.ret >= -4095)
		return fail((int)map.ret, "map a page in the process");
	g->scratch = (uint64_t)map.ret;
	g->mapped = true;
	return 0;
}

static int unmap_scratch(struct state_process *p)
{
	struct warden_call unmap = {.nr = SYS_munmap, .args = {p->gather->scratch, SCRATCH}};

	if (!p->gather->mapped)
		return 0;
	p->gather->mapped = false;
	return warden_inject(p->warden, p->threads[0].tid, &unmap, 1);
}

/* The next calls of @t, from @from on, whose results fit into the scratch memory. */
static size_t next_chunk(struct state_gather *g, struct thread_gather *t, size_t from,
			 struct warden_ask *ask)
{
	size_t i, base = t->outs.data[from].at, end = base;

	for (i = from; i < t->calls.n; i++) {
		struct out *out = &t->outs.data[i];
		size_t next = out->at + ((out->len + 15u) & ~15u);

		if (next - base > SCRATCH)
			break;
		if (out->len) {
			t->calls.data[i].args[out->arg] = g->scratch + out->at - base;
			end = next;
		}
	}
	ask->calls = &t->calls.data[from];
	ask->n_calls = i - from;
	ask->addr = g->scratch;
	ask->data = t->results + base;
	ask->len = end - base;
	return i;
}

static int run_thread(struct state_process *p, size_t thread)
{
	struct thread_gather *t = &p->gather->threads[thread];
	size_t done = 0;
	int err;

	t->results = calloc(1, t->results_len + 1);
	if (!t->results)
		return fail(-ENOMEM, "note the results of system calls");
	while (done < t->calls.n) {
		struct warden_ask ask = {.what = WARDEN_ASK_INJECT,
					 .tid = p->threads[thread].tid};

		done = next_chunk(p->gather, t, done, &ask);
		err = warden_ask_all(p->warden, &ask, 1);
		if (err)
			return err;
		if (ask.ret < 0)
			return fail((int)ask.ret, "run system calls in thread %d", ask.tid);
	}
	return 0;
}

int gather_run(struct state_process *p)
{
	struct state_gather *g = p->gather;
	int err = run_asks(p), end;
	bool need = false;

	for (size_t i = 0; i < g->n; i++)
		need |= g->threads[i].results_len > 0;
	if (!err && need)
		err = find_scratch(p);
	for (size_t i = 0; i < g->n && !err; i++)
		err = run_thread(p, i);
	end = unmap_scratch(p);
	return err ? err : end;
}
