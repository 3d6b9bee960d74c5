// SPDX-License-Identifier: GPL-2.0
/* What a version of a session says of mappings: as it is then, though smaps is not read each time. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/manifest.h"
#include "image/repo.h"
#include "lib/kid.h"
#include "lib/robust_procs.h"
#include "lib/scratch.h"

/* cmocka's fail() and base/err.h's don't go together. */
#undef fail
#undef fail_msg
#define fail_msg(...)                                                                          \
	(print_error("ERROR: " __VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

#define PAGE 4096ul

static uint64_t advise(const uint64_t *args)
{
	return (uint64_t)madvise((void *)args[0], 8 * PAGE, (int)args[1]);
}

static void cut(const char *dir, pid_t pid)
{
	char number[16];
	struct run r;

	snprintf(number, sizeof(number), "%d", pid);
	if (icp(&r, NULL, "checkpoint", "--no-restart", "--keep-tracking", "--pid", number,
		"--dir", dir, NULL))
		fail_msg("%s", run_text(r.err));
	run_close(&r);
}

static bool is_advised(const char *dir, uint32_t version, uint64_t addr, int advice)
{
	_cleanup_repo_ struct repo *repo = NULL;
	Icp__Manifest *m = NULL;
	int found = -1;

	assert_int_equal(repo_open(dir, REPO_READ, &repo), 0);
	assert_int_equal(repo_manifest(repo, version, &m), 0);
	for (size_t i = 0; i < m->processes[0]->n_vmas; i++)
		if (m->processes[0]->vmas[i]->start == addr)
			found = !!(m->processes[0]->vmas[i]->madvise & 1ull << advice);
	manifest_free(m);
	assert_int_not_equal(found, -1);
	return found;
}

/* Advice changes nothing that /proc/PID/maps shows. */
static void test_advice(void **state)
{
	static const struct {
		int say; /* -1: nothing */
		bool have;
	} steps[] = {{-1, false},	   {MADV_DONTFORK, true}, {-1, true},
		     {-1, true},	   {MADV_DOFORK, false},  {-1, false},
		     {MADV_DONTFORK, true}};
	char dir[SCRATCH_MAX], command[SCRATCH_MAX + 16], number[16];
	struct kid *kid = kid_start();
	uint64_t addr = kid_call(kid, kid_map, 8 * PAGE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS);
	struct run r;

	assert_non_null(mkdtemp(scratch(dir, "layout")));
	kid_call(kid, kid_write, addr, 8);
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		if (steps[i].say >= 0)
			assert_int_equal(kid_call(kid, advise, addr, (uint64_t)steps[i].say),
					 0);
		cut(dir, kid->pid);
		if (is_advised(dir, (uint32_t)i + 1, addr, MADV_DONTFORK) != steps[i].have)
			fail_msg("version %zu", i + 1);
	}
	snprintf(number, sizeof(number), "%d", kid->pid);
	assert_int_equal(icp(&r, NULL, "checkpoint", "--pid", number, "--stop-tracking", NULL),
			 0);
	run_close(&r);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	assert_int_equal(system(command), 0);
}

static int teardown(void **state)
{
	kids_end();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_advice, teardown),
	};

	adopt_orphans();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
