// SPDX-License-Identifier: GPL-2.0
/*
 * What the job does to its memory while pages are still to come (userfaultfd's events) changes where
 * they go. One thread reads the events and puts the pages, and the kernel refuses to put any (EAGAIN)
 * while an event is not read: so no page comes back that the job has given away.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/page.h"
#include "restore/lazy.h"

#define TRIES 100000

struct space *space_new(struct spaces *all, int uffd, size_t image)
{
	struct space *s = calloc(1, sizeof(*s));
	struct space **slot = s ? vec_push(all) : NULL;

	if (!slot) {
		free(s);
		return NULL;
	}
	s->uffd = uffd;
	s->image = image;
	*slot = s;
	return s;
}

static void space_close(struct space *s)
{
	if (s->uffd >= 0)
		close(s->uffd);
	s->uffd = -1;
	vec_free(&s->pending);
	vec_free(&s->faults);
}

void spaces_free(struct spaces *all)
{
	vec_each (s, all) {
		space_close(*s);
		free(*s);
	}
	vec_free(all);
}

int space_add(struct space *s, uint64_t start, uint64_t end)
{
	struct pending *p = vec_push(&s->pending);

	if (!p)
		return fail(-ENOMEM, "note pages to come");
	*p = (struct pending){start, end, start};
	return 0;
}

const struct pending *space_find(const struct space *s, uint64_t addr)
{
	vec_each (p, &s->pending)
		if (addr >= p->start && addr < p->end)
			return p;
	return NULL;
}

/* Take [start, end) out; @to not 0: it is there now. */
static int cut(struct space *s, uint64_t start, uint64_t end, uint64_t to)
{
	size_t n = s->pending.n;

	for (size_t i = 0; i < n; i++) {
		struct pending p = s->pending.data[i];
		uint64_t a = p.start > start ? p.start : start, b = p.end < end ? p.end : end;
		struct pending parts[3] = {
			{p.start, a, p.from},
			{b, p.end, p.from + (b - p.start)},
			{to + (a - start), to + (b - start), p.from + (a - p.start)},
		};

		if (a >= b)
			continue;
		s->pending.data[i].end = s->pending.data[i].start; /* empty */
		for (int k = 0; k < (to ? 3 : 2); k++) {
			struct pending *more =
				parts[k].start < parts[k].end ? vec_push(&s->pending) : NULL;

			if (more)
				*more = parts[k];
			else if (parts[k].start < parts[k].end)
				return fail(-ENOMEM, "note pages to come");
		}
	}
	n = 0;
	for (size_t i = 0; i < s->pending.n; i++)
		if (s->pending.data[i].start < s->pending.data[i].end)
			s->pending.data[n++] = s->pending.data[i];
	s->pending.n = n;
	return 0;
}

static int forked(struct spaces *all, const struct space *s, int uffd)
{
	struct space *child = space_new(all, uffd, s->image);

	if (!child) {
		close(uffd);
		return fail(-ENOMEM, "follow a child of the job");
	}
	all->forked = true;
	vec_each (p, &s->pending) {
		struct pending *slot = vec_push(&child->pending);

		if (!slot)
			return fail(-ENOMEM, "follow a child of the job");
		*slot = *p;
	}
	return 0;
}

static int event(struct spaces *all, struct space *s, const struct uffd_msg *m)
{
	uint64_t *slot;

	switch (m->event) {
	case UFFD_EVENT_PAGEFAULT:
		slot = vec_push(&s->faults);
		if (!slot)
			return fail(-ENOMEM, "note a page fault");
		*slot = page_down(m->arg.pagefault.address);
		return 0;
	case UFFD_EVENT_FORK:
		return forked(all, s, (int)m->arg.fork.ufd);
	case UFFD_EVENT_REMAP:
		return cut(s, m->arg.remap.from, m->arg.remap.from + m->arg.remap.len,
			   m->arg.remap.to);
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		return cut(s, m->arg.remove.start, m->arg.remove.end, 0);
	default:
		return refuse(-EPROTO, "userfaultfd says %u", m->event);
	}
}

