// SPDX-License-Identifier: GPL-2.0
/* More mappings than an ELF header can count; layouts of XSAVE; images that make no sense. */
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "export/core.h"
#include "export/internal.h"
#include "lib/scratch.h"

#include <cmocka.h>

#define PAGE 4096u
#define FIRST 0x10000000ull
#define REGS_X86 (27 * 8)

static void *list_add(void *list, size_t *n, size_t size)
{
	void **grown = reallocarray(*(void ***)list, *n + 1, sizeof(void *));

	assert_non_null(grown);
	*(void ***)list = grown;
	return grown[(*n)++] = calloc(1, size);
}

struct image {
	char dir[SCRATCH_MAX], core[SCRATCH_MAX + 16];
	struct repo *repo;
	struct txn *txn;
	struct ctl *ctl;
	Icp__Manifest *m;
	Icp__Process *p;
};

static void image_begin(struct image *i)
{
	struct txn_config config = {.page_size = PAGE};
	Icp__Thread *t;
	Icp__RegSet *set;

	assert_non_null(mkdtemp(scratch(i->dir, "core")));
	snprintf(i->core, sizeof(i->core), "%s.core", i->dir);
	assert_int_equal(repo_open(i->dir, REPO_CREATE, &i->repo), 0);
	assert_int_equal(txn_begin(i->repo, &config, &i->txn), 0);
	assert_int_equal(ctl_new(42, PAGE, &i->ctl), 0);
	i->m = calloc(1, sizeof(*i->m));
	icp__manifest__init(i->m);
	i->m->arch = strdup("x86_64");
	i->p = list_add(&i->m->processes, &i->m->n_processes, sizeof(*i->p));
	icp__process__init(i->p);
	i->p->pid = 42;
	t = list_add(&i->p->threads, &i->p->n_threads, sizeof(*t));
	icp__thread__init(t);
	t->tid = 42;
	set = list_add(&t->regs, &t->n_regs, sizeof(*set));
	icp__reg_set__init(set);
	set->type = NT_PRSTATUS;
	set->data.len = REGS_X86;
	set->data.data = calloc(1, REGS_X86);
}

static Icp__Vma *image_vma(struct image *i, uint64_t start, uint64_t pages, enum vma_kind kind)
{
	Icp__Vma *v = list_add(&i->p->vmas, &i->p->n_vmas, sizeof(*v));

	icp__vma__init(v);
	v->start = start;
	v->end = start + pages * PAGE;
	v->prot = 3;
	v->kind = kind + 1;
	return v;
}

static void image_commit(struct image *i, const struct page_src *pages, size_t n)
{
	struct page_writer *w;

	assert_int_equal(txn_pages(i->txn, 42, &w), 0);
	assert_int_equal(page_writer_put(w, pages, n, i->ctl), 0);
	assert_int_equal(txn_pages_end(i->txn, w, false), 0);
	assert_int_equal(txn_ctl(i->txn, i->ctl, true), 0);
	assert_int_equal(txn_commit(i->txn, i->m), 0);
}

static void image_end(struct image *i)
{
	char command[128];

	manifest_free(i->m);
	ctl_free(i->ctl);
	repo_close(i->repo);
	unlink(i->core);
	snprintf(command, sizeof(command), "rm -rf %s", i->dir);
	assert_int_equal(system(command), 0);
}

static int image_export(struct image *i, struct core_result *result)
{
	struct core_config config = {.version = 1, .path = i->core};

	return core_export(i->repo, &config, result);
}

