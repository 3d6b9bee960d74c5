// SPDX-License-Identifier: GPL-2.0
/* What a process is to the kernel besides its memory. */
#include "remade.h"

#include <linux/securebits.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/resource.h>

#define SET_MDWE 65
#define GET_MDWE 66
#define SET_MEMORY_MERGE 67
#define GET_MEMORY_MERGE 68

struct attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static struct attr sched(void)
{
	struct attr a = {0};

	check(!syscall(SYS_sched_getattr, 0, &a, sizeof(a), 0));
	return a;
}

static void same_sched(const struct attr *want)
{
	struct attr now = sched();

	check(now.policy == want->policy && now.flags == want->flags);
	check(now.nice == want->nice && now.priority == want->priority);
	check(now.runtime == want->runtime && now.deadline == want->deadline &&
	      now.period == want->period);
}

/* One thread for each policy that is allowed here. */
static const struct attr policies[] = {
	{sizeof(struct attr), SCHED_BATCH, 0, 7, 0, 0, 0, 0},
	{sizeof(struct attr), SCHED_IDLE, 0, 0, 0, 0, 0, 0},
	{sizeof(struct attr), SCHED_FIFO, 1, 0, 3, 0, 0, 0},
	{sizeof(struct attr), SCHED_RR, 0, 0, 2, 0, 0, 0},
	{sizeof(struct attr), 6 /* SCHED_DEADLINE */, 1, 0, 0, 1000000, 50000000, 100000000},
};
#define POLICIES (sizeof(policies) / sizeof(*policies))
static pthread_barrier_t barrier;

static void *policy_thread(void *arg)
{
	const struct attr *want = arg;
	struct attr have;

	syscall(SYS_sched_setattr, 0, want, 0);
	have = sched();
	syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	same_sched(&have);
	check(syscall(SYS_ioprio_get, 1, 0) == (2 << 13 | 6));
	return NULL;
}

void scene_scheduled(void)
{
	pthread_t threads[POLICIES];

	check(!pthread_barrier_init(&barrier, NULL, POLICIES + 1));
	for (size_t i = 0; i < POLICIES; i++)
		check(!pthread_create(&threads[i], NULL, policy_thread, (void *)&policies[i]));
	pthread_barrier_wait(&barrier);
	ready();
	wait_go();
	pthread_barrier_wait(&barrier);
	for (size_t i = 0; i < POLICIES; i++)
		check(!pthread_join(threads[i], NULL));
}

/* What prctl(2) and files of /proc say of the process. */
void scene_traits(void)
{
	uint32_t persona = ADDR_NO_RANDOMIZE | READ_IMPLIES_EXEC;
	char *plain = anon(4, PROT_READ, 0), *data = anon(4, PROT_READ | PROT_WRITE, 0);
	bool merge = !prctl(SET_MEMORY_MERGE, 1, 0, 0, 0), mdwe;
	int secbits = SECBIT_KEEP_CAPS | SECBIT_NOROOT, fd;

	check(merge == vmflag(data, "mg"));
	paint(data, 1);
	check(personality(persona) >= 0);
	if (!getuid())
		check(!prctl(PR_SET_SECUREBITS, secbits));
	secbits = prctl(PR_GET_SECUREBITS);
	check(!prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	check(!prctl(PR_SET_DUMPABLE, 1));
	fd = open("/proc/self/coredump_filter", O_WRONLY);
	check(write(fd, "0x15", 4) == 4 && !close(fd));
	fd = open("/proc/self/oom_score_adj", O_WRONLY);
	check(write(fd, "321", 3) == 3 && !close(fd));
	mdwe = !prctl(SET_MDWE, 1, 0, 0, 0);
	ready();
	wait_go();
	check(personality(0xffffffff) == (int)persona);
	check(prctl(PR_GET_SECUREBITS) == secbits);
	check(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1);
	check(prctl(GET_MEMORY_MERGE, 0, 0, 0, 0) == (merge ? 1 : -1));
	check(strtoul(slurp("/proc/self/coredump_filter"), NULL, 16) == 0x15);
	check(atoi(slurp("/proc/self/oom_score_adj")) == 321);
	check(painted(data, 1) && vmflag(data, "mg") == merge);
	check(!vmflag(plain, "ex") && !vmflag(data, "ex"));
	check(!mdwe || (mprotect(data, PAGE, PROT_READ | PROT_EXEC) && errno == EACCES));
}

/* A root of its own, in the same mount namespace. */
void scene_chroot(void)
{
	char *dir = strdup(in_dir(""));

	check(!chroot(dir) && !chdir("/"));
	set_dir("/");
	ready();
	wait_go();
	check(access(dir, F_OK) && !access("/ready", F_OK));
}

/* Only waits, for what a test does to it from outside, or what the scene says. */
void scene_idle(void)
{
	ready();
	wait_go();
}
