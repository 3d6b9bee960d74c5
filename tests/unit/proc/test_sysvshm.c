// SPDX-License-Identifier: GPL-2.0
/* Real segments, attached by this process and by children; each test's teardown removes them
 * whatever happened. */
#include "proc/sysvshm.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>

#include <cmocka.h>

#define PAGE ((size_t)sysconf(_SC_PAGESIZE))

static struct {
	int id[8];
	size_t ids;
	pid_t child[4];
	size_t children;
} made;

static int remove_made(void **state)
{
	while (made.children) {
		pid_t pid = made.child[--made.children];

		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	while (made.ids)
		shmctl(made.id[--made.ids], IPC_RMID, NULL);
	return 0;
}

static int make_segment(key_t key, size_t size, int flags)
{
	int id = shmget(key, size, flags);

	if (id >= 0)
		made.id[made.ids++] = id;
	return id;
}

/* A child that runs @attach, says on a pipe where it attached, and waits to be killed. */
static pid_t child_attaching(int id, void *(*attach)(int id), void **address)
{
	int ready[2];
	pid_t pid;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		void *at;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		at = attach(id);
		if (write(ready[1], &at, sizeof(at)) == sizeof(at))
			for (;;)
				pause();
		_exit(1);
	}
	made.child[made.children++] = pid;
	close(ready[1]);
	assert_int_equal(read(ready[0], address, sizeof(*address)), sizeof(*address));
	close(ready[0]);
	return pid;
}

static void *attach_plainly(int id)
{
	return shmat(id, NULL, 0);
}

/* Two VMAs of one attachment. */
static void *attach_and_split(int id)
{
	char *at = shmat(id, NULL, 0);

	mprotect(at + PAGE, PAGE, PROT_READ);
	return at;
}

static void *attach_in_another_namespace(int id)
{
	if (unshare(CLONE_NEWIPC))
		return (void *)-1;
	id = shmget(IPC_PRIVATE, PAGE, 0600);
	return shmat(id, NULL, 0);
}

static void reads_a_segment(void **state)
{
	_cleanup_sysvshm_ struct sysvshm list = {};
	const struct sysvshm_segment *s;
	key_t key =
		(key_t)(0x9c000000u | (unsigned)getpid()); /* negative as the file prints it */
	int id = make_segment(key, 3 * PAGE + 5, IPC_CREAT | IPC_EXCL | 0640);
	int other = make_segment(IPC_PRIVATE, PAGE, 0600);
	struct shmid_ds ds;
	char *at;

	assert_true(id >= 0 && other >= 0);
	at = shmat(id, NULL, 0);
	assert_true(at != (char *)-1);
	at[0] = at[PAGE] = 1;
	assert_int_equal(sysvshm_read(&list), 0);
	assert_int_equal(shmctl(id, IPC_STAT, &ds), 0);
	s = sysvshm_find(&list, id);
	assert_non_null(s);
	assert_int_equal(s->key, key);
	assert_int_equal(s->shmid, id);
	assert_int_equal(s->mode, 0640);
	assert_int_equal(s->size, 3 * PAGE + 5);
	assert_int_equal(s->cpid, getpid());
	assert_int_equal(s->lpid, getpid());
	assert_int_equal(s->nattch, 1);
	assert_int_equal(s->uid, geteuid());
	assert_int_equal(s->cgid, getegid());
	assert_int_equal(s->atime, ds.shm_atime);
	assert_int_equal(s->dtime, 0);
	assert_int_equal(s->ctime, ds.shm_ctime);
	assert_int_equal(s->rss + s->swap, 2 * PAGE);
	assert_false(s->removed || s->locked);
	assert_non_null(sysvshm_find(&list, other));
	assert_int_equal(sysvshm_find(&list, other)->key, IPC_PRIVATE);
	for (size_t i = 1; i < list.n; i++)
		assert_true(list.data[i - 1].shmid < list.data[i].shmid);
	assert_null(sysvshm_find(&list, -1));
	assert_int_equal(shmdt(at), 0);
}

static void knows_a_removed_segment(void **state)
{
	_cleanup_sysvshm_ struct sysvshm list = {}, after = {};
	_cleanup_sysvshm_attachments_ struct sysvshm_attachments a = {};
	int id = make_segment(IPC_PRIVATE, PAGE, 0600);
	void *at = shmat(id, NULL, 0);
	size_t n;

	assert_true(at != (void *)-1);
	assert_int_equal(shmctl(id, IPC_RMID, NULL), 0);
	assert_int_equal(sysvshm_read(&list), 0);
	assert_non_null(sysvshm_find(&list, id));
	assert_true(sysvshm_find(&list, id)->removed);
	assert_int_equal(sysvshm_find(&list, id)->mode, 0600);
	assert_int_equal(sysvshm_attachments(&a), 0);
	assert_non_null(sysvshm_attachments_of(&a, id, &n));
	assert_int_equal(n, 1);
	assert_int_equal(shmdt(at), 0);
	assert_int_equal(sysvshm_read(&after), 0);
	assert_null(sysvshm_find(&after, id));
}

