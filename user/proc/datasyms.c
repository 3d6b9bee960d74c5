// SPDX-License-Identifier: GPL-2.0
#include "proc/datasyms.h"

#include <errno.h>
#include <gelf.h>
#include <libelf.h>
#include <string.h>

#include "base/vec.h"

#define TABLE_BYTES_MAX (256u << 20) /* a larger symbol or string table is not read */
#define NAME_MAX_LEN 4096
#define NOTES_MAX (1u << 20)

struct load {
	uint64_t offset, filesz, vaddr, memsz;
	bool writable;
};

struct datasyms_priv {
	VEC(struct load) loads;
	VEC(struct datasym) syms;
};

void datasyms_free(struct datasyms *d)
{
	if (!d)
		return;
	if (d->priv) {
		vec_each (s, &d->priv->syms)
			free((char *)s->name);
		vec_free(&d->priv->syms);
		vec_free(&d->priv->loads);
		free(d->priv);
	}
	free(d);
}

static void cleanup_elf(Elf **elf)
{
	elf_end(*elf);
}

static void take_build_id(struct datasyms *d, Elf *elf, const GElf_Phdr *phdr)
{
	size_t at = 0, next, name, desc;
	Elf_Data *data;
	GElf_Nhdr note;

	if (phdr->p_filesz > NOTES_MAX || d->build_id_len)
		return;
	data = elf_getdata_rawchunk(elf, (int64_t)phdr->p_offset, phdr->p_filesz,
				    phdr->p_align == 8 ? ELF_T_NHDR8 : ELF_T_NHDR);
	while (data && (next = gelf_getnote(data, at, &note, &name, &desc)) > 0) {
		if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
		    note.n_descsz <= sizeof(d->build_id) &&
		    !memcmp((char *)data->d_buf + name, "GNU", 4)) {
			memcpy(d->build_id, (char *)data->d_buf + desc, note.n_descsz);
			d->build_id_len = note.n_descsz;
			return;
		}
		at = next;
	}
}

static int read_segments(struct datasyms *d, Elf *elf)
{
	size_t n;

	if (elf_getphdrnum(elf, &n))
		return -ENOEXEC;
	for (size_t i = 0; i < n && i < 1024; i++) {
		struct load *load;
		GElf_Phdr phdr;
		uint64_t end;

		if (!gelf_getphdr(elf, (int)i, &phdr))
			return -ENOEXEC;
		if (phdr.p_type == PT_NOTE)
			take_build_id(d, elf, &phdr);
		if (phdr.p_type != PT_LOAD || phdr.p_filesz > phdr.p_memsz ||
		    __builtin_add_overflow(phdr.p_vaddr, phdr.p_memsz, &end) ||
		    __builtin_add_overflow(phdr.p_offset, phdr.p_filesz, &end))
			continue;
		load = vec_push(&d->priv->loads);
		if (!load)
			return -ENOMEM;
		*load = (struct load){phdr.p_offset, phdr.p_filesz, phdr.p_vaddr, phdr.p_memsz,
				      phdr.p_flags & PF_W};
	}
	return 0;
}

static bool writable(const struct datasyms *d, uint64_t vaddr, uint64_t size)
{
	vec_each (load, &d->priv->loads) {
		if (load->writable && vaddr >= load->vaddr && size <= load->memsz &&
		    vaddr - load->vaddr <= load->memsz - size)
			return true;
	}
	return false;
}

/* The name goes to terminals and into JSON. */
static char *copy_name(const char *name)
{
	size_t len = strnlen(name, NAME_MAX_LEN);
	const char *version = memchr(name, '@', len);
	char *copy = strndup(name, version ? (size_t)(version - name) : len);

	for (char *c = copy; c && *c; c++)
		*c = *c >= ' ' && *c <= '~' ? *c : '?';
	return copy;
}

