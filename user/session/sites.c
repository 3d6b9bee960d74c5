// SPDX-License-Identifier: GPL-2.0
/* Fault sites: which thread faulted at which instruction how often, and their names. */
#include "session/tracked.h"

#include <errno.h>
#include <fcntl.h>

#include "base/io.h"

static struct site *slot_of(struct site *slots, size_t cap, uint32_t tid, uint64_t ip)
{
	uint64_t hash = (ip ^ ((uint64_t)tid << 32)) * 0x9e3779b97f4a7c15ull;

	for (size_t i = hash >> 32;; i++) {
		struct site *s = &slots[i & (cap - 1)];

		if (!s->faults || (s->ip == ip && s->tid == tid))
			return s;
	}
}

static int grow(struct sites *sites)
{
	size_t cap = sites->cap ? sites->cap * 2 : 256;
	struct site *slots = calloc(cap, sizeof(*slots));

	if (!slots)
		return fail(-ENOMEM, "fault sites");
	for (size_t i = 0; i < sites->cap; i++)
		if (sites->slots[i].faults)
			*slot_of(slots, cap, sites->slots[i].tid, sites->slots[i].ip) =
				sites->slots[i];
	free(sites->slots);
	sites->slots = slots;
	sites->cap = cap;
	return 0;
}

int sites_add(struct sites *sites, uint32_t tid, uint64_t ip, bool kernel, uint32_t weight)
{
	struct site *s;

	if (sites->used * 2 >= sites->cap) {
		int err = grow(sites);

		if (err)
			return err;
	}
	s = slot_of(sites->slots, sites->cap, tid, ip);
	sites->used += !s->faults;
	s->ip = ip;
	s->tid = tid;
	s->faults += weight;
	s->kernel_faults += kernel ? weight : 0;
	return 0;
}

void sites_clear(struct sites *sites)
{
	if (sites->used)
		memset(sites->slots, 0, sites->cap * sizeof(*sites->slots));
	sites->used = 0;
}

void tracked_function(struct tracked *p, struct symbols *symbols, uint64_t ip, char *out,
		      size_t len)
{
	struct symbol_name name;

	symbols_lookup(symbols, p->target, &p->maps, ip, &name);
	if (name.kind == SYMBOL_FUNCTION)
		snprintf(out, len, "%s [%s]", name.function, name.module);
	else
		symbol_format(&name, ip, out, len);
}

static int by_thread_and_function(const void *a, const void *b)
{
	const struct writer_stat *x = a, *y = b;

	return x->tid != y->tid ? (x->tid > y->tid) - (x->tid < y->tid)
				: strcmp(x->function, y->function);
}

static int more_faults_first(const void *a, const void *b)
{
	const struct writer_stat *x = a, *y = b;

	if (x->faults != y->faults)
		return x->faults < y->faults ? 1 : -1;
	return by_thread_and_function(a, b);
}

static void thread_name(const struct tracked *p, pid_t tid, char comm[16])
{
	_cleanup_free_ char *text = NULL;
	char path[64];

	snprintf(path, sizeof(path), "task/%d/comm", tid);
	if (io_read_file(p->target->proc_fd, path, &text, NULL)) {
		memcpy(comm, p->target->comm, 16);
		return;
	}
	text[strcspn(text, "\n")] = 0;
	snprintf(comm, 16, "%.15s", text);
}

static void merge_alike(struct process_sample *out)
{
	size_t kept = 0;

	for (size_t i = 0; i < out->writers.n; i++) {
		struct writer_stat *w = &out->writers.data[i];
		struct writer_stat *last = kept ? &out->writers.data[kept - 1] : NULL;

		if (last && !by_thread_and_function(last, w)) {
			last->faults += w->faults;
			last->kernel_faults += w->kernel_faults;
		} else {
			out->writers.data[kept++] = *w;
		}
	}
	out->writers.n = kept;
}

int tracked_writers(struct tracked *p, struct symbols *symbols, size_t top,
		    struct process_sample *out)
{
	for (size_t i = 0; i < p->sites.cap; i++) {
		const struct site *s = &p->sites.slots[i];
		struct writer_stat *w;

		if (!s->faults)
			continue;
		w = vec_push(&out->writers);
		if (!w)
			return fail(-ENOMEM, "writers of pid %d", out->pid);
		w->tid = (pid_t)s->tid;
		w->faults = s->faults;
		w->kernel_faults = s->kernel_faults;
		tracked_function(p, symbols, s->ip, w->function, sizeof(w->function));
	}
	sites_clear(&p->sites);
	if (!out->writers.n)
		return 0;
	qsort(out->writers.data, out->writers.n, sizeof(*out->writers.data),
	      by_thread_and_function);
	merge_alike(out);
	qsort(out->writers.data, out->writers.n, sizeof(*out->writers.data), more_faults_first);
	out->writers_seen = out->writers.n;
	if (out->writers.n > top)
		out->writers.n = top;
	vec_each (w, &out->writers)
		thread_name(p, w->tid, w->comm);
	return 0;
}