int space_events(struct spaces *all, struct space *s)
{
	/* one at a time: after a fork it can't be said what the others of a list were */
	while (s->uffd >= 0) {
		struct uffd_msg m;
		ssize_t got = read(s->uffd, &m, sizeof(m));
		int err;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			return 0;
		if (got != sizeof(m))
			return fail(got < 0 ? -errno : -EIO, "read a userfaultfd");
		err = event(all, s, &m);
		if (err)
			return err;
	}
	return 0;
}

static void wake(const struct space *s, uint64_t at, uint64_t len)
{
	struct uffdio_range range = {at, len};

	ioctl(s->uffd, UFFDIO_WAKE, &range);
}

/* 0: all of it is there, or not wanted any more. -EAGAIN (bare): look at the events first. */
static int copy(struct space *s, uint64_t at, const uint8_t *data, uint64_t len)
{
	uint64_t end = at + len, step = len;

	while (at < end) {
		struct uffdio_copy c = {.dst = at,
					.src = (uint64_t)(uintptr_t)data,
					.len = step < end - at ? step : end - at};
		int err = ioctl(s->uffd, UFFDIO_COPY, &c) ? errno : 0;
		uint64_t took = !err ? c.len : c.copy > 0 ? (uint64_t)c.copy : 0;

		if (err == ESRCH) {
			space_close(s);
			return 0;
		}
		if (err == EEXIST && !took) {
			took = page_size();
			wake(s, at, took);
		} else if (err == ENOENT && !took && step > page_size()) {
			step = page_size(); /* two mappings in a row by now */
		} else if (err && !took) {
			return err == EAGAIN || err == ENOENT
				       ? -EAGAIN
				       : fail(-err, "put a page at %#lx", at);
		}
		at += took;
		data += took;
	}
	return 0;
}

/* The first piece of @s that wants something of [from, from + len), at or after @after there. */
static const struct pending *wanting(const struct space *s, uint64_t from, uint64_t len,
				     size_t *i)
{
	for (; *i < s->pending.n; (*i)++) {
		const struct pending *p = &s->pending.data[*i];

		if (from < p->from + (p->end - p->start) && from + len > p->from)
			return p;
	}
	return NULL;
}

static int put_once(struct space *s, uint64_t from, const uint8_t *data, uint64_t len)
{
	const struct pending *p;
	int err = 0;

	for (size_t i = 0; !err && s->uffd >= 0 && (p = wanting(s, from, len, &i)); i++) {
		uint64_t p_end = p->from + (p->end - p->start);
		uint64_t a = from > p->from ? from : p->from,
			 b = from + len < p_end ? from + len : p_end;

		err = copy(s, p->start + (a - p->from), data + (a - from), b - a);
	}
	return err;
}

int space_put(struct spaces *all, struct space *s, uint64_t from, const uint8_t *data,
	      uint64_t len)
{
	for (int tries = 0; s->uffd >= 0; tries++) {
		int err = put_once(s, from, data, len);

		if (err != -EAGAIN)
			return err;
		if (tries == TRIES)
			return refuse(-EFAULT, "there is no memory for the page of %#lx", from);
		err = space_events(all, s);
		if (err)
			return err;
		if (tries > 100)
			usleep(100);
		else
			sched_yield();
	}
	return 0;
}

int space_zero(struct space *s, uint64_t addr)
{
	struct uffdio_zeropage z = {.range = {addr, page_size()}};
	int err = ioctl(s->uffd, UFFDIO_ZEROPAGE, &z) ? errno : 0;

	switch (err) {
	case 0:
		return 0;
	case ESRCH:
		space_close(s);
		return 0;
	case EEXIST:
	case ENOENT: /* unmapped meanwhile: it shall see for itself */
		wake(s, addr, page_size());
		return 0;
	default:
		return err == EAGAIN ? -EAGAIN : fail(-err, "put zeros at %#lx", addr);
	}
}
