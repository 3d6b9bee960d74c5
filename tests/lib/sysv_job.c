// SPDX-License-Identifier: GPL-2.0
#include "lib/sysv_job.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* cmocka's fail() and base/err.h's don't go together. */
#undef fail
#undef fail_msg
#define fail_msg(...)                                                                          \
	(print_error("ERROR: " __VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

#include "proc/sysvshm.h"
#include "proc/tasks.h"

const char *sysv_path(const struct sysv_job *j, const char *name)
{
	static char paths[4][128];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", j->dir, name);
	return path;
}

void sysv_touch(const struct sysv_job *j, const char *name)
{
	int fd = open(sysv_path(j, name), O_WRONLY | O_CREAT, 0666);

	assert_true(fd >= 0);
	close(fd);
}

void sysv_untouch(const struct sysv_job *j, const char *name)
{
	unlink(sysv_path(j, name));
}

int sysv_setup(void **state)
{
	struct sysv_job *j = calloc(1, sizeof(*j));

	snprintf(j->dir, sizeof(j->dir), "/tmp/icp-sysv-XXXXXX");
	*state = j;
	if (!mkdtemp(j->dir))
		return -1;
	snprintf(j->repo, sizeof(j->repo), "%s/repo", j->dir);
	j->key = 0x5c000000 + (getpid() & 0xffff) * SYSV_KEYS;
	sysv_clean(j);
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

int sysv_teardown(void **state)
{
	struct sysv_job *j = *state;

	sysv_kill(j);
	sysv_clean(j);
	nftw(j->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(j);
	return 0;
}

void sysv_wait(const struct sysv_job *j, const char *name)
{
	double end = seconds_now() + 60;

	while (access(sysv_path(j, name), F_OK)) {
		if (!access(sysv_path(j, "wrong"), F_OK))
			fail_msg("%s", file_text("%s", sysv_path(j, "wrong")));
		if (seconds_now() > end)
			fail_msg("no %s", sysv_path(j, name));
		nap_ms(2);
	}
}

/* In a session of its own, with nothing open that leads to us. */
static void become(const struct sysv_job *j, const char *const *argv)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	for (int fd = 0; fd <= 2; fd++)
		if (dup2(open(fd ? sysv_path(j, "output") : "/dev/null",
			      O_RDWR | O_CREAT | O_APPEND, 0666),
			 fd) != fd)
			_exit(126);
	syscall(SYS_close_range, 3, ~0u, 0);
	execv(argv[0], (char *const *)argv);
	_exit(127);
}

static void add_maker(struct sysv_job *j, pid_t pid)
{
	assert_true(j->n_makers < sizeof(j->makers) / sizeof(*j->makers));
	j->makers[j->n_makers++] = pid;
}

static void start(struct sysv_job *j, const char **argv, size_t at, size_t room, va_list args)
{
	pid_t pid;

	while (at + 1 < room && (argv[at] = va_arg(args, const char *)))
		at++;
	argv[at] = NULL;
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		become(j, argv);
	j->pids[j->n++] = pid;
	add_maker(j, pid);
}

void sysv_start(struct sysv_job *j, const char *scene, int key, ...)
{
	char number[16];
	const char *argv[12] = {built("tests/targets/sysv_target"), scene, j->dir, number};
	va_list args;

	snprintf(number, sizeof(number), "%d", key);
	va_start(args, key);
	start(j, argv, 4, 12, args);
	va_end(args);
}

void sysv_start_program(struct sysv_job *j, const char *name, int key, ...)
{
	char number[16], path[64];
	const char *argv[12] = {NULL, j->dir, number};
	va_list args;

	snprintf(path, sizeof(path), "tests/targets/%s", name);
	argv[0] = built(path);
	snprintf(number, sizeof(number), "%d", key);
	va_start(args, key);
	start(j, argv, 3, 12, args);
	va_end(args);
}

static size_t add_args(const char **argv, size_t at, va_list args)
{
	while ((argv[at] = va_arg(args, const char *)))
		at++;
	return at;
}

char *sysv_cut(const struct sysv_job *j, ...)
{
	const char *argv[64] = {built("icp-bpf"), "checkpoint", "--dir", j->repo};
	char pids[16][16];
	va_list args;
	struct run r;
	size_t at = 4;
	char *text;

	for (size_t i = 0; i < j->n; i++) {
		snprintf(pids[i], sizeof(pids[i]), "%d", j->pids[i]);
		argv[at++] = "--pid";
		argv[at++] = pids[i];
	}
	va_start(args, j);
	add_args(argv, at, args);
	va_end(args);
	run_start(&r, NULL, argv);
	run_wait(&r, 120);
	text = run_text(r.err);
	if (!WIFEXITED(r.status) || WEXITSTATUS(r.status))
		fail_msg("checkpoint: %s", text);
	run_close(&r);
	return text;
}

void sysv_kill(struct sysv_job *j)
{
	pid_list all = {0};

	for (size_t i = 0; i < j->n; i++) {
		if (tasks_descendants(j->pids[i], &all))
			all.n = 0;
		kill(j->pids[i], SIGKILL);
		waitpid(j->pids[i], NULL, __WALL);
		vec_each (p, &all)
			kill(*p, SIGKILL);
		vec_each (p, &all)
			waitpid(*p, NULL, __WALL);
	}
	free_pids(&all);
}

static bool made_here(const struct sysv_job *j, const struct sysvshm_segment *s)
{
	for (size_t i = 0; i < j->n_makers; i++)
		if (s->cpid == j->makers[i])
			return true;
	return s->key >= j->key && s->key < j->key + SYSV_KEYS;
}

void sysv_clean(const struct sysv_job *j)
{
	struct sysvshm list;

	assert_int_equal(sysvshm_read(&list), 0);
	vec_each (s, &list)
		if (!s->removed && made_here(j, s))
			shmctl(s->shmid, IPC_RMID, NULL);
	sysvshm_free(&list);
	for (int key = j->key; key < j->key + SYSV_KEYS; key++) {
		int id = semget(key, 0, 0);

		if (id >= 0)
			semctl(id, 0, IPC_RMID);
		id = msgget(key, 0);
		if (id >= 0)
			msgctl(id, IPC_RMID, NULL);
	}
}

static void start_restart(struct sysv_job *j, struct run *r, int version, va_list args)
{
	char number[16];
	const char *argv[32] = {built("icp-bpf"), "restart",   "--detach", "--dir",
				j->repo,	  "--version", number};

	snprintf(number, sizeof(number), "%d", version);
	add_args(argv, 7, args);
	run_start(r, NULL, argv);
	add_maker(j, r->pid);
	run_wait(r, 120);
}

char *sysv_restart(struct sysv_job *j, int version, ...)
{
	va_list args;
	struct run r;
	char *text;

	va_start(args, version);
	start_restart(j, &r, version, args);
	va_end(args);
	text = run_text(r.err);
	if (!WIFEXITED(r.status) || WEXITSTATUS(r.status))
		fail_msg("version %d: %s", version, text);
	run_close(&r);
	return text;
}

void sysv_refused(struct sysv_job *j, const char *text, int version, ...)
{
	va_list args;
	struct run r;
	char *said;

	va_start(args, version);
	start_restart(j, &r, version, args);
	va_end(args);
	said = run_text(r.err);
	assert_true(WIFEXITED(r.status));
	if (WEXITSTATUS(r.status) != 1 || !strstr(said, text))
		fail_msg("expected '%s', got: %s", text, said);
	free(said);
	run_close(&r);
}

void sysv_go(struct sysv_job *j)
{
	sysv_touch(j, "go");
	for (size_t i = 0; i < j->n; i++) {
		double end = seconds_now() + 60;
		int status;

		while (waitpid(j->pids[i], &status, WNOHANG) != j->pids[i]) {
			if (seconds_now() > end)
				fail_msg("process %zu (%d) doesn't end", i, j->pids[i]);
			nap_ms(2);
		}
		if (!access(sysv_path(j, "wrong"), F_OK))
			fail_msg("%s", file_text("%s", sysv_path(j, "wrong")));
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			fail_msg("process %zu ended with status %#x", i, status);
	}
	sysv_untouch(j, "go");
}

int sysv_attached(pid_t pid)
{
	char *maps = file_text("/proc/%d/maps", pid), *at = strstr(maps, "/SYSV");
	unsigned long inode = 0;

	assert_non_null(at);
	while (at > maps && at[-1] != '\n')
		at--;
	assert_int_equal(sscanf(at, "%*s %*s %*s %*s %lu", &inode), 1);
	free(maps);
	return (int)inode;
}

int sysv_id(const struct sysv_job *j, int key)
{
	return shmget(key, 0, 0);
}

uint64_t sysv_token(int id)
{
	volatile uint64_t *seg = shmat(id, NULL, SHM_RDONLY);
	uint64_t token;

	assert_true(seg != (void *)-1);
	token = *seg;
	shmdt((void *)seg);
	return token;
}

void sysv_turns(const struct sysv_job *j, int id, uint64_t by)
{
	uint64_t start = sysv_token(id), now;
	double end = seconds_now() + 60;

	while ((now = sysv_token(id)) < start + by) {
		if (!access(sysv_path(j, "wrong"), F_OK))
			fail_msg("%s", file_text("%s", sysv_path(j, "wrong")));
		if (seconds_now() > end)
			fail_msg("the token stays at %lu", now);
		nap_ms(2);
	}
}

void *sysv_copy(int id, size_t *size)
{
	struct shmid_ds ds;
	void *seg = shmat(id, NULL, SHM_RDONLY), *copy;

	assert_true(seg != (void *)-1);
	assert_int_equal(shmctl(id, IPC_STAT, &ds), 0);
	*size = (ds.shm_segsz + 4095) & ~4095ul;
	copy = malloc(*size);
	memcpy(copy, seg, *size);
	shmdt(seg);
	return copy;
}