static void finds_who_attaches_where(void **state)
{
	_cleanup_sysvshm_attachments_ struct sysvshm_attachments a = {};
	_cleanup_sysvshm_ struct sysvshm list = {};
	const struct sysvshm_attachment *of;
	int id = make_segment(IPC_PRIVATE, 3 * PAGE, 0600),
	    alone = make_segment(IPC_PRIVATE, PAGE, 0600);
	void *at[3];
	pid_t pid[2];
	size_t n;

	pid[0] = child_attaching(id, attach_plainly, &at[0]);
	pid[1] = child_attaching(id, attach_and_split, &at[1]);
	at[2] = shmat(id, NULL, SHM_RDONLY);
	assert_true(at[0] != (void *)-1 && at[1] != (void *)-1 && at[2] != (void *)-1);
	assert_int_equal(sysvshm_attachments(&a), 0);
	of = sysvshm_attachments_of(&a, id, &n);
	assert_int_equal(n, 3);
	assert_int_equal(sysvshm_read(&list), 0);
	assert_int_equal(sysvshm_find(&list, id)->nattch >= 3, 1);
	for (size_t i = 0; i < n; i++) {
		void *expected = of[i].pid == pid[0]   ? at[0]
				 : of[i].pid == pid[1] ? at[1]
						       : at[2];

		assert_true(of[i].pid == pid[0] || of[i].pid == pid[1] ||
			    of[i].pid == getpid());
		assert_true(!i || of[i].pid > of[i - 1].pid);
		assert_int_equal(of[i].shmid, id);
		assert_int_equal(of[i].start, (uintptr_t)expected);
		assert_int_equal(of[i].end, (uintptr_t)expected + 3 * PAGE);
		assert_int_equal(of[i].offset, 0);
	}
	assert_null(sysvshm_attachments_of(&a, alone, &n));
	assert_int_equal(n, 0);
	shmdt(at[2]);
}

/* A mapped file of that name, whose inode could be anything, is no segment. */
static void is_not_fooled_by_a_file_name(void **state)
{
	_cleanup_sysvshm_attachments_ struct sysvshm_attachments a = {};
	char path[64];
	void *map;
	int fd;

	snprintf(path, sizeof(path), "/SYSV%08x", (unsigned)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		skip(); /* not root: can't write to / */
	unlink(path);	/* shows as "/SYSV... (deleted)", exactly as a segment does */
	assert_int_equal(ftruncate(fd, (off_t)PAGE), 0);
	map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(map != MAP_FAILED);
	assert_int_equal(sysvshm_attachments(&a), 0);
	for (size_t i = 0; i < a.n; i++)
		assert_true(a.data[i].pid != getpid() || a.data[i].start != (uintptr_t)map);
	munmap(map, PAGE);
	close(fd);
}

static void leaves_other_namespaces_out(void **state)
{
	_cleanup_sysvshm_attachments_ struct sysvshm_attachments a = {};
	void *at;
	pid_t pid = child_attaching(0, attach_in_another_namespace, &at);

	if (at == (void *)-1)
		skip(); /* not root: no new IPC namespace */
	assert_int_equal(sysvshm_attachments(&a), 0);
	for (size_t i = 0; i < a.n; i++)
		assert_int_not_equal(a.data[i].pid, pid);
}

static void huge_pages_are_segments_too(void **state)
{
	_cleanup_sysvshm_attachments_ struct sysvshm_attachments a = {};
	const struct sysvshm_attachment *of;
	int id = make_segment(IPC_PRIVATE, 2 << 20, SHM_HUGETLB | SHM_NORESERVE | 0600);
	void *at;
	size_t n;

	if (id < 0)
		skip(); /* no hugetlbfs in this kernel */
	at = shmat(id, NULL, 0);
	assert_true(at != (void *)-1);
	assert_int_equal(sysvshm_attachments(&a), 0);
	of = sysvshm_attachments_of(&a, id, &n);
	assert_int_equal(n, 1);
	assert_int_equal(of->start, (uintptr_t)at);
	shmdt(at);
}

static void refuses_another_format(void **state)
{
	_cleanup_sysvshm_ struct sysvshm list = {};

	assert_int_equal(sysvshm_parse("", &list), -EPROTO);
	assert_int_equal(sysvshm_parse("what is this\n", &list), -EPROTO);
	assert_int_equal(sysvshm_parse("  key shmid\n 1 2 600 nonsense\n", &list), -EPROTO);
	assert_int_equal(sysvshm_parse("  key shmid\n", &list), 0);
	assert_int_equal(list.n, 0);
	assert_null(sysvshm_find(&list, 0));
	assert_int_equal(sysvshm_parse("  key shmid\n -2 5 3600 8 1 2 3 4 5 6 7 8 9 10 11 12\n"
				       " 1 4 644 8 1 2 3 4 5 6 7 8 9 10 11 12\n",
				       &list),
			 0);
	assert_int_equal(list.n, 2);
	assert_int_equal(list.data[0].shmid, 4);
	assert_int_equal(list.data[1].key, -2);
	assert_true(list.data[1].removed && list.data[1].locked);
	assert_int_equal(list.data[1].mode, 0600);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(reads_a_segment, remove_made),
		cmocka_unit_test_teardown(knows_a_removed_segment, remove_made),
		cmocka_unit_test_teardown(finds_who_attaches_where, remove_made),
		cmocka_unit_test(is_not_fooled_by_a_file_name),
		cmocka_unit_test_teardown(leaves_other_namespaces_out, remove_made),
		cmocka_unit_test_teardown(huge_pages_are_segments_too, remove_made),
		cmocka_unit_test(refuses_another_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
