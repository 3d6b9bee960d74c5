// SPDX-License-Identifier: GPL-2.0
#include "lib/cut.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include <gelf.h>

#include "base/io.h"
#include "base/page.h"
#include "image/repo.h"
#include "proc/maps.h"
#include "proc/pagemap.h"
#include "state/ids.pb-c.h"

#include <cmocka.h>

#define ok(call)                                                                               \
	do {                                                                                   \
		int err_ = (call);                                                             \
		if (err_)                                                                      \
			fail_msg("%s: %s", #call, err_text(err_));                             \
	} while (0)

struct cut {
	struct target *target;
	struct maps maps;
	struct repo *repo;
	struct txn *txn;
	Icp__Process *process;
	Icp__Manifest *m;
	VEC(struct ctl *) ctls; /* must outlive the transaction */
};

static void *list_add(void *list, size_t *n, size_t size)
{
	void **grown = reallocarray(*(void ***)list, *n + 1, sizeof(void *));

	assert_non_null(grown);
	*(void ***)list = grown;
	return grown[(*n)++] = calloc(1, size);
}

static void add_regs(Icp__Thread *t, uint32_t type)
{
	static char buf[16384];
	struct iovec iov = {buf, sizeof(buf)};
	Icp__RegSet *set;

	if (ptrace(PTRACE_GETREGSET, (pid_t)t->tid, type, &iov)) {
		assert_true(type == NT_X86_XSTATE);
		return;
	}
	set = list_add(&t->regs, &t->n_regs, sizeof(*set));
	icp__reg_set__init(set);
	set->type = type;
	set->data.len = iov.iov_len;
	set->data.data = malloc(iov.iov_len);
	memcpy(set->data.data, buf, iov.iov_len);
}

static void add_thread(struct cut *c, pid_t tid)
{
	Icp__Thread *t = list_add(&c->process->threads, &c->process->n_threads, sizeof(*t));
	int status;

	icp__thread__init(t);
	t->tid = (uint32_t)tid;
	assert_int_equal(ptrace(PTRACE_SEIZE, tid, 0, 0), 0);
	assert_int_equal(ptrace(PTRACE_INTERRUPT, tid, 0, 0), 0);
	assert_int_equal(waitpid(tid, &status, __WALL), tid);
	add_regs(t, NT_PRSTATUS);
	add_regs(t, NT_PRFPREG);
#if defined(__x86_64__)
	add_regs(t, NT_X86_XSTATE);
#endif
}

static void add_threads(struct cut *c)
{
	char path[64];
	DIR *dir;

	add_thread(c, c->target->pid);
	snprintf(path, sizeof(path), "/proc/%d/task", c->target->pid);
	dir = opendir(path);
	assert_non_null(dir);
	for (struct dirent *e; (e = readdir(dir));)
		if (e->d_name[0] != '.' && atoi(e->d_name) != c->target->pid)
			add_thread(c, atoi(e->d_name));
	closedir(dir);
}

static void add_build_id(Icp__Vma *out, const char *path)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0, name, desc, at;
	GElf_Phdr ph;
	GElf_Nhdr note;
	Elf *elf;

	elf_version(EV_CURRENT);
	elf = elf_begin(fd, ELF_C_READ, NULL);
	if (elf && elf_kind(elf) == ELF_K_ELF)
		elf_getphdrnum(elf, &n);
	for (size_t i = 0; i < n && !out->build_id.len; i++) {
		Elf_Data *data;

		if (!gelf_getphdr(elf, (int)i, &ph) || ph.p_type != PT_NOTE || ph.p_align != 4)
			continue;
		data = elf_getdata_rawchunk(elf, (int64_t)ph.p_offset, ph.p_filesz, ELF_T_NHDR);
		for (at = 0; data && (at = gelf_getnote(data, at, &note, &name, &desc)) > 0;)
			if (note.n_type == NT_GNU_BUILD_ID) {
				out->build_id.len = note.n_descsz;
				out->build_id.data = malloc(note.n_descsz);
				memcpy(out->build_id.data, (char *)data->d_buf + desc,
				       note.n_descsz);
			}
	}
	elf_end(elf);
}

static void add_vma(struct cut *c, const struct vma *v)
{
	Icp__Vma *out = list_add(&c->process->vmas, &c->process->n_vmas, sizeof(*out));
	bool file = v->kind == VMA_FILE_PRIVATE || v->kind == VMA_FILE_SHARED;
	struct stat st;

	icp__vma__init(out);
	out->start = v->start;
	out->end = v->end;
	out->prot = v->prot;
	out->kind = v->kind + 1;
	out->offset = v->offset;
	out->inode = v->inode;
	out->dev_major = v->dev_major;
	out->dev_minor = v->dev_minor;
	out->deleted = v->deleted;
	out->shared = v->shared;
	out->shmid = v->kind == VMA_SHM ? (uint32_t)v->inode : 0;
	*(file ? &out->path : &out->name) = strdup(v->name);
	if (file && !v->deleted && !stat(v->name, &st)) {
		out->file_size = (uint64_t)st.st_size;
		out->file_mtime_ns = st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec;
		add_build_id(out, v->name);
	}
}

static struct ctl *new_ctl(struct cut *c, uint32_t stream)
{
	struct ctl **slot = vec_push(&c->ctls);

	assert_non_null(slot);
	ok(ctl_new(stream, (uint32_t)page_size(), slot));
	return *slot;
}