static void test_many_mappings(void **state)
{
	_cleanup_core_result_ struct core_result result = {0};
	enum { N = 70000 };
	struct page_src *pages = calloc(N, sizeof(*pages));
	uint32_t *data = calloc(N, PAGE);
	struct image i = {0};
	GElf_Phdr ph;
	size_t n = 0;
	Elf *elf;
	int fd;

	image_begin(&i);
	for (uint32_t k = 0; k < N; k++) {
		data[k * (PAGE / 4)] = k + 1;
		pages[k] = (struct page_src){(FIRST + 2ull * k * PAGE) / PAGE,
					     &data[k * (PAGE / 4)], NULL};
		image_vma(&i, FIRST + 2ull * k * PAGE, 1, VMA_ANON);
	}
	image_commit(&i, pages, N);
	if (image_export(&i, &result))
		fail_msg("%s", err_text(-1));
	assert_int_equal(result.segments, N);
	elf_version(EV_CURRENT);
	fd = open(i.core, O_RDONLY);
	elf = elf_begin(fd, ELF_C_READ, NULL);
	assert_non_null(elf);
	assert_int_equal(elf_getphdrnum(elf, &n), 0);
	assert_int_equal(n, N + 1);
	for (uint32_t k = 0; k < N; k++) {
		uint32_t value = 0;

		assert_non_null(gelf_getphdr(elf, (int)k + 1, &ph));
		assert_int_equal(ph.p_vaddr, FIRST + 2ull * k * PAGE);
		assert_int_equal(pread(fd, &value, 4, (off_t)ph.p_offset), 4);
		assert_int_equal(value, k + 1);
	}
	elf_end(elf);
	close(fd);
	image_end(&i);
	free(pages);
	free(data);
}

static void test_impossible(void **state)
{
	_cleanup_core_result_ struct core_result result = {0};
	struct image i = {0};
	Icp__Vma *v;

	image_begin(&i);
	image_vma(&i, 0xffffffffff600000ull, 1, VMA_SPECIAL);
	i.p->vmas[0]->prot = 1;
	image_commit(&i, NULL, 0);
	if (image_export(&i, &result))
		fail_msg("%s", err_text(-1));
	image_end(&i);

	memset(&i, 0, sizeof(i));
	image_begin(&i);
	v = image_vma(&i, FIRST, 4, VMA_SHM);
	v->shmid = 7;
	v->offset = UINT64_MAX - 5;
	image_commit(&i, NULL, 0);
	assert_int_equal(image_export(&i, &result), -EBADMSG);
	assert_int_equal(access(i.core, F_OK), -1);
	image_end(&i);

	memset(&i, 0, sizeof(i));
	image_begin(&i);
	i.p->threads[0]->regs[0]->data.len = 68; /* a 32-bit process */
	image_vma(&i, FIRST, 1ull << 34, VMA_ANON);
	image_commit(&i, NULL, 0);
	assert_int_equal(image_export(&i, &result), -EBADMSG);
	image_end(&i);
}

/* An area as AMD's processors write it, 0x2e7: x87, SSE, AVX, AVX-512, PKRU. */
static void test_xstate(void **state)
{
	uint8_t in[2440], out[XSTATE_X86_64_MAX];
	uint64_t xcr0 = 0x2e7;

	for (size_t k = 0; k < sizeof(in); k++)
		in[k] = (uint8_t)(k * 7 + k / 256);
	memcpy(in + 464, &xcr0, 8);
	assert_int_equal(xstate_x86_64(in, sizeof(in), out), 2696);
	assert_memory_equal(out, in, 832);
	assert_memory_equal(out + 1088, in + 832, 64);
	assert_memory_equal(out + 1152, in + 896, 512);
	assert_memory_equal(out + 1664, in + 1408, 1024);
	assert_memory_equal(out + 2688, in + 2432, 8);
	xcr0 = 0x207;
	memcpy(in + 464, &xcr0, 8);
	assert_int_equal(xstate_x86_64(in, 840, out), 2696);
	assert_memory_equal(out + 2688, in + 832, 8);
	xcr0 = 7;
	memcpy(in + 464, &xcr0, 8);
	assert_int_equal(xstate_x86_64(in, 832, out), 0);
	assert_int_equal(xstate_x86_64(in, 10, out), 0);
	xcr0 = UINT64_MAX;
	memcpy(in + 464, &xcr0, 8);
	assert_int_equal(xstate_x86_64(in, sizeof(in), out), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_many_mappings),
		cmocka_unit_test(test_impossible),
		cmocka_unit_test(test_xstate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
