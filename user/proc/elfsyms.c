// SPDX-License-Identifier: GPL-2.0
#include "proc/elfsyms.h"

#include <errno.h>
#include <gelf.h>
#include <libelf.h>
#include <string.h>

#include "base/vec.h"

#define TABLE_BYTES_MAX (256u << 20) /* a larger symbol or string table is not read */
#define NAME_MAX_LEN 4096	     /* C++ has long ones; longer ones are cut */

struct func {
	uint64_t start, end; /* vaddr */
	const char *symbol;  /* in libelf's table, only while reading */
	uint32_t name;	     /* offset in names */
	bool local;
	bool sized; /* else end is its section's, until the next function is known */
};

/* [start, next range's start) belongs to one function, or to none. */
struct range {
	uint64_t start;
	uint32_t func; /* index, or NO_FUNC */
};
#define NO_FUNC UINT32_MAX

struct load {
	uint64_t offset, size, vaddr;
};

struct elfsyms {
	VEC(struct func) funcs; /* sorted by start, each start once */
	VEC(struct range) ranges;
	VEC(struct load) loads; /* executable */
	VEC(char) names;
};

void elfsyms_free(struct elfsyms *e)
{
	if (!e)
		return;
	vec_free(&e->funcs);
	vec_free(&e->ranges);
	vec_free(&e->loads);
	vec_free(&e->names);
	free(e);
}

static void cleanup_elf(Elf **elf)
{
	elf_end(*elf);
}

/* How much of the name counts: not the version behind it. Bounded, as the file may lie. */
static size_t symbol_len(const char *name)
{
	size_t len = strnlen(name, NAME_MAX_LEN);
	const char *version = memchr(name, '@', len);

	return version ? (size_t)(version - name) : len;
}

static size_t underscores(const char *name)
{
	size_t n = 0;

	while (n < NAME_MAX_LEN && name[n] == '_')
		n++;
	return n;
}

/* One symbol, if it is a defined function. */
static int add_symbol(struct elfsyms *e, Elf *elf, const GElf_Sym *sym, const char *name)
{
	unsigned type = GELF_ST_TYPE(sym->st_info);
	uint64_t limit = UINT64_MAX, end;
	GElf_Shdr shdr;
	struct func *f;

	if ((type != STT_FUNC && type != STT_GNU_IFUNC) || sym->st_shndx == SHN_UNDEF ||
	    !name || !*name || *name == '@')
		return 0;
	if (sym->st_shndx < SHN_LORESERVE) {
		if (!gelf_getshdr(elf_getscn(elf, sym->st_shndx), &shdr) ||
		    sym->st_value < shdr.sh_addr ||
		    sym->st_value - shdr.sh_addr >= shdr.sh_size ||
		    __builtin_add_overflow(shdr.sh_addr, shdr.sh_size, &limit))
			return 0;
	} else if (!sym->st_size) {
		return 0; /* nothing says where it ends */
	}
	if (__builtin_add_overflow(sym->st_value, sym->st_size, &end) || end > limit)
		end = limit;
	f = vec_push(&e->funcs);
	if (!f)
		return -ENOMEM;
	f->start = sym->st_value;
	f->end = sym->st_size ? end : limit;
	f->symbol = name;
	f->local = GELF_ST_BIND(sym->st_info) == STB_LOCAL;
	f->sized = sym->st_size;
	return 0;
}

static int read_table(struct elfsyms *e, Elf *elf, Elf_Scn *scn, const GElf_Shdr *shdr)
{
	GElf_Shdr strings;
	Elf_Data *data;
	size_t entry;

	if (shdr->sh_size > TABLE_BYTES_MAX || shdr->sh_flags & SHF_COMPRESSED ||
	    !gelf_getshdr(elf_getscn(elf, shdr->sh_link), &strings) ||
	    strings.sh_type != SHT_STRTAB || strings.sh_size > TABLE_BYTES_MAX ||
	    strings.sh_flags & SHF_COMPRESSED)
		return 0;
	data = elf_getdata(scn, NULL);
	entry = gelf_fsize(elf, ELF_T_SYM, 1, EV_CURRENT);
	for (size_t i = 0; data && entry && i < data->d_size / entry; i++) {
		GElf_Sym sym;
		int err;

		if (!gelf_getsym(data, (int)i, &sym))
			break;
		err = add_symbol(e, elf, &sym, elf_strptr(elf, shdr->sh_link, sym.st_name));
		if (err)
			return err;
	}
	return 0;
}

