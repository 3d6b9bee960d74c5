// SPDX-License-Identifier: GPL-2.0
/* Registers, and what else a thread has. */
#include "unit/state/dumping.h"

#include <elf.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/user.h>

#include "state/regs.pb-c.h"

static const unsigned char pattern[32] = "icp: a known value in a register";

/* Holds the pattern in ymm7 (or xmm7) and a value in rbx until told to stop. */
static void *spin(void *arg)
{
	struct board *b = arg;
	unsigned char got[32] = {0};
	uint64_t mark = 0x1c9b9f5eed5eed01;

	prctl(PR_SET_NAME, "spin\\ner");
	b->value[2] = (uint64_t)syscall(SYS_gettid);
	if (__builtin_cpu_supports("avx"))
		__asm__ volatile("vmovdqu %[pattern], %%ymm7\n\t"
				 "mov %[mark], %%r13\n\t"
				 "movl $1, %[spin]\n"
				 "1: pause\n\t"
				 "cmpl $0, %[stop]\n\t"
				 "je 1b\n\t"
				 "vmovdqu %%ymm7, %[got]\n\t"
				 : [got] "=m"(got), [spin] "=m"(b->spin)
				 : [pattern] "m"(pattern), [mark] "r"(mark), [stop] "m"(b->stop)
				 : "xmm7", "r13", "memory");
	else
		memcpy(got, pattern, sizeof(got));
	b->value[3] = memcmp(got, pattern, sizeof(got)) == 0;
	return NULL;
}

static pthread_t spinner;

static void set_up_threads(struct board *b)
{
	void *head;
	size_t len;

	pthread_create(&spinner, NULL, spin, b);
	while (!b->spin)
		sched_yield();
	syscall(SYS_get_robust_list, 0, &head, &len);
	b->value[0] = (uint64_t)(uintptr_t)head;
	prctl(PR_GET_TID_ADDRESS, &b->value[1]);
	if (__rseq_size)
		b->value[4] = (uint64_t)(uintptr_t)__builtin_thread_pointer() +
			      (uint64_t)__rseq_offset;
}

static bool threads_unchanged(struct board *b)
{
	b->stop = 1;
	pthread_join(spinner, NULL);
	return b->value[3] == 1;
}

static const Icp__RegSet *set_of(const Icp__Thread *t, uint32_t type)
{
	for (size_t i = 0; i < t->n_regs; i++)
		if (t->regs[i]->type == type)
			return t->regs[i];
	return NULL;
}

static void threads_and_registers(void **state)
{
	static const struct scene scene = {set_up_threads, threads_unchanged};
	struct child c = child_start(&scene);
	struct user_regs_struct regs;
	const Icp__RegSet *set;
	Icp__ThreadState *t;
	struct dump d;

	dump_open(&d, &c.pid, 1);
	dump_take(&d);
	assert_int_equal(d.image[0].n_threads, 2);
	assert_int_equal(d.image[0].threads[1]->tid, c.board->value[2]);
	assert_string_equal(d.image[0].threads[1]->name, "spin\\ner");

	set = set_of(d.image[0].threads[1], NT_PRSTATUS);
	assert_non_null(set);
	assert_int_equal(set->data.len, sizeof(regs));
	memcpy(&regs, set->data.data, sizeof(regs));
	assert_int_equal(regs.r13, 0x1c9b9f5eed5eed01);
	assert_int_equal(regs.orig_rax, -1);
	set = set_of(d.image[0].threads[1], NT_X86_XSTATE);
	assert_non_null(set);
	/* The lower half is among the SSE registers, the upper one elsewhere. */
	assert_non_null(memmem(set->data.data, set->data.len, pattern, 16));
	assert_non_null(memmem(set->data.data, set->data.len, pattern + 16, 16));

	/* The main thread sleeps in read(). */
	set = set_of(d.image[0].threads[0], NT_PRSTATUS);
	memcpy(&regs, set->data.data, sizeof(regs));
	assert_int_equal(regs.orig_rax, SYS_read);

	t = blob_of(d.image[0].threads[0]->blobs, d.image[0].threads[0]->n_blobs, "regs",
		    &icp__thread_state__descriptor);
	assert_int_equal(t->robust_list, c.board->value[0]);
	assert_int_equal(t->clear_child_tid, c.board->value[1]);
	assert_true(t->robust_len > 0);
	assert_int_equal(t->rseq_addr, c.board->value[4]);
	assert_int_equal(t->rseq_signature, t->rseq_addr ? RSEQ_SIG : 0);
	msg_free(t);
	dump_close(&d);
	assert_int_equal(child_end(&c), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_and_registers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
