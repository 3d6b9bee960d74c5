/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The warden: a small process of our own that does all the ptracing, so that no way of dying
 * leaves a target frozen or altered.
 *
 *     icp-bpf  ---- requests over a socketpair ---->  warden (own session, signals blocked)
 *        |                                              |  PTRACE_SEIZE, INTERRUPT, inject,
 * thaw x kill -9                                      |  sees the end of file: finishes the
 * injection it |  is in (microseconds), thaws, exits
 *
 * When the warden itself dies the kernel detaches its tracees and they run on; that is why it
 * never leaves a tracee in a state that could not run on, except inside the few microseconds of
 * an injected system call, which it is protected in (own session and process group, signals
 * blocked, out of the OOM killer's way). A frozen job is thawed by the warden when its deadline
 * passes, whatever icp-bpf is doing.
 *
 * Every call blocks until done; one warden serves one thread of icp-bpf at a time.
 */
#ifndef ICP_INJECT_WARDEN_H
#define ICP_INJECT_WARDEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct repair_state;
struct warden;

/* Start a warden. Call it before starting threads. */
int warden_open(struct warden **out) _must_use_;
/* Thaw whatever is frozen and end the warden. */
void warden_close(struct warden *w);

static inline void cleanup_warden(struct warden **w)
{
	warden_close(*w);
}
#define _cleanup_warden_ _cleanup_(cleanup_warden)

/*
 * Stop @pid for about 0.1 ms, make it create a userfaultfd (O_CLOEXEC | O_NONBLOCK, and
 * USER_MODE_ONLY when the target may not have the full one), bring the descriptor here, close
 * it there, let it run on. One that is frozen stays so; while a job is, no other one can be asked.
 * @uffd: the new descriptor, O_CLOEXEC, owned by the caller; UFFDIO_API was not done yet.
 * @stopped_ns: how long the target's threads were stopped; may be NULL.
 * Refuses: already traced (names the tracer), seccomp in the way and not suspendable, a 32-bit
 * process, no permission (names the capability), no thread that stops within 100 ms (all in
 * uninterruptible sleep).
 */
int warden_uffd(struct warden *w, pid_t pid, int *uffd, uint64_t *stopped_ns) _must_use_;

/* What an injected system call may be asked to do: x86-64's six registers; see arch.h. */
struct warden_call {
	long nr;
	uint64_t args[6];
	long ret; /* out: as the kernel returned it, negative errno included */
};

/*
 * Freeze every thread of the @n processes @pids (no thread escapes: the task lists are re-read
 * until stable, and so are the children of the processes when @follow is set; those found are
 * frozen too). At the latest @deadline_ms later the warden thaws them by itself, and every
 * later call says -ETIMEDOUT. All or nothing: on failure nothing is frozen. @frozen_ns
 * (CLOCK_MONOTONIC): when the first thread was stopped; may be NULL.
 */
int warden_freeze(struct warden *w, const pid_t *pids, size_t n, bool follow,
		  unsigned deadline_ms, uint64_t *frozen_ns) _must_use_;

/* Between a successful warden_freeze() and its end, as far as asked for: the deadline may have thawed it. */
bool warden_is_frozen(const struct warden *w);

/*
 * The frozen threads, in an array that the caller frees: process id, thread id, and whether the
 * thread was in a group stop (SIGSTOP) when it was frozen; it will be again after the thaw.
 */
struct warden_thread {
	pid_t pid, tid;
	bool stopped;
};
int warden_threads(struct warden *w, struct warden_thread **out, size_t *n) _must_use_;

/* Frozen only: read a register set (NT_PRSTATUS, NT_X86_XSTATE...) of @tid into @data; *@len
 * in: room, out: size. */
int warden_regset(struct warden *w, pid_t tid, unsigned type, void *data,
		  size_t *len) _must_use_;

/*
 * Frozen only: any other read-only PTRACE request of @tid: *@len bytes of @data are the buffer;
 * @addr is passed as is; returns the result of ptrace() (>= 0) or a negative errno. For
 * PTRACE_GETSIGMASK, GETSIGINFO, PEEKSIGINFO (@in of @in_len bytes is the argument struct that
 * addr points to, for SECCOMP_GET_METADATA what the buffer holds before, else NULL),
 * PTRACE_GET_RSEQ_CONFIGURATION, PTRACE_SECCOMP_GET_FILTER.
 */
long warden_ptrace(struct warden *w, long request, pid_t tid, uint64_t addr, const void *in,
		   size_t in_len, void *data, size_t *len) _must_use_;

/*
 * Frozen only: run @n system calls one after another in @tid, whose registers are as before
 * afterwards. Results in calls[].ret. Stops at the first that could not be run at all (then the
 * return value is negative).
 */
int warden_inject(struct warden *w, pid_t tid, struct warden_call *calls, size_t n) _must_use_;

/*
 * Frozen only: several requests in one go, which costs one round trip: whoever reads much state
 * of a frozen job wants that. Each has its own @ret; the return value is negative only when the
 * warden can't be talked to. Keep the sum of @room below 128 KiB and the number below 64 (what
 * a socket buffers both ways).
 *
 * WARDEN_ASK_INJECT: the calls may point into @len bytes of the thread's memory at @addr, which
 * are put back before anything else can happen (an icp-bpf that dies, the deadline); what they
 * held after the calls is @data. -EFAULT when there is no memory.
 */
struct warden_ask {
	enum { WARDEN_ASK_REGSET, WARDEN_ASK_PTRACE, WARDEN_ASK_INJECT } what;
	pid_t tid;
	unsigned long request; /* register set, or ptrace request */
	uint64_t addr;	       /* as in warden_ptrace(), or of the memory */
	const void *in;	       /* as in warden_ptrace(), or NULL */
	size_t in_len;
	struct warden_call *calls;
	size_t n_calls;
	void *data;
	size_t len; /* in: room; out: size */
	long ret;   /* >= 0, or a negative errno: no message */
};
int warden_ask_all(struct warden *w, struct warden_ask *asks, size_t n) _must_use_;

/*
 * Let the job run on; interrupted system calls continue. @paused_ns: first stop to last
 * release; may be NULL. -ETIMEDOUT when the deadline had thawed it before (then what was read
 * since is worth nothing).
 */
int warden_thaw(struct warden *w, uint64_t *paused_ns) _must_use_;

/* Frozen only: end the job (SIGKILL to every process) instead of thawing it. */
int warden_kill(struct warden *w) _must_use_;

/* Frozen only: send SIGSTOP to every process, then detach: the job stays stopped after icp-bpf
 * is gone. */
int warden_leave_stopped(struct warden *w) _must_use_;

/* Remove the file @path (a socket) when the warden ends, in whatever way icp-bpf went. At most two of them. */
int warden_remove_later(struct warden *w, const char *path) _must_use_;

/*
 * Frozen only: repair_read() (repair.h) of the connections that processes have as descriptors.
 * Asked for together, as each answer is awaited by the frozen job. On an error all were tried.
 */
#define WARDEN_REPAIRS 64
struct warden_repair {
	pid_t pid;
	int fd;
	struct repair_state *out; /* filled */
	void *data;		  /* of @room bytes, filled */
	size_t room;
};
int warden_repair(struct warden *w, const struct warden_repair *list, size_t n) _must_use_;

/* Delete this table of nft (family inet) when the warden ends; NULL: no longer. */
int warden_hold(struct warden *w, const char *table) _must_use_;

#endif
