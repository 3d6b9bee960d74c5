// SPDX-License-Identifier: GPL-2.0
/*
 *     | ELF header | program headers | sections | notes | page-aligned: memory, sparse |
 *
 * Sections are there only for 65535 program headers or more: the number doesn't fit the header then
 * and is in the sh_info of section 0 (PN_XNUM); section 1 is the notes.
 */
#include "export/core.h"

#include <errno.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "export/internal.h"

static int elf_failed(const char *what)
{
	return refuse(-EIO, "%s: %s", what, elf_errmsg(-1));
}

static uint64_t align_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) & ~(to - 1);
}

static int list_processes(const Icp__Manifest *m)
{
	char text[200] = "";
	size_t at = 0;

	for (size_t i = 0; i < m->n_processes && at < sizeof(text) - 24; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%u", i ? ", " : "",
				       m->processes[i]->pid);
	return refuse(-EINVAL, "which process? version %u has %s%s", m->version, text,
		      at >= sizeof(text) - 24 ? "..." : "");
}

static int choose(struct core *c)
{
	const Icp__Process *only = NULL;
	size_t n = 0;

	for (size_t i = 0; i < c->manifest->n_processes; i++) {
		const Icp__Process *p = c->manifest->processes[i];

		if (c->config->pid && p->pid == c->config->pid)
			c->process = p;
		if (!p->no_memory) {
			only = p;
			n++;
		}
	}
	if (!c->config->pid && n != 1)
		return n ? list_processes(c->manifest)
			 : refuse(-ENOENT, "version %u has no process with memory",
				  c->config->version);
	if (!c->config->pid)
		c->process = only;
	if (!c->process)
		return refuse(-ENOENT, "version %u has no process %u", c->config->version,
			      c->config->pid);
	if (c->process->no_memory)
		return refuse(-ENOENT, "process %u had ended (a zombie) in version %u",
			      c->config->pid, c->config->version);
	c->result->pid = c->process->pid;
	return 0;
}

/* Where everything goes. The file ends behind the last piece. */
static int place(struct core *c)
{
	size_t n = c->pieces.n + 1;
	uint64_t at = sizeof(Elf64_Ehdr) + n * sizeof(Elf64_Phdr);

	if (n >= PN_XNUM)
		at += 2 * sizeof(Elf64_Shdr);
	c->notes_offset = at;
	at = align_up(at + c->notes.n, c->manifest->page_size);
	vec_each (p, &c->pieces) {
		p->offset = at;
		if (!p->stored)
			continue;
		if (p->size > INT64_MAX - at)
			return refuse(-EFBIG, "the core would be larger than a file can be");
		at += p->size;
	}
	c->result->size = at;
	return 0;
}

static int put_phdrs(struct core *c, Elf *elf)
{
	GElf_Phdr note = {.p_type = PT_NOTE,
			  .p_offset = c->notes_offset,
			  .p_filesz = c->notes.n,
			  .p_align = 4};

	if (!gelf_update_phdr(elf, 0, &note))
		return elf_failed("program header");
	for (size_t i = 0; i < c->pieces.n; i++) {
		const struct piece *p = &c->pieces.data[i];
		GElf_Phdr ph = {.p_type = PT_LOAD,
				.p_offset = p->offset,
				.p_vaddr = p->start,
				.p_filesz = p->stored ? p->size : 0,
				.p_memsz = p->size,
				.p_align = c->manifest->page_size};

		ph.p_flags = (p->vma->prot & PROT_READ ? PF_R : 0) |
			     (p->vma->prot & PROT_WRITE ? PF_W : 0) |
			     (p->vma->prot & PROT_EXEC ? PF_X : 0);
		if (!gelf_update_phdr(elf, (int)i + 1, &ph))
			return elf_failed("program header");
	}
	return 0;
}

