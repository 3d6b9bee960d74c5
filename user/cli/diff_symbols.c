// SPDX-License-Identifier: GPL-2.0
/* From changed pages to changed variables. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/diff.h"
#include "proc/datasyms.h"
#include "proc/maps.h"

/* One ELF file at one place in the process. */
struct module {
	const struct diff_pair *pair;
	const char *path;
	int fd;
	struct datasyms *syms;
	uint64_t bias; /* address = vaddr + bias */
	uint8_t *old, *new;
	uint64_t held; /* whose content is in them; UINT64_MAX: none */
};

void changed_symbols_free(struct changed_symbols *s)
{
	vec_each (f, &s->found)
		free(f->name);
	vec_free(&s->found);
	vec_free(&s->nameless);
}

static bool is_module(const Icp__Vma *v)
{
	return v->kind == VMA_FILE_PRIVATE + 1 && v->path[0] == '/' && v->build_id.len &&
	       !v->deleted;
}

static bool same_file(const Icp__Vma *v, const Icp__Vma *w)
{
	return is_module(v) && !strcmp(v->path, w->path) &&
	       v->build_id.len == w->build_id.len &&
	       !memcmp(v->build_id.data, w->build_id.data, w->build_id.len);
}

static int no_names(struct changed_symbols *out, const char *path, const char *why)
{
	struct nameless *n = vec_push(&out->nameless);

	if (!n)
		return fail(-ENOMEM, "names of variables");
	n->path = path;
	snprintf(n->why, sizeof(n->why), "%s", why);
	return 0;
}

