// SPDX-License-Identifier: GPL-2.0
/* A batch ends with a SIGSTOP that the thread sends itself and that is never delivered: it can't
 * be blocked, and unlike a breakpoint's signal it changes no handler. */
#include "inject/batch.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "base/page.h"
#include "inject/arch.h"

#define CALLS 1024
#define CALLS_MARGIN 16

struct area_call {
	uint64_t nr, args[6];
	int64_t ret; /* before the call: 1 when it may fail */
};

/* Known to the code: see arch_batch_code. */
struct area_header {
	uint64_t next, end; /* addresses of calls; afterwards next is the one that failed, or
			       end */
	uint64_t pid, tid, sigstop;
};

struct batch {
	uint8_t *area;
	struct area_header *header;
	struct area_call *calls;
	const char *what[CALLS];
	uint8_t *data;
	size_t n, data_used;
	pid_t pid, tid;
};

size_t batch_size(void)
{
	return 2 * page_size() + CALLS * sizeof(struct area_call) + BATCH_DATA_MAX;
}

int batch_new(uint64_t address, struct batch **out)
{
	_cleanup_batch_ struct batch *b = calloc(1, sizeof(*b));
	void *at;

	if (!b)
		return fail(-ENOMEM, "prepare to inject calls");
	at = mmap((void *)address, batch_size(), PROT_READ | PROT_WRITE | PROT_EXEC,
		  MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (at == MAP_FAILED)
		return fail(-errno, "map memory to inject calls with");
	b->area = at;
	b->header = (void *)(b->area + page_size());
	b->calls = (void *)(b->area + 2 * page_size());
	b->data = (uint8_t *)(b->calls + CALLS);
	memcpy(b->area, arch_batch_code, arch_batch_code_size);
	*out = take_ptr(b);
	return 0;
}

void batch_free(struct batch *b)
{
	if (!b)
		return;
	if (b->area)
		munmap(b->area, batch_size());
	free(b);
}

uint64_t batch_address(const struct batch *b)
{
	return (uint64_t)(uintptr_t)b->area;
}

int batch_begin(struct batch *b, pid_t pid, pid_t tid)
{
	struct arch_regs regs;
	int err = arch_regs_get(tid, &regs);

	b->n = b->data_used = 0;
	b->pid = pid;
	b->tid = tid;
	if (err)
		return fail(err, "read the registers of thread %d", tid);
	arch_batch_setup(&regs, (uint64_t)(uintptr_t)b->area, (uint64_t)(uintptr_t)b->header);
	err = arch_regs_set(tid, &regs);
	return err ? fail(err, "set the registers of thread %d", tid) : 0;
}

int batch_data(struct batch *b, const void *data, size_t len, uint64_t *address)
{
	if (len > BATCH_DATA_MAX)
		return refuse(-E2BIG, "%zu bytes for a system call", len);
	if (b->n + CALLS_MARGIN > CALLS || b->data_used + len > BATCH_DATA_MAX) {
		int err = batch_run(b);

		if (err)
			return err;
	}
	if (len)
		memcpy(b->data + b->data_used, data, len);
	*address = (uint64_t)(uintptr_t)(b->data + b->data_used);
	b->data_used = (b->data_used + len + 15) & ~(size_t)15;
	return 0;
}

static int add(struct batch *b, const char *what, long nr, const uint64_t args[6],
	       bool may_fail)
{
	struct area_call *c;

	if (b->n == CALLS) {
		int err = batch_run(b);

		if (err)
			return err;
	}
	c = &b->calls[b->n];
	c->nr = (uint64_t)nr;
	memcpy(c->args, args, sizeof(c->args));
	c->ret = may_fail;
	b->what[b->n++] = what;
	return 0;
}

int batch_call(struct batch *b, const char *what, long nr, const uint64_t args[6])
{
	return add(b, what, nr, args, false);
}

int batch_try(struct batch *b, long nr, const uint64_t args[6])
{
	return add(b, NULL, nr, args, true);
}

/* To the SIGSTOP at the end of a batch. Other signals are blocked, so they mean harm. */
static int run_to_end(struct batch *b)
{
	for (;;) {
		int status, sig;

		if (ptrace(PTRACE_CONT, b->tid, NULL, NULL))
			return fail(-errno, "continue thread %d", b->tid);
		if (waitpid(b->tid, &status, __WALL) != b->tid)
			return fail(-errno, "wait for thread %d", b->tid);
		if (!WIFSTOPPED(status))
			return refuse(-ESRCH, "thread %d was killed meanwhile", b->tid);
		sig = WSTOPSIG(status);
		if (status >> 16) /* it made a thread, or somebody's interrupt */
			continue;
		if (sig == SIGSTOP)
			return 0;
		if (sig == SIGSEGV || sig == SIGBUS || sig == SIGILL || sig == SIGFPE ||
		    sig == SIGSYS)
			return refuse(-EFAULT,
				      "thread %d faulted (signal %d) in injected calls", b->tid,
				      sig);
	}
}

int batch_run(struct batch *b)
{
	struct area_call *end = b->calls + b->n, *at;
	int err;

	if (!b->n)
		return 0;
	*b->header = (struct area_header){.next = (uint64_t)(uintptr_t)b->calls,
					  .end = (uint64_t)(uintptr_t)end,
					  .pid = (uint64_t)b->pid,
					  .tid = (uint64_t)b->tid,
					  .sigstop = SIGSTOP};
	err = run_to_end(b);
	if (err)
		return err;
	at = (struct area_call *)(uintptr_t)b->header->next;
	b->n = b->data_used = 0;
	if (at == end)
		return 0;
	if (at < b->calls || at > end)
		return refuse(-EPROTO, "thread %d went astray", b->tid);
	return fail((int)at->ret, "%s (%#llx, %#llx, %#llx)", b->what[at - b->calls],
		    (unsigned long long)at->args[0], (unsigned long long)at->args[1],
		    (unsigned long long)at->args[2]);
}

static int run_now(struct batch *b, int added, long *ret)
{
	size_t at = b->n - 1;
	int err = added ? added : batch_run(b);

	*ret = err ? 0 : b->calls[at].ret;
	return err;
}

int batch_now(struct batch *b, const char *what, long nr, const uint64_t args[6], long *ret)
{
	return run_now(b, batch_call(b, what, nr, args), ret);
}

int batch_now_try(struct batch *b, long nr, const uint64_t args[6], long *ret)
{
	return run_now(b, batch_try(b, nr, args), ret);
}