/* libelf makes section 0 only before another one, and cares for its content: let that be the notes. */
static int put_sections(struct core *c, Elf *elf)
{
	Elf_Scn *scn = elf_newscn(elf);
	Elf_Data *data = scn ? elf_newdata(scn) : NULL;
	GElf_Shdr sh;

	if (!data || !gelf_getshdr(scn, &sh))
		return elf_failed("section header");
	data->d_buf = c->notes.data;
	data->d_size = c->notes.n;
	data->d_type = ELF_T_BYTE;
	data->d_align = 1;
	data->d_version = EV_CURRENT;
	sh.sh_type = SHT_NOTE;
	sh.sh_offset = c->notes_offset;
	sh.sh_size = c->notes.n;
	sh.sh_addralign = 4;
	return gelf_update_shdr(scn, &sh) ? 0 : elf_failed("section header");
}

static int put_headers(struct core *c, Elf *elf, uint16_t machine)
{
	size_t n = c->pieces.n + 1;
	GElf_Ehdr eh;

	if (!gelf_newehdr(elf, ELFCLASS64) || !gelf_getehdr(elf, &eh))
		return elf_failed("ELF header");
	eh.e_ident[EI_DATA] = ELFDATA2LSB;
	eh.e_ident[EI_VERSION] = EV_CURRENT;
	eh.e_type = ET_CORE;
	eh.e_machine = machine;
	eh.e_version = EV_CURRENT;
	eh.e_phoff = sizeof(Elf64_Ehdr);
	if (n >= PN_XNUM) {
		eh.e_shoff = eh.e_phoff + n * sizeof(Elf64_Phdr);
		eh.e_shentsize = sizeof(Elf64_Shdr);
	}
	elf_flagelf(elf, ELF_C_SET, ELF_F_LAYOUT);
	if (!gelf_update_ehdr(elf, &eh))
		return elf_failed("ELF header");
	if (n >= PN_XNUM) {
		int err = put_sections(c, elf);

		if (err)
			return err;
	}
	return gelf_newphdr(elf, n) ? put_phdrs(c, elf) : elf_failed("program headers");
}

static int write_headers(struct core *c)
{
	uint16_t machine;
	Elf *elf;
	int err = core_machine(c, &machine);

	if (err)
		return err;
	elf_version(EV_CURRENT);
	elf = elf_begin(c->fd, ELF_C_WRITE, NULL);
	if (!elf)
		return elf_failed("ELF header");
	err = put_headers(c, elf, machine);
	if (!err && elf_update(elf, ELF_C_WRITE) < 0)
		err = refuse(-EIO, "write %s: %s", c->config->path, elf_errmsg(-1));
	elf_end(elf);
	return err;
}

static int write_core(struct core *c)
{
	int err = write_headers(c);

	if (!err && ftruncate(c->fd, (off_t)c->result->size))
		err = fail(-errno, "write %s", c->config->path);
	if (!err && pwrite(c->fd, c->notes.data, c->notes.n, (off_t)c->notes_offset) !=
			    (ssize_t)c->notes.n)
		err = fail(-errno, "write %s", c->config->path);
	return err ? err : core_write_memory(c);
}

static int export_process(struct core *c)
{
	_cleanup_(output_close) struct output output = {.fd = -1};
	int err = output_open(c->config->path, c->config->force, &output);

	if (err)
		return err;
	c->fd = output.fd;
	err = repo_ctl(c->repo, c->config->version, c->process->pid, &c->ctl);
	if (!err)
		err = reader_open(c->repo, &c->reader);
	if (!err)
		err = core_plan(c);
	if (!err)
		err = core_notes(c);
	if (!err)
		err = place(c);
	if (!err)
		err = write_core(c);
	if (err)
		return wrap(err, "export process %u of version %u", c->process->pid,
			    c->config->version);
	return output_publish(&output);
}

int core_export(struct repo *r, const struct core_config *config, struct core_result *out)
{
	struct core c = {.repo = r, .config = config, .result = out, .fd = -1};
	int err = repo_manifest(r, config->version, &c.manifest);

	*out = (struct core_result){0};
	if (!err)
		err = choose(&c);
	if (!err)
		err = export_process(&c);
	reader_close(c.reader);
	ctl_free(c.ctl);
	ctl_free(c.shm);
	manifest_free(c.manifest);
	free(c.file_same);
	vec_free(&c.pieces);
	vec_free(&c.notes);
	return err;
}

void core_result_free(struct core_result *r)
{
	vec_each (name, &r->changed) {
		free(*name);
	}
	vec_free(&r->changed);
}
