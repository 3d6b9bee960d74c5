// SPDX-License-Identifier: GPL-2.0
/* Ids, names, credentials, limits, scheduling, seccomp; mappings. */
#include "unit/state/dumping.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <grp.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "state/ids.pb-c.h"

#define PAGE 4096ul

static void raise_ambient(void)
{
	struct {
		uint32_t version;
		int pid;
	} header = {0x20080522, 0};
	struct {
		uint32_t effective, permitted, inheritable;
	} data[2];

	syscall(SYS_capget, &header, data);
	data[0].inheritable |= 1u << 10; /* CAP_NET_BIND_SERVICE */
	syscall(SYS_capset, &header, data);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 10, 0, 0);
}

static void add_filter(uint32_t marker, unsigned flags)
{
	struct sock_filter insns[] = {
		BPF_STMT(BPF_LD | BPF_IMM, marker),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {2, insns};

	syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
}

static void set_up_ids(struct board *b)
{
	struct rlimit files = {123, 456};
	gid_t groups[] = {7, 4242};
	cpu_set_t cpus;

	prctl(PR_SET_NAME, "a\nname (x) \\");
	setpgid(0, 0);
	umask(0137);
	setrlimit(RLIMIT_NOFILE, &files);
	setpriority(PRIO_PROCESS, 0, 7);
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	prctl(PR_SET_TIMERSLACK, 77777);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	if (chdir("/usr"))
		_exit(80);
	raise_ambient();
	setgroups(2, groups);
	prctl(PR_SET_SECUREBITS, 1 << 2 | 1 << 4); /* NO_SETUID_FIXUP, KEEP_CAPS */
	if (setresgid(11, 12, 13))
		_exit(81);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_DUMPABLE, 1);
	add_filter(0x11111111, 0);
	add_filter(0x22222222, SECCOMP_FILTER_FLAG_LOG);
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* setresgid() cleared it */
	b->value[0] = (uint64_t)(uintptr_t)sbrk(100);
	b->value[0] = (uint64_t)(uintptr_t)sbrk(0);
}

static bool ids_unchanged(struct board *b)
{
	return (uint64_t)(uintptr_t)sbrk(0) == b->value[0] && getpriority(PRIO_PROCESS, 0) == 7;
}

static const Icp__Limit *limit_of(const Icp__Process *p, uint32_t resource)
{
	for (size_t i = 0; i < p->n_limits; i++)
		if (p->limits[i]->resource == resource)
			return p->limits[i];
	return NULL;
}

static void check_process(const Icp__Process *p, pid_t pid)
{
	assert_int_equal(p->pid, pid);
	assert_int_equal(p->ppid, getpid());
	assert_int_equal(p->pgid, pid);
	assert_int_equal(p->sid, getsid(0));
	assert_string_equal(p->comm, "a\nname (x) \\");
	assert_string_equal(p->cwd, "/usr");
	assert_string_equal(p->root, "/");
	assert_non_null(strstr(p->exe, "test_ids"));
	assert_int_equal(p->umask, 0137);
	assert_int_equal(limit_of(p, RLIMIT_NOFILE)->soft, 123);
	assert_int_equal(limit_of(p, RLIMIT_NOFILE)->hard, 456);
	assert_non_null(limit_of(p, RLIMIT_RTTIME));
	assert_int_equal(p->n_limits, RLIM_NLIMITS);
	assert_int_equal(p->n_uids, 4);
	assert_int_equal(p->gids[0], 11);
	assert_int_equal(p->gids[1], 12);
	assert_int_equal(p->gids[2], 13);
	assert_int_equal(p->n_groups, 2);
	assert_int_equal(p->groups[1], 4242);
	assert_true(p->cap_ambient == 1u << 10);
	assert_true(p->cap_inheritable & 1u << 10);
	assert_true(p->cap_permitted && p->cap_effective && p->cap_bounding);
	assert_int_equal(p->n_nspids, 1);
	assert_true(p->start_time > 0 && p->cmdline.len > 0);
}

static void check_state(const Icp__ProcessState *s, const struct child *c)
{
	struct sock_filter insn;
	struct stat ns;

	assert_true(s->no_new_privs);
	assert_int_equal(s->securebits, 1 << 2 | 1 << 4);
	assert_true(s->child_subreaper);
	assert_true(s->thp_disable);
	assert_int_equal(s->dumpable, 1);
	assert_int_equal(s->exit_signal, SIGCHLD);
	assert_int_equal(s->n_filters, 2);
	assert_int_equal(s->filters[0].len, 2 * sizeof(insn));
	memcpy(&insn, s->filters[0].data, sizeof(insn));
	assert_int_equal(insn.k, 0x11111111); /* oldest first */
	memcpy(&insn, s->filters[1].data, sizeof(insn));
	assert_int_equal(insn.k, 0x22222222);
	assert_int_equal(s->filter_flags[0], 0);
	assert_int_equal(s->filter_flags[1], SECCOMP_FILTER_FLAG_LOG);
	assert_int_equal(s->mm->brk, c->board->value[0]);
	assert_true(s->mm->start_brk <= s->mm->brk && s->mm->start_code < s->mm->end_code);
	assert_true(s->mm->arg_start < s->mm->arg_end && s->mm->env_start < s->mm->env_end);
	assert_true(s->mm->auxv.len >= 16 && s->mm->start_stack);
	assert_int_equal(stat("/proc/self/ns/pid", &ns), 0);
	for (size_t i = 0; i < s->n_namespaces; i++)
		if (!strcmp(s->namespaces[i]->name, "pid"))
			assert_int_equal(s->namespaces[i]->inode, ns.st_ino);
	assert_true(s->n_namespaces >= 7);
}

