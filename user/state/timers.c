// SPDX-License-Identifier: GPL-2.0
/* Interval timers (alarm(2) is one) and POSIX timers. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "state/kinds.h"
#include "state/timers.pb-c.h"

#define TIMERS_VERSION 1
#define TIMERS_MAX 65536

struct timer {
	unsigned id, sig, notify, tid;
	uint64_t value;
	int clock;
	int gettime, overrun; /* handles */
};

struct note {
	int itimers[3];
	VEC(struct timer) timers;
};

static void free_note(void *arg)
{
	struct note *note = arg;

	vec_free(&note->timers);
	free(note);
}

/*
 *     ID: 0
 *     signal: 60/00007fff86e452a8
 *     notify: signal/pid.2634          (or thread/, none/; tid.N with SIGEV_THREAD_ID)
 *     ClockID: 0
 */
static int parse(char *text, struct note *note)
{
	struct timer *t = NULL;

	for (char *line = strtok_r(text, "\n", &text); line;
	     line = strtok_r(NULL, "\n", &text)) {
		char how[16], whose[8];
		unsigned id;

		if (sscanf(line, "ID: %u", &id) == 1) {
			if (note->timers.n == TIMERS_MAX)
				return refuse(-E2BIG, "too many timers");
			t = vec_push(&note->timers);
			if (!t)
				return fail(-ENOMEM, "note timers");
			t->id = id;
		} else if (t && sscanf(line, "signal: %u/%lx", &t->sig, &t->value) == 2) {
			continue;
		} else if (t && sscanf(line, "notify: %15[a-z]/%7[a-z].%u", how, whose,
				       &t->tid) == 3) {
			t->notify = !strcmp(how, "none")     ? SIGEV_NONE
				    : !strcmp(how, "thread") ? SIGEV_THREAD
							     : SIGEV_SIGNAL;
			if (!strcmp(whose, "tid"))
				t->notify |= SIGEV_THREAD_ID;
			else
				t->tid = 0;
		} else if (t) {
			sscanf(line, "ClockID: %d", &t->clock);
		}
	}
	return 0;
}

static int compare(const void *a, const void *b)
{
	const struct timer *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static int plan(struct state_process *p, void **slot)
{
	struct note *note = *slot = calloc(1, sizeof(*note));
	/* Absent without CONFIG_CHECKPOINT_RESTORE; every kernel with uffd trackers has it. */
	_cleanup_free_ char *text = procfs_text(p->target, "timers");
	int err = note ? 0 : fail(-ENOMEM, "note timers");

	if (!err && text)
		err = parse(text, note);
	if (err)
		return err;
	for (uint64_t which = 0; which < 3; which++) {
		const uint64_t args[6] = {which};

		note->itimers[which] =
			gather_call(p, 0, SYS_getitimer, args, 1, sizeof(struct itimerval));
		if (note->itimers[which] < 0)
			return note->itimers[which];
	}
	if (note->timers.n)
		qsort(note->timers.data, note->timers.n, sizeof(*note->timers.data), compare);
	vec_each (t, &note->timers) {
		const uint64_t args[6] = {t->id};

		t->gettime = gather_call(p, 0, SYS_timer_gettime, args, 1,
					 sizeof(struct itimerspec));
		t->overrun = gather_call(p, 0, SYS_timer_getoverrun, args, 0, 0);
		if (t->gettime < 0 || t->overrun < 0)
			return -ENOMEM;
	}
	return 0;
}

static uint64_t timeval_ns(struct timeval tv)
{
	return (uint64_t)tv.tv_sec * 1000000000u + (uint64_t)tv.tv_usec * 1000u;
}

static uint64_t timespec_ns(struct timespec ts)
{
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int fill_itimer(struct state_process *p, struct note *note, unsigned which,
		       Icp__Itimer *out)
{
	long ret = gather_ret(p, 0, note->itimers[which]);
	struct itimerval value;

	if (ret)
		return fail((int)ret, "interval timer %u", which);
	memcpy(&value, gather_out(p, 0, note->itimers[which]), sizeof(value));
	icp__itimer__init(out);
	out->which = which;
	out->interval_ns = timeval_ns(value.it_interval);
	out->value_ns = timeval_ns(value.it_value);
	return 0;
}

static int fill_timer(struct state_process *p, const struct timer *t, Icp__PosixTimer *out)
{
	long ret = gather_ret(p, 0, t->gettime), overrun = gather_ret(p, 0, t->overrun);
	struct itimerspec value;

	if (ret || overrun < 0)
		return fail((int)(ret ? ret : overrun), "timer %u", t->id);
	memcpy(&value, gather_out(p, 0, t->gettime), sizeof(value));
	icp__posix_timer__init(out);
	out->id = t->id;
	out->clock = (uint32_t)t->clock;
	out->notify = t->notify;
	out->signal = t->sig;
	out->value = t->value;
	out->tid = t->tid;
	out->interval_ns = timespec_ns(value.it_interval);
	out->value_ns = timespec_ns(value.it_value);
	out->overrun = (uint32_t)overrun;
	return 0;
}

static int finish(struct state_process *p, void **slot)
{
	struct note *note = *slot;
	Icp__TimerState msg = ICP__TIMER_STATE__INIT;
	Icp__Itimer itimers[3], *itimer_list[3];
	_cleanup_free_ Icp__PosixTimer *timers = calloc(note->timers.n + 1, sizeof(*timers));
	_cleanup_free_ Icp__PosixTimer **list = calloc(note->timers.n + 1, sizeof(*list));
	int err = timers && list ? 0 : fail(-ENOMEM, "note timers");

	msg.itimers = itimer_list;
	for (unsigned i = 0; i < 3 && !err; i++) {
		err = fill_itimer(p, note, i, &itimers[i]);
		if (!err && itimers[i].value_ns + itimers[i].interval_ns)
			itimer_list[msg.n_itimers++] = &itimers[i];
	}
	msg.timers = list;
	for (size_t i = 0; i < note->timers.n && !err; i++) {
		err = fill_timer(p, &note->timers.data[i], &timers[i]);
		list[msg.n_timers++] = &timers[i];
	}
	return err ? err
		   : state_pack_blob(&p->image->blobs, &p->image->n_blobs, "timers",
				     TIMERS_VERSION, &msg.base);
}

const struct state_ops state_timers = {
	.name = "timers", .plan = plan, .finish = finish, .free_note = free_note};