/* Copy what is populated in [start, end) to a stream, as page @to on. */
static void copy(struct cut *c, struct page_writer *w, struct ctl *ctl, const struct vma *v,
		 bool private)
{
	struct page_scan scan = {.inverted = private ? PG_FILE : 0,
				 .all_of = private ? PG_FILE : 0,
				 .any_of = PG_PRESENT | PG_SWAPPED,
				 .return_mask = PG_PRESENT};
	uint64_t next = v->start, page = page_size();
	struct page_region regions[256];
	_cleanup_free_ char *buf = malloc(page);

	while (next < v->end) {
		long n = pagemap_scan(c->target->pagemap_fd, &scan, next, v->end, regions, 256,
				      &next);

		assert_true(n >= 0);
		for (long i = 0; i < n; i++)
			for (uint64_t at = regions[i].start; at < regions[i].end; at += page) {
				struct page_src src = {.page = at / page, .data = buf};
				struct iovec local = {buf, page}, remote = {(void *)at, page};

				if (v->kind == VMA_SHM)
					src.page = (at - v->start + v->offset) / page;
				assert_int_equal(process_vm_readv(c->target->pid, &local, 1,
								  &remote, 1, 0),
						 page);
				ok(page_writer_put(w, &src, 1, ctl));
			}
	}
}

static void add_segment(struct cut *c, const struct vma *v)
{
	Icp__Segment *s = list_add(&c->m->segments, &c->m->n_segments, sizeof(*s));
	uint32_t stream = ICP_STREAM_SHM | (uint32_t)v->inode;
	struct page_writer *w;
	struct ctl *ctl = new_ctl(c, stream);

	icp__segment__init(s);
	s->shmid = (uint32_t)v->inode;
	s->size = v->end - v->start;
	ok(txn_pages(c->txn, stream, &w));
	copy(c, w, ctl, v, false);
	ok(txn_pages_end(c->txn, w, false));
	ok(txn_ctl(c->txn, ctl, true));
}

static void add_memory(struct cut *c)
{
	uint32_t stream = (uint32_t)c->target->pid;
	struct page_writer *w;
	struct ctl *ctl = new_ctl(c, stream);

	ok(txn_pages(c->txn, stream, &w));
	vec_each (v, &c->maps) {
		add_vma(c, v);
		if (v->kind == VMA_ANON || v->kind == VMA_FILE_PRIVATE)
			copy(c, w, ctl, v, true);
		else if (v->kind == VMA_FILE_SHARED && v->deleted)
			copy(c, w, ctl, v, false);
	}
	ok(txn_pages_end(c->txn, w, false));
	ok(txn_ctl(c->txn, ctl, true));
	vec_each (v, &c->maps) {
		if (v->kind == VMA_SHM)
			add_segment(c, v);
	}
}

static void add_ids(struct cut *c)
{
	Icp__ProcessState state = ICP__PROCESS_STATE__INIT;
	Icp__MmMap mm = ICP__MM_MAP__INIT;
	Icp__StateBlob *blob =
		list_add(&c->process->blobs, &c->process->n_blobs, sizeof(*blob));
	_cleanup_free_ char *auxv = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/auxv", c->target->pid);
	ok(io_read_file(AT_FDCWD, path, &auxv, &mm.auxv.len));
	mm.auxv.data = (uint8_t *)auxv;
	state.mm = &mm;
	icp__state_blob__init(blob);
	blob->kind = strdup("ids");
	blob->version = 1;
	blob->data.len = icp__process_state__get_packed_size(&state);
	blob->data.data = malloc(blob->data.len);
	icp__process_state__pack(&state, blob->data.data);
}

static void describe(struct cut *c)
{
	_cleanup_free_ char *cmdline = NULL;
	struct utsname uts;
	char boot[37], path[64];

	uname(&uts);
	ok(boot_id(boot));
	c->m = calloc(1, sizeof(*c->m));
	icp__manifest__init(c->m);
	c->m->arch = strdup(uts.machine);
	c->m->boot_id = strdup(boot);
	c->process = list_add(&c->m->processes, &c->m->n_processes, sizeof(*c->process));
	icp__process__init(c->process);
	c->process->pid = (uint32_t)c->target->pid;
	c->process->ppid = (uint32_t)getpid();
	c->process->comm = strdup(c->target->comm);
	snprintf(path, sizeof(path), "/proc/%d/cmdline", c->target->pid);
	ok(io_read_file(AT_FDCWD, path, &cmdline, &c->process->cmdline.len));
	c->process->cmdline.data = (uint8_t *)take_ptr(cmdline);
}

void cut_version(pid_t pid, const char *dir)
{
	struct txn_config config = {0};
	struct cut c = {0};

	ok(target_open(pid, &c.target));
	ok(repo_open(dir, REPO_CREATE, &c.repo));
	ok(txn_begin(c.repo, &config, &c.txn));
	describe(&c);
	add_threads(&c);
	ok(maps_read(c.target, &c.maps));
	add_memory(&c);
	add_ids(&c);
	for (size_t i = 0; i < c.process->n_threads; i++)
		assert_int_equal(ptrace(PTRACE_DETACH, (pid_t)c.process->threads[i]->tid, 0, 0),
				 0);
	ok(txn_commit(c.txn, c.m));
	vec_each (ctl, &c.ctls) {
		ctl_free(*ctl);
	}
	vec_free(&c.ctls);
	manifest_free(c.m);
	repo_close(c.repo);
	maps_free(&c.maps);
	target_free(c.target);
}