static int read_tables(struct elfsyms *e, Elf *elf)
{
	Elf_Scn *scn = NULL;
	unsigned tables = 0;
	GElf_Shdr shdr;

	while (tables < 2 && (scn = elf_nextscn(elf, scn))) {
		int err;

		if (!gelf_getshdr(scn, &shdr) ||
		    (shdr.sh_type != SHT_SYMTAB && shdr.sh_type != SHT_DYNSYM))
			continue;
		tables++;
		err = read_table(e, elf, scn, &shdr);
		if (err)
			return err;
	}
	return 0;
}

static int read_loads(struct elfsyms *e, Elf *elf)
{
	size_t n;

	if (elf_getphdrnum(elf, &n))
		return -ENOEXEC;
	for (size_t i = 0; i < n && i < 1024; i++) {
		struct load *load;
		GElf_Phdr phdr;

		if (!gelf_getphdr(elf, (int)i, &phdr))
			return -ENOEXEC;
		if (phdr.p_type != PT_LOAD || !(phdr.p_flags & PF_X))
			continue;
		load = vec_push(&e->loads);
		if (!load)
			return -ENOMEM;
		*load = (struct load){phdr.p_offset, phdr.p_filesz, phdr.p_vaddr};
	}
	return 0;
}

/* By start; of one start, the name to show first. */
static int by_start(const void *a, const void *b)
{
	const struct func *x = a, *y = b;
	size_t lx, ly;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	if (x->local != y->local)
		return x->local ? 1 : -1;
	lx = underscores(x->symbol);
	ly = underscores(y->symbol);
	if (lx != ly)
		return lx < ly ? -1 : 1;
	lx = symbol_len(x->symbol);
	ly = symbol_len(y->symbol);
	if (lx != ly)
		return lx < ly ? -1 : 1;
	return strncmp(x->symbol, y->symbol, lx);
}

static int keep_name(struct elfsyms *e, struct func *f)
{
	size_t len = symbol_len(f->symbol);

	if (e->names.n + len + 1 > TABLE_BYTES_MAX)
		return -ENOMEM;
	if (vec_reserve(&e->names, e->names.n + len + 1))
		return -ENOMEM;
	f->name = (uint32_t)e->names.n;
	for (size_t i = 0; i < len; i++) {
		char c = f->symbol[i];

		/* it goes to terminals and into JSON */
		e->names.data[e->names.n++] = c >= ' ' && c <= '~' ? c : '?';
	}
	e->names.data[e->names.n++] = 0;
	f->symbol = NULL;
	return 0;
}

/* One entry per start: the best name, and the largest size that any alias has; a size that is
 * given beats none. */
static int merge_aliases(struct elfsyms *e)
{
	size_t n = 0;

	for (size_t i = 0, next; i < e->funcs.n; i = next) {
		struct func best = e->funcs.data[i];
		uint64_t sized = 0;
		int err;

		for (next = i; next < e->funcs.n && e->funcs.data[next].start == best.start;
		     next++)
			if (e->funcs.data[next].sized && e->funcs.data[next].end > sized)
				sized = e->funcs.data[next].end;
		if (sized)
			best.end = sized;
		else if (next < e->funcs.n && e->funcs.data[next].start < best.end)
			best.end = e->funcs.data[next].start;
		err = keep_name(e, &best);
		if (err)
			return err;
		e->funcs.data[n++] = best;
	}
	e->funcs.n = n;
	return 0;
}