/* Only a plain file: opening anything else might have effects. */
static int open_plain(const char *path)
{
	_cleanup_fd_ int at = open(path, O_PATH | O_CLOEXEC);
	char self[48];
	struct stat st;
	int fd;

	if (at < 0 || fstat(at, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ENOEXEC;
	snprintf(self, sizeof(self), "/proc/self/fd/%d", at);
	fd = open(self, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* 0 with m->syms NULL: no names, and that was noted. */
static int open_module(struct module *m, const Icp__Vma *v, struct changed_symbols *out)
{
	_cleanup_datasyms_ struct datasyms *syms = NULL;
	int err;

	m->path = v->path;
	m->fd = open_plain(v->path);
	if (m->fd < 0)
		return no_names(out, v->path, strerror(-m->fd));
	err = datasyms_read_fd(m->fd, &syms);
	if (err == -ENOMEM)
		return fail(err, "read %s", v->path);
	if (err)
		return no_names(out, v->path, "not an ELF file any more");
	if (syms->build_id_len != v->build_id.len ||
	    memcmp(syms->build_id, v->build_id.data, v->build_id.len))
		return no_names(out, v->path,
				"the file is another one now (its build id differs)");
	m->syms = take_ptr(syms);
	return 0;
}

/* Memory that may hold this file's data: the file's pages, or anonymous ones behind them. */
static const Icp__Vma *data_vma(const struct module *m, const Icp__Process *p, uint64_t address)
{
	const Icp__Vma *v = diff_vma_at(p, address);

	if (!v || (strcmp(v->path, m->path) != 0 && (v->path[0] || v->kind != VMA_ANON + 1)))
		return NULL;
	return v;
}

static int content(const struct module *m, const Icp__Vma *v, const struct ctl *c,
		   uint64_t address, uint8_t *buf)
{
	uint32_t size = m->pair->page_size;
	const struct ctl_entry *e = ctl_find(c, address / size, CTL_DIRECT);
	ssize_t got;

	if (e)
		return reader_page(m->pair->reader, e, size, buf);
	memset(buf, 0, size);
	if (!v->path[0])
		return 0;
	/* clean: what the file has there */
	got = pread(m->fd, buf, size, (off_t)(v->offset + (address - v->start)));
	return got < 0 ? fail(-errno, "read %s", m->path) : 0;
}

/* The page at @address as it was and as it is; false (0) when it is no data of the module. */
static int hold(struct module *m, uint64_t address)
{
	const Icp__Vma *va = data_vma(m, m->pair->a, address);
	const Icp__Vma *vb = data_vma(m, m->pair->b, address);
	int err;

	if (m->held == address)
		return 1;
	if (!va || !vb)
		return 0;
	m->held = UINT64_MAX;
	err = content(m, va, m->pair->ca, address, m->old);
	if (!err)
		err = content(m, vb, m->pair->cb, address, m->new);
	if (err)
		return err;
	m->held = address;
	return 1;
}

/* Compare what lies in [start, end), inside one page. */
static int compare(struct module *m, struct changed_symbol *s, uint64_t start, uint64_t end)
{
	uint64_t page = start - start % m->pair->page_size;
	int held = hold(m, page);

	if (held <= 0)
		return held;
	for (uint64_t at = start; at < end; at++) {
		if (m->old[at - page] == m->new[at - page])
			continue;
		if (!s->differ++)
			s->first = at - s->address;
	}
	return 0;
}

/* The first run that ends behind @address. */
static size_t first_run(const struct diff_pair *p, uint64_t address)
{
	size_t low = 0, high = p->diffs.n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const struct ctl_diff *d = &p->diffs.data[mid];

		if ((d->page + d->n) * p->page_size <= address)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int look_at(struct module *m, const struct datasym *sym, struct changed_symbols *out)
{
	struct changed_symbol s = {
		.path = m->path, .address = sym->vaddr + m->bias, .size = sym->size};
	uint64_t size = m->pair->page_size, end = s.address + s.size;
	struct changed_symbol *kept;
	int err = 0;

	if (end < s.address)
		return 0;
	for (size_t i = first_run(m->pair, s.address); !err && i < m->pair->diffs.n; i++) {
		const struct ctl_diff *d = &m->pair->diffs.data[i];
		uint64_t at = d->page * size, stop = (d->page + d->n) * size;

		if (at >= end)
			break;
		at = at > s.address ? at : s.address;
		stop = stop < end ? stop : end;
		while (!err && at < stop) {
			uint64_t next = at - at % size + size;

			next = next < stop ? next : stop;
			err = compare(m, &s, at, next);
			at = next;
		}
	}
	if (err || !s.differ)
		return err;
	kept = vec_push(&out->found);
	s.name = kept ? strdup(sym->name) : NULL;
	if (!kept)
		return fail(-ENOMEM, "names of variables");
	*kept = s;
	return s.name ? 0 : fail(-ENOMEM, "names of variables");
}

/* The place of the file that the mapping @v tells; false when it tells none. */
static bool bias_of(const struct module *m, const Icp__Vma *v, uint64_t *bias)
{
	uint64_t offset, vaddr, size;

	if (!datasyms_span(m->syms, m->pair->page_size, &offset, &vaddr, &size) ||
	    v->offset != offset)
		return false;
	*bias = v->start - vaddr;
	return true;
}

/* Is the same file at the same place in A too? */
static bool was_there(const struct module *m, const Icp__Vma *v)
{
	const Icp__Process *a = m->pair->a;
	uint64_t bias;

	for (size_t i = 0; i < a->n_vmas; i++)
		if (same_file(a->vmas[i], v) && bias_of(m, a->vmas[i], &bias) &&
		    bias == m->bias)
			return true;
	return false;
}

static int scan(struct module *m, size_t first, struct changed_symbols *out)
{
	const Icp__Process *b = m->pair->b;
	uint64_t offset, vaddr, size = 0;
	VEC(uint64_t) done = {0}; /* starts */
	int err = 0;

	if (!datasyms_span(m->syms, m->pair->page_size, &offset, &vaddr, &size))
		return 0;

	for (size_t i = first; !err && i < b->n_vmas; i++) {
		bool again = false;
		uint64_t *slot;

		if (!same_file(b->vmas[i], b->vmas[first]) || !bias_of(m, b->vmas[i], &m->bias))
			continue;
		vec_each (start, &done) /* another segment of the same one */
			again |= b->vmas[i]->start - *start < size;
		if (again)
			continue;
		slot = vec_push(&done);
		if (!slot) {
			err = fail(-ENOMEM, "names of variables");
			break;
		}
		*slot = b->vmas[i]->start;
		if (!was_there(m, b->vmas[i]))
			continue;
		for (size_t k = 0; !err && k < m->syms->n; k++)
			err = look_at(m, &m->syms->data[k], out);
	}
	vec_free(&done);
	return err;
}

/* Does any page differ that may be data of the file of b's mapping @first? */
static bool touched(const struct diff_pair *p, size_t first)
{
	const Icp__Process *b = p->b;
	const char *path = b->vmas[first]->path;

	for (size_t i = first; i < b->n_vmas; i++) {
		uint64_t end = b->vmas[i]->end;
		size_t at;

		if (strcmp(b->vmas[i]->path, path) != 0)
			continue;
		for (size_t k = i + 1; k < b->n_vmas; k++) { /* .bss follows without a name */
			if (b->vmas[k]->start != end || b->vmas[k]->path[0])
				break;
			end = b->vmas[k]->end;
		}
		at = first_run(p, b->vmas[i]->start);
		if (at < p->diffs.n && p->diffs.data[at].page * p->page_size < end)
			return true;
	}
	return false;
}

static bool seen_before(const Icp__Process *p, size_t at)
{
	for (size_t i = 0; i < at; i++)
		if (is_module(p->vmas[i]) && !strcmp(p->vmas[i]->path, p->vmas[at]->path))
			return true;
	return false;
}

int diff_symbols(const struct diff_pair *pair, struct changed_symbols *out)
{
	_cleanup_free_ uint8_t *buf = malloc(2 * (size_t)pair->page_size);
	int err = buf ? 0 : fail(-ENOMEM, "names of variables");

	if (!pair->a || !pair->b || !pair->diffs.n)
		return err;
	for (size_t i = 0; !err && i < pair->b->n_vmas; i++) {
		struct module m = {.pair = pair,
				   .fd = -1,
				   .old = buf,
				   .new = buf + pair->page_size,
				   .held = UINT64_MAX};

		if (!is_module(pair->b->vmas[i]) || seen_before(pair->b, i) ||
		    !touched(pair, i))
			continue;
		err = open_module(&m, pair->b->vmas[i], out);
		if (!err && m.syms)
			err = scan(&m, i, out);
		datasyms_free(m.syms);
		cleanup_fd(&m.fd);
	}
	return err;
}