static int read_table(struct datasyms *d, Elf *elf, Elf_Scn *scn, const GElf_Shdr *shdr)
{
	size_t entry = gelf_fsize(elf, ELF_T_SYM, 1, EV_CURRENT);
	GElf_Shdr strings;
	Elf_Data *data;

	if (shdr->sh_size > TABLE_BYTES_MAX || shdr->sh_flags & SHF_COMPRESSED ||
	    !gelf_getshdr(elf_getscn(elf, shdr->sh_link), &strings) ||
	    strings.sh_type != SHT_STRTAB || strings.sh_size > TABLE_BYTES_MAX ||
	    strings.sh_flags & SHF_COMPRESSED)
		return 0;
	data = elf_getdata(scn, NULL);
	for (size_t i = 0; data && entry && i < data->d_size / entry; i++) {
		struct datasym *s;
		const char *name;
		GElf_Sym sym;

		if (!gelf_getsym(data, (int)i, &sym))
			break;
		if (GELF_ST_TYPE(sym.st_info) != STT_OBJECT || sym.st_shndx == SHN_UNDEF ||
		    !sym.st_size || !writable(d, sym.st_value, sym.st_size))
			continue;
		name = elf_strptr(elf, shdr->sh_link, sym.st_name);
		if (!name || !*name || *name == '@')
			continue;
		s = vec_push(&d->priv->syms);
		if (!s || !(s->name = copy_name(name)))
			return -ENOMEM;
		s->vaddr = sym.st_value;
		s->size = sym.st_size;
	}
	return 0;
}

static size_t underscores(const char *name)
{
	return strspn(name, "_");
}

/* By place; of aliases the largest first, then the plainest name. */
static int by_vaddr(const void *a, const void *b)
{
	const struct datasym *x = a, *y = b;

	if (x->vaddr != y->vaddr)
		return x->vaddr < y->vaddr ? -1 : 1;
	if (x->size != y->size)
		return x->size > y->size ? -1 : 1;
	if (underscores(x->name) != underscores(y->name))
		return underscores(x->name) < underscores(y->name) ? -1 : 1;
	return strcmp(x->name, y->name);
}

static void merge_aliases(struct datasyms_priv *p)
{
	size_t n = 0;

	if (p->syms.n)
		qsort(p->syms.data, p->syms.n, sizeof(*p->syms.data), by_vaddr);
	for (size_t i = 0; i < p->syms.n; i++) {
		if (n && p->syms.data[n - 1].vaddr == p->syms.data[i].vaddr)
			free((char *)p->syms.data[i].name);
		else
			p->syms.data[n++] = p->syms.data[i];
	}
	p->syms.n = n;
}

int datasyms_read_fd(int fd, struct datasyms **out)
{
	_cleanup_datasyms_ struct datasyms *d = calloc(1, sizeof(*d));
	_cleanup_(cleanup_elf) Elf *elf = NULL;
	Elf_Scn *scn = NULL;
	unsigned tables = 0;
	GElf_Shdr shdr;
	int err;

	if (!d || !(d->priv = calloc(1, sizeof(*d->priv))))
		return -ENOMEM;
	if (elf_version(EV_CURRENT) == EV_NONE)
		return -ENOEXEC;
	elf = elf_begin(fd, ELF_C_READ, NULL);
	if (!elf || elf_kind(elf) != ELF_K_ELF)
		return -ENOEXEC;
	err = read_segments(d, elf);
	while (!err && tables < 2 && (scn = elf_nextscn(elf, scn))) {
		if (!gelf_getshdr(scn, &shdr) ||
		    (shdr.sh_type != SHT_SYMTAB && shdr.sh_type != SHT_DYNSYM))
			continue;
		tables++;
		err = read_table(d, elf, scn, &shdr);
	}
	if (err)
		return err;
	merge_aliases(d->priv);
	d->data = d->priv->syms.data;
	d->n = d->priv->syms.n;
	*out = take_ptr(d);
	return 0;
}

bool datasyms_span(const struct datasyms *d, uint64_t page_size, uint64_t *offset,
		   uint64_t *vaddr, uint64_t *size)
{
	uint64_t end = 0;

	if (!d->priv->loads.n)
		return false;
	*offset = d->priv->loads.data[0].offset & ~(page_size - 1);
	*vaddr = d->priv->loads.data[0].vaddr & ~(page_size - 1);
	vec_each (load, &d->priv->loads)
		end = load->vaddr + load->memsz > end ? load->vaddr + load->memsz : end;
	*size = end - *vaddr;
	return end > *vaddr;
}