static int add_range(struct elfsyms *e, uint64_t start, uint32_t func)
{
	struct range *r = e->ranges.n ? &e->ranges.data[e->ranges.n - 1] : NULL;

	if (!r || r->start != start)
		r = vec_push(&e->ranges);
	if (!r)
		return -ENOMEM;
	r->start = start;
	r->func = func;
	return 0;
}

/*
 * Functions may lie in one another: flatten them, so that a lookup is one binary search
 * whatever the file says. @open is the stack of those that we are in, the innermost on top.
 */
static int flatten(struct elfsyms *e)
{
	_cleanup_free_ uint32_t *open = NULL;
	size_t depth = 0, n = e->funcs.n;

	if (n >= NO_FUNC || !(open = malloc((n + 1) * sizeof(*open))))
		return -ENOMEM;
	for (size_t i = 0; i <= n; i++) {
		uint64_t until = i < n ? e->funcs.data[i].start : UINT64_MAX;

		while (depth && e->funcs.data[open[depth - 1]].end <= until) {
			uint64_t end = e->funcs.data[open[--depth]].end;

			while (depth && e->funcs.data[open[depth - 1]].end <= end)
				depth--;
			if (add_range(e, end, depth ? open[depth - 1] : NO_FUNC))
				return -ENOMEM;
		}
		if (i == n)
			break;
		if (add_range(e, until, (uint32_t)i))
			return -ENOMEM;
		open[depth++] = (uint32_t)i;
	}
	return 0;
}

static int read_elf(Elf *elf, struct elfsyms **out)
{
	_cleanup_elfsyms_ struct elfsyms *e = calloc(1, sizeof(*e));
	int err;

	if (!e)
		return -ENOMEM;
	if (!elf || elf_kind(elf) != ELF_K_ELF)
		return -ENOEXEC;
	err = read_loads(e, elf);
	if (!err)
		err = read_tables(e, elf);
	if (err)
		return err;
	if (e->funcs.n)
		qsort(e->funcs.data, e->funcs.n, sizeof(*e->funcs.data), by_start);
	err = merge_aliases(e);
	if (!err)
		err = flatten(e);
	if (err)
		return err;
	*out = take_ptr(e);
	return 0;
}

int elfsyms_read_fd(int fd, struct elfsyms **out)
{
	_cleanup_(cleanup_elf) Elf *elf = NULL;

	if (elf_version(EV_CURRENT) == EV_NONE)
		return -ENOEXEC;
	elf = elf_begin(fd, ELF_C_READ, NULL);
	return read_elf(elf, out);
}

int elfsyms_read_mem(const void *data, size_t len, struct elfsyms **out)
{
	_cleanup_free_ char *copy = malloc(len ? len : 1); /* libelf may write to it */
	_cleanup_(cleanup_elf) Elf *elf = NULL;

	if (!copy)
		return -ENOMEM;
	if (elf_version(EV_CURRENT) == EV_NONE)
		return -ENOEXEC;
	memcpy(copy, data, len);
	elf = elf_memory(copy, len);
	return read_elf(elf, out);
}

bool elfsyms_vaddr(const struct elfsyms *e, uint64_t file_offset, uint64_t *vaddr)
{
	for (size_t i = 0; i < e->loads.n; i++) {
		const struct load *load = &e->loads.data[i];

		if (file_offset < load->offset || file_offset - load->offset >= load->size)
			continue;
		*vaddr = load->vaddr + (file_offset - load->offset);
		return true;
	}
	return false;
}

const char *elfsyms_find(const struct elfsyms *e, uint64_t vaddr, uint64_t *offset)
{
	size_t low = 0, high = e->ranges.n; /* the first range that starts behind vaddr */
	const struct func *f;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (e->ranges.data[mid].start <= vaddr)
			low = mid + 1;
		else
			high = mid;
	}
	if (!low || e->ranges.data[low - 1].func == NO_FUNC)
		return NULL;
	f = &e->funcs.data[e->ranges.data[low - 1].func];
	*offset = vaddr - f->start;
	return e->names.data + f->name;
}

size_t elfsyms_count(const struct elfsyms *e)
{
	return e->funcs.n;
}