static void ids(void **state)
{
	static const struct scene scene = {set_up_ids, ids_unchanged};
	struct child c = child_start(&scene);
	Icp__ProcessState *s;
	Icp__TaskState *t;
	struct dump d;

	dump_open(&d, &c.pid, 1);
	dump_take(&d);
	check_process(&d.image[0], c.pid);
	s = blob_of(d.image[0].blobs, d.image[0].n_blobs, "ids",
		    &icp__process_state__descriptor);
	check_state(s, &c);
	t = blob_of(d.image[0].threads[0]->blobs, d.image[0].threads[0]->n_blobs, "ids",
		    &icp__task_state__descriptor);
	assert_int_equal(t->nice, 7);
	assert_int_equal(t->policy, SCHED_OTHER);
	assert_true(t->affinity.len > 0);
	assert_int_equal(t->affinity.data[0], 1);
	assert_int_equal(t->timer_slack_ns, 77777);
	assert_int_equal(t->parent_death_signal, SIGKILL);
	assert_int_equal(t->seccomp, 2);
	assert_int_equal(t->n_filters, 2);
	assert_null(t->credentials);
	msg_free(s);
	msg_free(t);
	dump_close(&d);
	assert_int_equal(child_end(&c), 0);
}

static void set_up_maps(struct board *b)
{
	char *at = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);

	mprotect(at + 2 * PAGE, PAGE, PROT_NONE);
	mprotect(at + 4 * PAGE, PAGE, PROT_READ);
	madvise(at + 6 * PAGE, PAGE, MADV_DONTFORK);
	madvise(at + 8 * PAGE, PAGE, MADV_DONTDUMP);
	syscall(SYS_mlock, at + 10 * PAGE, PAGE); /* sanitizers make mlock() do nothing */
	prctl(0x53564d41, 0, at + 12 * PAGE, PAGE, "mine"); /* PR_SET_VMA */
	b->value[0] = (uint64_t)(uintptr_t)at;
}

static const Icp__Vma *vma_at(const Icp__Process *p, uint64_t at)
{
	for (size_t i = 0; i < p->n_vmas; i++)
		if (p->vmas[i]->start <= at && at < p->vmas[i]->end)
			return p->vmas[i];
	fail_msg("no mapping at %#lx", at);
	return NULL;
}

static void check_maps(const Icp__Process *p, uint64_t at)
{
	const Icp__Vma *exe = vma_at(p, (uint64_t)(uintptr_t)check_maps);

	assert_int_equal(vma_at(p, at + 2 * PAGE)->prot, PROT_NONE);
	assert_int_equal(vma_at(p, at + 4 * PAGE)->prot, PROT_READ);
	assert_int_equal(vma_at(p, at + 4 * PAGE)->start, at + 4 * PAGE);
	assert_int_equal(vma_at(p, at + 6 * PAGE)->madvise, 1 << MADV_DONTFORK);
	assert_int_equal(vma_at(p, at + 8 * PAGE)->madvise, 1 << MADV_DONTDUMP);
	assert_true(vma_at(p, at + 10 * PAGE)->flags & MAP_LOCKED);
	assert_int_equal(vma_at(p, at + 11 * PAGE)->flags, MAP_PRIVATE | MAP_ANONYMOUS);
	if (vma_at(p, at + 12 * PAGE)->name[0])
		assert_string_equal(vma_at(p, at + 12 * PAGE)->name, "[anon:mine]");
	assert_true(vma_at(p, (uint64_t)(uintptr_t)&exe)->flags & MAP_GROWSDOWN);
	assert_int_equal(exe->kind, VMA_FILE_PRIVATE + 1);
	assert_non_null(strstr(exe->path, "test_ids"));
	assert_int_equal(exe->prot, PROT_READ | PROT_EXEC);
	assert_true(exe->file_size > 0 && exe->file_mtime_ns > 0 && exe->build_id.len == 20);
	assert_int_equal(exe->build_id.len, p->exe_build_id.len);
	assert_memory_equal(exe->build_id.data, p->exe_build_id.data, 20);
}

static void mappings(void **state)
{
	static const struct scene scene = {set_up_maps, NULL};
	struct child c = child_start(&scene);
	struct dump d;

	dump_open(&d, &c.pid, 1);
	dump_take(&d);
	check_maps(&d.image[0], c.board->value[0]);
	DO(state_fill_machine(&d.m));
	assert_string_equal(d.m.arch, "x86_64");
	assert_int_equal(d.m.page_size, PAGE);
	assert_int_equal(strlen(d.m.boot_id), 36);
	free(d.m.arch);
	free(d.m.kernel_release);
	free(d.m.boot_id);
	dump_close(&d);
	assert_int_equal(child_end(&c), 0);
}

static void zombies(void **state)
{
	Icp__Process *image = malloc(sizeof(*image));
	Icp__ProcessState *s;
	siginfo_t info;
	pid_t pid = fork();

	if (!pid)
		_exit(42);
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	icp__process__init(image);
	DO(state_zombie(pid, image));
	assert_true(image->no_memory);
	assert_int_equal(image->ppid, getpid());
	s = blob_of(image->blobs, image->n_blobs, "ids", &icp__process_state__descriptor);
	assert_true(s->zombie);
	assert_int_equal(WEXITSTATUS(s->exit_code), 42);
	msg_free(s);
	msg_free(image);
	waitpid(pid, NULL, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids),
		cmocka_unit_test(mappings),
		cmocka_unit_test(zombies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
